//! Prepared statements of clients, and which server connection holds which.
//!
//! A statement is known by a hash of its text and parameter types, and its name on the server is made of that hash: so a name means
//! the same on every connection and in every worker, and a connection that is lent can say what it holds. A client's own names map to
//! statements; the text is kept once per worker as long as a client refers to it.

use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};
use std::rc::Rc;

/// The hash of a statement's text and parameter types: SHA-256, cut to 128 bits, so that no client can make two texts share a name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct StatementId(pub(crate) [u8; 16]);

/// `pgfleet_` and the hash in hex.
pub(crate) const NAME_BYTES: usize = 8 + 32;

impl StatementId {
    pub(crate) fn of(identity: &[u8]) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&Sha256::digest(identity)[..16]);
        Self(id)
    }

    /// The statement's name on every server.
    pub(crate) fn server_name(self) -> [u8; NAME_BYTES] {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut name = *b"pgfleet_00000000000000000000000000000000";
        for (pair, byte) in name[8..].chunks_exact_mut(2).zip(self.0) {
            pair[0] = HEX[usize::from(byte >> 4)];
            pair[1] = HEX[usize::from(byte & 15)];
        }
        name
    }
}

/// A statement that a client of this worker has prepared.
#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) id: StatementId,
    pub(crate) server_name: [u8; NAME_BYTES],
    /// Query text with its zero byte, parameter count and types.
    pub(crate) identity: Box<[u8]>,
}

/// All statements of this worker's clients.
#[derive(Default)]
pub(crate) struct Registry {
    statements: FxHashMap<StatementId, Rc<Statement>>,
    sweep_at: usize,
}

impl Registry {
    /// The statement of this text and these types.
    pub(crate) fn intern(&mut self, identity: &[u8]) -> Rc<Statement> {
        let id = StatementId::of(identity);
        if let Some(statement) = self.statements.get(&id) {
            return Rc::clone(statement);
        }
        if self.statements.len() >= self.sweep_at {
            self.statements.retain(|_, statement| Rc::strong_count(statement) > 1);
            self.sweep_at = (self.statements.len() * 2).max(1024);
        }
        let statement = Rc::new(Statement { id, server_name: id.server_name(), identity: identity.into() });
        self.statements.insert(id, Rc::clone(&statement));
        statement
    }
}

/// A client's names. Empty until it prepares something, and then behind a pointer: most clients never do.
#[derive(Default)]
pub(crate) struct ClientStatements(Option<Box<Names>>);

#[derive(Default)]
struct Names {
    by_name: FxHashMap<Box<[u8]>, Entry>,
    /// Names given up by a Close that may yet turn out to be ignored by an error before it.
    closed: Vec<(u32, Box<[u8]>, Entry)>,
    serial: u32,
}

struct Entry {
    serial: u32,
    statement: Rc<Statement>,
}

impl ClientStatements {
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |names| names.by_name.len())
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<&Rc<Statement>> {
        self.0.as_ref()?.by_name.get(name).map(|entry| &entry.statement)
    }

    /// Adds a name that is not there; the serial undoes it.
    pub(crate) fn add(&mut self, name: &[u8], statement: Rc<Statement>) -> u32 {
        let names = self.0.get_or_insert_default();
        names.serial = names.serial.wrapping_add(1);
        names.by_name.insert(name.into(), Entry { serial: names.serial, statement });
        names.serial
    }

    /// The Parse that added `serial` has failed or was ignored: the name is free again.
    pub(crate) fn undo_add(&mut self, serial: u32) {
        if let Some(names) = &mut self.0 {
            names.by_name.retain(|_, entry| entry.serial != serial);
        }
    }

    /// Gives up a name, which need not be there; the serial confirms or undoes it.
    pub(crate) fn close(&mut self, name: &[u8]) -> u32 {
        let Some(names) = &mut self.0 else { return 0 };
        let Some((name, entry)) = names.by_name.remove_entry(name) else { return 0 };
        let serial = entry.serial;
        names.closed.push((serial, name, entry));
        serial
    }

    /// The Close was answered.
    pub(crate) fn confirm_close(&mut self, serial: u32) {
        if let Some(names) = &mut self.0 {
            names.closed.retain(|(closed, _, _)| *closed != serial);
        }
    }

    /// The Close was ignored because of an error before it: the name is the client's again, unless it has been taken anew.
    pub(crate) fn undo_close(&mut self, serial: u32) {
        let Some(names) = &mut self.0 else { return };
        if let Some(at) = names.closed.iter().position(|(closed, _, _)| *closed == serial) {
            let (_, name, entry) = names.closed.swap_remove(at);
            names.by_name.entry(name).or_insert(entry);
        }
    }

    /// DISCARD ALL or DEALLOCATE ALL.
    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }
}

/// What one server connection holds.
#[derive(Default)]
pub(crate) struct ServerStatements {
    held: FxHashMap<StatementId, u64>,
    clock: u64,
}

impl ServerStatements {
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether it holds `id`; if so that is now the one used last.
    pub(crate) fn touch(&mut self, id: StatementId) -> bool {
        self.clock += 1;
        self.held.get_mut(&id).map(|used| *used = self.clock).is_some()
    }

    pub(crate) fn insert(&mut self, id: StatementId) {
        self.clock += 1;
        self.held.insert(id, self.clock);
    }

    pub(crate) fn remove(&mut self, id: StatementId) {
        self.held.remove(&id);
    }

    /// Takes out the one used least recently, if there are more than `limit`.
    pub(crate) fn evict(&mut self, limit: usize) -> Option<StatementId> {
        if self.held.len() <= limit {
            return None;
        }
        let (&id, _) = self.held.iter().min_by_key(|(_, used)| **used)?;
        self.held.remove(&id);
        Some(id)
    }

    pub(crate) fn clear(&mut self) {
        self.held.clear();
    }

    /// All of them, the least recently used first.
    pub(crate) fn in_order(&self) -> Vec<[u8; 16]> {
        let mut all: Vec<_> = self.held.iter().map(|(id, used)| (*used, id.0)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, id)| id).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_hash() {
        let id = StatementId::of(b"select 1\0\0\0");
        let name = id.server_name();
        assert!(name.starts_with(b"pgfleet_") && name.len() < 64);
        assert_eq!(name, StatementId::of(b"select 1\0\0\0").server_name());
        assert_ne!(name, StatementId::of(b"select 1\0\0\x01\0\0\0\x17").server_name());
    }

    #[test]
    fn a_failed_parse_frees_the_name_and_an_ignored_close_gives_it_back() {
        let (mut registry, mut client) = (Registry::default(), ClientStatements::default());
        let statement = registry.intern(b"select 1\0\0\0");
        let serial = client.add(b"s", Rc::clone(&statement));
        client.undo_add(serial);
        assert!(client.get(b"s").is_none());
        client.add(b"s", statement);
        let closed = client.close(b"s");
        assert!(client.get(b"s").is_none());
        client.undo_close(closed);
        assert!(client.get(b"s").is_some());
        let closed = client.close(b"s");
        client.confirm_close(closed);
        client.undo_close(closed);
        assert!(client.get(b"s").is_none());
    }

    #[test]
    fn the_least_recently_used_is_evicted() {
        let mut server = ServerStatements::default();
        let ids: Vec<_> = (0_u8..3).map(|n| StatementId::of(&[n])).collect();
        for &id in &ids {
            server.insert(id);
        }
        assert!(server.touch(ids[0]));
        assert_eq!(server.evict(3), None);
        assert_eq!(server.evict(2), Some(ids[1]));
        assert_eq!(server.in_order(), [ids[2].0, ids[0].0]);
    }
}
