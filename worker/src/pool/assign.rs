//! Servers to clients.
//!
//! A client that needs a server gets, in this order: an idle one of ours, an idle one of another worker, a new connection if there is
//! a seat, else a place in the queue. Before it sleeps there, the worker says in shared memory that it waits, and looks once more; whoever frees
//! something publishes it first and looks for waiters afterwards. So one of the two sees the other.

use super::policy::{self, Next};
use super::{PoolIndex, Waiter};
use crate::client::{Ending, Link};
use crate::clock::Instant;
use crate::server::ServerState;
use crate::worker::{Life, Worker};
use shared::config::PoolMode;
use shared::control::{StopMode, ToInbox};
use shared::ids::Slot;
use shared::shm::Full;
use shared::wire::report::sqlstate;
use std::time::Duration;

/// An answer to Borrow that has not come by then never will.
const BORROW_PATIENCE: Duration = Duration::from_millis(500);

/// A worker whose heart has not beaten for this long hangs; it beats at least ten times a second.
const HEARTBEAT_AGE: Duration = Duration::from_secs(1);

impl Worker {
    /// Finds the client a server. `None`: it waits, or is closed.
    pub(crate) fn acquire(&mut self, client: usize) -> Option<usize> {
        let session = self.clients[client].session()?;
        let index = session.pool;
        if self.life == Life::Stopping(StopMode::WaitForServers) {
            self.close_client(client, &Ending::Fatal(sqlstate::ADMIN_SHUTDOWN, "server shutting down".to_owned()));
            return None;
        }
        if !self.paused {
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
    fn take_idle(&mut self, index: PoolIndex) -> Option<usize> {
        let round_robin = self.config.settings.server_round_robin;
        loop {
            let pool = self.pools.get_mut(index);
            let server = if round_robin { pool.idle.pop_front() } else { pool.idle.pop_back() }?;
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
    fn failing(&self, index: PoolIndex) -> Option<String> {
        self.retry_not_before(index)?;
        if self.fleet_has_servers(index) {
            return None;
        }
        let cached = self.pools.get(index).failure.as_ref().map_or("connect failed", |(_, text)| text);
        Some(format!("server login has been failing, cached error: {cached} (server_login_retry)"))
    }

    /// Client and server belong together from now on. If the server's parameters differ, it is made ready first.
    fn link(&mut self, client: usize, server_index: usize) {
        let server = &mut self.servers[server_index];
        let Some(session) = self.clients[client].session_mut() else { return };
        if let Link::Waiting(since) = session.link {
            self.pools.get_mut(session.pool).stats.wait_time_us += (self.now - since).as_micros() as u64;
        }
        let pool = self.pools.get_mut(session.pool);
        pool.stats.server_assignment_count += 1;
        session.link = Link::Linked(server_index);
        server.used = true;
        server.state = ServerState::Linked(client);
        server.said_last_words = false;
        if !server.busy {
            server.busy = true;
            self.shm.set_busy(&server.seats, true);
        }
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

    fn enqueue(&mut self, client: usize, index: PoolIndex) {
        let now = self.now;
        let id = self.clients[client].id;
        let Some(session) = self.clients[client].session_mut() else { return };
        session.link = Link::Waiting(now);
        let timeout = self.config.query_wait_timeout(&self.pools.get(index).entry, &session.who.user);
        let pool = self.pools.get_mut(index);
        pool.waiters.push_back(Waiter { client, id, since: now, deadline: timeout.map(|t| now + t) });
        pool.waiting += 1;
        if pool.waiting == 1 {
            self.pools.with_waiters.push(index);
        }
        self.announce(index);
        if !self.pools.get(index).exhausted {
            self.pump(index);
        }
    }

    /// Tells the other workers whether clients wait here, and since when.
    pub(crate) fn announce(&mut self, index: PoolIndex) {
        if !self.has_colleagues() {
            return;
        }
        let oldest = self.longest_waiter(index);
        let pool = self.pools.get_mut(index);
        let state = self.shm.pool_state(pool.id);
        let slot = self.me.slot;
        let wanting = oldest.is_some() || pool.demand() > 0;
        state.set_oldest(slot, oldest.map_or(0, Instant::as_micros));
        if wanting && !pool.announced {
            state.set_waiting(slot);
        } else if !wanting && pool.announced {
            state.clear_waiting(slot);
        }
        pool.announced = wanting;
    }

    /// Since when the longest waiter waits; waiters that have gone are taken off the front.
    fn longest_waiter(&mut self, index: PoolIndex) -> Option<Instant> {
        let clients = &self.clients;
        let pool = self.pools.get_mut(index);
        while let Some(waiter) = pool.waiters.front() {
            if clients.get(waiter.client).is_some_and(|c| c.id == waiter.id && c.is_waiting()) {
                return Some(waiter.since);
            }
            pool.waiters.pop_front();
        }
        None
    }

    /// Whether the client still is where its entry in a queue says.
    pub(crate) fn still_waits(&self, waiter: &Waiter) -> bool {
        self.clients.get(waiter.client).is_some_and(|c| c.id == waiter.id && c.is_waiting())
    }

    /// A waiting client has gone.
    pub(crate) fn waiter_left(&mut self, index: PoolIndex) {
        let pool = self.pools.get_mut(index);
        pool.waiting -= 1;
        if pool.waiting == 0 {
            self.queue_emptied(index);
        }
        self.announce(index);
    }

    fn queue_emptied(&mut self, index: PoolIndex) {
        let pool = self.pools.get_mut(index);
        pool.exhausted = false;
        pool.waiters.clear();
        self.pools.with_waiters.retain(|&other| other != index);
        self.unblock(index);
    }

    /// No limit above the pool's own is in its way any more.
    fn unblock(&mut self, index: PoolIndex) {
        if let Some(limit) = self.pools.get_mut(index).blocked_on.take()
            && !self.pools.indices().any(|other| self.pools.get(other).blocked_on == Some(limit))
        {
            self.shm.limit_state(limit).clear_waiting(self.me.slot);
        }
    }

    /// A client waits for the pool's greeting: its first server brings it.
    pub(crate) fn await_welcome(&mut self, client: usize, index: PoolIndex, login_user: &str) {
        let (id, now) = (self.clients[client].id, self.now);
        let pool = self.pools.get_mut(index);
        let timeout = self.config.query_wait_timeout(&pool.entry, login_user);
        pool.to_greet.push(Waiter { client, id, since: now, deadline: timeout.map(|t| now + t) });
        self.announce(index);
        self.pump(index);
    }

    /// Looks for servers for the clients that wait: other workers' idle ones first, then seats.
    pub(crate) fn pump(&mut self, index: PoolIndex) {
        if self.paused {
            return;
        }
        loop {
            let pool = self.pools.get(index);
            if pool.opening + pool.borrows.len() >= pool.demand() {
                return;
            }
            if self.has_colleagues()
                && let Some(slot) = self.lender(index)
            {
                let message = ToInbox::Borrow { pool: pool.id, from: self.me.slot };
                if self.send_inbox(slot, &message, &[]) {
                    let now = self.now;
                    self.pools.get_mut(index).borrows.push((slot, now));
                    continue;
                }
            }
            if self.retry_not_before(index).is_some() {
                return;
            }
            if !self.open_another(index) {
                self.pools.get_mut(index).exhausted = true;
                return;
            }
        }
    }

    /// A worker with an idle server of this pool that answers and has not been asked yet.
    fn lender(&self, index: PoolIndex) -> Option<Slot> {
        let pool = self.pools.get(index);
        let state = self.shm.pool_state(pool.id);
        // This one has the fence in it; it may name a worker that was asked already, or hangs.
        state.idle_elsewhere(self.me.slot)?;
        let mut others = (0..self.inboxes.len() as u8).map(Slot).filter(|slot| *slot != self.me.slot);
        others
            .find(|slot| state.idle(*slot) > 0 && !pool.borrows.iter().any(|(asked, _)| asked == slot) && self.is_responsive(*slot))
    }

    /// Whether a worker's heart has beaten of late: from one that hangs nothing is asked, and to it nothing is sent.
    fn is_responsive(&self, slot: Slot) -> bool {
        let beat = Instant::from_micros(self.shm.workers().get(slot).heartbeat_us);
        self.now - beat < HEARTBEAT_AGE
    }

    /// Opens one more connection. False: no seat, or no address yet.
    fn open_another(&mut self, index: PoolIndex) -> bool {
        let pool = self.pools.get(index);
        let limits = pool.limits;
        match self.shm.take_server(self.me, pool.id, &limits) {
            Ok(seats) => {
                let Some(address) = self.next_address(index) else {
                    self.shm.leave_server(self.me, &seats);
                    return false;
                };
                self.unblock(index);
                self.open_server(index, seats, address)
            }
            Err(full) => {
                let limit = match full {
                    Full::Database => limits.database,
                    Full::User => limits.user,
                    Full::Host => limits.host,
                    Full::Pool | Full::Table => None,
                };
                let Some((limit, _)) = limit else { return false };
                if self.pools.get(index).blocked_on == Some(limit) {
                    self.make_room(index, limit);
                    return false;
                }
                self.unblock(index);
                self.pools.get_mut(index).blocked_on = Some(limit);
                self.shm.limit_state(limit).set_waiting(self.me.slot);
                // Said that it waits: look once more.
                self.open_another(index)
            }
        }
    }

    /// As `pump`, for every pool with a client waiting.
    pub(crate) fn pump_waiting(&mut self) {
        for index in self.pools.with_waiters.clone() {
            self.pools.get_mut(index).exhausted = false;
            self.pump(index);
        }
    }

    /// A client has let its server go in good order.
    pub(crate) fn server_released(&mut self, server_index: usize) {
        let server = &mut self.servers[server_index];
        if server.cancels > 0 {
            // Neither the next client's query nor our own is to be hit.
            server.state = ServerState::BeingCanceled;
            return;
        }
        let mode = self.pools.get(server.pool).mode;
        let settings = &self.config.settings;
        if (mode == PoolMode::Session || settings.server_reset_query_always) && !settings.server_reset_query.is_empty() {
            server.state = ServerState::Resetting;
            server.since = self.now;
            if server.send_hidden(&settings.server_reset_query, &mut self.buffers).is_err() {
                self.close_server(server_index, "reset query failed");
            }
            return;
        }
        self.server_free(server_index);
    }

    /// A server has nothing to do: whose turn is it?
    pub(crate) fn server_free(&mut self, server_index: usize) {
        let server = &mut self.servers[server_index];
        server.state = ServerState::Idle;
        server.since = self.now;
        let index = server.pool;
        if let Some(reason) = self.unfit(server_index) {
            return self.close_server(server_index, reason);
        }
        let ours = self.longest_waiter(index);
        let theirs = if self.has_colleagues() { self.waiting_elsewhere(index) } else { None };
        match policy::next(self.now, ours, theirs) {
            Next::Ours => self.serve_next(index, server_index),
            Next::Lend(slot) => self.lend(server_index, slot),
            Next::Park => self.park(index, server_index),
        }
    }

    /// Why a free server is not to be used again.
    fn unfit(&self, server_index: usize) -> Option<&'static str> {
        let server = &self.servers[server_index];
        if server.close_reason.is_some() {
            server.close_reason
        } else if self.pools.get(server.pool).epoch != server.epoch {
            Some("database configuration changed")
        } else if self.paused {
            Some("pause mode")
        } else if self.life == Life::Stopping(StopMode::WaitForServers) {
            Some("server shutting down")
        } else if self.is_past_lifetime(server) {
            Some("server lifetime over")
        } else {
            self.is_surplus(server_index).then_some("too many servers in the pool")
        }
    }

    /// Older than server_lifetime; with a lifetime of 0, used once.
    pub(crate) fn is_past_lifetime(&self, server: &crate::server::Server) -> bool {
        let lifetime = self.config.server_lifetime(&self.pools.get(server.pool).entry);
        if lifetime.is_zero() { server.used } else { self.now - server.connected_at > lifetime }
    }

    fn waiting_elsewhere(&self, index: PoolIndex) -> Option<(Slot, Instant)> {
        let state = self.shm.pool_state(self.pools.get(index).id);
        let waiting = state.waiting_others(self.me.slot);
        let others =
            (0..self.inboxes.len() as u8).map(Slot).filter(|slot| waiting & (1 << slot.0) != 0 && self.is_responsive(*slot));
        // One that has not said since when counts as the youngest.
        let since = |slot: Slot| Instant::from_micros(state.oldest(slot).unwrap_or(u64::MAX));
        others.map(|slot| (slot, since(slot))).min_by_key(|(_, since)| *since)
    }

    fn serve_next(&mut self, index: PoolIndex, server_index: usize) {
        let pool = self.pools.get_mut(index);
        let Some(waiter) = pool.waiters.pop_front() else { return self.park(index, server_index) };
        pool.waiting -= 1;
        if pool.waiting == 0 {
            self.queue_emptied(index);
        }
        self.link(waiter.client, server_index);
        self.announce(index);
        if self.servers[server_index].takes_queries() {
            self.forward_kept(waiter.client, server_index);
        }
    }

    /// Nobody here wants it: publish it, and look once more whether somebody elsewhere does.
    fn park(&mut self, index: PoolIndex, server_index: usize) {
        let server = &mut self.servers[server_index];
        server.busy = false;
        self.shm.set_busy(&server.seats, false);
        self.pools.get_mut(index).idle.push_back(server_index);
        if !self.has_colleagues() {
            return;
        }
        let pool = self.pools.get(index);
        self.shm.pool_state(pool.id).set_idle(self.me.slot, pool.idle.len() as u32);
        if let Some((slot, _)) = self.waiting_elsewhere(index) {
            self.lend_idle(index, slot);
        }
    }

    /// A server that could not be passed on stays; the tick tries again.
    pub(crate) fn keep_free(&mut self, index: PoolIndex, server_index: usize) {
        if let Some(reason) = self.unfit(server_index) {
            return self.close_server(server_index, reason);
        }
        if self.longest_waiter(index).is_some() {
            return self.serve_next(index, server_index);
        }
        let pool = self.pools.get_mut(index);
        pool.idle.push_back(server_index);
        self.shm.pool_state(pool.id).set_idle(self.me.slot, pool.idle.len() as u32);
    }

    /// Lends an idle server, if there is one and nobody here wants it.
    pub(crate) fn lend_idle(&mut self, index: PoolIndex, slot: Slot) -> bool {
        if self.pools.get(index).waiting > 0 {
            return false;
        }
        let Some(server) = self.take_idle(index) else { return false };
        self.lend(server, slot);
        true
    }

    /// Gives up on answers that never came, and on waits that have lasted too long; looks again at what may have been missed.
    pub(crate) fn tick_pools(&mut self) {
        let now = self.now;
        for index in self.pools.indices() {
            let pool = self.pools.get_mut(index);
            pool.borrows.retain(|(_, asked)| now - *asked < BORROW_PATIENCE);
            let clients = &self.clients;
            pool.to_greet.retain(|w| clients.get(w.client).is_some_and(|c| c.id == w.id && c.is_waiting()));
            if pool.demand() == 0 {
                if !pool.idle.is_empty()
                    && self.has_colleagues()
                    && let Some((slot, _)) = self.waiting_elsewhere(index)
                {
                    self.lend_idle(index, slot);
                }
                if self.has_colleagues() {
                    self.announce(index);
                    self.make_room_elsewhere(index);
                }
                continue;
            }
            pool.exhausted = false;
            let pool = self.pools.get(index);
            let expired: Vec<usize> = pool
                .waiters
                .iter()
                .chain(&pool.to_greet)
                .filter(|w| w.deadline.is_some_and(|deadline| deadline <= now) && self.still_waits(w))
                .map(|w| w.client)
                .collect();
            for client in expired {
                self.close_client(client, &Ending::violation("query_wait_timeout"));
            }
            self.expire_query_timeout(index);
            self.announce(index);
            self.pump(index);
        }
    }

    /// query_timeout holds for the time in the queue too.
    fn expire_query_timeout(&mut self, index: PoolIndex) {
        let pool = self.pools.get(index);
        let Some(timeout) = self.config.query_timeout(&pool.user) else { return };
        let now = self.now;
        let late: Vec<usize> =
            pool.waiters.iter().filter(|w| now - w.since > timeout && self.still_waits(w)).map(|w| w.client).collect();
        for client in late {
            self.close_client(client, &Ending::violation("query_timeout"));
        }
    }
}
