//! The fleet played through with no process: a small world that starts what is asked for and records the rest.
#![allow(clippy::unwrap_used)]

mod adoptions;
mod crashes;
mod drains;
mod heartbeats;
mod idle;
mod learned;
mod orders;
mod pauses;
mod reloads;
mod reports;
mod resizes;
mod restarts;
mod shutdowns;
mod strangers;
mod upgrades;

use super::*;
use shared::config::News;
use shared::encoding::{decode_named, encode_named};
use shared::orders::{Order, Outcome, Scope};
use std::time::Duration;

/// A fleet and what it asked for.
struct World {
    fleet: Fleet,
    now: Moment,
    next_pid: u32,
    /// Generation in force at the engine, and the candidate.
    generation: u64,
    candidate: u64,
    /// Per slot: incarnation and the generation it was started with.
    workers: Vec<Option<(Incarnation, u64)>>,
    /// What the last event led to.
    actions: Vec<Action>,
    exit: Option<u8>,
    /// The number of the last order to workers.
    last_order: u32,
}

impl World {
    fn new(workers: usize) -> Self {
        let rules = Rules { hang_timeout: Some(Duration::from_secs(10)), ..Rules::default() };
        let mut world = Self {
            fleet: Fleet::new(workers, rules, "pgfleet 0.1.0"),
            now: Duration::from_secs(1000),
            next_pid: 100,
            generation: 1,
            candidate: 1,
            workers: vec![None; workers],
            actions: vec![],
            exit: None,
            last_order: 0,
        };
        world.event(Event::Start);
        world
    }

    /// All workers ready.
    fn up(workers: usize) -> Self {
        let mut world = Self::new(workers);
        for slot in 0..workers {
            world.say(slot, Said::Ready);
        }
        world
    }

    fn event(&mut self, event: Event) {
        self.actions.clear();
        let mut batch = self.fleet.handle(self.now, event);
        while !batch.is_empty() {
            let mut then = vec![];
            for action in &batch {
                match action {
                    Action::Spawn { slot, incarnation, .. } => {
                        self.next_pid += 1;
                        assert_eq!(self.workers[slot.index()], None, "two processes on one slot");
                        self.workers[slot.index()] = Some((*incarnation, self.generation));
                        then.push(Event::Spawned { slot: *slot, pid: self.next_pid });
                    }
                    Action::Send(slot, message) => {
                        assert!(self.workers[slot.index()].is_some(), "{action:?} to an empty slot");
                        if let ToWorker::Order { number, .. } = message {
                            self.last_order = *number;
                        }
                    }
                    Action::Kill(slot) => {
                        assert!(self.workers[slot.index()].is_some(), "{action:?} to an empty slot");
                    }
                    Action::Adopt => self.generation = self.candidate,
                    Action::Grow => self.workers.resize(self.fleet.slots.len(), None),
                    Action::AddSlot => {
                        self.workers.push(None);
                        then.push(Event::SlotAdded(Ok(())));
                    }
                    Action::Exit(status) => {
                        assert!(self.workers.iter().all(Option::is_none), "the supervisor left before its workers");
                        self.exit = Some(*status);
                    }
                    _ => {}
                }
            }
            self.actions.append(&mut batch);
            for event in then {
                batch.append(&mut self.fleet.handle(self.now, event));
            }
        }
        self.pass_on();
    }

    /// Between any two events another image may take the fleet over, unless a configuration is on its way.
    fn pass_on(&mut self) {
        if self.fleet.reload.is_still() {
            let (rules, name) = (self.fleet.rules.clone(), self.fleet.name.clone());
            let shown = format!("{:?}", self.fleet);
            self.fleet = decode_named(&encode_named(&[], &self.fleet).unwrap()).unwrap();
            self.fleet.go_on(rules, &name);
            assert_eq!(format!("{:?}", self.fleet), shown);
        }
    }

    fn say(&mut self, slot: usize, message: Said) {
        let (incarnation, _) = self.workers[slot].unwrap();
        self.event(Event::Said { slot: Slot(slot as u8), incarnation, message });
    }

    fn die(&mut self, slot: usize, ended: Ended) {
        self.die_with(slot, ended, &[]);
    }

    fn die_with(&mut self, slot: usize, ended: Ended, orphans: &[&str]) {
        self.lose(slot, ended, Holdings::default(), orphans);
    }

    fn lose(&mut self, slot: usize, ended: Ended, lost: Holdings, orphans: &[&str]) {
        let (incarnation, _) = self.workers[slot].take().unwrap();
        let orphans = orphans.iter().map(|database| (*database).to_owned()).collect();
        self.event(Event::Exited { slot: Slot(slot as u8), incarnation, ended, lost, orphans });
    }

    /// A worker has carried out an order.
    fn done(&mut self, slot: usize, number: u32) {
        self.say(slot, Said::Done(number, Outcome::Done));
    }

    fn orphan_freed(&mut self, database: &str) {
        self.event(Event::OrphanFreed { database: database.into() });
    }

    /// The orders sent by the last event: to whom, number, what.
    fn orders(&self) -> Vec<(u8, u32, Order)> {
        let order = |(slot, message)| match message {
            ToWorker::Order { number, order } => Some((slot, number, order)),
            _ => None,
        };
        self.sent().into_iter().filter_map(order).collect()
    }

    fn tick(&mut self, later: Duration) {
        self.now += later;
        let beats = vec![Some(self.now); self.workers.len()];
        self.beat(&beats);
    }

    /// A tick with these last heartbeats.
    fn beat(&mut self, beats: &[Option<Moment>]) {
        let pulse = |beat: &Option<Moment>| Pulse { beat: *beat, ..Pulse::default() };
        self.event(Event::Tick { pulses: beats.iter().map(pulse).collect(), backlog: false });
    }

    fn ask(&mut self, ask: u64, request: Request) {
        self.event(Event::Asked { ask: AskId(ask), request });
    }

    /// The candidate with the next generation was read.
    fn load(&mut self) -> u64 {
        self.load_workers(self.fleet.wanted)
    }

    /// The same, with this number of workers.
    fn load_workers(&mut self, workers: usize) -> u64 {
        self.load_changes(workers, vec![])
    }

    /// The same, without these secrets of users.
    fn load_without(&mut self, outdated_secrets: Vec<shared::auth::Secret>) -> u64 {
        self.load_changes(self.fleet.wanted, outdated_secrets)
    }

    fn load_changes(&mut self, workers: usize, outdated_secrets: Vec<shared::auth::Secret>) -> u64 {
        self.candidate += 1;
        let generation = self.candidate;
        self.event(Event::Loaded(Ok(Loaded {
            generation,
            rules: self.fleet.rules.clone(),
            workers,
            changed: Changed::Entries(["app".into()].into()),
            dropped: vec!["gone".into()],
            outdated_secrets,
            news: News { changed: vec!["x: 2, was 1".into()], needs_restart: vec!["y needs more".into()] },
        })));
        generation
    }

    fn sent(&self) -> Vec<(u8, ToWorker)> {
        self.actions.iter().filter_map(|a| if let Action::Send(slot, m) = a { Some((slot.0, m.clone())) } else { None }).collect()
    }

    fn spawned(&self) -> Vec<u8> {
        self.actions.iter().filter_map(|a| if let Action::Spawn { slot, .. } = a { Some(slot.0) } else { None }).collect()
    }

    fn logged(&self, text: &str) -> bool {
        self.actions.iter().any(|a| matches!(a, Action::Log(_, line) | Action::Fatal(line) if line.contains(text)))
    }

    fn answered(&self, ask: u64) -> Option<&Answer> {
        self.actions
            .iter()
            .find_map(|a| if let Action::Answer(AskId(id), answer) = a { (*id == ask).then_some(answer) } else { None })
    }

    fn states(&self) -> Vec<(u8, &'static str)> {
        self.fleet.worker_lines().iter().map(|line| (line.slot.0, line.state)).collect()
    }

    fn did(&self, action: &Action) -> bool {
        self.actions.contains(action)
    }
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const KILLED: Ended = Ended::Signal(9);
