//! Seat tables: a limit that several processes share and that survives any of them dying.
//!
//! A limit of L is L words. A free one is looked for from where the last was found, so that taking costs a step or two unless the table is nearly full.
//! No counter decides anything. When seats at or above the limit are held (the limit was lowered, or the reserve pool is in use), a taker counts them
//! all before and after: two that raced both see both and step back.

use super::atomic::{AtomicU64, Ordering, fence};
use super::layout::capacity::UNIT;
use super::layout::{Cursor, Runs};
use super::seat::{SeatState, SeatWord};
use crate::ids::{Owner, SeatIndex};
use std::ops::Range;

/// How often a taker that stepped back for another tries again.
const ATTEMPTS: usize = 4;

/// Words in a row, wherever they lie: what taking and counting need.
pub(super) trait Words {
    /// The word of a seat; `None` where the table has not grown to.
    fn word(&self, index: usize) -> Option<&SeatWord>;
    /// How many words there are now.
    fn len(&self) -> usize;
    /// How many there could be.
    fn most(&self) -> usize;
    /// Adds words. `false` when there is no room for more.
    fn grow(&self) -> bool;
    /// The table's cursor.
    fn cursor(&self) -> &Cursor;

    /// Seats in `range` that are not free.
    fn held(&self, range: Range<usize>) -> usize {
        let top = self.cursor().top.load(Ordering::Acquire) as usize;
        let taken = |index: &usize| self.word(*index).is_some_and(|word| !word.read().is_free());
        (range.start..range.end.min(top)).filter(taken).count()
    }

    /// Takes a seat so that no more than `limit` (0: as many as there is room for) are in use afterwards.
    fn take(&self, owner: Owner, limit: usize) -> Option<SeatIndex> {
        let limit = if limit == 0 { self.most() } else { limit.min(self.most()) };
        for _ in 0..ATTEMPTS {
            let surplus = self.held(limit..usize::MAX);
            if surplus == 0 {
                return self.take_below(owner, limit);
            }
            if surplus + self.held(0..limit) >= limit {
                return None;
            }
            let index = self.take_below(owner, limit)?;
            fence(Ordering::SeqCst);
            if self.held(0..usize::MAX) <= limit {
                return Some(index);
            }
            self.word(index.0 as usize)?.leave(owner);
        }
        None
    }

    /// Takes the first free seat below `limit`, going round from the cursor, growing the table when all it has are taken.
    fn take_below(&self, owner: Owner, limit: usize) -> Option<SeatIndex> {
        loop {
            let window = limit.min(self.len());
            let start = (self.cursor().next.load(Ordering::Relaxed) as usize).checked_rem(window).unwrap_or(0);
            for index in (start..window).chain(0..start) {
                let word = self.word(index)?;
                if word.read().is_free() {
                    let behind = index as u32 + 1;
                    // Before the seat is taken, so that whoever counts after that looks far enough.
                    if self.cursor().top.load(Ordering::Relaxed) < behind {
                        self.cursor().top.fetch_max(behind, Ordering::AcqRel);
                    }
                    if word.take(owner) {
                        self.cursor().next.store(behind, Ordering::Relaxed);
                        return Some(SeatIndex(behind - 1));
                    }
                }
            }
            if window == limit || !self.grow() {
                return None;
            }
        }
    }
}

/// The seats of a pool, a database, a user, a host, or of a database's or a user's clients.
#[derive(Clone, Copy)]
pub struct SeatTable<'a> {
    pub(super) runs: &'a Runs,
    pub(super) most_runs: usize,
    pub(super) arena: &'a [SeatWord],
    pub(super) units_used: &'a AtomicU64,
}

impl SeatTable<'_> {
    /// Takes a free seat for `owner` such that at most `limit` are in use; 0 is no limit but the table's room. `None` when there is none.
    pub fn take(&self, owner: Owner, limit: usize) -> Option<SeatIndex> {
        Words::take(self, owner, limit)
    }

    /// Frees a seat of `owner`'s. `false`, and nothing happens, when it is not.
    pub fn leave(&self, owner: Owner, seat: SeatIndex) -> bool {
        self.word(seat.0 as usize).is_some_and(|word| word.leave(owner))
    }

    /// Makes a seat of `owner`'s the seat of `to`. `false`, and nothing happens, when it is not.
    pub fn give(&self, owner: Owner, seat: SeatIndex, to: Owner) -> bool {
        self.word(seat.0 as usize).is_some_and(|word| word.give(owner, to))
    }

    /// Seats that are not free: held, in transit and draining ones, and for a moment one whose taker is about to step back.
    pub fn in_use(&self) -> usize {
        self.held(0..usize::MAX)
    }

    /// Who holds the seat; `None` when it is free. For a seat in transit: the receiver's slot and the sender's incarnation.
    pub fn owner(&self, seat: SeatIndex) -> Option<Owner> {
        let word = self.word(seat.0 as usize)?.read();
        (!word.is_free()).then(|| word.owner())
    }

    /// What the seat is.
    pub fn state(&self, seat: SeatIndex) -> SeatState {
        self.word(seat.0 as usize).map_or(SeatState::Free, |word| word.read().state())
    }

    /// How many seats there is memory for now; grows as they are taken.
    pub(super) fn len(&self) -> usize {
        Words::len(self)
    }

    /// Where a seat's word lies in the arena, and what stands beside it in arrays parallel to that.
    pub(super) fn position(&self, index: usize) -> Option<usize> {
        let (run, offset) = locate(index);
        if run >= self.most_runs {
            return None;
        }
        let first = self.runs.starts.get(run)?.load(Ordering::Acquire).checked_sub(1)?;
        Some(first as usize * UNIT + offset)
    }
}

impl Words for SeatTable<'_> {
    fn word(&self, index: usize) -> Option<&SeatWord> {
        self.arena.get(self.position(index)?)
    }

    fn len(&self) -> usize {
        let runs = self.runs.starts.iter().take(self.most_runs);
        let there = runs.take_while(|run| run.load(Ordering::Acquire) != 0).count();
        if there == 0 { 0 } else { UNIT << (there - 1) }
    }

    fn most(&self) -> usize {
        UNIT << (self.most_runs - 1)
    }

    /// A run whose place another process filled first, or whose taker dies right here, is lost; the arena has room for that.
    fn grow(&self) -> bool {
        let runs = self.runs.starts.iter().take(self.most_runs);
        let Some((index, run)) = runs.enumerate().find(|(_, run)| run.load(Ordering::Acquire) == 0) else { return false };
        let units = if index == 0 { 1 } else { 1 << (index - 1) };
        let fits = |used: u64| (used + units <= (self.arena.len() / UNIT) as u64).then_some(used + units);
        match self.units_used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits) {
            // Failing means that another process has grown the table: as good.
            Ok(first) => {
                let _ = run.compare_exchange(0, first as u32 + 1, Ordering::AcqRel, Ordering::Acquire);
                true
            }
            Err(_) => run.load(Ordering::Acquire) != 0,
        }
    }

    fn cursor(&self) -> &Cursor {
        &self.runs.cursor
    }
}

/// Which run holds a seat and where in it: run 0 has one unit, each later one as many as all before it.
fn locate(index: usize) -> (usize, usize) {
    match (index / UNIT).checked_ilog2() {
        None => (0, index),
        Some(power) => (power as usize + 1, index - (UNIT << power)),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ids::{Incarnation, Slot};
    use crate::shm::{Limit, Shm};
    use std::collections::HashSet;

    const A: Owner = Owner { slot: Slot(0), incarnation: Incarnation(2) };
    const B: Owner = Owner { slot: Slot(1), incarnation: Incarnation(3) };

    fn shm() -> Shm {
        Shm::create().unwrap().0
    }

    #[test]
    fn seats_are_located_without_gaps() {
        let mut expected = vec![(0, 0, UNIT)];
        expected.extend((1..11).map(|run| (run, UNIT << (run - 1), UNIT << run)));
        for (run, first, end) in expected {
            assert_eq!((locate(first), locate(end - 1)), ((run, 0), (run, end - 1 - first)));
        }
    }

    #[test]
    fn a_limit_is_exact() {
        let shm = shm();
        let table = shm.seats(shm.limit(Limit::Database("d")).unwrap());
        let taken: HashSet<_> = (0..20).map(|_| table.take(A, 20).unwrap()).collect();
        assert_eq!((taken.len(), table.take(B, 20), table.in_use()), (20, None, 20));
        assert!(taken.iter().all(|seat| seat.0 < 20 && table.owner(*seat) == Some(A)));
        assert!(!table.leave(B, SeatIndex(7)) && table.leave(A, SeatIndex(7)) && !table.leave(A, SeatIndex(7)));
        assert_eq!((table.take(B, 20), table.owner(SeatIndex(7))), (Some(SeatIndex(7)), Some(B)));
        assert!(!table.leave(A, SeatIndex(1_000_000)) && table.owner(SeatIndex(1_000_000)).is_none());
    }

    #[test]
    fn a_lowered_limit_refuses_until_the_surplus_is_gone() {
        let shm = shm();
        let table = shm.seats(shm.limit(Limit::User("u")).unwrap());
        let taken: Vec<_> = (0..10).map(|_| table.take(A, 10).unwrap()).collect();
        for seat in &taken[..6] {
            assert_eq!(table.take(B, 4), None);
            assert!(table.leave(A, *seat));
        }
        assert_eq!((table.in_use(), table.take(B, 4)), (4, None), "four above the limit's seats are as many as it allows");
        assert!(table.leave(A, taken[9]));
        let seat = table.take(B, 4).unwrap();
        assert!(seat.0 < 4);
        assert_eq!((table.take(B, 4), table.in_use()), (None, 4));
        assert!(table.take(B, 5).is_some(), "a raised limit applies at once");
    }

    #[test]
    fn a_table_grows_to_its_room() {
        let shm = shm();
        let pool = shm.pool("d", "u").unwrap();
        let table = shm.pool_seats(pool);
        assert_eq!(table.len(), 0);
        let taken: HashSet<_> = (0..table.most()).map(|_| table.take(A, 0).unwrap()).collect();
        assert_eq!((taken.len(), table.most(), table.len()), (16_384, 16_384, 16_384));
        assert_eq!((table.take(A, 0), table.take(A, 100_000), table.in_use()), (None, None, 16_384));
        let other = shm.pool_seats(shm.pool("e", "u").unwrap());
        assert_eq!((other.take(B, 1), other.take(B, 1), other.in_use()), (Some(SeatIndex(0)), None, 1));
        assert!(taken.iter().all(|seat| table.owner(*seat) == Some(A)));
    }

    #[test]
    fn taking_takes_few_steps_in_a_table_with_room() {
        let shm = shm();
        let table = shm.seats(shm.limit(Limit::DatabaseClients("d")).unwrap());
        let mut held: Vec<_> = (0..100_000).map(|_| table.take(A, 200_000).unwrap()).collect();
        let start = std::time::Instant::now();
        for step in 0..100_000 {
            let seat = held.swap_remove(step * 7919 % held.len());
            assert!(table.leave(A, seat));
            held.push(table.take(A, 200_000).unwrap());
        }
        assert!(start.elapsed().as_secs() < 5, "100,000 times out of 100,000 seats took {:?}", start.elapsed());
    }

    #[test]
    fn threads_never_exceed_a_limit_that_is_lowered_and_raised() {
        let shm = shm();
        let id = shm.limit(Limit::Host("h")).unwrap();
        let turns = 20_000_u32;
        std::thread::scope(|scope| {
            for worker in 0..4_u32 {
                let shm = shm.clone();
                scope.spawn(move || {
                    let me = Owner { slot: Slot(worker as u8), incarnation: Incarnation(10 + worker) };
                    let table = shm.seats(id);
                    let mut held = Vec::new();
                    for turn in 0..turns {
                        let limit = if turn % 1000 < 500 { 6 } else { 3 };
                        match table.take(me, limit) {
                            Some(seat) => held.push(seat),
                            None => held.pop().iter().for_each(|seat| assert!(table.leave(me, *seat))),
                        }
                        assert!(held.iter().all(|seat| table.owner(*seat) == Some(me)));
                        if turn % 3 == worker % 3 {
                            held.pop().iter().for_each(|seat| assert!(table.leave(me, *seat)));
                        }
                    }
                    for seat in held {
                        assert!(table.leave(me, seat));
                    }
                });
            }
            for _ in 0..10_000 {
                assert!(shm.seats(id).in_use() <= 6);
            }
        });
        assert_eq!(shm.seats(id).in_use(), 0);
    }
}
