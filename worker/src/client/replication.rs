//! Replication clients: each has a server connection of its own, started with what it asked for, from its login to its end.
//!
//! The connection counts in its pool, and idle ones of the pool make room for it. It is never lent, reset or given to anybody else.

use super::greeting::Owed;
use super::login::LoggedIn;
use super::{ClientState, Ending, Link, Session};
use crate::pool::{Greeting, PoolIndex, Waiter};
use crate::protocol::frontend::Frontend;
use crate::server::ServerState;
use crate::worker::Worker;
use shared::control::Replication;
use shared::ids::ConnectionId;

/// Whose connection a server is, and what its startup message says.
pub(crate) struct Dedication {
    pub(crate) client: usize,
    pub(crate) id: ConnectionId,
    pub(crate) replication: Replication,
    pub(crate) parameters: Vec<(String, String)>,
}

/// A replication client without a server.
pub(crate) struct Candidate {
    pub(crate) waiter: Waiter,
    /// Its connection is being opened.
    pub(crate) opening: bool,
}

/// As the startup message spells it.
pub(crate) fn word(replication: Replication) -> &'static str {
    match replication {
        Replication::None => "no",
        Replication::Logical => "database",
        Replication::Physical => "yes",
    }
}

impl Worker {
    /// An authenticated replication client waits for its connection, and is greeted when it is there.
    pub(super) fn begin_replication(&mut self, index: usize) {
        let Some(login) = self.take_login(index) else { return };
        let LoggedIn { pool: Some(pool), who, seats, parameters, replication, options } = login else { return };
        let startup = [("replication".to_owned(), word(replication).to_owned())];
        let options = options.map(|options| ("options".to_owned(), options));
        let parameters = startup.into_iter().chain(options).chain(parameters).collect();
        self.by_seat.insert(seats.client, index);
        let params = self.interner.set(std::iter::empty());
        let client = &mut self.clients[index];
        client.state = ClientState::Session(Session {
            pool,
            who,
            seats,
            key: [0; 8],
            params,
            startup: None,
            replication,
            front: Frontend::default(),
            link: Link::None,
            owed: Some(Box::new(Owed::Replication(parameters))),
            reset: None,
            query_start: None,
            transaction_start: None,
        });
        self.pools.get_mut(pool).clients += 1;
        self.await_connection(index, pool);
    }

    /// It waits for its connection from now on.
    pub(crate) fn await_connection(&mut self, index: usize, pool: PoolIndex) {
        let client = &self.clients[index];
        let user = client.session().map_or("", |session| session.who.user.as_str());
        let timeout = self.config.query_wait_timeout(&self.pools.get(pool).entry, user);
        let deadline = timeout.map(|timeout| self.now + timeout);
        let waiter = Waiter { client: index, id: client.id, since: self.now, deadline, notified: false };
        self.pools.get_mut(pool).candidates.push(Candidate { waiter, opening: false });
        self.announce(pool);
        self.pump(pool);
    }

    /// Opens connections for the replication clients that wait for one.
    pub(crate) fn pump_candidates(&mut self, pool: PoolIndex) {
        while self.retry_not_before(pool).is_none()
            && let Some(candidate) = self.pools.get_mut(pool).candidates.iter_mut().find(|c| !c.opening)
        {
            let waiter = candidate.waiter;
            let Some(session) = self.clients[waiter.client].session() else { return };
            let Some(Owed::Replication(parameters)) = session.owed.as_deref() else { return };
            candidate.opening = true;
            let (replication, parameters) = (session.replication, parameters.clone());
            let dedication = Dedication { client: waiter.client, id: waiter.id, replication, parameters };
            if !self.open_for(pool, Some(Box::new(dedication))) {
                self.candidate_waits(pool, waiter.id);
                return;
            }
            self.announce(pool);
        }
    }

    /// The connection that was being opened for a replication client did not come about.
    pub(crate) fn candidate_waits(&mut self, pool: PoolIndex, id: ConnectionId) {
        if let Some(candidate) = self.pools.get_mut(pool).candidates.iter_mut().find(|c| c.waiter.id == id) {
            candidate.opening = false;
        }
        self.announce(pool);
    }

    /// A replication client waits no more.
    pub(crate) fn candidate_left(&mut self, pool: PoolIndex, id: ConnectionId) {
        let state = self.pools.get_mut(pool);
        state.candidates.retain(|candidate| candidate.waiter.id != id);
        if state.candidates.is_empty() && state.waiting == 0 {
            self.queue_emptied(pool);
        }
        self.announce(pool);
    }

    /// A replication client's connection has logged in: the client is greeted with what it says.
    pub(crate) fn dedicated_ready(&mut self, server_index: usize, parameters: &[(String, String)]) {
        let server = &mut self.servers[server_index];
        let Some(Dedication { client, id, .. }) = server.dedication.as_deref() else { return };
        let (client, id, pool) = (*client, *id, server.pool);
        let Some(params) = server.params.clone() else { return };
        let waits = self.clients.get(client).filter(|c| c.id == id).and_then(|c| c.session()).is_some_and(|s| s.owed.is_some());
        if !waits {
            return self.close_server(server_index, "replication client was closed");
        }
        if server.close_reason.is_some() || server.epoch != self.pools.get(pool).epoch {
            self.candidate_waits(pool, id);
            return self.close_server(server_index, "database configuration changed");
        }
        server.state = ServerState::Linked(client);
        server.used = true;
        server.busy = true;
        self.shm.set_busy(&server.seats, true);
        let notices = std::mem::take(&mut server.notices);
        if let Some(session) = self.clients[client].session_mut() {
            session.link = Link::Linked(server_index);
            session.owed = None;
            session.params = params.clone();
        }
        self.pools.get_mut(pool).stats.server_assignment_count += 1;
        self.candidate_left(pool, id);
        let fixed = parameters.iter().filter(|(name, _)| !crate::params::is_tracked(name)).cloned().collect();
        self.send_greeting(client, &Greeting { fixed, tracked: params }, None, &notices);
    }

    /// PostgreSQL does not take a replication client: it alone is told.
    pub(crate) fn dedicated_refused(&mut self, server_index: usize) {
        if let Some(Dedication { client, id, .. }) = self.servers[server_index].dedication.as_deref() {
            let (client, id) = (*client, *id);
            if self.clients.get(client).is_some_and(|c| c.id == id) {
                self.close_client(client, &Ending::violation("login failed"));
            }
        }
        self.server_gone(server_index, "login failed");
    }
}
