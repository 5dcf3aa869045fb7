//! Cancel requests: from whichever client they come, to the backend or the peer that they mean.
//!
//! The key names a seat in the client table, and the seat its worker. A request for another worker's client goes there together with the
//! requester's socket, which is closed when PostgreSQL has taken the request: clients wait for that. With peer_id set, a key may name
//! another fleet, which is passed the request ([`peers`]). [`carry`] brings a request to where it belongs over a connection of its own.

mod carry;
mod peers;
mod rows;
mod secure;

pub(crate) use carry::Carrier;
pub(crate) use peers::Peers;

use crate::client::{Ending, Link};
use crate::protocol::frontend;
use crate::server::ServerState;
use crate::worker::{Source, Worker};
use carry::Aim;
use shared::address::Address;
use shared::control::{Requester, ToInbox, ToSupervisor};
use shared::ids::{Owner, SeatIndex};
use shared::wire::encode;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

/// A client that asks for a query to be cancelled.
pub(crate) struct Asker {
    who: Requester,
    /// Closed when the request has been dealt with.
    socket: Option<OwnedFd>,
}

impl Worker {
    /// A client in login turns out to carry a cancel request.
    pub(crate) fn cancel_requested(&mut self, index: usize, key: [u8; 8]) {
        let client = &self.clients[index];
        let who = Requester {
            id: client.id,
            peer: client.peer.name(self.config.settings.listen_port),
            connected_at: client.connected_at.as_micros(),
        };
        let asker = Asker { who, socket: client.conn.as_fd().try_clone_to_owned().ok() };
        self.drop_client(index);
        match self.find_client(key) {
            Some((seat, owner)) if owner == self.me => self.cancel_query(seat, asker),
            Some((_, owner)) if owner.slot == Owner::SUPERVISOR.slot => {
                self.control.send(&ToSupervisor::CancelConsole { key }, &[]);
                self.log_asker(&asker.who, None, "cancel request for console client");
            }
            Some((_, owner)) => self.pass_on(key, asker, owner),
            None => self.cancel_elsewhere(key, asker),
        }
    }

    /// A request for a client that `owner` has, or is about to have.
    fn pass_on(&mut self, key: [u8; 8], asker: Asker, owner: Owner) {
        if owner.slot == self.me.slot {
            return self.moves.expected.push((key, asker));
        }
        let fds: Vec<_> = asker.socket.iter().map(AsFd::as_fd).collect();
        let message = ToInbox::Cancel { key, from: asker.who.clone() };
        if !self.send_inbox(owner.slot, &message, &fds) {
            self.log_asker(&asker.who, None, "failed cancel request");
        }
    }

    /// Looks again for clients that were on their way here when somebody asked for their queries to be cancelled.
    pub(crate) fn cancel_arrived(&mut self) {
        for (key, Asker { who, socket }) in std::mem::take(&mut self.moves.expected) {
            self.cancel_forwarded(key, who, socket);
        }
    }

    /// The client that was given this key. One that begins with a backend's process id (report_backend_pid) does not name its seat.
    fn find_client(&self, key: [u8; 8]) -> Option<(SeatIndex, Owner)> {
        let clients = self.shm.clients();
        let search = self.config.settings.report_backend_pid || clients.have_strayed();
        clients.find(key).or_else(|| search.then(|| clients.search(key)).flatten())
    }

    /// Another worker passes on a request for one of our clients.
    pub(crate) fn cancel_forwarded(&mut self, key: [u8; 8], who: Requester, socket: Option<OwnedFd>) {
        let asker = Asker { who, socket };
        match self.find_client(key) {
            Some((seat, owner)) if owner == self.me => self.cancel_query(seat, asker),
            // By the word of that worker it is on its way here.
            Some((_, owner)) if self.shm.workers().is_stranger(owner.slot) => self.moves.expected.push((key, asker)),
            // It has gone on to another worker since.
            Some((_, owner)) if owner.slot != Owner::SUPERVISOR.slot => self.pass_on(key, asker, owner),
            _ => self.log_asker(&asker.who, None, "failed cancel request"),
        }
    }

    /// Cancels what the client of `seat` runs.
    fn cancel_query(&mut self, seat: SeatIndex, asker: Asker) {
        let client = self.by_seat.get(&seat).copied();
        let session = client.and_then(|client| self.clients.get(client)).and_then(|c| c.session());
        let index = match (client, session.map(|s| s.link)) {
            (_, Some(Link::Linked(index))) => index,
            (Some(client), Some(Link::Waiting(_))) => {
                let reason = self.cancel_waiting(client);
                return self.log_asker(&asker.who, None, reason);
            }
            _ => return self.log_asker(&asker.who, None, "cancel request for idle client"),
        };
        let server = &mut self.servers[index];
        // Requests for the same query go on one connection: however many ask, a server has one on its way and one behind it.
        if let Some((_, carrier)) = self.carriers.iter_mut().find(|(_, carrier)| carrier.is_about_to_reach(index, server.id)) {
            return carrier.askers.push(asker);
        }
        if !matches!(server.state, ServerState::Linked(_)) {
            return self.log_asker(&asker.who, None, "ignoring cancel request for server that is setting vars");
        }
        server.cancels += 1;
        let (pid, secret) = server.backend_key;
        let (pool, address) = (server.pool, server.address.clone());
        let host = server.conn.is_secured().then(|| Rc::clone(&server.host));
        let aim = Aim::Backend { pool, address, host, held: Some((index, server.id)) };
        self.carry(encode::cancel_key(pid, secret), aim, Some(asker));
    }

    /// A client in its pool's queue leaves it, with PostgreSQL's error for the request it waited with. What it sent behind that goes on.
    fn cancel_waiting(&mut self, index: usize) -> &'static str {
        let client = &mut self.clients[index];
        let data = std::mem::take(&mut client.conn.input);
        let Some(session) = client.session_mut() else { return "cancel request for idle client" };
        session.link = Link::None;
        session.query_start = None;
        session.transaction_start = None;
        let pool = session.pool;
        let mut replies = Vec::new();
        let taken = frontend::cancel_first(&mut session.front, &data, &mut replies);
        self.pools.get_mut(pool).waiters.retain(|waiter| waiter.client != index);
        self.waiter_left(pool);
        if self.clients[index].conn.send(&replies, &mut self.buffers).is_err() {
            self.close_client(index, &Ending::Silent("client unexpected eof"));
        } else {
            self.session_input(index, &data[taken..]);
            self.again.push(Source::Client(index));
        }
        self.buffers.give(data);
        "canceled a query that waited for a server"
    }

    /// Cancels a backend whose client has gone.
    pub(crate) fn cancel_backend(&mut self, server: usize) {
        let server = &self.servers[server];
        let (pid, secret) = server.backend_key;
        let host = server.conn.is_secured().then(|| Rc::clone(&server.host));
        let aim = Aim::Backend { pool: server.pool, address: server.address.clone(), host, held: None };
        self.carry(encode::cancel_key(pid, secret), aim, None);
    }

    /// The end of a request, for the log. `aim` is where it was to go, as far as that was known.
    fn log_asker(&self, who: &Requester, aim: Option<&Aim>, reason: &str) {
        if self.config.settings.log_disconnections {
            let age = self.now.saturating_duration_since(crate::clock::Instant::from_micros(who.connected_at)).as_secs();
            let place = match aim {
                None => "(nodb)/(nouser)".to_owned(),
                Some(Aim::Backend { pool, .. }) => format!("{}/(nouser)", self.pools.get(*pool).entry.name),
                Some(Aim::Peer(id)) => format!("peer-{id}"),
            };
            log::info!("C-{}: {place}@{} closing because: {reason} (age={age}s)", who.id, who.peer);
        }
    }

    /// The beginning of the log lines of a connection that carries a request.
    fn carrier_prefix(&self, id: shared::ids::ConnectionId, aim: &Aim, address: &Address) -> String {
        match aim {
            Aim::Backend { pool, .. } => {
                let pool = self.pools.get(*pool);
                format!("S-{id}: {}/{}@{address}", pool.entry.name, pool.user)
            }
            Aim::Peer(peer) => format!("S-{id}: peer-{peer}@{address}"),
        }
    }
}
