//! The fleet's decisions: who is started, killed, told, answered, and when it all ends.
//!
//! [`Fleet::handle`] takes one [`Event`] and the time and returns the [`Action`]s that follow from it. No process, no socket and no
//! clock is touched here, so every order of crashes, reloads and signals can be played through in a unit test. [`crate::engine`]
//! owns the one `Fleet` there is and carries its actions out.

mod adoption;
mod backoff;
mod drain;
mod event;
mod heartbeat;
mod idle;
mod listening;
mod lives;
mod orders;
mod pace;
mod pause;
mod reload;
mod report;
mod resize;
mod restart;
mod shutdown;
mod strangers;
#[cfg(test)]
mod tests;
mod upgrade;

pub(crate) use event::{
    Action, Answer, AskId, Changed, Ended, Event, Failure, Heir, Holdings, Loaded, Moment, Notice, Pulse, Request, Resumed, Rules,
    Said, Signal, Survivor, Survivors,
};

use drain::Drain;
use idle::Idle;
use listening::Listening;
use lives::{Life, SlotState};
use orders::{Orders, Orphans};
use reload::Reload;
use report::Reports;
pub(crate) use report::add_counters;
use restart::Restart;
use serde::{Deserialize, Serialize};
use shared::auth::ClientKeys;
use shared::control::{Learned, ToWorker, Welcome};
use shared::ids::{Incarnation, Slot};
use shared::orders::Marks;
use shutdown::Phase;
use std::collections::{BTreeMap, BTreeSet};
use upgrade::Upgrade;

/// The state of the fleet. It outlives the image that it was made by: what is added to it has a default.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Fleet {
    /// Every slot there has ever been: what a slot owns lives as long as the fleet.
    slots: Vec<SlotState>,
    /// How many slots are to have a worker.
    wanted: usize,
    /// Which: the lowest, as long as none has been restarted.
    members: BTreeSet<Slot>,
    /// Who accepts from each slot's listeners.
    listening: Vec<Listening>,
    phase: Phase,
    /// Clients are being sent away, or have been.
    drain: Option<Drain>,
    restart: Option<Restart>,
    upgrade: Option<Upgrade>,
    reload: Reload,
    /// What orders have left behind: for workers that are started later.
    marks: Marks,
    orders: Orders,
    idle: Idle,
    reports: Reports,
    welcomes: BTreeMap<(String, String), Welcome>,
    keys: ClientKeys,
    #[serde(skip)]
    rules: Rules,
    last_incarnation: u32,
    /// Backends that outlived their worker.
    orphans: Orphans,
    /// Workers without a server while transactions are waited for.
    drained: BTreeSet<Slot>,
    /// Console sessions.
    consoles: usize,
    /// Whether `process up` was said.
    up: bool,
    /// What `process up` says.
    #[serde(skip)]
    name: String,
    now: Moment,
    #[serde(skip)]
    out: Vec<Action>,
}

impl Fleet {
    /// A fleet of `workers` empty slots. `name` is what `process up` says it is.
    pub(crate) fn new(workers: usize, rules: Rules, name: &str) -> Self {
        Self {
            slots: (0..workers).map(|_| SlotState::default()).collect(),
            wanted: workers,
            members: (0..workers).map(|slot| Slot(slot as u8)).collect(),
            listening: (0..workers).map(|slot| Listening::at(Slot(slot as u8))).collect(),
            phase: Phase::Running,
            drain: None,
            restart: None,
            upgrade: None,
            reload: Reload::default(),
            marks: Marks::default(),
            orders: Orders::default(),
            idle: Idle::default(),
            reports: Reports::default(),
            welcomes: BTreeMap::new(),
            keys: ClientKeys::default(),
            rules,
            last_incarnation: Incarnation::SUPERVISOR.0,
            orphans: Orphans::default(),
            drained: BTreeSet::new(),
            consoles: 0,
            up: false,
            name: name.to_owned(),
            now: Moment::ZERO,
            out: Vec::new(),
        }
    }

    /// What another image has left of it goes on under these rules and this name.
    pub(crate) fn go_on(&mut self, rules: Rules, name: &str) {
        self.rules = rules;
        name.clone_into(&mut self.name);
    }

    /// Lives are never counted twice, also those that an image has counted which has failed.
    pub(crate) fn skip_incarnations(&mut self, last: Incarnation) {
        self.last_incarnation = self.last_incarnation.max(last.0);
    }

    /// Takes one event at `now`; returns what is to be done, in order.
    pub(crate) fn handle(&mut self, now: Moment, event: Event) -> Vec<Action> {
        self.now = now;
        match event {
            Event::Start => self.start_all(),
            Event::Adopted(survivors) => self.adopt(*survivors),
            Event::Spawned { slot, pid } => self.spawned(slot, pid),
            Event::SpawnFailed { slot, error } => self.spawn_failed(slot, &error),
            Event::SlotAdded(outcome) => self.slot_added(outcome),
            Event::Said { slot, incarnation, message } => {
                // A predecessor's last words were handled before its exit, so this is always so.
                if self.slots[slot.index()].incarnation() == Some(incarnation) {
                    self.said(slot, message);
                }
            }
            Event::Deaf { slot } => self.kill(slot, "does not read its control socket"),
            Event::Exited { slot, incarnation, ended, lost, orphans } => {
                for database in orphans {
                    self.orphans.add(database);
                }
                self.exited(slot, incarnation, ended, lost);
            }
            Event::OrphanFreed { database } => {
                self.orphans.remove(&database);
                self.check_orders();
                self.check_finished();
            }
            Event::TlsFilesChanged => self.reload_tls_files(),
            Event::Resolved(resolved) => self.broadcast(&ToWorker::Resolved(resolved)),
            Event::Signal(signal) => self.signal(signal),
            Event::Asked { ask, request } => self.asked(ask, request),
            Event::Cancelled { ask } => self.cancelled(ask),
            Event::ConsoleOpened => self.consoles += 1,
            Event::ConsoleClosed => {
                self.consoles = self.consoles.saturating_sub(1);
                self.check_finished();
            }
            Event::Loaded(outcome) => self.loaded(outcome),
            Event::Preflighted(outcome) => self.preflighted(outcome),
            Event::Still => self.stands_still(),
            Event::Resumed(how) => self.resumed(how),
            Event::Tick { pulses, backlog } => {
                self.tick_lives();
                self.tick_heartbeats(&pulses);
                self.tick_leaving(&pulses);
                self.tick_listening();
                self.tick_restart();
                self.tick_upgrade();
                self.tick_strangers();
                self.tick_reload();
                self.tick_reports();
                self.tick_drain(&pulses, backlog);
                self.tick_shutdown();
            }
        }
        if self.restart.is_some() && !self.is_running() {
            self.stop_restart("the fleet is shutting down".to_owned());
        }
        if !self.is_running() {
            self.abandon_upgrade();
        }
        // Nothing may be left behind when another image is executed.
        self.out.sort_by_key(Action::is_last);
        std::mem::take(&mut self.out)
    }

    fn said(&mut self, slot: Slot, message: Said) {
        match message {
            Said::Ready => self.ready(slot),
            Said::Prepared(generation) => self.prepared(slot, generation),
            Said::Refused(generation, reason) => self.refused(slot, generation, &reason),
            Said::Committed(generation) => self.committed(slot, generation),
            Said::Done(number, outcome) => self.order_done(slot, number, outcome),
            Said::Remaining { gone, idle, others } => {
                self.cut_off(slot, gone);
                self.remaining(slot, idle, others);
            }
            Said::Drained => self.worker_drained(slot),
            Said::Frozen => self.froze(slot),
            Said::Listening(of) => self.listens(slot, of),
            Said::CannotListen(of) => self.cannot_listen(slot, of),
            Said::Welcome(welcome) => self.welcome(slot, &welcome),
            Said::Learned(learned) => self.learned(slot, &learned),
            Said::Report(id, rows) => self.reported(slot, id, *rows),
        }
    }

    fn asked(&mut self, ask: AskId, request: Request) {
        match request {
            Request::Report(what) => self.ask_report(ask, what),
            Request::Workers => {
                let lines = self.worker_lines();
                self.answer(ask, Answer::Workers(lines));
            }
            Request::State => self.answer(ask, Answer::State(self.marks.clone())),
            Request::Reload => self.ask_reload(ask),
            Request::Set(key, value) => self.ask_set(ask, key, value),
            Request::Shutdown(mode) => self.ask_shutdown(ask, mode),
            Request::Drain { per_second, deadline } => self.ask_drain(ask, per_second, deadline),
            Request::Undrain => self.ask_undrain(ask),
            _ if self.refuses_orders(ask) => {}
            Request::Pause(scope) => self.ask_pause(ask, scope),
            Request::Resume(scope) => self.ask_resume(ask, scope),
            Request::Disable(database) => self.ask_disable(ask, database),
            Request::Enable(database) => self.ask_enable(ask, database),
            Request::Reconnect(scope) => self.ask_reconnect(ask, scope),
            Request::WaitClose(scope) => self.ask_wait_close(ask, scope),
            Request::Restart { deadline } => self.ask_restart(ask, deadline),
            Request::Upgrade(binary) => self.ask_upgrade(ask, binary),
            Request::Kill(scope, databases) => self.ask_kill(ask, &scope, &databases),
            Request::KillClient(id) => self.ask_kill_client(ask, id),
        }
    }

    /// One worker has learned a pool's welcome: the others and their successors need not connect to learn it.
    fn welcome(&mut self, from: Slot, welcome: &Welcome) {
        if self.reload.outdated(from) || self.orders.outdated(from, &welcome.database) {
            return;
        }
        let key = (welcome.database.clone(), welcome.user.clone());
        if self.welcomes.get(&key) == Some(welcome) {
            return;
        }
        self.welcomes.insert(key, welcome.clone());
        for slot in self.live() {
            if slot != from {
                self.send(slot, ToWorker::Welcome(welcome.clone()));
            }
        }
    }

    /// A worker has learned how to log in to servers, which the others may have to do as well.
    fn learned(&mut self, from: Slot, learned: &Learned) {
        match learned {
            Learned::Keys(keys) => {
                if !self.keys.learn(keys.clone()) {
                    return;
                }
            }
            Learned::Outdated(secret) => {
                self.keys.forget(secret);
            }
            // Successors ask auth_query themselves.
            Learned::Secret { .. } => {}
        }
        for slot in self.live() {
            if slot != from {
                self.send(slot, ToWorker::Learned(learned.clone()));
            }
        }
    }

    /// Slots that have a process, in order.
    fn live(&self) -> Vec<Slot> {
        self.all().filter(|&slot| !matches!(self.slots[slot.index()].life, Life::Vacant { .. })).collect()
    }

    fn all(&self) -> impl Iterator<Item = Slot> + use<> {
        (0..self.slots.len()).map(|i| Slot(i as u8))
    }

    fn send(&mut self, slot: Slot, message: ToWorker) {
        self.out.push(Action::Send(slot, message));
    }

    fn broadcast(&mut self, message: &ToWorker) {
        for slot in self.live() {
            self.send(slot, message.clone());
        }
    }

    fn answer(&mut self, ask: AskId, answer: Answer) {
        self.out.push(Action::Answer(ask, answer));
    }

    fn log(&mut self, level: log::Level, line: impl Into<String>) {
        self.out.push(Action::Log(level, line.into()));
    }
}
