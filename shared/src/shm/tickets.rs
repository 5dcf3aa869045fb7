//! The keys of the tickets by which TLS sessions are resumed: the fleet's, so that every worker takes up what another one has begun.
//!
//! The supervisor is the only writer. Beside the newest key stands the one before it, for tickets that are still on their way back. A count that
//! is odd while they change tells readers that what they have read may be half of each.

use super::atomic::{AtomicU64, Ordering, fence};
use crate::sys::map::shared_struct;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A key and its name take so many words.
const WORDS: usize = 6;

/// How often a reader tries again. The keys change a few times a day.
const TRIES: usize = 100;

shared_struct! {
    /// The newest key and its predecessor.
    pub(super) struct TicketCell {
        changes: AtomicU64,
        keys: [[AtomicU64; WORDS]; 2],
    }
}

/// One key.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct TicketKey {
    /// What tickets call it: 16 bytes.
    pub name: [u8; 16],
    /// The secret.
    pub secret: [u8; 32],
}

/// See the module.
#[derive(Clone, Copy)]
pub struct TicketKeys<'a>(pub(super) &'a TicketCell);

impl TicketKeys<'_> {
    /// The newest key and the one before it. `None`: there is none yet, or they are being changed and nobody finishes it.
    pub fn read(&self) -> Option<[TicketKey; 2]> {
        (0..TRIES).find_map(|_| {
            let before = self.0.changes.load(Ordering::Acquire);
            let keys = [read(&self.0.keys[0]), read(&self.0.keys[1])];
            fence(Ordering::Acquire);
            let whole = before.is_multiple_of(2) && before > 0 && self.0.changes.load(Ordering::Relaxed) == before;
            whole.then_some(keys)
        })
    }

    /// Makes `key` the newest. Only the supervisor calls this, from one thread.
    pub fn add(&self, key: &TicketKey) {
        let changes = self.0.changes.load(Ordering::Relaxed);
        self.0.changes.store(changes | 1, Ordering::Relaxed);
        fence(Ordering::Release);
        let [newest, before] = &self.0.keys;
        // The first one is its own predecessor: a key of zeros would be everybody's.
        let last = if changes == 0 { key.clone() } else { read(newest) };
        write(before, &last);
        write(newest, key);
        self.0.changes.store((changes | 1).wrapping_add(1), Ordering::Release);
    }
}

fn read(words: &[AtomicU64; WORDS]) -> TicketKey {
    let mut key = TicketKey { name: [0; 16], secret: [0; 32] };
    let bytes = key.name.chunks_exact_mut(8).chain(key.secret.chunks_exact_mut(8));
    for (word, bytes) in words.iter().zip(bytes) {
        bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
    }
    key
}

fn write(words: &[AtomicU64; WORDS], key: &TicketKey) {
    let bytes = key.name.chunks_exact(8).chain(key.secret.chunks_exact(8));
    for (word, bytes) in words.iter().zip(bytes) {
        word.store(bytes.try_into().map_or(0, u64::from_ne_bytes), Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::shm::Shm;

    fn key(byte: u8) -> TicketKey {
        TicketKey { name: [byte; 16], secret: [byte; 32] }
    }

    #[test]
    fn the_newest_and_the_one_before_it() {
        let shm = Shm::create().unwrap().0;
        let keys = shm.ticket_keys();
        assert!(keys.read().is_none());
        keys.add(&key(1));
        assert!(keys.read().unwrap() == [key(1), key(1)]);
        keys.add(&key(2));
        keys.add(&key(3));
        assert!(keys.read().unwrap() == [key(3), key(2)]);
    }

    #[test]
    fn half_of_a_change_is_not_believed() {
        let shm = Shm::create().unwrap().0;
        shm.ticket_keys().add(&key(1));
        let cell = &shm.region().ticket_keys;
        cell.changes.store(3, Ordering::Relaxed);
        assert!(shm.ticket_keys().read().is_none());
        // Whoever comes after a supervisor that ended in the middle puts it right.
        shm.ticket_keys().add(&key(2));
        assert!(shm.ticket_keys().read().unwrap()[0] == key(2));
    }
}
