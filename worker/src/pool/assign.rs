//! Servers to clients.
//!
//! A client that needs a server gets, in this order: an idle one of ours, an idle one of another worker, a new connection if there is
//! a seat ([`super::supply`]), else a place in the queue ([`super::queue`]). A server that falls free goes to whoever has waited longest
//! ([`super::release`]). Before a client sleeps in the queue, the worker says in shared memory that it waits, and looks once more; whoever
//! frees something publishes it first and looks for waiters afterwards. So one of the two sees the other.

use super::PoolIndex;
use crate::client::{Ending, Link};
use crate::server::{Server, ServerState};
use crate::worker::{Life, Worker};
use shared::config::PoolMode;
use shared::control::StopMode;
use shared::wire::report::sqlstate;
use std::time::Duration;

impl Worker {
    /// Finds the client a server. `None`: it waits, or is closed.
    pub(crate) fn acquire(&mut self, client: usize) -> Option<usize> {
        let session = self.clients[client].session()?;
        let index = session.pool;
        if self.life == Life::Stopping(StopMode::WaitForServers) {
            self.close_client(client, &Ending::Fatal(sqlstate::ADMIN_SHUTDOWN, "server shutting down".to_owned()));
            return None;
        }
        if !self.pools.get(index).paused {
            if let Some(server) = self.take_idle(index) {
                self.link(client, server);
                return self.clients[client].session()?.server();
            }
            if let Some(text) = self.failing(index) {
                self.close_client(client, &Ending::violation(text));
                return None;
            }
        }
        self.enqueue(client, index);
        self.clients.get(client)?.session()?.server()
    }

    /// An idle server fit for use.
    pub(crate) fn take_idle(&mut self, index: PoolIndex) -> Option<usize> {
        self.take_idle_if(index, |worker, server| !worker.must_check(server))
    }

    /// An idle server that may have to be checked before it is used.
    pub(super) fn take_any_idle(&mut self, index: PoolIndex) -> Option<usize> {
        self.take_idle_if(index, |_, _| true)
    }

    /// One that has been idle for so long.
    pub(crate) fn take_idle_for(&mut self, index: PoolIndex, time: Duration) -> Option<usize> {
        self.take_idle_if(index, |worker, server| worker.now - server.since >= time)
    }

    fn take_idle_if(&mut self, index: PoolIndex, fits: impl Fn(&Self, &Server) -> bool) -> Option<usize> {
        loop {
            let idle = &self.pools.get(index).idle;
            let fits = |at: &usize| fits(self, &self.servers[idle[*at]]);
            let mut places = 0..idle.len();
            let at = if self.config.settings.server_round_robin { places.find(fits) } else { places.rev().find(fits) }?;
            let pool = self.pools.get_mut(index);
            let server = pool.idle.remove(at)?;
            if self.has_colleagues() {
                let pool = self.pools.get(index);
                self.shm.pool_state(pool.id).set_idle(self.me.slot, pool.idle.len() as u32);
            }
            match self.servers[server].close_reason {
                None => return Some(server),
                Some(reason) => self.close_server(server, reason),
            }
        }
    }

    /// The fast-fail text, when servers cannot be reached and this worker has none.
    pub(crate) fn failing(&self, index: PoolIndex) -> Option<String> {
        self.retry_not_before(index)?;
        if self.fleet_has_servers(index) {
            return None;
        }
        let cached = self.pools.get(index).failure.as_ref().map_or("connect failed", |(_, text)| text);
        Some(format!("server login has been failing, cached error: {cached} (server_login_retry)"))
    }

    /// Client and server belong together from now on. If the server's parameters differ, it is made ready first.
    pub(super) fn link(&mut self, client: usize, server_index: usize) {
        let server = &mut self.servers[server_index];
        let Some(session) = self.clients[client].session_mut() else { return };
        if let Link::Waiting(since) = session.link {
            self.pools.get_mut(session.pool).stats.wait_time_us += (self.now - since).as_micros() as u64;
        }
        let pool = self.pools.get_mut(session.pool);
        pool.stats.server_assignment_count += 1;
        session.link = Link::Linked(server_index);
        // What it waited is not the transaction's time.
        session.transaction_start = session.transaction_start.map(|_| self.now);
        server.used = true;
        server.state = ServerState::Linked(client);
        server.said_last_words = false;
        server.unserved = false;
        server.back.single_statements = pool.mode == PoolMode::Statement;
        if !server.busy {
            server.busy = true;
            self.shm.set_busy(&server.seats, true);
        }
        if session.owed.is_none() && !server.notices.is_empty() {
            let notices = std::mem::take(&mut server.notices);
            // A socket that is broken is found out when it is read.
            let _ = self.clients[client].conn.send(&notices, &mut self.buffers);
        }
        let Some(session) = self.clients[client].session_mut() else { return };
        let Some(have) = &server.params else { return };
        if have.same(&session.params) {
            return;
        }
        if let Some(sql) = have.difference(&session.params) {
            server.state = ServerState::Setting(client);
            if server.send_hidden(&sql, &mut self.buffers).is_err() {
                server.conn.readable = true;
                self.again.push(crate::worker::Source::Server(server_index));
            }
        }
    }
}
