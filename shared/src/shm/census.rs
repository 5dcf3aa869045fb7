//! Who has which seats, written down for a region of another layout, to which a binary upgrade moves the fleet.
//!
//! It is taken when workers only give seats up any more. So the region made from it, in which the same owners have the same seats, is a shadow of the
//! old one: it never has fewer taken than there are. Of the new build's workers each takes over what it is sent, seat by seat; what a worker of the old build
//! gives up is freed here when the supervisor hears of it, and all that it still has when it is buried. Pools, limits and seats keep their numbers, since messages
//! between the two builds name them.

use super::atomic::Ordering;
use super::directory::Key;
use super::seat::{SeatState, SeatWord, Word};
use super::server::Reference;
use super::table::Words;
use super::tickets::TicketKey;
use super::worker::WorkerState;
use super::{PoolState, Shm};
use crate::ids::{Incarnation, LimitId, MAX_WORKERS, Owner, PoolId, SeatIndex, Slot};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Connections get no number twice: so many a worker of the old build may give after it was counted.
const NUMBERS_LEFT: u32 = 1 << 20;

/// All that a region says and another must. There are secrets in it.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Census {
    last_incarnation: u32,
    workers: Vec<WorkerEntry>,
    /// In the order of their numbers.
    pools: Vec<PoolEntry>,
    limits: Vec<LimitEntry>,
    clients: Vec<ClientEntry>,
    statement_epochs: Epochs,
    /// The newest, and the one before it.
    ticket_keys: Option<[KeyEntry; 2]>,
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct WorkerEntry {
    slot: u8,
    /// 0: the slot is vacant.
    incarnation: u32,
    pid: u32,
    clients: u32,
    servers: u32,
    connections: u32,
    handed_over: u32,
    heartbeat_us: u64,
    started_at_us: u64,
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct PoolEntry {
    database: String,
    user: String,
    login_failed_at: Option<u64>,
    unproven_at: Option<u64>,
    seats: Vec<ServerEntry>,
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct LimitEntry {
    /// As in the directory.
    kind: u8,
    name: String,
    seats: Vec<Seat>,
}

/// A seat that is taken.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Seat {
    index: u32,
    owner: Owner,
    /// Its owner has died, its backend may live.
    #[serde(default)]
    draining: bool,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct ServerEntry {
    seat: Seat,
    /// The seats of the same connection in limits of the database, the user and the host.
    #[serde(default)]
    others: [Option<(LimitId, SeatIndex)>; 3],
    #[serde(default)]
    pid: u32,
    #[serde(default)]
    secret: u32,
    #[serde(default)]
    leaving: bool,
}

#[derive(Clone, PartialEq, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
struct ClientEntry {
    #[zeroize(skip)]
    seat: Seat,
    /// As a number, without the bits that are not part of it; 0: none yet.
    #[serde(default)]
    cancel_key: u64,
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Epochs {
    words: u32,
    counts: Vec<(u32, u32)>,
}

#[derive(Clone, PartialEq, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
struct KeyEntry {
    name: [u8; 16],
    secret: [u8; 32],
}

impl From<&KeyEntry> for TicketKey {
    fn from(KeyEntry { name, secret }: &KeyEntry) -> Self {
        Self { name: *name, secret: *secret }
    }
}

/// Why there can be no region for a census.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CensusError {
    /// This build has room for fewer.
    #[error("shared memory has no room for so many {0}")]
    NoRoom(&'static str),
    /// A name is there twice, or is none.
    #[error("the census says nothing sensible about {0}")]
    Malformed(&'static str),
}

impl Shm {
    /// Writes down who has which seats. Whoever calls sees to it that no seat is taken or moves meanwhile; such as are given up may still be in it.
    pub fn census(&self) -> Census {
        let region = self.region();
        let rows: Vec<WorkerEntry> = (0..MAX_WORKERS as u8).map(|slot| self.worker_entry(Slot(slot))).collect();
        let slots: HashMap<u32, u8> =
            rows.iter().filter(|row| row.incarnation > 0).map(|row| (row.incarnation, row.slot)).collect();
        let seat = |index: usize, word: &SeatWord| taken(index, word.read(), &slots);
        let top = region.client_cursor.top.load(Ordering::Acquire) as usize;
        // Counted first: a list that grows leaves copies of what was in it.
        let mut clients = Vec::with_capacity(self.clients().in_use());
        let seats =
            region.clients.iter().take(top).enumerate().filter_map(|(index, place)| Some((seat(index, &place.word)?, place)));
        clients.extend(
            seats
                .take(clients.capacity())
                .map(|(seat, place)| ClientEntry { seat, cancel_key: super::client::key_of(place.secret.load(Ordering::Acquire)) }),
        );
        let given = region.header.next_incarnation.load(Ordering::Acquire);
        let counts = region.statement_epochs.iter().map(|word| word.load(Ordering::Acquire)).zip(0..);
        Census {
            last_incarnation: rows.iter().map(|row| row.incarnation).fold(given, u32::max),
            workers: rows,
            pools: self.pools().map(|pool| self.pool_entry(pool, &slots)).collect(),
            limits: self.limits().filter_map(|limit| self.limit_entry(limit, &slots)).collect(),
            clients,
            statement_epochs: Epochs {
                words: region.statement_epochs.len() as u32,
                counts: counts.filter(|(count, _)| *count > 0).map(|(count, word)| (word, count)).collect(),
            },
            ticket_keys: self.ticket_keys().read().map(|keys| keys.map(|key| KeyEntry { name: key.name, secret: key.secret })),
        }
    }

    fn worker_entry(&self, slot: Slot) -> WorkerEntry {
        let row = self.workers().get(slot);
        WorkerEntry {
            slot: slot.0,
            incarnation: if row.state == WorkerState::Vacant { 0 } else { row.incarnation.0 },
            pid: row.pid,
            clients: row.clients,
            servers: row.servers,
            connections: self.workers().connections(slot),
            handed_over: row.handed_over,
            heartbeat_us: row.heartbeat_us,
            started_at_us: row.started_at_us,
        }
    }

    fn pool_entry(&self, pool: PoolId, slots: &HashMap<u32, u8>) -> PoolEntry {
        let (database, user) = self.pool_names(pool).unwrap_or_default();
        let state = self.pool_state(pool);
        let server = |index: usize| {
            let (word, cell) = self.server_seat(pool, SeatIndex(index as u32))?;
            Some(ServerEntry {
                seat: taken(index, word.read(), slots)?,
                others: super::server::references(cell),
                pid: cell.pid.load(Ordering::Acquire),
                secret: cell.secret.load(Ordering::Relaxed),
                leaving: cell.leaving.load(Ordering::Relaxed) != 0,
            })
        };
        PoolEntry {
            database,
            user,
            login_failed_at: state.login_failed_at(),
            unproven_at: state.unproven_at(),
            seats: (0..self.pool_seats(pool).len()).filter_map(server).collect(),
        }
    }

    fn limit_entry(&self, limit: LimitId, slots: &HashMap<u32, u8>) -> Option<LimitEntry> {
        let region = self.region();
        let (kind, name, _) = region.name_at(&region.limit_names, usize::from(limit.0))?;
        let table = self.seats(limit);
        let seat = |index: usize| taken(index, table.word(index)?.read(), slots);
        Some(LimitEntry { kind, name, seats: (0..table.len()).filter_map(seat).collect() })
    }

    /// Fills a region that nobody else maps yet.
    pub(super) fn fill(&self, census: &Census) -> Result<(), CensusError> {
        let header = &self.region().header;
        header.next_incarnation.store(census.last_incarnation, Ordering::Relaxed);
        header.last_stranger.store(census.last_incarnation, Ordering::Relaxed);
        for row in &census.workers {
            self.fill_worker(row)?;
        }
        for (index, entry) in census.limits.iter().enumerate() {
            self.fill_limit(index, entry)?;
        }
        for (index, entry) in census.pools.iter().enumerate() {
            self.fill_pool(index, entry)?;
        }
        for client in &census.clients {
            let place = self.region().clients.get(client.seat.index as usize).ok_or(CensusError::NoRoom("clients"))?;
            place.secret.store(super::client::secret_of(client.cancel_key), Ordering::Relaxed);
            client.seat.put(&place.word);
        }
        note_taken(&self.clients(), census.clients.iter().map(|client| client.seat.index));
        self.fill_epochs(&census.statement_epochs);
        for key in census.ticket_keys.iter().flatten().rev() {
            self.ticket_keys().add(&key.into());
        }
        Ok(())
    }

    fn fill_worker(&self, row: &WorkerEntry) -> Result<(), CensusError> {
        let (slot, workers) = (Slot(row.slot), self.workers());
        if slot.index() >= MAX_WORKERS {
            return Err(CensusError::NoRoom("workers"));
        }
        if row.incarnation > 0 {
            let owner = Owner { slot, incarnation: Incarnation(row.incarnation) };
            workers.start(owner, row.pid, row.started_at_us, row.heartbeat_us);
            // Nobody is to lend it anything or to send it clients.
            workers.set_state(slot, WorkerState::Draining);
            workers.set_clients(slot, row.clients, true);
            workers.set_servers(slot, row.servers);
        }
        workers.count_on(slot, row.connections.wrapping_add(NUMBERS_LEFT), row.handed_over);
        Ok(())
    }

    fn fill_limit(&self, index: usize, entry: &LimitEntry) -> Result<(), CensusError> {
        let region = self.region();
        let key = Key::of_parts(entry.kind, &entry.name, "").ok_or(CensusError::Malformed("a limit's name"))?;
        let place = region.find_or_append(&region.limit_names, &key).ok_or(CensusError::NoRoom("limits"))?;
        if place != index {
            return Err(CensusError::Malformed("the order of limits"));
        }
        let table = self.seats(LimitId(index as u16));
        for seat in &entry.seats {
            seat.put(word_of(&table, seat.index).ok_or(CensusError::NoRoom("seats of limits"))?);
        }
        note_taken(&table, entry.seats.iter().map(|seat| seat.index));
        Ok(())
    }

    fn fill_pool(&self, index: usize, entry: &PoolEntry) -> Result<(), CensusError> {
        let id = self.pool(&entry.database, &entry.user).ok_or(CensusError::NoRoom("pools"))?;
        if usize::from(id.0) != index {
            return Err(CensusError::Malformed("the order of pools"));
        }
        let state: &PoolState = self.pool_state(id);
        state.set_login_failed_at(entry.login_failed_at.unwrap_or(0));
        state.set_unproven_at(entry.unproven_at.unwrap_or(0));
        let table = self.pool_seats(id);
        for server in &entry.seats {
            let no_room = CensusError::NoRoom("seats of pools");
            word_of(&table, server.seat.index).ok_or(no_room)?;
            let place = self.server_seat(id, SeatIndex(server.seat.index));
            let (word, cell) = place.ok_or(CensusError::NoRoom("seats of pools"))?;
            for (reference, other) in cell.references.iter().zip(&server.others) {
                reference.store(other.map_or(0, |(limit, seat)| Reference::new(limit, seat).0), Ordering::Relaxed);
            }
            cell.pid.store(server.pid, Ordering::Relaxed);
            cell.secret.store(server.secret, Ordering::Relaxed);
            // Nobody will say here what its worker does with it.
            cell.busy.store(1, Ordering::Relaxed);
            cell.leaving.store(u32::from(server.leaving), Ordering::Relaxed);
            server.seat.put(word);
        }
        note_taken(&table, entry.seats.iter().map(|server| server.seat.index));
        Ok(())
    }

    /// Where the texts share words in another way, all of them go as far as the furthest: none is called by a name again that was given up.
    fn fill_epochs(&self, epochs: &Epochs) {
        let words = &self.region().statement_epochs;
        if epochs.words as usize == words.len() {
            for (word, count) in &epochs.counts {
                if let Some(word) = words.get(*word as usize) {
                    word.store(*count, Ordering::Relaxed);
                }
            }
        } else if let Some(most) = epochs.counts.iter().map(|(_, count)| *count).max() {
            for word in words {
                word.store(most, Ordering::Relaxed);
            }
        }
    }
}

impl Seat {
    fn put(&self, word: &SeatWord) {
        word.follow(if self.draining { SeatState::Draining } else { SeatState::Held }, self.owner);
    }
}

/// What the census says of a word. One in transit is its sender's still.
fn taken(index: usize, word: Word, slots: &HashMap<u32, u8>) -> Option<Seat> {
    let mut owner = word.owner();
    let draining = match word.state() {
        SeatState::Free => return None,
        SeatState::Held => false,
        SeatState::Transit => {
            owner.slot = slots.get(&owner.incarnation.0).map_or(owner.slot, |slot| Slot(*slot));
            false
        }
        SeatState::Draining => true,
    };
    Some(Seat { index: index as u32, owner, draining })
}

/// The word of a seat in a table that has as much memory as it needs.
fn word_of<T: Words>(table: &T, index: u32) -> Option<&SeatWord> {
    while table.word(index as usize).is_none() {
        if !table.grow() {
            return None;
        }
    }
    table.word(index as usize)
}

/// How far a table whose words were put there has been used.
fn note_taken(table: &impl Words, seats: impl Iterator<Item = u32>) {
    let top = seats.max().map_or(0, |highest| highest + 1);
    table.cursor().top.store(top, Ordering::Relaxed);
    table.cursor().next.store(top, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
