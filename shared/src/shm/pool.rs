//! What workers tell each other about a pool or a limit: who waits, since when, and who has idle servers.
//!
//! No wake-up is lost between two live workers, because each side writes first and looks second, with a SeqCst fence between (one fence
//! alone is not enough; `tests/loom_seats.rs` shows it):
//!
//! - a waiter calls `set_oldest`, `set_waiting`, and then looks once more at `idle_elsewhere` and at the seats before it sleeps;
//! - a giver calls `offer` (or leaves a seat, and then reads `waiting_others` of the pool and of every limit the server counts in).
//!
//! The fences are inside these functions: after `set_waiting`, before what `idle_elsewhere` and `waiting_others` read.
//! Every cell has one writer, the worker of its slot, until the supervisor clears those of a dead one.

use super::atomic::{AtomicU64, Ordering, fence};
use super::layout::capacity::SLOTS;
use crate::ids::Slot;
use crate::sys::map::shared_struct;

shared_struct! {
    /// One worker's part of a pool: a cache line, since its owner writes it for every transaction.
    #[repr(align(64))]
    struct Cell {
        idle: AtomicU64,
        oldest: AtomicU64,
    }
}

shared_struct! {
    /// A pool's shared state.
    #[repr(align(64))]
    pub struct PoolState {
        waiting: AtomicU64,
        /// Slots that have ever had an idle server here: only their cells need to be looked at.
        lenders: AtomicU64,
        login_failed_at: AtomicU64,
        unproven_at: AtomicU64,
        /// Whose turn it is among the entry's hosts: a hint, which two workers may read before either writes it.
        host_turn: AtomicU64,
        topped_up_at: AtomicU64,
        lifetime_closed_at: AtomicU64,
        cells: [Cell; SLOTS],
    }
}

shared_struct! {
    /// A limit's shared state: who waits for one of its seats.
    #[repr(align(64))]
    pub struct LimitState {
        waiting: AtomicU64,
        evicted_at: AtomicU64,
        /// Since when, for each slot.
        oldest: [AtomicU64; SLOTS],
    }
}

/// The slot's bit; none for the supervisor, who never waits.
fn bit(slot: Slot) -> u64 {
    1_u64.checked_shl(u32::from(slot.0)).unwrap_or(0)
}

fn slots(mask: u64) -> impl Iterator<Item = Slot> {
    (0..SLOTS as u8).map(Slot).filter(move |slot| mask & bit(*slot) != 0)
}

fn set(word: &AtomicU64, slot: Slot) {
    word.fetch_or(bit(slot), Ordering::SeqCst);
    fence(Ordering::SeqCst);
}

fn clear(word: &AtomicU64, slot: Slot) {
    word.fetch_and(!bit(slot), Ordering::SeqCst);
}

fn others(word: &AtomicU64, slot: Slot) -> u64 {
    fence(Ordering::SeqCst);
    word.load(Ordering::Acquire) & !bit(slot)
}

/// The next turn of something that is done `gap` apart, whoever does it: of those who ask at once one has it.
fn claim(last_at: &AtomicU64, now: u64, gap: u64) -> bool {
    let last = last_at.load(Ordering::Acquire);
    let due = last == 0 || now.saturating_sub(last) >= gap;
    due && last_at.compare_exchange(last, now, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

impl LimitState {
    /// Says that a client of `slot` waits for one of this limit's seats. Look at the seats again afterwards.
    pub fn set_waiting(&self, slot: Slot) {
        set(&self.waiting, slot);
    }

    /// Says that none does any more.
    pub fn clear_waiting(&self, slot: Slot) {
        clear(&self.waiting, slot);
    }

    /// Sets since when the longest waiter of `slot` has waited (monotonic µs).
    pub fn set_oldest(&self, slot: Slot, since_us: u64) {
        if let Some(cell) = self.oldest.get(slot.index()) {
            cell.store(since_us, Ordering::Release);
        }
    }

    /// Since when the longest waiter of `slot` has waited; `u64::MAX` for a slot that has not said.
    pub fn oldest(&self, slot: Slot) -> u64 {
        let since = self.oldest.get(slot.index()).map_or(0, |cell| cell.load(Ordering::Acquire));
        if since == 0 { u64::MAX } else { since }
    }

    /// Whether any worker has a client waiting; it may have changed a moment ago.
    pub fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) != 0
    }

    /// Claims the right to close a connection for a client of another pool: one worker's, and not more often than every `gap` (all in µs).
    pub fn claim_eviction(&self, now_us: u64, gap_us: u64) -> bool {
        claim(&self.evicted_at, now_us, gap_us)
    }

    /// Workers other than `slot` with a client waiting, a bit for each. Call it after leaving a seat.
    pub fn waiting_others(&self, slot: Slot) -> u64 {
        others(&self.waiting, slot)
    }
}

impl PoolState {
    /// Says that a client of `slot` waits in this pool. Set the oldest waiter's time first; look at idle servers and seats again afterwards.
    pub fn set_waiting(&self, slot: Slot) {
        set(&self.waiting, slot);
    }

    /// Says that none does any more.
    pub fn clear_waiting(&self, slot: Slot) {
        clear(&self.waiting, slot);
    }

    /// Workers other than `slot` with a client waiting, a bit for each. Call it after `set_idle` or after leaving a seat.
    pub fn waiting_others(&self, slot: Slot) -> u64 {
        others(&self.waiting, slot)
    }

    /// When the longest waiter of `slot` began to wait (monotonic µs).
    pub fn oldest(&self, slot: Slot) -> Option<u64> {
        let since = self.cells.get(slot.index())?.oldest.load(Ordering::Acquire);
        (since != 0).then_some(since)
    }

    /// Sets when the longest waiter of `slot` began to wait (monotonic µs), 0 for no waiter.
    pub fn set_oldest(&self, slot: Slot, since_us: u64) {
        if let Some(cell) = self.cells.get(slot.index()) {
            cell.oldest.store(since_us, Ordering::Release);
        }
    }

    /// Publishes how many idle servers of this pool `slot` has. Read `waiting_others` afterwards if it is more than before.
    pub fn set_idle(&self, slot: Slot, servers: u32) {
        if let Some(cell) = self.cells.get(slot.index()) {
            if servers > 0 && self.lenders.load(Ordering::Relaxed) & bit(slot) == 0 {
                self.lenders.fetch_or(bit(slot), Ordering::SeqCst);
            }
            cell.idle.store(u64::from(servers), Ordering::Release);
        }
    }

    /// Publishes that `slot` has one idle server more, so many in all, and looks once more who waits: the giver's half of what keeps a wake-up from
    /// being lost, in one piece. Workers other than `slot` with a client waiting, a bit for each.
    pub fn offer(&self, slot: Slot, servers: u32) -> u64 {
        self.set_idle(slot, servers);
        self.waiting_others(slot)
    }

    /// How many idle servers `slot` has.
    pub fn idle(&self, slot: Slot) -> u32 {
        self.cells.get(slot.index()).map_or(0, |cell| cell.idle.load(Ordering::Acquire) as u32)
    }

    /// The worker other than `except` with the most idle servers of this pool, if any has one.
    pub fn idle_elsewhere(&self, except: Slot) -> Option<Slot> {
        fence(Ordering::SeqCst);
        let lenders = self.lenders.load(Ordering::Acquire) & !bit(except);
        slots(lenders)
            .map(|slot| (slot, self.idle(slot)))
            .filter(|(_, idle)| *idle > 0)
            .max_by_key(|(_, idle)| *idle)
            .map(|(slot, _)| slot)
    }

    /// When a login to this pool's server last failed (monotonic µs), whichever worker tried.
    pub fn login_failed_at(&self) -> Option<u64> {
        let at = self.login_failed_at.load(Ordering::Acquire);
        (at != 0).then_some(at)
    }

    /// Sets when a login failed (monotonic µs), 0 when one has succeeded since.
    pub fn set_login_failed_at(&self, at_us: u64) {
        self.login_failed_at.store(at_us, Ordering::Release);
    }

    /// When somebody who had proved nothing named the database (monotonic µs), if nobody knows yet whether it exists.
    pub fn unproven_at(&self) -> Option<u64> {
        let at = self.unproven_at.load(Ordering::Acquire);
        (at != 0).then_some(at)
    }

    /// Sets it, 0 when a server has let somebody in.
    pub fn set_unproven_at(&self, at_us: u64) {
        self.unproven_at.store(at_us, Ordering::Release);
    }

    /// The place in the list of hosts where the fleet's next connection is to go, if it can.
    pub fn host_turn(&self) -> usize {
        self.host_turn.load(Ordering::Relaxed) as usize
    }

    /// Sets it.
    pub fn set_host_turn(&self, place: usize) {
        self.host_turn.store(place as u64, Ordering::Relaxed);
    }

    /// Claims the right to open one connection towards min_pool_size: one worker's, and not more often than every `gap` (all in µs).
    pub fn claim_top_up(&self, now_us: u64, gap_us: u64) -> bool {
        claim(&self.topped_up_at, now_us, gap_us)
    }

    /// The same for closing one connection that is older than server_lifetime.
    pub fn claim_lifetime(&self, now_us: u64, gap_us: u64) -> bool {
        claim(&self.lifetime_closed_at, now_us, gap_us)
    }

    /// Takes back all that a dead worker of `slot` said.
    pub(super) fn forget(&self, slot: Slot) {
        // Most pools never saw the slot: reading costs no page and no cache line of another worker.
        if self.waiting.load(Ordering::Acquire) & bit(slot) != 0 {
            self.clear_waiting(slot);
        }
        if self.idle(slot) != 0 {
            self.set_idle(slot, 0);
        }
        if self.oldest(slot).is_some() {
            self.set_oldest(slot, 0);
        }
    }
}

impl LimitState {
    pub(super) fn forget(&self, slot: Slot) {
        if self.waiting.load(Ordering::Acquire) & bit(slot) != 0 {
            self.clear_waiting(slot);
            self.set_oldest(slot, 0);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ids::PoolId;
    use crate::shm::{Limit, Shm};

    #[test]
    fn who_waits_and_since_when() {
        let shm = Shm::create().unwrap().0;
        let state = shm.pool_state(PoolId(0));
        assert_eq!(state.waiting_others(Slot(0)), 0);
        for (slot, since) in [(0, 10), (5, 30), (63, 20)] {
            state.set_oldest(Slot(slot), since);
            state.set_waiting(Slot(slot));
        }
        assert_eq!(state.waiting_others(Slot(0)), (1 << 5) | (1 << 63));
        assert_eq!(state.waiting_others(Slot::SUPERVISOR), 1 | (1 << 5) | (1 << 63));
        assert_eq!((state.oldest(Slot(63)), state.oldest(Slot(1))), (Some(20), None));
        state.clear_waiting(Slot(63));
        assert_eq!(state.waiting_others(Slot(0)), 1 << 5);
        state.forget(Slot(0));
        assert_eq!((state.oldest(Slot(0)), state.waiting_others(Slot(5))), (None, 0));
    }

    #[test]
    fn a_turn_is_one_worker_s() {
        let shm = Shm::create().unwrap().0;
        let state = shm.pool_state(PoolId(0));
        assert!(state.claim_lifetime(1000, 500) && !state.claim_lifetime(1000, 500) && !state.claim_lifetime(1499, 500));
        assert!(state.claim_top_up(1000, 500), "another matter");
        assert!(!state.claim_lifetime(900, 500), "a clock that was read before");
        assert!(state.claim_lifetime(1500, 500) && state.claim_lifetime(1500, 0));
    }

    #[test]
    fn the_one_with_most_idle_servers_lends() {
        let shm = Shm::create().unwrap().0;
        let state = shm.pool_state(PoolId(4095));
        assert_eq!(state.idle_elsewhere(Slot(0)), None);
        for (slot, idle) in [(0, 9), (1, 2), (63, 3)] {
            state.set_idle(Slot(slot), idle);
        }
        assert_eq!((state.idle_elsewhere(Slot(0)), state.idle_elsewhere(Slot(1))), (Some(Slot(63)), Some(Slot(0))));
        state.set_idle(Slot(63), 0);
        assert_eq!(state.idle_elsewhere(Slot(0)), Some(Slot(1)));
        state.forget(Slot(1));
        assert_eq!((state.idle_elsewhere(Slot(0)), state.idle(Slot(0))), (None, 9));
        state.set_idle(Slot(200), 1);
        state.set_waiting(Slot(200));
        assert_eq!((state.idle(Slot(200)), state.waiting_others(Slot(0))), (0, 0), "a slot that does not exist says nothing");
    }

    #[test]
    fn a_waiter_of_any_limit_is_beside_a_connection() {
        let shm = Shm::create().unwrap().0;
        let (pool, limit) = (shm.pool("d", "u").unwrap(), shm.limit(Limit::User("u")).unwrap());
        let seats = crate::control::ServerSeats {
            pool,
            seat: crate::ids::SeatIndex(0),
            database: None,
            user: Some((limit, crate::ids::SeatIndex(0))),
            host: None,
        };
        shm.limit_state(limit).set_waiting(Slot(3));
        shm.pool_state(pool).set_waiting(Slot(1));
        assert_eq!((shm.waiting_beside(Slot(0), &seats), shm.waiting_beside(Slot(3), &seats)), (0b1010, 0b10));
        shm.limit_state(limit).set_oldest(Slot(3), 7);
        assert_eq!((shm.limit_state(limit).oldest(Slot(3)), shm.limit_state(limit).oldest(Slot(4))), (7, u64::MAX));
        shm.limit_state(limit).forget(Slot(3));
        assert_eq!(shm.limit_state(limit).oldest(Slot(3)), u64::MAX);
        assert_eq!(shm.waiting_beside(Slot(0), &seats), 0b10);
        assert_eq!(shm.limit_state(limit).waiting_others(Slot(0)), 0);
    }
}
