//! The directory: which pool or limit a name is, the same in every process.
//!
//! Append-only. A name is written into a place of its own first and then entered by one compare-and-swap on the first empty entry, so a
//! reader never sees half a name, a process that dies in between costs nothing but that place, and all who look for one name find or
//! make the same entry: whoever loses the race for an entry compares with what won it.

use super::atomic::{AtomicU64, Ordering};
use super::layout::Region;
use crate::sys::map::{START, hash, shared_struct};

/// The longest name in all, in bytes: a host name may have 253 and a port.
const NAME_BYTES: usize = 264;
const WORDS: usize = NAME_BYTES / 8;

/// The longest database name.
pub(super) const MAX_DATABASE: usize = 63;
/// The longest user name.
pub(super) const MAX_USER: usize = 127;

shared_struct! {
    /// One name: `kind | length of the first part << 8 | length of the second << 24`, then the bytes of both.
    pub(super) struct Name {
        head: AtomicU64,
        bytes: [AtomicU64; WORDS],
    }
}

/// What is limited. The name is that of the database entry, the user, `host:port`, the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit<'a> {
    /// Server connections of a database entry: max_db_connections.
    Database(&'a str),
    /// Server connections of a user: max_user_connections.
    User(&'a str),
    /// Server connections to a PostgreSQL host: max_host_connections.
    Host(&'a str),
    /// Clients of a database entry: max_db_client_connections.
    DatabaseClients(&'a str),
    /// Clients of a user: max_user_client_connections.
    UserClients(&'a str),
    /// Cancel requests on their way to a peer: its pool_size. The name is its peer_id.
    Peer(&'a str),
}

/// A name as it lies in shared memory.
pub(super) struct Key {
    head: u64,
    bytes: [u64; WORDS],
    used: usize,
}

impl Key {
    /// `None` when the name is too long.
    pub(super) fn pool(database: &str, user: &str) -> Option<Self> {
        (database.len() <= MAX_DATABASE && user.len() <= MAX_USER).then(|| Self::new(0, database, user)).flatten()
    }

    /// `None` when the name is too long.
    pub(super) fn limit(limit: Limit<'_>) -> Option<Self> {
        let (kind, name) = match limit {
            Limit::Database(name) => (1, name),
            Limit::User(name) => (2, name),
            Limit::Host(name) => (3, name),
            Limit::DatabaseClients(name) => (4, name),
            Limit::UserClients(name) => (5, name),
            Limit::Peer(name) => (6, name),
        };
        Self::new(kind, name, "")
    }

    /// The name of another region's entry. `None` when it is too long.
    pub(super) fn of_parts(kind: u8, first: &str, second: &str) -> Option<Self> {
        Self::new(u64::from(kind), first, second)
    }

    fn new(kind: u64, first: &str, second: &str) -> Option<Self> {
        let mut text = [0; NAME_BYTES];
        let len = first.len() + second.len();
        text.get_mut(..first.len())?.copy_from_slice(first.as_bytes());
        text.get_mut(first.len()..len)?.copy_from_slice(second.as_bytes());
        let mut bytes = [0; WORDS];
        for (word, chunk) in bytes.iter_mut().zip(text.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*chunk);
        }
        let head = kind | ((first.len() as u64) << 8) | ((second.len() as u64) << 24);
        Some(Self { head, bytes, used: len.div_ceil(8) })
    }

    /// 32 bits that tell most names apart without looking at them.
    fn tag(&self) -> u64 {
        let state = self.bytes[..self.used].iter().fold(hash(START, &self.head.to_le_bytes()), |s, w| hash(s, &w.to_le_bytes()));
        (state ^ (state >> 32)) & 0xffff_ffff
    }
}

impl Name {
    fn write(&self, key: &Key) {
        for (word, value) in self.bytes.iter().zip(&key.bytes[..key.used]) {
            word.store(*value, Ordering::Relaxed);
        }
        self.head.store(key.head, Ordering::Release);
    }

    fn is(&self, key: &Key) -> bool {
        self.head.load(Ordering::Acquire) == key.head
            && self.bytes.iter().zip(&key.bytes[..key.used]).all(|(word, value)| word.load(Ordering::Relaxed) == *value)
    }

    fn read(&self) -> Option<(u8, String, String)> {
        let head = self.head.load(Ordering::Acquire);
        let (first, second) = ((head >> 8) as usize & 0xffff, (head >> 24) as usize & 0xffff);
        let text: Vec<u8> = self.bytes.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
        let part = |range| text.get(range).map(|part: &[u8]| String::from_utf8_lossy(part).into_owned());
        Some((head as u8, part(0..first)?, part(first..first + second)?))
    }
}

impl Region {
    /// The index of `key` in `entries`, entered if it was not there. `None` when there is no room.
    pub(super) fn find_or_append(&self, entries: &[AtomicU64], key: &Key) -> Option<usize> {
        let tag = key.tag();
        let mut written = None;
        for (index, entry) in entries.iter().enumerate() {
            let mut value = entry.load(Ordering::Acquire);
            if value == 0 {
                let place = match written {
                    Some(place) => place,
                    None => *written.insert(self.write_name(key)?),
                };
                match entry.compare_exchange(0, ((place + 1) << 32) | tag, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => return Some(index),
                    Err(quicker) => value = quicker,
                }
            }
            if value & 0xffff_ffff == tag && self.name_of(value).is_some_and(|name| name.is(key)) {
                return Some(index);
            }
        }
        None
    }

    /// Kind and parts of the name entered at `index`.
    pub(super) fn name_at(&self, entries: &[AtomicU64], index: usize) -> Option<(u8, String, String)> {
        self.name_of(entries.get(index)?.load(Ordering::Acquire))?.read()
    }

    fn name_of(&self, entry: u64) -> Option<&Name> {
        self.names.get((entry >> 32).checked_sub(1)? as usize)
    }

    fn write_name(&self, key: &Key) -> Option<u64> {
        let fits = |used: u64| (used < self.names.len() as u64).then_some(used + 1);
        let place = self.names_used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).ok()?;
        self.names.get(place as usize)?.write(key);
        Some(place)
    }
}

/// How many entries are filled: they are filled in order.
pub(super) fn entered(entries: &[AtomicU64]) -> usize {
    entries.iter().take_while(|entry| entry.load(Ordering::Acquire) != 0).count()
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ids::{LimitId, PoolId};
    use crate::shm::Shm;
    use std::collections::HashMap;

    #[test]
    fn a_name_is_the_same_in_every_mapping() {
        let (shm, fd) = Shm::create().unwrap();
        let other = Shm::open(std::os::fd::AsFd::as_fd(&fd)).unwrap();
        assert_eq!(
            (shm.pool("d", "u"), other.pool("d", "u"), other.pool("du", "")),
            (Some(PoolId(0)), Some(PoolId(0)), Some(PoolId(1)))
        );
        assert_eq!((other.pool("d", "ü"), shm.pool("", "du")), (Some(PoolId(2)), Some(PoolId(3))));
        assert_eq!(shm.pool_names(PoolId(2)), Some(("d".to_owned(), "ü".to_owned())));
        assert_eq!(shm.pool_names(PoolId(3)), Some((String::new(), "du".to_owned())));
        assert_eq!((shm.pool_names(PoolId(4)), shm.pool_names(PoolId(u16::MAX))), (None, None));
        assert_eq!(other.pools().collect::<Vec<_>>(), [0, 1, 2, 3].map(PoolId));
    }

    #[test]
    fn the_same_name_under_another_limit_is_another() {
        let shm = Shm::create().unwrap().0;
        let limits = [
            Limit::Database("x"),
            Limit::User("x"),
            Limit::Host("x"),
            Limit::DatabaseClients("x"),
            Limit::UserClients("x"),
            Limit::Peer("x"),
        ];
        for _ in 0..2 {
            for (index, limit) in limits.into_iter().enumerate() {
                assert_eq!(shm.limit(limit), Some(LimitId(index as u16)));
            }
        }
    }

    #[test]
    fn names_have_a_length_at_most() {
        let shm = Shm::create().unwrap().0;
        let long = "x".repeat(300);
        assert!(shm.pool(&long[..63], &long[..127]).is_some());
        assert!(shm.pool(&long[..64], "u").is_none() && shm.pool("d", &long[..128]).is_none());
        assert!(shm.limit(Limit::Host(&long[..264])).is_some() && shm.limit(Limit::Host(&long[..265])).is_none());
        assert_eq!(shm.pool_names(PoolId(0)), Some((long[..63].to_owned(), long[..127].to_owned())));
    }

    #[test]
    fn a_full_directory_finds_what_it_has() {
        let shm = Shm::create().unwrap().0;
        for index in 0..4096 {
            assert_eq!(shm.pool("d", &index.to_string()), Some(PoolId(index)));
        }
        assert_eq!((shm.pool("d", "one more"), shm.pool("d", "4095")), (None, Some(PoolId(4095))));
    }

    #[test]
    fn threads_that_race_agree() {
        let shm = Shm::create().unwrap().0;
        let answers: Vec<HashMap<String, PoolId>> = std::thread::scope(|scope| {
            let racer = |start: usize| {
                let shm = shm.clone();
                scope.spawn(move || {
                    let names = (0..300).map(|n| ((n * 7 + start * 100) % 300).to_string());
                    names.map(|name| (name.clone(), shm.pool("d", &name).unwrap())).collect()
                })
            };
            (0..4).map(racer).collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(answers.iter().all(|answer| *answer == answers[0]));
        assert_eq!(shm.pools().count(), 300);
        for (name, id) in &answers[0] {
            assert_eq!(shm.pool_names(*id), Some(("d".to_owned(), name.clone())));
        }
    }
}
