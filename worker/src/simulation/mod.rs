//! A whole fleet in one thread: N real workers, and around them everything that is not theirs, simulated.
//!
//! The workers are the product's own code, whole, with their event loops, sockets and shared memory. The simulation owns time
//! ([`schedule`]), whose turn it is ([`fleet`]), what workers say to each other ([`network`]), the supervisor ([`supervisor`]), PostgreSQL
//! ([`postgres`]) and the clients ([`client`]). Between them lie sockets of the kernel, which do nothing by themselves when one thread holds
//! both ends. So a seed decides everything, and a run that fails can be run again.
//!
//! After every step [`invariants`] looks at all of it. What is tried is in [`scenario`] and [`tests`].

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

use client::Client;
use fleet::Place;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use postgres::Postgres;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use scenario::Plan;
use schedule::{Event, Schedule, Trace};
use shared::config::Config;
use shared::shm::Shm;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use supervisor::Supervisor;

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
    places: Vec<Place>,
    postgres: Postgres,
    clients: Vec<Client>,
    /// Messages between workers that are on their way.
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
}

impl Simulation {
    fn new(seed: u64, tell: bool, plan: impl FnOnce(&mut SmallRng) -> Plan) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut plan = plan(&mut random);
        let name = scenario::fresh_name();
        plan.lead_to(&format!("@{name}"));
        let (shm, memory) = Shm::create().unwrap();
        let config = plan.config.clone();
        Self {
            random,
            schedule: Schedule::new(),
            trace: Trace::new(seed, tell),
            supervisor: Supervisor::default(),
            places: (0..plan.workers).map(|slot| Place::new(&format!("{name}/{slot}"))).collect(),
            postgres: Postgres::new(format!("@{name}")),
            clients: plan.clients.iter().cloned().map(Client::new).collect(),
            plan,
            name,
            shm,
            memory,
            config,
            in_transit: 0,
            buffer: vec![0; shared::control::MAX_MESSAGE],
        }
    }

    /// Runs until every client is done, and then until the fleet is at rest.
    fn run(&mut self) {
        for slot in 0..self.places.len() {
            self.start_worker(shared::ids::Slot(slot as u8));
        }
        for index in 0..self.clients.len() {
            self.schedule.after(self.clients[index].habits.delay, Event::Client(index, 0));
        }
        let mut steps = 0;
        while !self.is_load_over() {
            self.step();
            steps += 1;
            assert!(steps < MOST_STEPS, "it does not end");
        }
        self.note("the load is over", 0, 0);
        let rest = self.schedule.now + self.plan.time_to_rest();
        while self.schedule.now < rest {
            self.step();
        }
        self.check_rest();
    }

    fn is_load_over(&self) -> bool {
        self.clients.iter().all(|client| client.state == client::State::Done)
    }

    /// The next thing happens, and all that follows from it at once.
    fn step(&mut self) {
        let event = self.schedule.next().expect("nothing is due");
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
                Who::Tap(slot) => self.collect_mail(shared::ids::Slot(slot as u8)),
                Who::Control(slot) => self.supervisor_reads(slot),
                Who::Postgres => self.postgres_accepts(),
                Who::Backend(pid) => self.backend_ready(pid, flags),
                Who::Client(index) => self.client_ready(index),
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
