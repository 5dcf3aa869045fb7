//! The duplicates of server sockets, by the seat in their pool.
//!
//! A seat may be given up by one worker and taken by another, and what the two say about it comes over two sockets: the new
//! connection's beginning may be read before the old one's end. So a seat can have several duplicates for a moment, and an end takes
//! away the one whose connection is over.

use crate::process::peer_has_ended;
use shared::control::ServerSeats;
use shared::ids::{PoolId, SeatIndex};
use socket2::Socket;
use std::collections::HashMap;

/// A pool's seat: what tells one server connection from another.
pub(super) type Key = (PoolId, SeatIndex);

pub(super) fn key(seats: &ServerSeats) -> Key {
    (seats.pool, seats.seat)
}

#[derive(Debug, Default)]
struct Seat {
    duplicates: Vec<Socket>,
    /// Ends that were read before their beginnings.
    early_ends: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Registry(HashMap<Key, Seat>);

impl Registry {
    pub(super) fn opened(&mut self, key: Key, duplicate: Socket) {
        let seat = self.0.entry(key).or_default();
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
    pub(super) fn take(&mut self, key: Key) -> Option<Socket> {
        self.0.remove(&key)?.duplicates.pop()
    }

    fn forget_if_empty(&mut self, key: Key) {
        if self.0.get(&key).is_some_and(|seat| seat.duplicates.is_empty() && seat.early_ends == 0) {
            self.0.remove(&key);
        }
    }
}

fn over(socket: &Socket) -> bool {
    peer_has_ended(socket)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use socket2::{Domain, Type};

    const KEY: Key = (PoolId(0), SeatIndex(3));

    fn pair() -> (Socket, Socket) {
        Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap()
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
        let (ours, theirs) = pair();
        theirs.send(b"x").unwrap();
        assert!(!over(&ours));
        drop(theirs);
        assert!(over(&ours));
    }
}
