//! Workers are replaced one by one, and no client notices.
//!
//! The successor starts on a slot that is vacant, so that for a while there is one worker more, and everything that workers do among themselves, lending,
//! handing over, waiting, holds between the two as between any. When it is ready, the predecessor leaves as it would when the fleet shrinks: its listeners
//! and its sessions go to others, most of them to the new one, which has the fewest. Then the vacated slot is the next successor's.
//!
//! Sessions that cannot move, those of a paused pool in a transaction say, keep their worker for as long as they need, or up to a deadline: then they are cut off.
//!
//! A successor that dies or hangs before it is ready ends the restart, and those that were not replaced go on.

use super::event::{Action, Answer, AskId, Failure, Holdings, Moment};
use super::listening::Listening;
use super::lives::{Life, SlotState};
use super::{Fleet, shutdown::Phase};
use log::Level;
use serde::{Deserialize, Serialize};
use shared::control::{Parting, ToWorker};
use shared::ids::{MAX_WORKERS, Slot};
use std::collections::VecDeque;
use std::time::Duration;

/// How long a worker may take to be gone when its clients have been cut off.
const LAST_WORDS: Duration = Duration::from_secs(10);

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
    /// How long the sessions that cannot move may hold up each worker; `None`: for ever.
    #[serde(default)]
    deadline: Option<Duration>,
    /// Clients that were cut off because of it.
    #[serde(default)]
    cut_off: u32,
}

/// One worker's replacement.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Step {
    old: Slot,
    new: Slot,
    /// The new one starts, or the old one leaves, since then.
    since: Moment,
    /// The new one is ready, the old one leaves.
    ready: bool,
}

impl Fleet {
    pub(super) fn ask_restart(&mut self, ask: AskId, deadline: Option<Duration>) {
        if self.upgrade.is_some() {
            return self.answer(ask, Answer::Failed(Failure::Upgrading));
        }
        if self.restart.is_some() {
            return self.answer(ask, Answer::Failed(Failure::Restarting));
        }
        let limit = deadline.map_or(String::new(), |limit| format!(", deadline {} s", limit.as_secs()));
        self.log(Level::Info, format!("RESTART command issued{limit}"));
        self.begin_restart(Some(ask), deadline);
    }

    pub(super) fn begin_restart(&mut self, ask: Option<AskId>, deadline: Option<Duration>) {
        let pending = self.members.iter().copied().collect();
        self.restart = Some(Restart { ask, pending, step: None, replaced: 0, deadline, cut_off: 0 });
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
            let (ask, replaced, cut_off) = (restart.ask, restart.replaced, restart.cut_off);
            self.restart = None;
            let lost = if cut_off > 0 { format!("; clients cut off at the deadline: {cut_off}") } else { String::new() };
            self.log(Level::Info, format!("workers restarted: {replaced}{lost}"));
            return match ask {
                Some(ask) => self.answer(ask, Answer::Restarted(cut_off)),
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
                self.recruit();
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
        if self.canary_leads(slot) {
            return;
        }
        let now = self.now;
        let Some(step) = self.restart.as_mut().and_then(|restart| restart.step.as_mut()) else { return };
        (step.ready, step.since) = (true, now);
        let old = step.old;
        self.members.remove(&old);
        self.settle_listening();
        self.dismiss();
    }

    /// A process has ended that was to be replaced.
    pub(super) fn predecessor_left(&mut self, slot: Slot, lost: Holdings) {
        self.cut_off(slot, lost.clients);
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
        self.tick_deadline();
    }

    /// Cuts off what is left in a worker that is being replaced when its time is over. Sessions come and go meanwhile: those that could not move
    /// because they were logging in can by now, and others have come back.
    fn tick_deadline(&mut self) {
        let Some((old, late)) = self.late() else { return };
        if self.slots[old.index()].process().is_none_or(|process| !process.leaving) {
            return;
        }
        if late >= LAST_WORDS {
            return self.kill(old, "has not left at the deadline");
        }
        self.send(old, ToWorker::Part(Parting::All));
    }

    /// The worker whose time to leave is over, and for how long.
    fn late(&self) -> Option<(Slot, Duration)> {
        let step = self.step().filter(|step| step.ready)?;
        let deadline = self.restart.as_ref()?.deadline?;
        Some((step.old, self.now.checked_sub(step.since + deadline)?))
    }

    /// A worker has sent clients away: at the deadline, if its time is over.
    pub(super) fn cut_off(&mut self, slot: Slot, clients: u32) {
        if self.late().is_some_and(|(late, _)| late == slot)
            && let Some(restart) = &mut self.restart
        {
            restart.cut_off += clients;
        }
    }

    /// How long a worker that leaves may take, as the log says it.
    pub(super) fn time_to_leave(&self, slot: Slot) -> String {
        let limit = self.restart.as_ref().filter(|restart| restart.step.is_some_and(|step| step.old == slot));
        limit.and_then(|restart| restart.deadline).map_or(String::new(), |limit| format!("; they have {} s", limit.as_secs()))
    }
}
