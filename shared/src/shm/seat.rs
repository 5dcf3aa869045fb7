//! A seat: one word that says whether it is taken and by whom.
//!
//! Taking a seat and recording its owner are the same compare-and-swap, so a dead owner's seats are found by a scan that can neither
//! miss one nor count one twice. The word is `state (2 bits) | slot (8) | generation (22) | incarnation (32)`:
//!
//! | state | slot | incarnation | left by |
//! |---|---|---|---|
//! | free | 0 | 0 | anyone who takes it |
//! | held | owner's | owner's | the owner; the supervisor after the owner's death |
//! | transit | receiver's | sender's | the receiver (accept), the sender (cancel), the supervisor after the sender's death |
//! | draining | supervisor's | supervisor's | the supervisor, once the backend is gone |
//!
//! The generation grows whenever a seat is freed or moved, so a [`Ticket`] (the transit word itself) matches at most one transit, ever,
//! and exactly one of accept, cancel and burial succeeds on it.

use super::atomic::{AtomicU64, Ordering};
use crate::ids::{Incarnation, Owner, Slot};
use crate::sys::map::shared_struct;
use serde::{Deserialize, Serialize};

/// The right to take over one seat that is being lent: the word it has while in transit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket(pub(crate) u64);

/// What a seat is at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeatState {
    /// Nobody's.
    Free,
    /// Its owner's.
    Held,
    /// Between two workers.
    Transit,
    /// Its owner died; the supervisor keeps it until the backend is gone.
    Draining,
}

/// A seat's word, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

const GENERATION_BITS: u32 = 22;
const GENERATION_MASK: u64 = (1 << GENERATION_BITS) - 1;

impl Word {
    fn new(state: SeatState, owner: Owner, generation: u64) -> Self {
        let state = match state {
            SeatState::Free => 0,
            SeatState::Held => 1,
            SeatState::Transit => 2,
            SeatState::Draining => 3,
        };
        let slot = u64::from(owner.slot.0);
        Self((state << 62) | (slot << 54) | ((generation & GENERATION_MASK) << 32) | u64::from(owner.incarnation.0))
    }

    pub(super) fn state(self) -> SeatState {
        match self.0 >> 62 {
            0 => SeatState::Free,
            1 => SeatState::Held,
            2 => SeatState::Transit,
            _ => SeatState::Draining,
        }
    }

    /// Who holds it; for a seat in transit the slot is the receiver's and the incarnation the sender's.
    pub(super) fn owner(self) -> Owner {
        Owner { slot: Slot((self.0 >> 54) as u8), incarnation: Incarnation(self.0 as u32) }
    }

    pub(super) fn is_free(self) -> bool {
        self.state() == SeatState::Free
    }

    pub(super) fn is_held_by(self, owner: Owner) -> bool {
        self.state() == SeatState::Held && self.owner() == owner
    }

    /// Whether `incarnation` is to answer for it: it holds the seat, or has sent it.
    pub(super) fn is_of(self, incarnation: Incarnation) -> bool {
        !self.is_free() && self.owner().incarnation == incarnation
    }

    fn generation(self) -> u64 {
        (self.0 >> 32) & GENERATION_MASK
    }

    fn moved(self, state: SeatState, owner: Owner) -> Self {
        Self::new(state, owner, self.generation() + 1)
    }
}

const NOBODY: Owner = Owner { slot: Slot(0), incarnation: Incarnation(0) };

shared_struct! {
    /// A seat's word in shared memory.
    pub(super) struct SeatWord {
        word: AtomicU64,
    }
}

impl SeatWord {
    pub(super) fn read(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    /// Release: who takes the seat next sees all that was written about it before. Acquire: the taker of the seat is that one.
    fn replace(&self, from: Word, to: Word) -> bool {
        self.word.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Free to held by `owner`.
    pub(super) fn take(&self, owner: Owner) -> bool {
        let word = self.read();
        word.is_free() && self.replace(word, Word::new(SeatState::Held, owner, word.generation()))
    }

    /// Held by `owner` to free.
    pub(super) fn leave(&self, owner: Owner) -> bool {
        let word = self.read();
        word.is_held_by(owner) && self.replace(word, word.moved(SeatState::Free, NOBODY))
    }

    /// Held by `owner` to held by `to`.
    pub(super) fn give(&self, owner: Owner, to: Owner) -> bool {
        let word = self.read();
        word.is_held_by(owner) && self.replace(word, word.moved(SeatState::Held, to))
    }

    /// Held by `owner` to transit towards `to`. `None` when `owner` does not hold it.
    pub(super) fn begin_lend(&self, owner: Owner, to: Slot) -> Option<Ticket> {
        let word = self.read();
        let transit = word.moved(SeatState::Transit, Owner { slot: to, incarnation: owner.incarnation });
        (word.is_held_by(owner) && self.replace(word, transit)).then_some(Ticket(transit.0))
    }

    /// Transit to held by `owner`, its sender.
    pub(super) fn cancel_lend(&self, owner: Owner, ticket: Ticket) -> bool {
        let transit = Word(ticket.0);
        transit.state() == SeatState::Transit
            && transit.owner().incarnation == owner.incarnation
            && self.replace(transit, transit.moved(SeatState::Held, owner))
    }

    /// Transit to held by `me`, its receiver.
    pub(super) fn accept_lend(&self, me: Owner, ticket: Ticket) -> bool {
        let transit = Word(ticket.0);
        transit.state() == SeatState::Transit
            && transit.owner().slot == me.slot
            && self.replace(transit, transit.moved(SeatState::Held, me))
    }

    /// Held or sent by the dead `incarnation` to free. `false` when it is not, or when the receiver of a lend was quicker.
    pub(super) fn free_of_dead(&self, incarnation: Incarnation) -> bool {
        let word = self.read();
        word.is_of(incarnation) && self.replace(word, word.moved(SeatState::Free, NOBODY))
    }

    /// Held or sent by the dead `incarnation` to draining. `false` when it is not, or when the receiver of a lend was quicker.
    pub(super) fn drain_of_dead(&self, incarnation: Incarnation) -> bool {
        let word = self.read();
        word.is_of(incarnation) && self.replace(word, word.moved(SeatState::Draining, Owner::SUPERVISOR))
    }

    /// For a seat that belongs to another one (a database's to a pool's): whoever owns that one sets it to `state` for `owner`,
    /// whatever it says. Also for a seat of a region that nobody else maps yet.
    pub(super) fn follow(&self, state: SeatState, owner: Owner) {
        let mut word = self.read();
        while !self.replace(word, word.moved(state, owner)) {
            word = self.read();
        }
    }

    /// As [`Self::follow`], to free.
    pub(super) fn follow_free(&self) {
        self.follow(SeatState::Free, NOBODY);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const A: Owner = Owner { slot: Slot(3), incarnation: Incarnation(u32::MAX) };
    const B: Owner = Owner { slot: Slot(63), incarnation: Incarnation(2) };

    fn seat() -> SeatWord {
        SeatWord { word: AtomicU64::new(0) }
    }

    #[test]
    fn a_word_says_what_was_put_into_it() {
        for state in [SeatState::Free, SeatState::Held, SeatState::Transit, SeatState::Draining] {
            for owner in [A, B, Owner::SUPERVISOR] {
                for generation in [0, 1, GENERATION_MASK] {
                    let word = Word::new(state, owner, generation);
                    assert_eq!((word.state(), word.owner(), word.generation()), (state, owner, generation));
                }
            }
        }
        assert_eq!(Word::new(SeatState::Held, A, GENERATION_MASK).moved(SeatState::Held, A).generation(), 0);
    }

    #[test]
    fn only_the_owner_leaves_and_gives() {
        let seat = seat();
        assert!(seat.take(A) && !seat.take(B) && !seat.take(A));
        assert!(!seat.leave(B) && !seat.give(B, B));
        assert!(!seat.leave(Owner { slot: Slot(4), ..A }), "the same life on another slot is nobody");
        assert!(seat.give(A, B) && !seat.leave(A) && seat.leave(B) && !seat.leave(B));
        assert!(seat.read().is_free());
    }

    #[test]
    fn a_ticket_is_good_for_one_transit() {
        let seat = seat();
        assert!(seat.begin_lend(A, B.slot).is_none(), "nobody lends a free seat");
        assert!(seat.take(A));
        assert!(seat.begin_lend(B, A.slot).is_none(), "nor another's");
        let Some(stale) = seat.begin_lend(A, B.slot) else { panic!("A holds it") };
        assert!(!seat.leave(A) && !seat.take(B) && seat.begin_lend(A, B.slot).is_none());
        assert!(!seat.accept_lend(A, stale), "it is for another slot");
        assert!(!seat.cancel_lend(B, stale), "another sent it");
        assert!(seat.cancel_lend(A, stale) && !seat.cancel_lend(A, stale));
        let Some(fresh) = seat.begin_lend(A, B.slot) else { panic!("A holds it again") };
        assert!(stale != fresh && !seat.accept_lend(B, stale) && !seat.cancel_lend(A, stale));
        assert!(seat.accept_lend(B, fresh) && !seat.accept_lend(B, fresh) && !seat.cancel_lend(A, fresh));
        assert!(seat.read().is_held_by(B));
    }

    #[test]
    fn a_word_that_is_no_transit_is_no_ticket() {
        let seat = seat();
        assert!(!seat.accept_lend(Owner { slot: Slot(0), incarnation: Incarnation(0) }, Ticket(0)));
        assert!(seat.take(A));
        let held = Ticket(seat.read().0);
        assert!(!seat.accept_lend(A, held) && !seat.cancel_lend(A, held));
    }

    #[test]
    fn a_dead_owner_s_seat_is_found_held_or_sent() {
        let seat = seat();
        assert!(!seat.free_of_dead(A.incarnation) && !seat.free_of_dead(Incarnation(0)), "a free seat is nobody's");
        assert!(seat.take(A) && !seat.free_of_dead(B.incarnation) && seat.free_of_dead(A.incarnation));
        assert!(seat.take(A));
        let Some(ticket) = seat.begin_lend(A, B.slot) else { panic!("A holds it") };
        assert!(!seat.drain_of_dead(B.incarnation), "what is on its way to a dead worker is its sender's");
        assert!(seat.drain_of_dead(A.incarnation) && !seat.accept_lend(B, ticket) && !seat.take(B));
        assert_eq!((seat.read().state(), seat.read().owner()), (SeatState::Draining, Owner::SUPERVISOR));
    }
}
