//! The worker table: who runs on each slot and how it fares.
//!
//! The supervisor writes who; the worker writes its heartbeat and counts. Nothing here decides about seats.

use super::atomic::{AtomicU32, AtomicU64, Ordering};
use super::layout::Region;
use crate::ids::{Incarnation, Owner, Slot};
use crate::sys::map::shared_struct;

shared_struct! {
    /// One slot.
    #[repr(align(64))]
    pub(super) struct WorkerCell {
        pid: AtomicU32,
        incarnation: AtomicU32,
        state: AtomicU32,
        clients: AtomicU32,
        servers: AtomicU32,
        connections: AtomicU32,
        heartbeat: AtomicU64,
        started_at: AtomicU64,
    }
}

/// What a worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// No process runs on the slot.
    Vacant,
    /// Started, not ready yet.
    Starting,
    /// Polls its listeners.
    Serving,
    /// Accepts nothing more and ends when its sessions have.
    Draining,
}

/// A slot of the worker table as it was when it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerRow {
    /// Its process, 0 for none.
    pub pid: u32,
    /// Its life.
    pub incarnation: Incarnation,
    /// What it does.
    pub state: WorkerState,
    /// When its loop last turned (monotonic µs).
    pub heartbeat_us: u64,
    /// Clients it has.
    pub clients: u32,
    /// Server connections it has.
    pub servers: u32,
    /// When it was started (µs since 1970).
    pub started_at_us: u64,
}

/// All slots.
#[derive(Clone, Copy)]
pub struct WorkerTable<'a>(pub(super) &'a Region);

impl WorkerTable<'_> {
    /// An incarnation that no process of this fleet has had. `None` after four thousand million of them.
    pub fn next_incarnation(&self) -> Option<Incarnation> {
        let next = |last: u32| last.max(Incarnation::SUPERVISOR.0).checked_add(1);
        let last = self.0.header.next_incarnation.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).ok()?;
        next(last).map(Incarnation)
    }

    /// Enters a worker that is being started: no counts yet, and its heartbeat is now.
    pub fn start(&self, owner: Owner, pid: u32, started_at_us: u64, now_us: u64) {
        let Some(cell) = self.cell(owner.slot) else { return };
        cell.clients.store(0, Ordering::Relaxed);
        cell.servers.store(0, Ordering::Relaxed);
        cell.heartbeat.store(now_us, Ordering::Relaxed);
        cell.started_at.store(started_at_us, Ordering::Relaxed);
        cell.pid.store(pid, Ordering::Relaxed);
        cell.incarnation.store(owner.incarnation.0, Ordering::Release);
        self.set_state(owner.slot, WorkerState::Starting);
    }

    /// Sets the process of a slot: known only after it was started.
    pub fn set_pid(&self, slot: Slot, pid: u32) {
        if let Some(cell) = self.cell(slot) {
            cell.pid.store(pid, Ordering::Release);
        }
    }

    /// Says that no process runs on the slot.
    pub fn vacate(&self, slot: Slot) {
        let Some(cell) = self.cell(slot) else { return };
        self.set_state(slot, WorkerState::Vacant);
        for word in [&cell.pid, &cell.clients, &cell.servers, &cell.incarnation] {
            word.store(0, Ordering::Release);
        }
    }

    /// Sets what the slot's worker does.
    pub fn set_state(&self, slot: Slot, state: WorkerState) {
        let value = match state {
            WorkerState::Vacant => 0,
            WorkerState::Starting => 1,
            WorkerState::Serving => 2,
            WorkerState::Draining => 3,
        };
        if let Some(cell) = self.cell(slot) {
            cell.state.store(value, Ordering::Release);
        }
    }

    /// The worker's loop has turned.
    pub fn beat(&self, slot: Slot, now_us: u64) {
        if let Some(cell) = self.cell(slot) {
            cell.heartbeat.store(now_us, Ordering::Release);
        }
    }

    /// Counts one more connection of the slot's; returns how many there have been, modulo 2^32. Not begun anew with a new worker: connections
    /// that were passed on outlive the one that gave them their number.
    pub fn count_connection(&self, slot: Slot) -> u32 {
        self.cell(slot).map_or(0, |cell| cell.connections.fetch_add(1, Ordering::Relaxed).wrapping_add(1))
    }

    /// Sets how many clients and server connections the slot's worker has.
    pub fn set_counts(&self, slot: Slot, clients: u32, servers: u32) {
        if let Some(cell) = self.cell(slot) {
            cell.clients.store(clients, Ordering::Relaxed);
            cell.servers.store(servers, Ordering::Relaxed);
        }
    }

    /// The slot's row; a slot that does not exist is vacant.
    pub fn get(&self, slot: Slot) -> WorkerRow {
        let read = |word: fn(&WorkerCell) -> &AtomicU32| self.cell(slot).map_or(0, |cell| word(cell).load(Ordering::Acquire));
        let read_us = |word: fn(&WorkerCell) -> &AtomicU64| self.cell(slot).map_or(0, |cell| word(cell).load(Ordering::Acquire));
        WorkerRow {
            pid: read(|c| &c.pid),
            incarnation: Incarnation(read(|c| &c.incarnation)),
            state: match read(|c| &c.state) {
                1 => WorkerState::Starting,
                2 => WorkerState::Serving,
                3 => WorkerState::Draining,
                _ => WorkerState::Vacant,
            },
            heartbeat_us: read_us(|c| &c.heartbeat),
            clients: read(|c| &c.clients),
            servers: read(|c| &c.servers),
            started_at_us: read_us(|c| &c.started_at),
        }
    }

    fn cell(&self, slot: Slot) -> Option<&WorkerCell> {
        self.0.workers.get(slot.index())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::shm::Shm;

    #[test]
    fn a_slot_tells_of_its_worker() {
        let shm = Shm::create().unwrap().0;
        let table = shm.workers();
        let (slot, vacant) = (Slot(63), table.get(Slot(63)));
        assert_eq!((vacant.state, vacant.pid, vacant.incarnation), (WorkerState::Vacant, 0, Incarnation(0)));
        let incarnation = table.next_incarnation().unwrap();
        assert_ne!(incarnation, Incarnation::SUPERVISOR);
        assert_ne!(table.next_incarnation().unwrap(), incarnation);
        table.start(Owner { slot, incarnation }, 4711, 5, 6);
        assert_eq!(table.get(slot).state, WorkerState::Starting);
        table.set_state(slot, WorkerState::Serving);
        table.beat(slot, 7);
        table.set_counts(slot, 8, 9);
        let expected = WorkerRow {
            pid: 4711,
            incarnation,
            state: WorkerState::Serving,
            heartbeat_us: 7,
            clients: 8,
            servers: 9,
            started_at_us: 5,
        };
        assert_eq!(table.get(slot), expected);
        table.vacate(slot);
        assert_eq!((table.get(slot).state, table.get(slot).pid, table.get(slot).clients), (WorkerState::Vacant, 0, 0));
        assert_eq!(table.get(Slot(64)).state, WorkerState::Vacant);
    }
}
