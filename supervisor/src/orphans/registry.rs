//! The duplicates of server sockets, by the seat in their pool.
//!
//! A seat may be given up by one worker and taken by another, and what the two say about it comes over two sockets: the new
//! connection's beginning may be read before the old one's end. So a seat can have several duplicates for a moment, and an end takes
//! away the one whose connection is over.

use crate::luggage::{Arrived, Luggage, Place};
use crate::process::peer_has_ended;
use serde::{Deserialize, Serialize};
use shared::control::ServerSeats;
use shared::ids::{PoolId, SeatIndex};
use socket2::SockRef;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A pool's seat: what tells one server connection from another.
pub(super) type Key = (PoolId, SeatIndex);

pub(super) fn key(seats: &ServerSeats) -> Key {
    (seats.pool, seats.seat)
}

#[derive(Debug, Default)]
struct Seat {
    duplicates: Vec<Arc<OwnedFd>>,
    /// Ends that were read before their beginnings.
    early_ends: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Registry(HashMap<Key, Seat>);

/// What there is of one seat, while another image takes the place of this one.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeptSeat {
    key: Key,
    /// In their order.
    duplicates: Vec<Place>,
    early_ends: u32,
}

impl Registry {
    pub(super) fn opened(&mut self, key: Key, duplicate: Arc<OwnedFd>) {
        let seat = self.0.entry(key).or_default();
        // Two workers that are adopted may each tell of a connection that is on its way from one to the other.
        if seat.duplicates.iter().any(|other| is_same(other, &duplicate)) {
            return;
        }
        if seat.early_ends > 0 && over(&duplicate) {
            seat.early_ends -= 1;
        } else {
            seat.duplicates.push(duplicate);
        }
        self.forget_if_empty(key);
    }

    pub(super) fn closed(&mut self, key: Key) {
        let seat = self.0.entry(key).or_default();
        match seat.duplicates.iter().position(over) {
            Some(at) => drop(seat.duplicates.remove(at)),
            None if seat.duplicates.is_empty() => seat.early_ends += 1,
            None => drop(seat.duplicates.remove(0)),
        }
        self.forget_if_empty(key);
    }

    /// The duplicate of the seat's present connection.
    pub(super) fn take(&mut self, key: Key) -> Option<Arc<OwnedFd>> {
        self.0.remove(&key)?.duplicates.pop()
    }

    /// For the image that takes the place of this one.
    pub(super) fn park(&self, luggage: &mut Luggage) -> Vec<KeptSeat> {
        let keep = |(key, seat): (&Key, &Seat)| KeptSeat {
            key: *key,
            duplicates: seat.duplicates.iter().map(|duplicate| luggage.pack(duplicate)).collect(),
            early_ends: seat.early_ends,
        };
        self.0.iter().map(keep).collect()
    }

    /// What was parked.
    pub(super) fn resume(kept: Vec<KeptSeat>, arrived: &mut Arrived) -> Self {
        let seat = |KeptSeat { key, duplicates, early_ends }: KeptSeat| {
            let duplicates = duplicates.into_iter().filter_map(|place| arrived.take(place)).map(Arc::new).collect();
            (key, Seat { duplicates, early_ends })
        };
        Self(kept.into_iter().map(seat).collect())
    }

    fn forget_if_empty(&mut self, key: Key) {
        if self.0.get(&key).is_some_and(|seat| seat.duplicates.is_empty() && seat.early_ends == 0) {
            self.0.remove(&key);
        }
    }
}

fn is_same(one: &OwnedFd, other: &OwnedFd) -> bool {
    let cookie = |socket| SockRef::from(socket).cookie();
    cookie(one).is_ok_and(|one| cookie(other).is_ok_and(|other| other == one))
}

fn over(socket: &Arc<OwnedFd>) -> bool {
    peer_has_ended(socket)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::luggage::carry;
    use shared::encoding::{decode_named, encode_named};
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    const KEY: Key = (PoolId(0), SeatIndex(3));

    fn pair() -> (Arc<OwnedFd>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Arc::new(ours.into()), theirs)
    }

    #[test]
    fn in_order() {
        let mut registry = Registry::default();
        let (ours, theirs) = pair();
        registry.opened(KEY, ours);
        drop(theirs);
        registry.closed(KEY);
        assert!(registry.0.is_empty());
    }

    #[test]
    fn the_next_connection_is_read_of_before_the_last_ones_end() {
        let mut registry = Registry::default();
        let (old, old_peer) = pair();
        let (new, new_peer) = pair();
        registry.opened(KEY, old);
        drop(old_peer);
        registry.opened(KEY, new);
        registry.closed(KEY);
        let kept = registry.take(KEY).unwrap();
        assert!(!over(&kept));
        drop(new_peer);
        assert!(over(&kept));
    }

    #[test]
    fn a_connection_that_is_told_of_twice_is_kept_once() {
        let mut registry = Registry::default();
        let (ours, theirs) = pair();
        registry.opened(KEY, Arc::new(ours.try_clone().unwrap()));
        registry.opened(KEY, ours);
        drop(theirs);
        registry.closed(KEY);
        assert!(registry.0.is_empty());
    }

    #[test]
    fn an_end_before_its_beginning() {
        let mut registry = Registry::default();
        registry.closed(KEY);
        let (ours, theirs) = pair();
        drop(theirs);
        registry.opened(KEY, ours);
        assert!(registry.0.is_empty());
    }

    #[test]
    fn unread_bytes_do_not_hide_an_end() {
        let (ours, mut theirs) = pair();
        theirs.write_all(b"x").unwrap();
        assert!(!over(&ours));
        drop(theirs);
        assert!(over(&ours));
    }

    /// As another image has it: the old one's descriptors are closed only then.
    fn parked(registry: &Registry) -> Registry {
        let mut luggage = Luggage::default();
        let bytes = encode_named(&[], &registry.park(&mut luggage)).unwrap();
        Registry::resume(decode_named(&bytes).unwrap(), &mut carry(&luggage))
    }

    #[test]
    fn what_is_parked_goes_on_in_its_order() {
        let mut registry = Registry::default();
        let ((old, old_peer), (new, _new_peer)) = (pair(), pair());
        registry.opened(KEY, old);
        registry.opened(KEY, new);
        let another = (PoolId(1), SeatIndex(0));
        registry.closed(another);
        let mut registry = parked(&registry);
        drop(old_peer);
        registry.closed(KEY);
        let (late, late_peer) = pair();
        drop(late_peer);
        registry.opened(another, late);
        assert!(registry.take(another).is_none(), "its end was known before");
        assert!(!over(&registry.take(KEY).unwrap()));
        assert!(registry.0.is_empty());
    }
}
