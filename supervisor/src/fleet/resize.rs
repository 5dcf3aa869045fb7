//! `workers` has another value: slots join at the upper end, or leave from it.
//!
//! A slot that joins is ready for messages before its worker starts, so the other workers hear of it first. A worker that leaves is told so when
//! another accepts from its listeners ([`super::listening`]); it serves the clients that it has until they have gone, and exits. If it dies instead,
//! it has no successor. When the number grows again while it leaves, it stays.

use super::event::{Action, Ended, Holdings, Pulse};
use super::listening::Listening;
use super::lives::{Life, SlotState};
use super::{Fleet, shutdown::Phase};
use log::Level;
use shared::control::ToWorker;
use shared::ids::Slot;

impl Fleet {
    /// Whether the slot is to have a worker.
    pub(super) fn stays(&self, slot: Slot) -> bool {
        self.members.contains(&slot)
    }

    /// A configuration with this number of workers is in force. A fleet that is on its way out does not change any more.
    pub(super) fn resize(&mut self, wanted: usize) {
        if let Some(drain) = &mut self.drain {
            // New listeners would let clients in.
            drain.workers = Some(wanted);
            return;
        }
        if wanted == self.wanted || !matches!(self.phase, Phase::Running) {
            return;
        }
        self.log(Level::Info, format!("workers: {wanted} instead of {}", self.wanted));
        self.wanted = wanted;
        self.choose_members();
        for slot in self.all() {
            if !self.stays(slot) && self.slots[slot.index()].process().is_none() {
                self.slots[slot.index()] = SlotState::default();
            }
        }
        self.keep_who_leaves();
        self.settle_listening();
        for slot in self.members.clone() {
            if matches!(self.slots[slot.index()].life, Life::Vacant { start_at: None }) {
                self.spawn(slot);
            }
        }
        self.dismiss();
    }

    /// A worker that was on its way out stays if one of its slot is wanted.
    pub(super) fn keep_who_leaves(&mut self) {
        for slot in self.members.clone() {
            if let Some(process) = self.slots[slot.index()].process_mut().filter(|process| process.leaving) {
                (process.leaving, process.leaving_logged) = (false, false);
                self.send(slot, ToWorker::Stay);
            }
        }
    }

    /// Slots leave from the highest down and join from the lowest up; one that a restart is about to fill stays out of it.
    pub(super) fn choose_members(&mut self) {
        let filled = self.successor();
        let count = |fleet: &Self| fleet.members.len() - usize::from(filled.is_some());
        while count(self) > self.wanted
            && let Some(highest) = self.members.iter().rev().find(|slot| Some(**slot) != filled).copied()
        {
            self.members.remove(&highest);
        }
        let mut free = self.all().filter(|slot| !self.members.contains(slot)).collect::<Vec<_>>().into_iter();
        while count(self) < self.wanted
            && let Some(lowest) = free.next()
        {
            self.members.insert(lowest);
        }
        let missing = self.wanted - count(self);
        if missing == 0 {
            return;
        }
        let first = self.slots.len();
        self.out.push(Action::Grow);
        self.broadcast(&ToWorker::Inboxes { first: first as u8 });
        for slot in (first..first + missing).map(|slot| Slot(slot as u8)) {
            self.slots.push(SlotState::default());
            self.listening.push(Listening::at(slot));
            self.members.insert(slot);
        }
    }

    /// Tells the workers that are to leave so, as soon as others accept from their listeners.
    pub(super) fn dismiss(&mut self) {
        if self.holds_strangers() {
            return;
        }
        for slot in self.all().filter(|&slot| !self.stays(slot)).collect::<Vec<_>>() {
            let relieved = self.is_relieved(slot);
            if let Some(process) = self.slots[slot.index()].process_mut()
                && relieved
                && !std::mem::replace(&mut process.leaving, true)
            {
                self.send(slot, ToWorker::Leave);
            }
        }
    }

    /// Says once what a leaving worker waits for. One that waits for nothing has left soon.
    pub(super) fn tick_leaving(&mut self, pulses: &[Pulse]) {
        for (slot, pulse) in self.all().zip(pulses) {
            let clients = pulse.holds.clients;
            if let Some(process) = self.slots[slot.index()].process_mut()
                && process.leaving
                && clients > 0
                && !std::mem::replace(&mut process.leaving_logged, true)
            {
                let (pid, limit) = (process.pid, self.time_to_leave(slot));
                self.log(Level::Info, format!("worker {slot} (pid {pid}) leaves when its clients have gone: {clients}{limit}"));
            }
        }
    }

    /// A worker has ended that was to leave. One that had left before it heard that it may stay has its successor at once.
    pub(super) fn left(&mut self, slot: Slot, pid: u32, ended: Ended, lost: Holdings) {
        self.slots[slot.index()] = SlotState::default();
        if ended.is_orderly(lost) {
            self.log(Level::Info, format!("worker {slot} (pid {pid}) has left"));
        } else {
            let lost = lost.mourned();
            self.log(Level::Warn, format!("worker {slot} (pid {pid}) ended while it was leaving: {ended}{lost}"));
        }
        if self.stays(slot) {
            self.slots[slot.index()].life = Life::Vacant { start_at: Some(self.now) };
        }
    }
}
