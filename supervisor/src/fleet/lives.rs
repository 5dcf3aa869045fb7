//! Slots and the processes on them: start, death, successor.

use super::backoff::Backoff;
use super::event::Ended;
use super::event::{Action, Holdings, Moment, Notice, Survivor, WorkerLine};
use super::{Fleet, shutdown::Phase};
use log::Level;
use serde::{Deserialize, Serialize};
use shared::ids::{Incarnation, Slot};
use std::time::Duration;

/// A slot: what is on it now and how its workers fared.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct SlotState {
    pub(super) life: Life,
    backoff: Backoff,
    started: u32,
}

/// What is on a slot.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Life {
    /// Nothing; at the moment given, if any, a worker is started.
    Vacant { start_at: Option<Moment> },
    /// A process that has not said Ready.
    Starting(Process),
    /// A process that polls its listeners.
    Serving(Process),
}

impl Default for Life {
    fn default() -> Self {
        Self::Vacant { start_at: None }
    }
}

/// A worker's process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Process {
    incarnation: Incarnation,
    pub(super) pid: u32,
    pub(super) since: Moment,
    /// Since when it serves.
    pub(super) ready_at: Option<Moment>,
    /// When its heart has beaten last, if that is too long ago.
    pub(super) silent_since: Option<Moment>,
    killed: bool,
    /// It was told to leave.
    pub(super) leaving: bool,
    /// The log says what it waits for.
    pub(super) leaving_logged: bool,
}

impl Process {
    fn new(incarnation: Incarnation, now: Moment) -> Self {
        Self {
            incarnation,
            pid: 0,
            since: now,
            ready_at: None,
            silent_since: None,
            killed: false,
            leaving: false,
            leaving_logged: false,
        }
    }
}

impl SlotState {
    /// One on which a worker of another supervisor's serves.
    pub(super) fn adopted(survivor: &Survivor, now: Moment) -> Self {
        let mut process = Process::new(survivor.owner.incarnation, survivor.since);
        (process.pid, process.ready_at, process.leaving) = (survivor.pid, Some(now), survivor.leaving);
        Self { life: Life::Serving(process), backoff: Backoff::default(), started: 1 }
    }

    pub(super) fn process(&self) -> Option<&Process> {
        match &self.life {
            Life::Vacant { .. } => None,
            Life::Starting(process) | Life::Serving(process) => Some(process),
        }
    }

    pub(super) fn process_mut(&mut self) -> Option<&mut Process> {
        match &mut self.life {
            Life::Vacant { .. } => None,
            Life::Starting(process) | Life::Serving(process) => Some(process),
        }
    }

    pub(super) fn incarnation(&self) -> Option<Incarnation> {
        self.process().map(|process| process.incarnation)
    }

    pub(super) fn serving(&self) -> bool {
        matches!(self.life, Life::Serving(_))
    }
}

impl Fleet {
    pub(super) fn start_all(&mut self) {
        self.reports.begin(self.now);
        for slot in self.all() {
            self.spawn(slot);
        }
    }

    pub(super) fn spawn(&mut self, slot: Slot) {
        self.last_incarnation += 1;
        let incarnation = Incarnation(self.last_incarnation);
        self.not_frozen(slot);
        let state = &mut self.slots[slot.index()];
        state.started += 1;
        state.life = Life::Starting(Process::new(incarnation, self.now));
        let welcomes = self.welcomes.values().cloned().collect();
        let keys = self.keys.all().cloned().collect();
        self.out.push(Action::Spawn { slot, incarnation, marks: self.marks.clone(), welcomes, keys });
        self.join_reload(slot);
        self.join_listening(slot);
        self.settle_listening();
    }

    pub(super) fn spawned(&mut self, slot: Slot, pid: u32) {
        if let Some(process) = self.slots[slot.index()].process_mut() {
            process.pid = pid;
        }
    }

    pub(super) fn spawn_failed(&mut self, slot: Slot, error: &str) {
        let line = format!("could not start worker {slot}: {error}");
        self.log(Level::Error, line.clone());
        if self.is_successor_starting(slot) {
            self.successor_failed(slot, line);
        } else {
            self.vacate(slot);
        }
    }

    pub(super) fn ready(&mut self, slot: Slot) {
        let now = self.now;
        let state = &mut self.slots[slot.index()];
        match std::mem::take(&mut state.life) {
            Life::Starting(mut process) => {
                process.ready_at = Some(now);
                let (pid, started) = (process.pid, state.started);
                state.life = Life::Serving(process);
                if started > 1 || self.up {
                    self.log(Level::Info, format!("worker {slot} (pid {pid}) is ready"));
                }
                self.listens(slot, slot);
                self.successor_ready(slot);
                self.freeze_successor(slot);
                self.crew_ready();
            }
            other => state.life = other,
        }
        self.check_up();
    }

    /// The fleet is up when every slot that is to have a worker either serves or dies in a loop, and at least one serves. When all die in a loop and none
    /// ever served, the start has failed.
    fn check_up(&mut self) {
        if self.up || !matches!(self.phase, Phase::Running) {
            return;
        }
        let wanted = || self.members.iter().map(|slot| &self.slots[slot.index()]);
        let serving = wanted().filter(|state| state.serving()).count();
        let settled = wanted().all(|state| state.serving() || state.backoff.looping());
        if settled && serving > 0 {
            self.up = true;
            let line = format!("process up: {}", self.name);
            self.log(Level::Info, line);
            self.out.push(Action::Notify(Notice::Ready));
        } else if settled {
            self.fail("no worker can be started");
        }
    }

    pub(super) fn exited(&mut self, slot: Slot, incarnation: Incarnation, ended: Ended, lost: Holdings) {
        let state = &self.slots[slot.index()];
        let Some(process) = state.process() else { return };
        if process.incarnation != incarnation {
            return;
        }
        let (pid, was_leaving) = (process.pid, process.leaving);
        if self.is_successor_starting(slot) {
            self.successor_failed(slot, format!("worker {slot} (pid {pid}) ended before it was ready: {ended}"));
        } else if matches!(self.phase, Phase::Running) && (!self.stays(slot) || (ended.is_orderly(lost) && self.is_recalled(slot)))
        {
            self.left(slot, pid, ended, lost);
        } else if matches!(self.phase, Phase::Running) {
            let delay = self.vacate(slot);
            let next = if delay.is_zero() {
                "starting its successor".to_owned()
            } else {
                format!("its workers die in a loop, the next one starts in {} s", delay.as_secs())
            };
            self.log(Level::Warn, format!("worker {slot} (pid {pid}) ended: {ended}; {next}{}", lost.mourned()));
        } else {
            self.slots[slot.index()].life = Life::Vacant { start_at: None };
            if !ended.is_orderly(lost) {
                self.log(Level::Warn, format!("worker {slot} (pid {pid}) ended: {ended}"));
            }
        }
        self.predecessor_left(slot, lost);
        self.strangers_left();
        self.reports.left(slot, was_leaving && ended == Ended::Status(0));
        self.left_reload(slot);
        self.left_orders(slot, was_leaving);
        self.left_drain(slot);
        self.finish_reports();
        self.start_due();
        if matches!(self.phase, Phase::Running) {
            self.settle_listening();
        }
        self.check_up();
        self.check_finished();
    }

    /// Empties the slot and says when its next worker starts.
    fn vacate(&mut self, slot: Slot) -> Duration {
        let now = self.now;
        let state = &mut self.slots[slot.index()];
        let ready_at = state.process().and_then(|process| process.ready_at);
        let delay = state.backoff.died(ready_at.map_or(Duration::ZERO, |ready| now.saturating_sub(ready)));
        state.life = Life::Vacant { start_at: Some(now + delay) };
        delay
    }

    /// Starts what is due to be started.
    fn start_due(&mut self) {
        // Beside a canary among strangers nobody is started, who would be neither its colleague nor theirs.
        if !matches!(self.phase, Phase::Running) || (self.has_strangers() && self.may_roll_back()) {
            return;
        }
        for slot in self.all() {
            if matches!(self.slots[slot.index()].life, Life::Vacant { start_at: Some(at) } if at <= self.now) {
                self.spawn(slot);
            }
        }
    }

    pub(super) fn tick_lives(&mut self) {
        self.start_due();
        self.check_up();
    }

    /// SIGKILL, once; the exit that follows does the rest.
    pub(super) fn kill(&mut self, slot: Slot, why: &str) {
        let Some(process) = self.slots[slot.index()].process_mut() else { return };
        if !std::mem::replace(&mut process.killed, true) {
            let pid = process.pid;
            self.log(Level::Error, format!("worker {slot} (pid {pid}) {why}, killing it"));
            self.out.push(Action::Kill(slot));
        }
    }

    /// SIGKILL to all that are left, without a word.
    pub(super) fn kill_all(&mut self) {
        for slot in self.live() {
            if let Some(process) = self.slots[slot.index()].process_mut()
                && !std::mem::replace(&mut process.killed, true)
            {
                self.out.push(Action::Kill(slot));
            }
        }
    }

    pub(super) fn worker_lines(&self) -> Vec<WorkerLine> {
        let draining = self.drain.is_some() || !matches!(self.phase, Phase::Running);
        self.all()
            .filter(|&slot| self.stays(slot) || self.slots[slot.index()].process().is_some())
            .map(|slot| {
                let state = &self.slots[slot.index()];
                let word = match &state.life {
                    Life::Vacant { start_at: Some(_) } => "backoff",
                    Life::Vacant { start_at: None } => "gone",
                    Life::Serving(process) if process.silent_since.is_some() => "silent",
                    _ if !self.stays(slot) => "draining",
                    Life::Starting(_) => "starting",
                    Life::Serving(_) if draining => "draining",
                    Life::Serving(_) => "serving",
                };
                WorkerLine {
                    slot,
                    pid: state.process().map(|process| process.pid),
                    state: word,
                    uptime: state.process().map_or(Duration::ZERO, |process| self.now.saturating_sub(process.since)),
                    restarts: state.started.saturating_sub(1),
                }
            })
            .collect()
    }
}
