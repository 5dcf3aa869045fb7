//! Prepared statements of clients, and which server connection holds which.
//!
//! A statement is known by a hash of where it is asked for ([`Scope`]), its text, its parameter types and the epoch of the text, and its name on
//! the server is made of that hash: so a name means the same on every connection and in every worker, and a connection that is lent can say what it holds. A
//! client's own names map to statements; the text is kept once per worker as long as a client refers to it. A statement that a server
//! refuses because a table has changed is retired: the next epoch of its text begins, in all workers.

use super::description::{Described, Description};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use shared::shm::Shm;
use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

/// SHA-256, cut to 128 bits, so that no client can make two texts share a name.
fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    let mut hash = [0; 16];
    hash.copy_from_slice(&hasher.finalize()[..16]);
    hash
}

/// Where a text means what it means: the database, and what decides there which tables its names lead to. What is learned of a statement in
/// one scope says nothing about the same text in another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Scope([u8; 16]);

impl Scope {
    /// The scope of an entry's clients with these values of search_path and role.
    pub(crate) fn new(database: &str, search_path: &str, role: &str) -> Self {
        Self(digest(&[database.as_bytes(), b"\0", search_path.as_bytes(), b"\0", role.as_bytes()]))
    }
}

/// The hash of a statement's scope, text and parameter types, and of the epoch if it is not the first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(crate) struct StatementId(pub(crate) [u8; 16]);

/// `pgfleet_` and the hash in hex.
pub(crate) const NAME_BYTES: usize = 8 + 32;

impl StatementId {
    fn new(text: [u8; 16], epoch: u32) -> Self {
        if epoch == 0 { Self(text) } else { Self(digest(&[&text, &epoch.to_be_bytes()])) }
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
    /// The hash of `identity` and its scope.
    pub(super) text: [u8; 16],
    pub(super) epoch: u32,
    /// What clients have been told of it, since one has asked.
    pub(super) description: OnceCell<Description>,
}

impl Statement {
    /// Whether who was told of one can go by the other.
    pub(super) fn agrees(&self, other: &Statement) -> bool {
        self.description.get().zip(other.description.get()).is_none_or(|(mine, theirs)| mine.agrees(theirs))
    }
}

/// Which epoch a text is in.
pub(crate) trait Epochs {
    fn epoch(&self, text: &[u8; 16]) -> u32;
    /// Begins the next one, if `seen` is still the current one.
    fn retire(&self, text: &[u8; 16], seen: u32);
}

impl Epochs for Shm {
    fn epoch(&self, text: &[u8; 16]) -> u32 {
        self.statement_epochs().get(text)
    }

    fn retire(&self, text: &[u8; 16], seen: u32) {
        self.statement_epochs().retire(text, seen);
    }
}

/// Epochs of one process alone.
impl Epochs for RefCell<FxHashMap<[u8; 16], u32>> {
    fn epoch(&self, text: &[u8; 16]) -> u32 {
        self.borrow().get(text).copied().unwrap_or(0)
    }

    fn retire(&self, text: &[u8; 16], seen: u32) {
        if self.epoch(text) == seen {
            self.borrow_mut().insert(*text, seen + 1);
        }
    }
}

/// Epochs of several workers in one process.
#[cfg(test)]
impl<T: Epochs> Epochs for Rc<T> {
    fn epoch(&self, text: &[u8; 16]) -> u32 {
        (**self).epoch(text)
    }

    fn retire(&self, text: &[u8; 16], seen: u32) {
        (**self).retire(text, seen);
    }
}

/// All statements of this worker's clients.
pub(crate) struct Registry {
    statements: FxHashMap<StatementId, Rc<Statement>>,
    epochs: Box<dyn Epochs>,
    sweep_at: usize,
}

/// With epochs of its own.
impl Default for Registry {
    fn default() -> Self {
        Self::new(RefCell::<FxHashMap<[u8; 16], u32>>::default())
    }
}

impl Registry {
    pub(crate) fn new(epochs: impl Epochs + 'static) -> Self {
        Self { statements: FxHashMap::default(), epochs: Box::new(epochs), sweep_at: 0 }
    }

    /// The statement of this text and these types.
    pub(crate) fn intern(&mut self, scope: Scope, identity: &[u8]) -> Rc<Statement> {
        self.at_present(digest(&[&scope.0, identity]), identity)
    }

    fn at_present(&mut self, text: [u8; 16], identity: &[u8]) -> Rc<Statement> {
        self.of_epoch(text, self.epochs.epoch(&text), identity)
    }

    /// The statement that this text was, or is, in that epoch.
    pub(super) fn of_epoch(&mut self, text: [u8; 16], epoch: u32, identity: &[u8]) -> Rc<Statement> {
        let id = StatementId::new(text, epoch);
        if let Some(statement) = self.statements.get(&id) {
            return Rc::clone(statement);
        }
        if self.statements.len() >= self.sweep_at {
            self.statements.retain(|_, statement| Rc::strong_count(statement) > 1);
            self.sweep_at = (self.statements.len() * 2).max(1024);
        }
        let (server_name, description) = (id.server_name(), OnceCell::new());
        let statement = Rc::new(Statement { id, server_name, identity: identity.into(), text, epoch, description });
        self.statements.insert(id, Rc::clone(&statement));
        statement
    }

    /// How many there are, and the bytes of them and of their texts.
    pub(crate) fn memory(&self) -> (usize, usize) {
        let bytes = self.statements.values().map(|statement| size_of::<Statement>() + statement.identity.len());
        (self.statements.len(), bytes.sum())
    }

    /// A server has refused this statement: its text is another one from now on.
    pub(crate) fn retire(&mut self, id: StatementId) {
        if let Some(statement) = self.statements.get(&id) {
            self.epochs.retire(&statement.text, statement.epoch);
        }
    }

    /// What a statement's text means by now: itself, unless it has been retired.
    pub(super) fn current(&mut self, statement: &Rc<Statement>) -> Rc<Statement> {
        if self.epochs.epoch(&statement.text) == statement.epoch {
            return Rc::clone(statement);
        }
        self.at_present(statement.text, &statement.identity)
    }

    /// A server has described a statement. If it was described otherwise before, it is retired, and this is what takes its place.
    pub(crate) fn described(&mut self, described: &Described) -> Option<Rc<Statement>> {
        let statement = Rc::clone(self.statements.get(&described.id)?);
        if statement.description.get_or_init(|| described.description.clone()).agrees(&described.description) {
            return None;
        }
        let new = self.renew(&statement);
        let _ = new.description.set(described.description.clone());
        Some(new)
    }

    /// Retires a statement; gives the one that takes its place.
    pub(crate) fn renew(&mut self, statement: &Statement) -> Rc<Statement> {
        self.epochs.retire(&statement.text, statement.epoch);
        self.at_present(statement.text, &statement.identity)
    }
}

/// A client's names. Empty until it prepares something, and then behind a pointer: most clients never do.
#[derive(Default)]
pub(crate) struct ClientStatements(pub(super) Option<Box<Names>>);

#[derive(Default)]
pub(super) struct Names {
    pub(super) by_name: FxHashMap<Box<[u8]>, Entry>,
    /// Names given up by a Close, or the unnamed statement by a Parse, that may yet turn out to be ignored by an error before it.
    pub(super) closed: Vec<(u32, Box<[u8]>, Entry)>,
    pub(super) serial: u32,
}

pub(super) struct Entry {
    pub(super) serial: u32,
    pub(super) statement: Rc<Statement>,
}

impl ClientStatements {
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |names| names.by_name.len())
    }

    /// The client has prepared nothing that it has not closed.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<&Rc<Statement>> {
        self.0.as_ref()?.by_name.get(name).map(|entry| &entry.statement)
    }

    /// The serial of a name that is there.
    pub(crate) fn serial(&self, name: &[u8]) -> Option<u32> {
        self.0.as_ref()?.by_name.get(name).map(|entry| entry.serial)
    }

    /// Adds a name that is not there; the serial undoes it.
    pub(crate) fn add(&mut self, name: &[u8], statement: Rc<Statement>) -> u32 {
        let names = self.0.get_or_insert_default();
        names.serial = names.serial.wrapping_add(1);
        names.by_name.insert(name.into(), Entry { serial: names.serial, statement });
        names.serial
    }

    /// As `add`, for the unnamed statement: it takes the place of the one before, which an undo brings back.
    pub(crate) fn replace_unnamed(&mut self, statement: Rc<Statement>) -> u32 {
        let before = self.0.as_mut().and_then(|names| names.by_name.remove_entry(&b""[..]));
        let serial = self.add(b"", statement);
        if let (Some((name, entry)), Some(names)) = (before, &mut self.0) {
            names.closed.push((serial, name, entry));
        }
        serial
    }

    /// The Parse that added `serial` was answered.
    pub(crate) fn confirm_add(&mut self, serial: u32) {
        self.confirm_close(serial);
    }

    /// Every name of `old` means `new` from now on.
    pub(crate) fn renew(&mut self, old: StatementId, new: &Rc<Statement>) {
        let Some(names) = &mut self.0 else { return };
        for entry in names.by_name.values_mut().filter(|entry| entry.statement.id == old) {
            entry.statement = Rc::clone(new);
        }
    }

    /// The Parse that added `serial` has failed or was ignored: the name is free again.
    pub(crate) fn undo_add(&mut self, serial: u32) {
        if let Some(names) = &mut self.0 {
            names.by_name.retain(|_, entry| entry.serial != serial);
        }
        self.undo_close(serial);
    }

    /// Gives up a name, which need not be there; the serial confirms or undoes it.
    pub(crate) fn close(&mut self, name: &[u8]) -> u32 {
        let Some(names) = &mut self.0 else { return 0 };
        let Some((name, entry)) = names.by_name.remove_entry(name) else { return 0 };
        names.serial = names.serial.wrapping_add(1);
        names.closed.push((names.serial, name, entry));
        names.serial
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
    held: FxHashMap<StatementId, Place>,
    clock: u64,
}

struct Place {
    used: u64,
    /// The server made something else of it than clients were told: nobody may use it.
    spoiled: bool,
}

impl ServerStatements {
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether it holds `id`.
    pub(crate) fn has(&self, id: StatementId) -> bool {
        self.held.get(&id).is_some_and(|place| !place.spoiled)
    }

    /// Whether it holds `id`; if so that is now the one used last.
    pub(crate) fn touch(&mut self, id: StatementId) -> bool {
        self.clock += 1;
        self.held.get_mut(&id).filter(|place| !place.spoiled).map(|place| place.used = self.clock).is_some()
    }

    pub(crate) fn insert(&mut self, id: StatementId) {
        self.clock += 1;
        self.held.insert(id, Place { used: self.clock, spoiled: false });
    }

    /// Whether it was there.
    pub(crate) fn remove(&mut self, id: StatementId) -> bool {
        self.held.remove(&id).is_some()
    }

    /// `id` is there, but not what clients were told.
    pub(crate) fn spoil(&mut self, id: StatementId) {
        if let Some(place) = self.held.get_mut(&id) {
            *place = Place { used: 0, spoiled: true };
        }
    }

    /// Takes out the one used least recently, if there are more than `limit`; and whether it was spoiled.
    pub(crate) fn evict(&mut self, limit: usize) -> Option<(StatementId, bool)> {
        if self.held.len() <= limit {
            return None;
        }
        let (&id, _) = self.held.iter().min_by_key(|(_, place)| place.used)?;
        self.held.remove(&id).map(|place| (id, place.spoiled))
    }

    pub(crate) fn clear(&mut self) {
        self.held.clear();
    }

    /// All that can be used, the least recently used first.
    pub(crate) fn in_order(&self) -> Vec<[u8; 16]> {
        let usable = self.held.iter().filter(|(_, place)| !place.spoiled);
        let mut all: Vec<_> = usable.map(|(id, place)| (place.used, id.0)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, id)| id).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn id(identity: &[u8]) -> StatementId {
        StatementId::new(digest(&[identity]), 0)
    }

    #[test]
    fn the_name_is_the_hash() {
        let name = id(b"select 1\0\0\0").server_name();
        assert!(name.starts_with(b"pgfleet_") && name.len() < 64);
        assert_eq!(name, id(b"select 1\0\0\0").server_name());
        assert_ne!(name, id(b"select 1\0\0\x01\0\0\0\x17").server_name());
    }

    #[test]
    fn a_retired_text_is_another_statement() {
        let (mut registry, mut other) = (Registry::default(), Registry::default());
        let first = registry.intern(Scope::default(), b"select 1\0\0\0");
        registry.retire(first.id);
        registry.retire(first.id);
        let second = registry.intern(Scope::default(), b"select 1\0\0\0");
        assert_ne!(first.server_name, second.server_name);
        // Two workers that have seen as many failures mean the same.
        let theirs = other.intern(Scope::default(), b"select 1\0\0\0");
        assert_eq!(theirs.id, first.id);
        let elsewhere = other.intern(Scope::new("b", "", ""), b"select 1\0\0\0");
        assert_ne!(elsewhere.id, theirs.id, "another database has other tables");
        assert_eq!(other.renew(&theirs).id, second.id);
    }

    #[test]
    fn a_failed_parse_frees_the_name_and_an_ignored_close_gives_it_back() {
        let (mut registry, mut client) = (Registry::default(), ClientStatements::default());
        let statement = registry.intern(Scope::default(), b"select 1\0\0\0");
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
        let ids: Vec<_> = (0_u8..3).map(|n| id(&[n])).collect();
        for &id in &ids {
            server.insert(id);
        }
        assert!(server.touch(ids[0]));
        assert_eq!(server.evict(3), None);
        assert_eq!(server.evict(2), Some((ids[1], false)));
        server.spoil(ids[0]);
        assert!(!server.touch(ids[0]) && server.in_order() == [ids[2].0]);
        assert_eq!(server.evict(1), Some((ids[0], true)));
        assert_eq!(server.in_order(), [ids[2].0]);
    }
}
