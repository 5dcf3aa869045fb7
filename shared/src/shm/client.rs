//! The client table: the seats of max_client_conn, each with its client's cancel key.
//!
//! The key that a client gets names its seat, so a cancel request finds the owner from whichever worker it lands on.
//! Only the seat's owner writes the key; it is cleared before the seat is free.

use super::atomic::{AtomicU64, Ordering};
use super::layout::{Cursor, Region};
use super::seat::{SeatWord, Ticket};
use super::table::Words;
use crate::ids::{Owner, SeatIndex, Slot};
use crate::sys::map::shared_struct;
use subtle::ConstantTimeEq;

shared_struct! {
    /// One client's seat.
    pub(super) struct ClientSeat {
        pub(super) word: SeatWord,
        pub(super) secret: AtomicU64,
    }
}

/// The seats of all clients.
#[derive(Clone, Copy)]
pub struct ClientTable<'a>(pub(super) &'a Region);

/// Bit 7 of byte 0, clear in every key: set in what is stored, so that 0 is "no key".
const PRESENT: u64 = 1 << 63;
/// The lowest 2 bits of byte 7: how often peers may still pass a request on, not part of the secret.
const TTL: u64 = 0b11;

impl ClientTable<'_> {
    /// Takes a free seat for `owner` such that at most `limit` are in use. `None` when there is none.
    pub fn take(&self, owner: Owner, limit: usize) -> Option<SeatIndex> {
        Words::take(self, owner, limit)
    }

    /// Frees a seat of `owner`'s and forgets its key. `false`, and nothing happens, when it is not its.
    pub fn leave(&self, owner: Owner, seat: SeatIndex) -> bool {
        let Some(place) = self.owned(owner, seat) else { return false };
        place.secret.store(0, Ordering::Relaxed);
        place.word.leave(owner)
    }

    /// Makes a seat of `owner`'s, with its key, the seat of `to`. `false`, and nothing happens, when it is not its.
    pub fn give(&self, owner: Owner, seat: SeatIndex, to: Owner) -> bool {
        self.0.clients.get(seat.0 as usize).is_some_and(|place| place.word.give(owner, to))
    }

    /// Puts a seat of `owner`'s, with its key, on the way to the worker of slot `to`. `None` when it is not its.
    ///
    /// As with a server's seat ([`super::Shm::begin_lend`]) the sender keeps its descriptor until [`Self::is_on_its_way`] is false.
    pub fn send(&self, owner: Owner, seat: SeatIndex, to: Slot) -> Option<Ticket> {
        self.0.clients.get(seat.0 as usize)?.word.begin_lend(owner, to)
    }

    /// The sender keeps the seat after all. `false`: the receiver has it.
    pub fn take_back(&self, owner: Owner, seat: SeatIndex, ticket: Ticket) -> bool {
        self.0.clients.get(seat.0 as usize).is_some_and(|place| place.word.cancel_lend(owner, ticket))
    }

    /// The receiver takes the seat over. `false`: it was taken back, or its sender died. Exactly one accept or take-back succeeds.
    pub fn accept(&self, me: Owner, seat: SeatIndex, ticket: Ticket) -> bool {
        self.0.clients.get(seat.0 as usize).is_some_and(|place| place.word.accept_lend(me, ticket))
    }

    /// Whether neither has it yet.
    pub fn is_on_its_way(&self, seat: SeatIndex, ticket: Ticket) -> bool {
        self.word(seat.0 as usize).is_some_and(|word| word.read().0 == ticket.0)
    }

    /// Takes over the seat of a client that comes from a worker of another build: here it is a shadow of the one in that worker's region. One that was taken
    /// there after the census may be another's here: then the client gets a seat that its key does not name. `None`: there is no seat at all.
    pub fn claim(&self, from: Owner, me: Owner, seat: SeatIndex, key: [u8; 8]) -> Option<SeatIndex> {
        let place = self.0.clients.get(seat.0 as usize);
        if place.is_some_and(|place| place.word.give(from, me) || place.word.take(me)) {
            self.0.client_cursor.top.fetch_max(seat.0 + 1, Ordering::AcqRel);
            self.set_key(me, seat, key);
            return Some(seat);
        }
        let other = self.take(me, 0)?;
        self.set_key(me, other, key);
        self.0.header.strayed.store(1, Ordering::Release);
        Some(other)
    }

    /// Whether there may be clients with a seat that their key does not name.
    pub fn have_strayed(&self) -> bool {
        self.0.header.strayed.load(Ordering::Acquire) != 0
    }

    /// Stores the key of `owner`'s client and returns `false` if the seat is not its.
    pub fn set_key(&self, owner: Owner, seat: SeatIndex, key: [u8; 8]) -> bool {
        let place = self.owned(owner, seat);
        if let Some(place) = place {
            place.secret.store(stored(key), Ordering::Release);
        }
        place.is_some()
    }

    /// Makes and stores a cancel key from 64 random bits. 18 bits of it name the seat. With a `peer_id` (not 0), bytes 1 and 2 are that
    /// id, little-endian, and the lowest 2 bits of byte 7 are set, so that it may be forwarded 3 times, as PgBouncer's peers have it; the top bit of byte 0 is always clear.
    pub fn new_key(&self, owner: Owner, seat: SeatIndex, random: u64, peer_id: u16) -> Option<[u8; 8]> {
        let mut key = random.to_be_bytes();
        key[0] = (key[0] & 0x7c) | ((seat.0 >> 16) as u8 & 0b11);
        key[3..5].copy_from_slice(&(seat.0 as u16).to_be_bytes());
        if peer_id > 0 {
            key[1..3].copy_from_slice(&peer_id.to_le_bytes());
            key[7] |= TTL as u8;
        }
        self.set_key(owner, seat, key).then_some(key)
    }

    /// As `new_key`, for a client that is to know its backend by its process id: the key is that id and 32 random bits, as PostgreSQL's own.
    /// It does not name its seat: [`Self::search`] finds it.
    pub fn new_key_of_process(&self, owner: Owner, seat: SeatIndex, pid: u32, random: u32) -> Option<[u8; 8]> {
        let mut key = [0; 8];
        key[..4].copy_from_slice(&(pid & 0x7fff_ffff).to_be_bytes());
        key[4..].copy_from_slice(&random.to_be_bytes());
        self.set_key(owner, seat, key).then_some(key)
    }

    /// As `find`, for a key that may not name its seat: looks at every seat that was ever taken.
    pub fn search(&self, key: [u8; 8]) -> Option<(SeatIndex, Owner)> {
        let top = self.0.client_cursor.top.load(Ordering::Acquire) as usize;
        let wanted = stored(key);
        let same = |place: &ClientSeat| bool::from(place.secret.load(Ordering::Acquire).ct_eq(&wanted));
        let (seat, place) = self.0.clients.iter().take(top).enumerate().find(|(_, place)| same(place))?;
        let word = place.word.read();
        (key[0] & 0x80 == 0 && !word.is_free()).then(|| (SeatIndex(seat as u32), word.owner()))
    }

    /// The client that was given `key`, and who has it. The time it takes tells nothing about the key but its seat.
    pub fn find(&self, key: [u8; 8]) -> Option<(SeatIndex, Owner)> {
        let seat = (u32::from(key[0] & 0b11) << 16) | u32::from(u16::from_be_bytes([key[3], key[4]]));
        let place = self.0.clients.get(seat as usize)?;
        let same: bool = place.secret.load(Ordering::Acquire).ct_eq(&stored(key)).into();
        let word = place.word.read();
        (same && key[0] & 0x80 == 0 && !word.is_free()).then(|| (SeatIndex(seat), word.owner()))
    }

    /// Seats that are not free.
    pub fn in_use(&self) -> usize {
        self.held(0..usize::MAX)
    }

    /// The seats that `owner` holds.
    pub fn held_by(&self, owner: Owner) -> impl Iterator<Item = SeatIndex> {
        let top = self.0.client_cursor.top.load(Ordering::Acquire);
        (0..top).map(SeatIndex).filter(move |seat| self.owned(owner, *seat).is_some())
    }

    /// Who holds the seat; `None` when it is free.
    pub fn owner(&self, seat: SeatIndex) -> Option<Owner> {
        let word = self.word(seat.0 as usize)?.read();
        (!word.is_free()).then(|| word.owner())
    }

    fn owned(&self, owner: Owner, seat: SeatIndex) -> Option<&ClientSeat> {
        self.0.clients.get(seat.0 as usize).filter(|place| place.word.read().is_held_by(owner))
    }
}

fn stored(key: [u8; 8]) -> u64 {
    (u64::from_be_bytes(key) & !TTL) | PRESENT
}

/// What a census says of a stored key: 0 for none.
#[cfg(not(loom))]
pub(super) fn key_of(secret: u64) -> u64 {
    secret & !PRESENT
}

/// What is stored of it.
#[cfg(not(loom))]
pub(super) fn secret_of(key: u64) -> u64 {
    if key == 0 { 0 } else { stored(key.to_be_bytes()) }
}

impl Words for ClientTable<'_> {
    fn word(&self, index: usize) -> Option<&SeatWord> {
        self.0.clients.get(index).map(|seat| &seat.word)
    }

    fn len(&self) -> usize {
        self.0.clients.len()
    }

    fn most(&self) -> usize {
        self.0.clients.len()
    }

    fn grow(&self) -> bool {
        false
    }

    fn cursor(&self) -> &Cursor {
        &self.0.client_cursor
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ids::{Incarnation, Slot};
    use crate::shm::Shm;

    const A: Owner = Owner { slot: Slot(0), incarnation: Incarnation(2) };
    const B: Owner = Owner { slot: Slot(1), incarnation: Incarnation(3) };

    #[test]
    fn a_key_finds_its_client_wherever_it_is() {
        let shm = Shm::create().unwrap().0;
        let table = shm.clients();
        let seats: Vec<_> = (0..300).map(|_| table.take(A, 300).unwrap()).collect();
        assert_eq!((table.take(A, 300), table.in_use()), (None, 300));
        for (peer, random) in [(0, 0), (0, u64::MAX), (7, 0x0123_4567_89ab_cdef), (u16::MAX, u64::MAX)] {
            for seat in &seats {
                let key = table.new_key(A, *seat, random ^ u64::from(seat.0), peer).unwrap();
                assert_eq!((key[0] & 0x80, table.find(key)), (0, Some((*seat, A))));
                if peer > 0 {
                    assert_eq!((u16::from_le_bytes([key[1], key[2]]), key[7] & 3), (peer, 3));
                    assert_eq!(
                        table.find([&key[..7], &[key[7] & !3]].concat().try_into().unwrap()),
                        Some((*seat, A)),
                        "a peer lowers the TTL"
                    );
                }
                for bit in (0..64).filter(|bit| *bit != 62 && *bit > 1) {
                    let wrong = (u64::from_be_bytes(key) ^ (1 << bit)).to_be_bytes();
                    assert_ne!(table.find(wrong).map(|(seat, _)| seat), Some(*seat), "bit {bit}");
                }
            }
        }
    }

    #[test]
    fn a_key_that_begins_with_a_process_is_searched_for() {
        let shm = Shm::create().unwrap().0;
        let table = shm.clients();
        let seats: Vec<_> = (0..20).map(|_| table.take(A, 20).unwrap()).collect();
        let keys: Vec<_> = seats.iter().map(|seat| table.new_key_of_process(A, *seat, 4711, seat.0 * 1000 + 7).unwrap()).collect();
        for (seat, key) in seats.iter().zip(&keys) {
            assert_eq!((key[..4].to_vec(), table.search(*key)), (4711_u32.to_be_bytes().to_vec(), Some((*seat, A))));
        }
        assert_eq!(table.search([1; 8]), None);
        assert!(table.leave(A, seats[3]));
        assert_eq!(table.search(keys[3]), None);
    }

    #[test]
    fn high_seats_have_keys_too() {
        let shm = Shm::create().unwrap().0;
        let table = shm.clients();
        shm.region().client_cursor.next.store(262_143, Ordering::Relaxed);
        let seat = table.take(A, 0).unwrap();
        assert_eq!(seat, SeatIndex(262_143));
        let key = table.new_key(A, seat, 0, 0).unwrap();
        assert_eq!(table.find(key), Some((seat, A)));
    }

    #[test]
    fn a_client_that_moves_keeps_its_key() {
        let (shm, _) = Shm::create().unwrap();
        let table = shm.clients();
        let seat = table.take(A, 1).unwrap();
        let key = table.new_key(A, seat, 42, 0).unwrap();
        assert!(table.send(B, seat, A.slot).is_none());
        let ticket = table.send(A, seat, B.slot).unwrap();
        assert!(table.is_on_its_way(seat, ticket) && !table.leave(A, seat));
        assert!(table.take_back(A, seat, ticket) && !table.accept(B, seat, ticket));
        let ticket = table.send(A, seat, B.slot).unwrap();
        assert!(table.accept(B, seat, ticket) && !table.take_back(A, seat, ticket) && !table.is_on_its_way(seat, ticket));
        assert_eq!((shm.bury(A), table.find(key)), (vec![], Some((seat, B))));
        let ticket = table.send(B, seat, A.slot).unwrap();
        shm.bury(B);
        assert!(!table.accept(A, seat, ticket));
        assert_eq!((table.find(key), table.owner(seat)), (None, None));
    }

    #[test]
    fn a_key_ends_with_its_client() {
        let shm = Shm::create().unwrap().0;
        let table = shm.clients();
        let seat = table.take(A, 1).unwrap();
        let key = table.new_key(A, seat, 42, 0).unwrap();
        assert!(table.give(A, seat, B) && !table.leave(A, seat));
        assert_eq!((table.find(key), table.owner(seat)), (Some((seat, B)), Some(B)));
        assert_eq!([A, B].map(|owner| table.held_by(owner).count()), [0, 1]);
        assert!(table.new_key(A, seat, 1, 0).is_none() && !table.set_key(A, seat, [0; 8]), "only its owner gives a key");
        assert!(table.leave(B, seat));
        assert_eq!((table.find(key), table.owner(seat)), (None, None));
        let again = table.take(A, 1).unwrap();
        assert_eq!((again, table.find(key), table.find([0; 8])), (seat, None, None));
        assert!(table.set_key(A, again, key));
        assert_eq!(table.find(key), Some((seat, A)));
    }
}
