//! Room under a limit that several pools share: an idle server of one makes way for a client of another.
//!
//! Who is turned away by max_db_connections, max_user_connections or max_host_connections says so in that limit's waiting word, closes what
//! it has idle there itself, and else asks the other workers, one after the other ([`ToInbox::MakeRoom`]). A server that others still wait for makes way only
//! for a client that has waited much longer ([`super::policy`]). How often servers make way for what a worker sees in the waiting word is the fleet's
//! to say, or every worker that sees one client would close one.

use super::policy::ROOM_SLACK;
use super::{Pool, PoolIndex};
use crate::clock::Instant;
use crate::server::ServerState;
use crate::worker::Worker;
use shared::control::{ServerSeats, ToInbox};
use shared::ids::{LimitId, SeatIndex, Slot};
use std::time::Duration;

/// How soon another idle server may make way for a client of another worker: about as long as a backend takes to end.
const GAP: Duration = Duration::from_millis(10);

impl Worker {
    /// Closes idle servers of other pools that hold seats of `limit`, as many as this pool has clients waiting; where there are too few, the other
    /// workers are asked.
    pub(super) fn make_room(&mut self, index: PoolIndex, limit: LimitId) {
        let pool = self.pools.get(index);
        let wanted = pool.unmet_demand() + pool.waiting_candidates().count();
        let leaving = self.servers.iter().filter(|(_, s)| matches!(s.state, ServerState::Closing) && counts_in(&s.seats, limit));
        for at in leaving.count()..wanted {
            if !self.evict_idle(limit) {
                return self.ask_for_room(index, limit, wanted - at);
            }
        }
    }

    /// Asks the other workers for what has not been asked for yet.
    fn ask_for_room(&mut self, index: PoolIndex, limit: LimitId, servers: usize) {
        let asked = &mut self.pools.get_mut(index).asked_for_room;
        let more = servers.saturating_sub(*asked);
        *asked += more;
        if more > 0 {
            self.pass_room_on(limit, self.me.slot, more as u32);
        }
    }

    /// `from`'s clients wait for seats of `limit`: idle servers here make way, and what they do not suffice for is the next worker's to give.
    pub(crate) fn room_wanted(&mut self, limit: LimitId, from: Slot, mut servers: u32) {
        if self.strangers.are_coming() || self.shm.limit_state(limit).waiting_others(self.me.slot) == 0 {
            return;
        }
        while servers > 0 && self.evict_idle(limit) {
            servers -= 1;
        }
        if servers > 0 {
            self.pass_room_on(limit, from, servers);
        }
    }

    /// Asks the next worker that answers, going round up to `from`.
    fn pass_room_on(&mut self, limit: LimitId, from: Slot, servers: u32) {
        let (me, slots) = (self.me.slot.index(), self.inboxes.len());
        let others = (1..slots).map(|step| Slot(((me + step) % slots) as u8)).take_while(|slot| *slot != from);
        if let Some(next) = others.into_iter().find(|slot| self.is_responsive(*slot)) {
            self.send_inbox(next, &ToInbox::MakeRoom { limit, from, servers }, &[]);
        }
    }

    /// Closes the server of a pool without waiters here that has been idle longest of those in `limit`. False: there is none.
    fn evict_idle(&mut self, limit: LimitId) -> bool {
        let idle = self.idle_in(limit).min_by_key(|(_, since)| *since).map(|(victim, _)| victim);
        if let Some(victim) = idle {
            let reason = evicted_for(&self.servers[victim].seats, limit);
            self.close_server(victim, reason);
        }
        idle.is_some()
    }

    fn idle_in(&self, limit: LimitId) -> impl Iterator<Item = (usize, Instant)> {
        let unwanted = |pool: PoolIndex| self.pools.get(pool).waiting == 0;
        let servers = self
            .servers
            .iter()
            .filter(move |(_, s)| matches!(s.state, ServerState::Idle) && counts_in(&s.seats, limit) && unwanted(s.pool));
        servers.map(|(index, server)| (index, server.since))
    }

    fn claim_eviction(&self, limit: LimitId, gap: Duration) -> bool {
        self.shm.limit_state(limit).claim_eviction(self.now.as_micros(), gap.as_micros() as u64)
    }

    /// Whether an idle server holds a seat that a client of another pool here waits for.
    pub(super) fn is_in_the_way(&self, seats: &ServerSeats) -> bool {
        self.pools.with_waiters.iter().any(|&index| self.pools.get(index).blocked_on.is_some_and(|limit| counts_in(seats, limit)))
    }

    /// Makes room for clients of other workers: one idle server of this pool for a limit that somebody waits for.
    pub(super) fn make_room_for_others(&mut self, index: PoolIndex) {
        let Pool { limits, idle, .. } = self.pools.get(index);
        // Who waits there freezes, too, and could not use the seat.
        if idle.is_empty() || self.strangers.are_coming() {
            return;
        }
        for (limit, most) in limits.database.into_iter().chain(limits.user).chain(limits.host) {
            let is_full = || self.shm.seats(limit).in_use() >= most;
            if self.shm.limit_state(limit).waiting_others(self.me.slot) != 0 && is_full() && self.claim_eviction(limit, GAP) {
                self.evict_idle(limit);
                return;
            }
        }
    }

    /// Of the limits that a server counts in: the one that a client has waited longest for, in whichever pool and worker, and since when.
    pub(super) fn longest_blocked(&self, seats: &ServerSeats) -> Option<(LimitId, Instant)> {
        let waited_for = limits_of(seats).map(|(limit, _)| limit).filter(|limit| self.shm.limit_state(*limit).is_waited_for());
        let waits = waited_for.flat_map(|limit| self.waiting_for(limit, Slot::SUPERVISOR).map(move |(_, since)| (limit, since)));
        waits.min_by_key(|(_, since)| *since)
    }

    /// A server that others wait for makes way, unless another one has done so a moment ago. The reason for the log.
    pub(super) fn makes_way(&self, seats: &ServerSeats, limit: LimitId) -> Option<&'static str> {
        self.claim_eviction(limit, ROOM_SLACK).then(|| evicted_for(seats, limit))
    }
}

fn limits_of(seats: &ServerSeats) -> impl Iterator<Item = (LimitId, SeatIndex)> + use<> {
    [seats.database, seats.user, seats.host].into_iter().flatten()
}

fn counts_in(seats: &ServerSeats, limit: LimitId) -> bool {
    limits_of(seats).any(|(id, _)| id == limit)
}

/// PgBouncer's reason for the log.
fn evicted_for(seats: &ServerSeats, limit: LimitId) -> &'static str {
    let is = |seat: Option<(LimitId, _)>| seat.is_some_and(|(id, _): (_, SeatIndex)| id == limit);
    if is(seats.database) {
        "evicted for max_db_connections"
    } else if is(seats.user) {
        "evicted for max_user_connections"
    } else {
        "evicted for max_host_connections"
    }
}
