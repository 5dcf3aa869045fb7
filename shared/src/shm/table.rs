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

    /// Seats that are not free: held, in transit and draining ones.
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
        let first = self.runs.runs.get(run)?.load(Ordering::Acquire).checked_sub(1)?;
        Some(first as usize * UNIT + offset)
    }
}

impl Words for SeatTable<'_> {
    fn word(&self, index: usize) -> Option<&SeatWord> {
        self.arena.get(self.position(index)?)
    }

    fn len(&self) -> usize {
        let runs = self.runs.runs.iter().take(self.most_runs);
        let there = runs.take_while(|run| run.load(Ordering::Acquire) != 0).count();
        if there == 0 { 0 } else { UNIT << (there - 1) }
    }

    fn most(&self) -> usize {
        UNIT << (self.most_runs - 1)
    }

    /// A run whose place another process filled first, or whose taker dies right here, is lost; the arena has room for that.
    fn grow(&self) -> bool {
        let runs = self.runs.runs.iter().take(self.most_runs);
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
