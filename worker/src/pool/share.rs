//! Whose turn it is under a limit that several pools share: max_db_connections, max_user_connections, max_host_connections.
//!
//! A seat of such a limit goes to the client that has waited longest, in whichever pool and worker it waits. Each worker says of every limit since
//! when its longest waiter waits for it; who has just taken a seat and sees a longer wait elsewhere leaves it to that one.

use super::PoolIndex;
use super::policy::{self, Next, Waits};
use crate::clock::Instant;
use crate::worker::Worker;
use shared::control::{ServerSeats, ToInbox};
use shared::ids::{LimitId, Slot};
use std::time::Duration;

/// For how long a pool gives way to a client elsewhere that does not take what it is left.
pub(crate) const YIELD_PATIENCE: Duration = Duration::from_millis(150);

impl Worker {
    /// As `pump`, for every pool with a client waiting: the one whose client has waited longest first, since a seat may be all that there is.
    pub(crate) fn pump_waiting(&mut self) {
        let mut pools = self.pools.with_waiters.clone();
        // A round within a round begins because a seat has fallen free.
        self.pools.full.clear();
        pools.sort_by_cached_key(|&index| self.longest_wait(index));
        for index in pools {
            self.pools.get_mut(index).exhausted = false;
            self.pump(index);
            // What has been found full is full for whoever comes later in this round too.
            let limit = self.pools.get(index).blocked_on;
            let limit = limit.filter(|limit| !self.pools.full.contains(limit));
            self.pools.full.extend(limit);
        }
        self.pools.full.clear();
    }

    /// A limit above the pool's own is in its way: whoever leaves one of its seats is to know since when.
    pub(super) fn block(&mut self, index: PoolIndex, limit: LimitId) {
        self.unblock(index);
        self.pools.get_mut(index).blocked_on = Some(limit);
        self.publish_block(limit);
        self.shm.limit_state(limit).set_waiting(self.me.slot);
    }

    /// No limit above the pool's own is in its way any more.
    pub(super) fn unblock(&mut self, index: PoolIndex) {
        if let Some(limit) = self.pools.get_mut(index).blocked_on.take()
            && !self.publish_block(limit)
        {
            self.shm.limit_state(limit).clear_waiting(self.me.slot);
        }
    }

    /// Says since when the longest of those waits that a limit is in the way of. False: it is in nobody's.
    pub(super) fn publish_block(&mut self, limit: LimitId) -> bool {
        let (mut longest, mut any) = (None, false);
        for at in 0..self.pools.with_waiters.len() {
            let index = self.pools.with_waiters[at];
            if self.pools.get(index).blocked_on == Some(limit) {
                any = true;
                longest = longest.into_iter().chain(self.longest_wait(index)).min();
            }
        }
        self.shm.limit_state(limit).set_oldest(self.me.slot, longest.map_or(0, Instant::as_micros));
        any
    }

    /// The worker whose client has waited longer for a seat of a limit that this pool shares, unless it has been given way to for long enough:
    /// it may wait for something else besides.
    pub(super) fn older_elsewhere(&mut self, index: PoolIndex) -> Option<Slot> {
        let ours = self.longest_wait(index);
        let pool = self.pools.get(index);
        let shared = [pool.limits.database, pool.limits.user, pool.limits.host];
        let patience_is_over = |since: Instant| self.now - since > YIELD_PATIENCE && ours.is_some_and(|ours| ours <= since);
        if !self.has_colleagues() || pool.yielding.is_some_and(patience_is_over) {
            return None;
        }
        let others = shared.into_iter().flatten().flat_map(|(limit, _)| self.waiting_for(limit, self.me.slot));
        let waits = Waits { ours, theirs: others.min_by_key(|(_, since)| *since), ..Waits::default() };
        match policy::next(&waits, self.config.settings.fairness_slack) {
            Next::Lend(slot) => Some(slot),
            Next::Ours | Next::Close(_) | Next::Park => None,
        }
    }

    /// Workers other than `except` with a client that waits for a seat of this limit, and since when.
    pub(super) fn waiting_for(&self, limit: LimitId, except: Slot) -> impl Iterator<Item = (Slot, Instant)> {
        let state = self.shm.limit_state(limit);
        let waiting = state.waiting_others(except);
        let slots = (0..self.inboxes.len() as u8).map(Slot).filter(move |slot| waiting & (1 << slot.0) != 0);
        slots.filter(|slot| self.is_responsive(*slot)).map(|slot| (slot, Instant::from_micros(state.oldest(slot))))
    }

    /// Leaves seats that were just taken to a client of another worker, and waits for the next.
    pub(super) fn yield_seats(&mut self, index: PoolIndex, seats: &ServerSeats, to: Slot) -> bool {
        let (now, ours) = (self.now, self.longest_wait(index));
        let pool = self.pools.get_mut(index);
        // Patience is a client's, and begins anew with the next. The other worker is told once for each: two that leave seats to one another, and
        // could use none just now, would do nothing else.
        let begins = pool.yielding.is_none_or(|since| ours.is_none_or(|ours| ours > since));
        if begins {
            pool.yielding = Some(now);
        }
        let limits = [seats.database, seats.user, seats.host];
        let limit = limits
            .into_iter()
            .flatten()
            .map(|(limit, _)| limit)
            .find(|limit| self.waiting_for(*limit, self.me.slot).any(|(slot, _)| slot == to));
        if let Some(limit) = limit {
            self.block(index, limit);
        }
        self.shm.leave_server(self.me, seats);
        if begins {
            self.send_inbox(to, &ToInbox::Wake, &[]);
        }
        false
    }
}
