//! Workers are replaced one by one, and no client notices.
//!
//! The successor starts on a slot that is vacant, so that for a while there is one worker more, and everything that workers do among themselves, lending,
//! handing over, waiting, holds between the two as between any. When it is ready, the predecessor leaves as it would when the fleet shrinks: its listeners
//! and its sessions go to others, most of them to the new one, which has the fewest. Then the vacated slot is the next successor's.
//!
//! A successor that dies or hangs before it is ready ends the restart, and those that were not replaced go on.

use super::event::{Action, Answer, AskId, Failure, Moment};
use super::listening::Listening;
use super::lives::{Life, SlotState};
use super::{Fleet, shutdown::Phase};
use log::Level;
use serde::{Deserialize, Serialize};
use shared::control::ToWorker;
use shared::ids::{MAX_WORKERS, Slot};
use std::collections::VecDeque;
use std::time::Duration;

/// How long a successor may take to be ready.
const PATIENCE: Duration = Duration::from_secs(10);

/// A restart under way.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Restart {
    /// Who asked; `None`: it is part of an upgrade.
    ask: Option<AskId>,
    /// Whose workers are still to be replaced.
    pending: VecDeque<Slot>,
    step: Option<Step>,
    replaced: usize,
}

/// One worker's replacement.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Step {
    old: Slot,
    new: Slot,
    since: Moment,
    /// The new one is ready, the old one leaves.
    ready: bool,
}

impl Fleet {
    pub(super) fn ask_restart(&mut self, ask: AskId) {
        if self.upgrade.is_some() {
            return self.answer(ask, Answer::Failed(Failure::Upgrading));
        }
        if self.restart.is_some() {
            return self.answer(ask, Answer::Failed(Failure::Restarting));
        }
        self.log(Level::Info, "RESTART command issued");
        self.begin_restart(Some(ask));
    }

    pub(super) fn begin_restart(&mut self, ask: Option<AskId>) {
        let pending = self.members.iter().copied().collect();
        self.restart = Some(Restart { ask, pending, step: None, replaced: 0 });
        self.next_restart();
    }

    /// Begins with the next worker, or is done.
    fn next_restart(&mut self) {
        let Some(restart) = &mut self.restart else { return };
        let (members, slots) = (&self.members, &self.slots);
        let old = std::iter::from_fn(|| restart.pending.pop_front());
        // One that is started anew anyway, or leaves, needs no other successor.
        let old = old.into_iter().find(|slot| members.contains(slot) && slots[slot.index()].process().is_some());
        let Some(old) = old else {
            let (ask, replaced) = (restart.ask, restart.replaced);
            self.restart = None;
            self.log(Level::Info, format!("workers restarted: {replaced}"));
            return match ask {
                Some(ask) => self.answer(ask, Answer::Done),
                None => self.upgraded(),
            };
        };
        let vacant =
            |slot: &Slot| !self.members.contains(slot) && matches!(self.slots[slot.index()].life, Life::Vacant { start_at: None });
        let Some(new) = self.all().find(vacant) else {
            if let Some(restart) = &mut self.restart {
                restart.pending.push_front(old);
            }
            return self.add_slot();
        };
        let since = self.now;
        if let Some(restart) = &mut self.restart {
            restart.step = Some(Step { old, new, since, ready: false });
        }
        self.members.insert(new);
        self.spawn(new);
    }

    /// One more slot than workers. It has no listeners: its worker is given those of the one that leaves.
    fn add_slot(&mut self) {
        if self.slots.len() < MAX_WORKERS {
            self.out.push(Action::AddSlot);
        } else {
            self.stop_restart(format!("there is no slot beyond {MAX_WORKERS} for a successor"));
        }
    }

    pub(super) fn slot_added(&mut self, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => {
                let slot = Slot(self.slots.len() as u8);
                self.broadcast(&ToWorker::Inboxes { first: slot.0 });
                self.slots.push(SlotState::default());
                self.listening.push(Listening::none(slot));
                self.next_restart();
            }
            Err(error) => self.stop_restart(format!("there is no slot for a successor: {error}")),
        }
    }

    fn step(&self) -> Option<Step> {
        self.restart.as_ref()?.step
    }

    /// The slot of a successor whose predecessor has not been told to leave.
    pub(super) fn successor(&self) -> Option<Slot> {
        self.step().filter(|step| !step.ready).map(|step| step.new)
    }

    pub(super) fn is_successor_starting(&self, slot: Slot) -> bool {
        matches!(self.phase, Phase::Running) && self.successor() == Some(slot)
    }

    /// A worker is ready: if it is a successor, its predecessor leaves.
    pub(super) fn successor_ready(&mut self, slot: Slot) {
        if !self.is_successor_starting(slot) {
            return;
        }
        self.canary_ready();
        let Some(step) = self.restart.as_mut().and_then(|restart| restart.step.as_mut()) else { return };
        step.ready = true;
        let old = step.old;
        self.members.remove(&old);
        self.settle_listening();
        self.dismiss();
    }

    /// A process has ended that was to be replaced.
    pub(super) fn predecessor_left(&mut self, slot: Slot) {
        if self.step().is_none_or(|step| step.old != slot) {
            return;
        }
        if let Some(restart) = &mut self.restart
            && restart.step.take_if(|step| step.ready).is_some()
        {
            restart.replaced += 1;
            self.next_restart();
        }
    }

    /// A successor will never be ready.
    pub(super) fn successor_failed(&mut self, slot: Slot, why: String) {
        self.members.remove(&slot);
        self.slots[slot.index()] = SlotState::default();
        self.stop_restart(why);
    }

    /// Workers that were not replaced go on.
    pub(super) fn stop_restart(&mut self, why: String) {
        let Some(Restart { ask, replaced, pending, step, .. }) = self.restart.take() else { return };
        let left = pending.len() + usize::from(step.is_some());
        let Some(ask) = ask else { return self.upgrade_stopped(why, replaced, left) };
        self.log(Level::Error, format!("RESTART stopped: {why}; workers restarted: {replaced}, as they were: {left}"));
        self.answer(ask, Answer::Failed(Failure::Restart(why)));
    }

    /// Whoever asked wants no more of it: the worker that is being replaced is the last.
    pub(super) fn restart_cancelled(&mut self, ask: AskId) {
        if self.restart.as_ref().is_some_and(|restart| restart.ask == Some(ask)) {
            self.replace_no_more();
            self.log(Level::Info, "RESTART was cancelled; the other workers stay");
            self.answer(ask, Answer::Failed(Failure::Cancelled));
        }
    }

    /// The worker that is being replaced is the last.
    pub(super) fn replace_no_more(&mut self) {
        if let Some(restart) = &mut self.restart {
            restart.pending.clear();
        }
    }

    pub(super) fn tick_restart(&mut self) {
        if let Some(slot) = self.successor()
            && self.step().is_some_and(|step| self.now.saturating_sub(step.since) > PATIENCE)
        {
            self.kill(slot, "is not ready in time");
        }
    }
}
