//! A whole fleet in one thread: N real workers, and around them everything that is not theirs, simulated.
//!
//! The workers are the product's own code, whole, with their event loops, sockets and shared memory. The simulation owns time
//! ([`schedule`]), whose turn it is ([`fleet`]), what workers say to each other ([`network`]), the supervisor ([`supervisor`]), PostgreSQL
//! ([`postgres`]) and the clients ([`client`]). Between them lie sockets of the kernel, which do nothing by themselves when one thread holds
//! both ends. So a seed decides everything, and a run that fails can be run again.
//!
//! After every step [`invariants`] and [`waits`] look at all of it. What is tried is in [`scenario`] and [`tests`].

#![allow(clippy::unwrap_used)]

mod client;
mod fleet;
mod invariants;
mod network;
mod postgres;
mod scenario;
mod schedule;
mod supervisor;
mod tests;
mod upgrade;
mod waits;

use client::Client;
use fleet::Place;
pub(crate) use fleet::may_die;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use postgres::Postgres;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use scenario::{Plan, Trouble};
use schedule::{Event, Schedule, Trace};
use shared::config::Config;
use shared::ids::Slot;
use shared::shm::Shm;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use supervisor::Supervisor;
use upgrade::Upgrade;
use waits::Waits;

/// A run takes some thousands of steps; one that takes so many hangs.
const MOST_STEPS: u32 = 200_000;

struct Simulation {
    random: SmallRng,
    schedule: Schedule,
    trace: Trace,
    plan: Plan,
    /// What begins the names of all sockets of this run.
    name: String,
    shm: Shm,
    memory: OwnedFd,
    config: Config,
    supervisor: Supervisor,
    upgrade: Upgrade,
    places: Vec<Place>,
    postgres: Postgres,
    clients: Vec<Client>,
    waits: Waits,
    steps: u32,
    /// Whose turn it is or was last.
    turning: Option<Slot>,
    /// Messages between workers: ever, before the load was over, in this turn, and those on their way.
    mail_sent: u64,
    mail_at_end: u64,
    mail_in_turn: u32,
    in_transit: usize,
    buffer: Vec<u8>,
}

/// Whose descriptor is ready.
#[derive(Clone, Copy, Debug)]
enum Who {
    Tap(usize),
    Control(usize),
    Worker(usize),
    Postgres,
    Backend(u32),
    Client(usize),
    Orphan(u64),
}

impl Simulation {
    fn new(seed: u64, tell: bool, plan: impl FnOnce(&mut SmallRng) -> Plan) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let plan = plan(&mut random);
        let name = scenario::fresh_name();
        let (shm, memory) = Shm::create().unwrap();
        let config = scenario::leading(plan.config.clone(), &format!("@{name}"));
        if tell {
            eprintln!("{}", plan.describe());
        }
        Self {
            random,
            schedule: Schedule::new(),
            trace: Trace::new(seed, tell),
            supervisor: Supervisor::default(),
            upgrade: Upgrade::default(),
            places: (0..plan.workers).map(|slot| Place::new(&format!("{name}/{slot}"))).collect(),
            postgres: Postgres::new(format!("@{name}")),
            clients: plan.clients.iter().cloned().map(Client::new).collect(),
            waits: Waits::new(&plan),
            plan,
            name,
            shm,
            memory,
            config,
            steps: 0,
            turning: None,
            mail_sent: 0,
            mail_at_end: 0,
            mail_in_turn: 0,
            in_transit: 0,
            buffer: vec![0; shared::control::MAX_MESSAGE],
        }
    }

    /// Runs until every client is done, and then until the fleet is at rest.
    fn run(&mut self) {
        for slot in 0..self.places.len() {
            self.start_worker(Slot(slot as u8));
        }
        for index in 0..self.clients.len() {
            self.schedule.after(self.clients[index].habits.delay, Event::Client(index, 0));
        }
        for (delay, trouble) in self.plan.troubles.clone() {
            self.schedule.after(delay, Event::Trouble(trouble));
        }
        while !self.is_load_over() {
            self.step();
        }
        self.note("the load is over", 0, 0);
        self.mail_at_end = self.mail_sent;
        let rest = self.schedule.now + self.plan.time_to_rest();
        while self.schedule.now < rest {
            self.step();
        }
        self.check_rest();
    }

    /// Something of the plan happens.
    fn trouble(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Death(slot, sends) => self.doom(slot, sends),
            Trouble::Hang(slot, time) => self.hang(slot, time),
            Trouble::Reload(config) => {
                let config = scenario::leading(*config, &format!("@{}", self.name));
                self.reload(config);
            }
            Trouble::Refusing => self.postgres.listener = None,
            Trouble::Accepting => self.postgres.listen(),
            Trouble::Crash(nth) => self.crash_backend(nth),
            Trouble::Upgrade => self.upgrade(),
        }
    }

    /// Every client is done, everybody lives, and nothing more is to go wrong.
    fn is_load_over(&self) -> bool {
        self.clients.iter().all(|client| client.state == client::State::Done)
            && self
                .places
                .iter()
                .all(|place| place.is_abandoned || place.life.as_ref().is_some_and(|life| life.hung_until.is_none()))
            && self.supervisor.is_at_rest()
            && !self.schedule.has_trouble()
    }

    /// The next thing happens, and all that follows from it at once.
    fn step(&mut self) {
        let event = self.schedule.next().expect("nothing is due");
        self.steps += 1;
        assert!(self.steps < MOST_STEPS, "it does not end");
        self.happen(event);
        while self.react() {}
        self.check_step();
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Turn(owner) => self.turn_worker(owner),
            Event::Client(index, life) => self.client_acts(index, life),
            Event::Vanish(index, life) => self.client_vanishes(index, life),
            Event::Backend(pid, errand) => self.backend_done(pid, errand),
            Event::Deliver(mail) => self.deliver(mail),
            Event::Say(owner, message) => self.say(owner, &message),
            Event::Start(slot) => self.start_worker(slot),
            Event::Bury(owner) => self.bury(owner),
            Event::Grace(number) => self.grace_over(number),
            Event::Cancel(key) => self.cancel_asked(key),
            Event::Trouble(trouble) => self.trouble(trouble),
        }
    }

    /// Whoever has something to read reads it. False: nobody had.
    fn react(&mut self) -> bool {
        let ready = self.ready();
        let mut reacted = false;
        for (who, flags) in ready {
            match who {
                Who::Worker(slot) => {
                    self.schedule_turn(slot);
                    continue;
                }
                Who::Tap(slot) => self.collect_mail(Slot(slot as u8)),
                Who::Control(slot) => self.supervisor_reads(slot),
                Who::Postgres => self.postgres_accepts(),
                Who::Backend(pid) => self.backend_ready(pid, flags),
                Who::Client(index) => self.client_ready(index),
                Who::Orphan(number) => self.orphan_ready(number),
            }
            reacted = true;
        }
        reacted
    }

    /// Every descriptor on which there is something.
    fn ready(&self) -> Vec<(Who, PollFlags)> {
        let mut whose: Vec<Who> = Vec::with_capacity(64);
        let mut descriptors: Vec<PollFd<'_>> = Vec::with_capacity(64);
        for (slot, place) in self.places.iter().enumerate() {
            whose.push(Who::Tap(slot));
            descriptors.push(PollFd::new(place.inbox.tap.as_fd(), PollFlags::POLLIN));
            if let Some(life) = &place.life {
                whose.push(Who::Control(slot));
                descriptors.push(PollFd::new(life.control.as_fd(), PollFlags::POLLIN));
                if !life.has_turn_due() {
                    whose.push(Who::Worker(slot));
                    descriptors.push(PollFd::new(life.worker.poll.registry().as_fd(), PollFlags::POLLIN));
                }
            }
        }
        if let Some(listener) = &self.postgres.listener {
            whose.push(Who::Postgres);
            descriptors.push(PollFd::new(listener.as_fd(), PollFlags::POLLIN));
        }
        for (pid, backend) in &self.postgres.backends {
            let interest = backend.interest();
            if !interest.is_empty() {
                whose.push(Who::Backend(*pid));
                descriptors.push(PollFd::new(backend.stream.as_fd(), interest));
            }
        }
        for (index, client) in self.clients.iter().enumerate() {
            if let Some(stream) = &client.stream {
                whose.push(Who::Client(index));
                descriptors.push(PollFd::new(stream.as_fd(), PollFlags::POLLIN));
            }
        }
        for (number, orphan) in &self.supervisor.orphans {
            if let Some(socket) = &orphan.socket {
                whose.push(Who::Orphan(*number));
                descriptors.push(PollFd::new(socket.as_fd(), PollFlags::POLLIN));
            }
        }
        poll(&mut descriptors, PollTimeout::ZERO).unwrap();
        let flags = descriptors.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        whose.into_iter().zip(flags).filter(|(_, flags)| !flags.is_empty()).collect()
    }

    fn note(&mut self, what: &'static str, a: u64, b: u64) {
        self.trace.note(self.schedule.elapsed(), what, a, b);
    }

    fn draw(&mut self, microseconds: &Range<u64>) -> Duration {
        Duration::from_micros(self.random.random_range(microseconds.clone()))
    }

    fn random_below(&mut self, end: u64) -> u64 {
        self.random.random_range(0..end)
    }

    fn chance(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.random.random_range(0..1000) < per_mille
    }
}
