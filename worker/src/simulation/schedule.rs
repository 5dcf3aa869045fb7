//! What happens when: simulated time, which jumps to the next thing due, and the trace of all that has happened.

use super::network::Mail;
use super::scenario::Trouble;
use crate::clock::{Instant, simulated};
use shared::control::ToWorker;
use shared::ids::{Owner, Slot};
use std::collections::BTreeMap;
use std::time::Duration;

/// When a simulation begins: not 0, which means "never" in shared memory.
const BEGIN: Instant = Instant::from_micros(1_000_000_000);

/// How much of the trace is printed when a run fails.
const TAIL: usize = 150;

/// Something that is due at a moment.
pub(super) enum Event {
    /// This worker's loop turns.
    Turn(Owner),
    /// A client does the next thing; the number is its connection's, so that a stale event is known.
    Client(usize, u32),
    /// A client closes its socket, whatever it was doing.
    Vanish(usize, u32),
    /// A backend has done what it was doing; the number is that of the errand.
    Backend(u32, u32),
    /// A message of one worker's reaches another's inbox.
    Deliver(Mail),
    /// The supervisor says something to a worker.
    Say(Owner, Box<ToWorker>),
    /// A worker is started on this slot.
    Start(Slot),
    /// A dead worker is reaped.
    Bury(Owner),
    /// An orphan has had its time.
    Grace(u64),
    /// A cancel request with this key reaches PostgreSQL.
    Cancel([u8; 8]),
    /// Something of the plan goes wrong, or changes.
    Trouble(Trouble),
}

/// Everything that is due, in order.
pub(super) struct Schedule {
    pub(super) now: Instant,
    count: u64,
    due: BTreeMap<(Instant, u64), Event>,
}

impl Schedule {
    pub(super) fn new() -> Self {
        simulated::set(Some(BEGIN));
        Self { now: BEGIN, count: 0, due: BTreeMap::new() }
    }

    pub(super) fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    pub(super) fn at(&mut self, at: Instant, event: Event) {
        self.count += 1;
        self.due.insert((at.max(self.now), self.count), event);
    }

    /// The next event; it is then.
    pub(super) fn next(&mut self) -> Option<Event> {
        let ((at, _), event) = self.due.pop_first()?;
        self.now = at;
        simulated::set(Some(at));
        Some(event)
    }

    /// Whether something of the plan is still to come.
    pub(super) fn has_trouble(&self) -> bool {
        self.due.values().any(|event| matches!(event, Event::Trouble(_) | Event::Bury(_) | Event::Start(_)))
    }

    /// How long the simulation has lasted.
    pub(super) fn elapsed(&self) -> Duration {
        self.now - BEGIN
    }
}

impl Drop for Schedule {
    fn drop(&mut self) {
        simulated::set(None);
    }
}

/// What has happened: a word and two numbers for each thing.
pub(super) struct Trace {
    seed: u64,
    tell: bool,
    lines: Vec<(Duration, &'static str, u64, u64)>,
}

impl Trace {
    /// `tell`: print everything as it happens.
    pub(super) fn new(seed: u64, tell: bool) -> Self {
        Self { seed, tell, lines: Vec::new() }
    }

    pub(super) fn tells(&self) -> bool {
        self.tell
    }

    pub(super) fn note(&mut self, at: Duration, what: &'static str, a: u64, b: u64) {
        if self.tell {
            eprintln!("{}", line(&(at, what, a, b)));
        }
        self.lines.push((at, what, a, b));
    }

    /// The same for two runs if the same has happened in both, at the same times.
    pub(super) fn hash(&self) -> u64 {
        use shared::sys::map::{START, hash, number};
        self.lines.iter().fold(START, |state, (at, what, a, b)| {
            number(number(hash(number(state, at.as_micros() as u64), what.as_bytes()), *a), *b)
        })
    }
}

fn line((at, what, a, b): &(Duration, &'static str, u64, u64)) -> String {
    format!("{:>12.6} {what} {a} {b}", at.as_secs_f64())
}

impl Drop for Trace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let tail = self.lines.len().saturating_sub(TAIL);
            if !self.tell {
                self.lines[tail..].iter().for_each(|entry| eprintln!("{}", line(entry)));
            }
            eprintln!("failed with PGFLEET_SEED={}", self.seed);
        }
    }
}
