//! A server that has nothing to do any more: cleaned up, then given to the longest waiter of the fleet, or kept idle, or closed.

use super::PoolIndex;
use super::policy::{self, Next, Room, Waits};
use crate::clock::Instant;
use crate::server::ServerState;
use crate::worker::{Life, Source, Worker};
use shared::config::PoolMode;
use shared::control::StopMode;
use shared::ids::Slot;

impl Worker {
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
        server.was_reset =
            (mode == PoolMode::Session || settings.server_reset_query_always) && !settings.server_reset_query.is_empty();
        if server.was_reset {
            server.state = ServerState::Resetting;
            server.since = self.now;
            if server.send_hidden(&settings.server_reset_query, &mut self.buffers).is_err() {
                self.close_server(server_index, "reset query failed");
            }
            return;
        }
        server.since = self.now;
        self.server_arrived(server_index);
    }

    /// A server that has just shown that it is alive has nothing to do.
    pub(crate) fn server_free(&mut self, server_index: usize) {
        self.servers[server_index].since = self.now;
        self.place(server_index, true);
    }

    /// A server has nothing to do, and may have been idle for long elsewhere.
    pub(crate) fn server_arrived(&mut self, server_index: usize) {
        let alive = !self.must_check(&self.servers[server_index]);
        self.place(server_index, alive);
    }

    /// Whose turn is it?
    fn place(&mut self, server_index: usize, alive: bool) {
        let server = &mut self.servers[server_index];
        server.state = ServerState::Idle;
        let index = server.pool;
        if let Some(reason) = self.unfit(server_index) {
            return self.close_server(server_index, reason);
        }
        let mut waits = self.who_waits(index, server_index);
        let mut next = policy::next(&waits, self.config.settings.fairness_slack);
        if let Next::Close(Room::Limit(limit)) = next {
            if let Some(reason) = self.makes_way(&self.servers[server_index].seats, limit) {
                return self.close_server(server_index, reason);
            }
            waits.blocked = None;
            next = policy::next(&waits, self.config.settings.fairness_slack);
        }
        match next {
            Next::Ours if !alive => self.check(server_index),
            Next::Ours => self.serve_next(index, server_index),
            Next::Lend(slot) => {
                self.lend(server_index, slot);
            }
            Next::Close(_) => self.close_server(server_index, "evicted for pool_size"),
            Next::Park => self.park(index, server_index),
        }
    }

    /// Who waits for this server, or for a seat that it holds.
    fn who_waits(&mut self, index: PoolIndex, server_index: usize) -> Waits {
        if self.strangers.are_coming() {
            // Nobody else could take it, or open another in its place.
            return Waits { ours: self.longest_waiter(index), ..Waits::default() };
        }
        let pool = self.pools.get(index);
        let candidates = pool.waiting_candidates().count();
        let candidate = pool.waiting_candidates().map(|waiter| waiter.since).min();
        let is_needed = candidates > 0 && self.making_way(index) < candidates && self.retry_not_before(index).is_none();
        let seats = self.servers[server_index].seats;
        Waits {
            ours: self.longest_waiter(index),
            theirs: if self.has_colleagues() { self.waiting_elsewhere(index) } else { None },
            candidate: candidate.filter(|_| is_needed),
            blocked: self.longest_blocked(&seats),
        }
    }

    /// Why a free server is not to be used again.
    pub(super) fn unfit(&self, server_index: usize) -> Option<&'static str> {
        let server = &self.servers[server_index];
        if server.close_reason.is_some() {
            server.close_reason
        } else if self.pools.get(server.pool).epoch != server.epoch {
            Some("database configuration changed")
        } else if self.pools.get(server.pool).paused {
            Some("pause mode")
        } else if self.life == Life::Stopping(StopMode::WaitForServers) {
            Some("server shutting down")
        } else if self.is_lifetime_over(server) {
            Some("server lifetime over")
        } else if server.conn.is_worn_out() {
            Some("TLS keys worn out")
        } else {
            self.is_surplus(server_index).then_some("too many servers in the pool")
        }
    }

    /// Whether a free server is to be closed for its age: older than server_lifetime or, with a lifetime of 0, used once. Those of one pool go
    /// one after the other, spread over a lifetime: opened together, they would otherwise all be gone at one moment.
    pub(crate) fn is_lifetime_over(&self, server: &crate::server::Server) -> bool {
        let pool = self.pools.get(server.pool);
        let lifetime = self.config.server_lifetime(&pool.entry);
        if lifetime.is_zero() {
            return server.used;
        }
        if self.now - server.connected_at <= lifetime {
            return false;
        }
        let gap = lifetime.checked_div(pool.limits.pool as u32).unwrap_or_default();
        self.shm.pool_state(pool.id).claim_lifetime(self.now.as_micros(), gap.as_micros() as u64)
    }

    pub(super) fn waiting_elsewhere(&self, index: PoolIndex) -> Option<(Slot, Instant)> {
        self.longest_of(index, self.shm.pool_state(self.pools.get(index).id).waiting_others(self.me.slot))
    }

    /// Of these workers the one whose client has waited longest in the pool, and since when.
    fn longest_of(&self, index: PoolIndex, waiting: u64) -> Option<(Slot, Instant)> {
        let state = self.shm.pool_state(self.pools.get(index).id);
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
        if self.clients[waiter.client].waits_in().is_some() {
            self.begin_lookup(waiter.client, server_index);
            return self.announce(index);
        }
        self.link(waiter.client, server_index);
        self.announce(index);
        if self.servers[server_index].takes_queries() {
            // Not at once: whoever is served may leave at once, and the next one be served from within.
            self.servers[server_index].unserved = true;
            self.again.push(Source::Server(server_index));
        }
    }

    /// Nobody here wants it: publish it, and look once more whether somebody elsewhere does.
    fn park(&mut self, index: PoolIndex, server_index: usize) {
        let server = &mut self.servers[server_index];
        server.busy = false;
        server.notices = Vec::new();
        self.shm.set_busy(&server.seats, false);
        let seats = server.seats;
        self.pools.get_mut(index).idle.push_back(server_index);
        if self.is_in_the_way(&seats) {
            self.pump_waiting();
        }
        if !self.has_colleagues() {
            return;
        }
        let pool = self.pools.get(index);
        let waiting = self.shm.pool_state(pool.id).offer(self.me.slot, pool.idle.len() as u32);
        if let Some((slot, _)) = self.longest_of(index, waiting) {
            self.lend_idle(index, slot);
        }
        self.make_room_for_others(index);
    }

    /// A server that could not be passed on stays; the tick tries again.
    pub(crate) fn keep_free(&mut self, index: PoolIndex, server_index: usize) {
        if let Some(reason) = self.unfit(server_index) {
            return self.close_server(server_index, reason);
        }
        if self.longest_waiter(index).is_some() {
            let stale = self.must_check(&self.servers[server_index]);
            return if stale { self.check(server_index) } else { self.serve_next(index, server_index) };
        }
        let pool = self.pools.get_mut(index);
        pool.idle.push_back(server_index);
        self.shm.pool_state(pool.id).set_idle(self.me.slot, pool.idle.len() as u32);
    }

    /// Lends an idle server, if there is one and nobody here wants it.
    pub(crate) fn lend_idle(&mut self, index: PoolIndex, slot: Slot) -> bool {
        // Those that wait here may have servers enough on the way.
        if self.pools.get(index).unmet_demand() > 0 {
            return false;
        }
        let Some(server) = self.take_idle(index).or_else(|| self.take_any_idle(index)) else { return false };
        self.lend(server, slot)
    }
}
