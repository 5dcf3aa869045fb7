//! What becomes of a dead worker's seats.
//!
//! PostgreSQL goes on with a dead worker's query, so the seat of a server connection is not free when its worker dies: it becomes
//! draining, the supervisor's, until the backend is gone. The order keeps others from being misled: first the dead worker's waiting bits and idle cells go (nobody
//! gives it anything or asks it), then its clients' seats are freed, then its servers' seats are found.

use super::Shm;
use super::atomic::Ordering;
use super::seat::SeatState;
use super::server::{clear, info, references, server_seats};
use super::table::Words;
use super::worker::WorkerState;
use crate::control::ServerSeats;
use crate::ids::{LimitId, Owner, PoolId, SeatIndex, Slot};
use std::collections::HashSet;

/// A server connection whose worker died: its backend may live on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orphan {
    /// Its seats, now draining.
    pub seats: ServerSeats,
    /// The backend's process and cancel secret. `None`: the worker died before it knew them, and a connection may still be opening.
    pub backend: Option<(u32, u32)>,
    /// Whether a query may be running.
    pub busy: bool,
}

impl Shm {
    /// Clears up after a worker that is known to be dead (its process has been reaped). Afterwards wake those who wait: seats were freed.
    ///
    /// Its connections on their way to another worker are orphans too, unless the receiver accepts them first; those on
    /// their way to it stay their senders', to be taken back with `cancel_lend`. Call it before the slot's next worker is entered in the worker
    /// table: once another incarnation is, the slot's cells are that one's and stay.
    pub fn bury(&self, dead: Owner) -> Vec<Orphan> {
        let row = self.workers().get(dead.slot);
        if row.state == WorkerState::Vacant || row.incarnation == dead.incarnation {
            self.forget(dead.slot);
        }
        self.free_clients(dead);
        let orphans = self.drain_servers(dead);
        self.free_unreferenced(dead);
        orphans
    }

    /// Every draining connection: for a supervisor that was started anew.
    pub fn orphans(&self) -> Vec<Orphan> {
        self.servers().filter_map(|(pool, seat)| self.orphan(pool, seat)).collect()
    }

    /// The orphan's backend is gone: its seats are free. `false`, and nothing happens, when it was none.
    pub fn free_orphan(&self, seats: &ServerSeats) -> bool {
        let Some((word, cell)) = self.server_seat(seats.pool, seats.seat) else { return false };
        if word.read().state() != SeatState::Draining {
            return false;
        }
        self.free_references(cell);
        clear(cell);
        word.follow_free();
        true
    }

    fn forget(&self, slot: Slot) {
        for pool in self.pools() {
            self.pool_state(pool).forget(slot);
        }
        for limit in self.limits() {
            self.limit_state(limit).forget(slot);
        }
    }

    fn free_clients(&self, dead: Owner) {
        let top = self.region().client_cursor.top.load(Ordering::Acquire) as usize;
        for seat in self.region().clients.iter().take(top).filter(|seat| seat.word.read().is_of(dead.incarnation)) {
            seat.secret.store(0, Ordering::Relaxed);
            seat.word.free_of_dead(dead.incarnation);
        }
    }

    fn drain_servers(&self, dead: Owner) -> Vec<Orphan> {
        let mut orphans = Vec::new();
        for (pool, seat) in self.servers() {
            let Some((word, cell)) = self.server_seat(pool, seat) else { continue };
            if word.drain_of_dead(dead.incarnation) {
                self.follow_references(cell, SeatState::Draining, Owner::SUPERVISOR);
                orphans.extend(self.orphan(pool, seat));
            }
        }
        orphans
    }

    /// Frees seats of limits that the dead worker's words hold and no connection refers to: those of its clients, and those it was just taking or leaving.
    /// One that a connection refers to is left alone even here: its receiver has accepted the pool's seat and is about to make the word its own.
    fn free_unreferenced(&self, dead: Owner) {
        let referenced: HashSet<(LimitId, SeatIndex)> = self
            .servers()
            .filter_map(|(pool, seat)| self.server_seat(pool, seat))
            .filter(|(word, _)| !word.read().is_free())
            .flat_map(|(_, cell)| references(cell))
            .flatten()
            .collect();
        for limit in self.limits() {
            let table = self.seats(limit);
            for index in 0..table.len() {
                if !referenced.contains(&(limit, SeatIndex(index as u32)))
                    && let Some(word) = table.word(index)
                {
                    word.free_of_dead(dead.incarnation);
                }
            }
        }
    }

    /// The seats of all pools, free ones too.
    fn servers(&self) -> impl Iterator<Item = (PoolId, SeatIndex)> {
        self.pools().flat_map(|pool| (0..self.pool_seats(pool).len() as u32).map(move |seat| (pool, SeatIndex(seat))))
    }

    fn orphan(&self, pool: PoolId, seat: SeatIndex) -> Option<Orphan> {
        let (word, cell) = self.server_seat(pool, seat)?;
        if word.read().state() != SeatState::Draining {
            return None;
        }
        let beside = info(cell);
        Some(Orphan { seats: server_seats(pool, seat, references(cell)), backend: beside.backend, busy: beside.busy })
    }
}
