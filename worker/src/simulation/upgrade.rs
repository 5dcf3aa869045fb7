//! The fleet moves to a region of another layout while it works, as a binary upgrade has it: workers freeze, a census is taken, new workers start on
//! slots of their own with a region made from it, and the old ones leave.
//!
//! Both builds are this one here; but that each maps its own region, and the messages between them are in the common tongue, is so as it is between two.
//! From the census on the new region is the one that [`super::invariants`] look at: a shadow that is less than the truth is found there at the next step.

use super::Simulation;
use super::fleet::Place;
use super::schedule::Event;
use crate::worker::TICK;
use shared::control::{self, ToWorker, Tongue};
use shared::encoding::{decode_named, encode_named};
use shared::ids::{Owner, Slot};
use shared::shm::{Census, Shm};
use shared::sys::seqpacket;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};

/// An upgrade under way.
#[derive(Default)]
pub(super) struct Upgrade {
    /// Workers of the old build that live.
    old: BTreeSet<u8>,
    /// Those that have not frozen yet, then those of the new build that are not ready yet.
    missing: BTreeSet<u8>,
    leapt: bool,
}

impl Upgrade {
    /// Whether workers are started as at other times.
    pub(super) fn is_over(&self) -> bool {
        self.old.is_empty() && self.missing.is_empty()
    }
}

impl Simulation {
    /// Every worker is to take nothing new any more.
    pub(super) fn upgrade(&mut self) {
        let all_live = self.places.iter().all(|place| place.life.is_some());
        if !all_live || self.is_reloading() || !self.upgrade.is_over() {
            return self.schedule.after(TICK, Event::Trouble(super::scenario::Trouble::Upgrade));
        }
        self.note("upgrade", 0, 0);
        let workers: Vec<Owner> = self.owners().collect();
        let old: BTreeSet<u8> = workers.iter().map(|owner| owner.slot.0).collect();
        self.upgrade = Upgrade { missing: old.clone(), old, leapt: false };
        self.tell(&workers, &ToWorker::Freeze);
    }

    /// Whether a worker that died has a successor: not while the fleet moves.
    pub(super) fn has_successor(&self, slot: Slot) -> bool {
        self.upgrade.is_over() || (self.upgrade.leapt && !self.upgrade.old.contains(&slot.0))
    }

    pub(super) fn is_old(&self, slot: Slot) -> bool {
        self.upgrade.leapt && self.upgrade.old.contains(&slot.0)
    }

    /// A worker has frozen, is ready, or is gone.
    pub(super) fn upgrade_goes_on(&mut self, slot: Slot) {
        if self.upgrade.missing.remove(&slot.0) && self.upgrade.missing.is_empty() {
            if self.upgrade.leapt { self.old_ones_leave() } else { self.leap() }
        }
    }

    /// A worker of the old build is gone.
    pub(super) fn old_one_gone(&mut self, slot: Slot) {
        self.upgrade_goes_on(slot);
        self.upgrade.old.remove(&slot.0);
    }

    /// The new build's supervisor makes its region, and starts its workers.
    fn leap(&mut self) {
        let bytes = encode_named(&[], &self.shm.census()).unwrap();
        let census: Census = decode_named(&bytes).unwrap();
        (self.shm, self.memory) = Shm::from_census(&census).unwrap();
        let first = self.places.len();
        self.note("leap", first as u64, 0);
        for old in 0..first {
            let place = Place::beside(&self.places[old]);
            self.places.push(place);
        }
        let ends: Vec<BorrowedFd<'_>> = self.places[first..].iter().map(|place| place.inbox.sending.as_fd()).collect();
        let inboxes = Tongue::Common.encode(&ToWorker::Inboxes { first: first as u8 }).unwrap();
        for life in self.places.iter().filter_map(|place| place.life.as_ref()) {
            seqpacket::send(life.control.as_fd(), &inboxes, &ends).unwrap();
        }
        self.upgrade.leapt = true;
        self.upgrade.missing = (first..self.places.len()).map(|slot| slot as u8).collect();
        for slot in first..self.places.len() {
            self.schedule.after(TICK / 2, Event::Start(Slot(slot as u8)));
        }
    }

    fn old_ones_leave(&mut self) {
        let old: Vec<Owner> = self.owners().filter(|owner| self.is_old(owner.slot)).collect();
        let new = self.owners().filter(|owner| !self.is_old(owner.slot));
        let slots = new.fold(0, |slots, owner| slots | 1_u64 << owner.slot.0);
        for message in [ToWorker::Strangers { slots }, ToWorker::Leave] {
            let bytes = Tongue::Common.encode(&message).unwrap();
            for owner in &old {
                if let Some(life) = &self.places[owner.slot.index()].life {
                    seqpacket::send(life.control.as_fd(), &bytes, &[]).unwrap();
                }
            }
        }
    }

    /// What a worker of the old build says it has, and that it has closed something, is entered in the new region.
    pub(super) fn stranger_beats(&self, from: Owner, clients: u32, servers: u32) {
        if self.is_old(from.slot) {
            self.shm.workers().beat_for(from, self.schedule.now.as_micros(), clients, servers);
        }
    }

    pub(super) fn stranger_closed(&mut self, from: Owner, seats: &control::ServerSeats) {
        if self.is_old(from.slot) && self.shm.leave_server(from, seats) && self.shm.waiting_beside(Slot::SUPERVISOR, seats) != 0 {
            self.wake_waiters();
        }
    }
}
