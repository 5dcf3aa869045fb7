//! The worker table: who runs on each slot and how it fares.
//!
//! The supervisor writes who; the worker writes its heartbeat and counts. Nothing here decides about seats.
//!
//! `arriving` is the one word that others write: who sends a slot a client counts it there first, and the slot's worker takes it off when it
//! has it. That count is a hint and may be wrong when somebody dies in between, so it is put right whenever the inbox is found empty.

use super::atomic::{AtomicU32, AtomicU64, Ordering};
use super::layout::Region;
use crate::balance::Candidate;
use crate::ids::{Incarnation, Owner, Slot};
use crate::sys::map::shared_struct;

/// A worker whose heart has not beaten for this long (µs) hangs; it beats at least ten times a second. All that is free goes to its clients as
/// long as it is not known to hang, since they have waited longest.
const HEARTBEAT_AGE_US: u64 = 300_000;

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
        arriving: AtomicU32,
        full: AtomicU32,
        handed_over: AtomicU32,
        unused: AtomicU32,
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
    /// Clients on their way to it from other workers.
    pub arriving: u32,
    /// It has no descriptors left for clients.
    pub full: bool,
    /// Clients that it has accepted and passed on.
    pub handed_over: u32,
    /// When it was started (µs since 1970).
    pub started_at_us: u64,
}

impl WorkerRow {
    /// Whether its heart has beaten of late: from one that hangs nothing is asked, and to it nothing is sent.
    pub fn is_responsive(&self, now_us: u64) -> bool {
        now_us.saturating_sub(self.heartbeat_us) < HEARTBEAT_AGE_US
    }
}

/// All slots.
#[derive(Clone, Copy)]
pub struct WorkerTable<'a>(pub(super) &'a Region);

impl WorkerTable<'_> {
    /// The last that there has been.
    pub fn last_incarnation(&self) -> Incarnation {
        Incarnation(self.0.header.next_incarnation.load(Ordering::Acquire).max(Incarnation::SUPERVISOR.0))
    }

    /// Enters a worker that is being started: no counts yet, and its heartbeat is now.
    pub fn start(&self, owner: Owner, pid: u32, started_at_us: u64, now_us: u64) {
        let Some(cell) = self.cell(owner.slot) else { return };
        for word in [&cell.clients, &cell.servers, &cell.arriving, &cell.full, &cell.handed_over] {
            word.store(0, Ordering::Relaxed);
        }
        cell.heartbeat.store(now_us, Ordering::Relaxed);
        cell.started_at.store(started_at_us, Ordering::Relaxed);
        cell.pid.store(pid, Ordering::Relaxed);
        cell.incarnation.store(owner.incarnation.0, Ordering::Release);
        self.0.header.next_incarnation.fetch_max(owner.incarnation.0, Ordering::AcqRel);
        self.set_state(owner.slot, WorkerState::Starting);
    }

    /// Says that no process runs on the slot.
    pub fn vacate(&self, slot: Slot) {
        let Some(cell) = self.cell(slot) else { return };
        self.set_state(slot, WorkerState::Vacant);
        for word in [&cell.pid, &cell.clients, &cell.servers, &cell.arriving, &cell.full, &cell.handed_over, &cell.incarnation] {
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

    /// How many connections of the slot's have been counted.
    pub(super) fn connections(self, slot: Slot) -> u32 {
        self.cell(slot).map_or(0, |cell| cell.connections.load(Ordering::Acquire))
    }

    /// Goes on from what another region counted of the slot.
    pub(super) fn count_on(self, slot: Slot, connections: u32, handed_over: u32) {
        if let Some(cell) = self.cell(slot) {
            cell.connections.store(connections, Ordering::Relaxed);
            cell.handed_over.store(handed_over, Ordering::Relaxed);
        }
    }

    /// Whether the slot's worker is one of another build: it began in the region that this one was made from, and maps that.
    pub fn is_stranger(&self, slot: Slot) -> bool {
        let last = self.0.header.last_stranger.load(Ordering::Acquire);
        self.cell(slot).is_some_and(|cell| (1..=last).contains(&cell.incarnation.load(Ordering::Acquire)))
    }

    /// What a worker of another build has said of itself, since it does not see this region.
    pub fn beat_for(&self, stranger: Owner, now_us: u64, clients: u32, servers: u32) {
        if self.is_stranger(stranger.slot) && self.get(stranger.slot).incarnation == stranger.incarnation {
            self.beat(stranger.slot, now_us);
            self.set_clients(stranger.slot, clients, true);
            self.set_servers(stranger.slot, servers);
        }
    }

    /// Sets how many server connections the slot's worker has.
    pub fn set_servers(&self, slot: Slot, servers: u32) {
        if let Some(cell) = self.cell(slot) {
            cell.servers.store(servers, Ordering::Relaxed);
        }
    }

    /// Sets how many clients the slot's worker has, and whether it can take no more.
    pub fn set_clients(&self, slot: Slot, clients: u32, full: bool) {
        if let Some(cell) = self.cell(slot) {
            cell.clients.store(clients, Ordering::Relaxed);
            cell.full.store(u32::from(full), Ordering::Relaxed);
        }
    }

    /// The slot as one that may be given a client: its worker serves, has room, and its heart has beaten of late.
    pub fn candidate(&self, slot: Slot, now_us: u64) -> Option<Candidate> {
        let row = self.get(slot);
        let may = row.state == WorkerState::Serving && !row.full && row.is_responsive(now_us);
        may.then_some(Candidate { slot, clients: row.clients, arriving: row.arriving })
    }

    /// Counts one client as on its way to a candidate. False: somebody else sends one there at the same moment, so look again.
    pub fn announce(&self, to: &Candidate) -> bool {
        let next = to.arriving.saturating_add(1);
        self.cell(to.slot)
            .is_some_and(|cell| cell.arriving.compare_exchange(to.arriving, next, Ordering::AcqRel, Ordering::Relaxed).is_ok())
    }

    /// A client on its way to `slot` is there, or was not sent after all.
    pub fn arrived(&self, slot: Slot) {
        if let Some(cell) = self.cell(slot) {
            let less = |count: u32| count.checked_sub(1);
            let _ = cell.arriving.fetch_update(Ordering::AcqRel, Ordering::Relaxed, less);
        }
    }

    /// The slot's worker has found its inbox empty: what is still counted as arriving never will, or is counted too early by a moment.
    pub fn all_arrived(&self, slot: Slot) {
        if let Some(cell) = self.cell(slot)
            && cell.arriving.load(Ordering::Relaxed) > 0
        {
            cell.arriving.store(0, Ordering::Relaxed);
        }
    }

    /// The slot's worker has passed a client on to another.
    pub fn count_hand_over(&self, slot: Slot) {
        if let Some(cell) = self.cell(slot) {
            cell.handed_over.fetch_add(1, Ordering::Relaxed);
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
            arriving: read(|c| &c.arriving),
            full: read(|c| &c.full) > 0,
            handed_over: read(|c| &c.handed_over),
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
        assert_eq!(table.last_incarnation(), Incarnation::SUPERVISOR);
        let incarnation = Incarnation(7);
        table.start(Owner { slot, incarnation }, 4711, 5, 6);
        assert_eq!((table.get(slot).state, table.last_incarnation()), (WorkerState::Starting, incarnation));
        table.set_state(slot, WorkerState::Serving);
        table.beat(slot, 7);
        table.set_clients(slot, 8, false);
        table.set_servers(slot, 9);
        let expected = WorkerRow {
            pid: 4711,
            incarnation,
            state: WorkerState::Serving,
            heartbeat_us: 7,
            clients: 8,
            servers: 9,
            arriving: 0,
            full: false,
            handed_over: 0,
            started_at_us: 5,
        };
        assert_eq!(table.get(slot), expected);
        table.vacate(slot);
        assert_eq!((table.get(slot).state, table.get(slot).pid, table.get(slot).clients), (WorkerState::Vacant, 0, 0));
        assert_eq!(table.get(Slot(64)).state, WorkerState::Vacant);
    }

    #[test]
    fn a_client_on_its_way_is_counted_until_it_is_there() {
        let shm = Shm::create().unwrap().0;
        let (table, slot) = (shm.workers(), Slot(2));
        table.start(Owner { slot, incarnation: Incarnation(7) }, 4711, 0, 0);
        assert_eq!(table.candidate(slot, 1), None, "it does not serve yet");
        table.set_state(slot, WorkerState::Serving);
        let candidate = table.candidate(slot, 1).unwrap();
        assert!(table.announce(&candidate));
        assert!(!table.announce(&candidate), "what was seen is true no more");
        assert!(table.announce(&table.candidate(slot, 1).unwrap()));
        assert_eq!(table.get(slot).arriving, 2);
        table.set_clients(slot, 1, false);
        table.arrived(slot);
        assert_eq!(table.candidate(slot, 1), Some(Candidate { slot, clients: 1, arriving: 1 }));
        table.all_arrived(slot);
        table.arrived(slot);
        assert_eq!(table.get(slot).arriving, 0, "it never falls below nothing");
    }

    #[test]
    fn nobody_is_given_clients_who_hangs_or_is_full_or_leaves() {
        let shm = Shm::create().unwrap().0;
        let (table, slot) = (shm.workers(), Slot(0));
        table.start(Owner { slot, incarnation: Incarnation(7) }, 4711, 0, 10);
        table.set_state(slot, WorkerState::Serving);
        assert!(table.candidate(slot, 10 + HEARTBEAT_AGE_US - 1).is_some());
        assert_eq!(table.candidate(slot, 10 + HEARTBEAT_AGE_US), None);
        table.set_clients(slot, 5, true);
        assert_eq!(table.candidate(slot, 11), None);
        table.set_clients(slot, 5, false);
        table.set_state(slot, WorkerState::Draining);
        assert_eq!(table.candidate(slot, 11), None);
        assert_eq!(table.candidate(Slot(1), 11), None);
    }
}
