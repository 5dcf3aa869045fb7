//! How long a client waits for its answers, apart from the time that they take: counted by itself, read by whoever looks on.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing but the load.
    Calm,
    /// Workers, or the whole fleet, are replaced meanwhile.
    Events,
}

/// What all clients of a run go by.
#[derive(Debug)]
pub(super) struct Clock {
    start: Instant,
    phase: AtomicUsize,
}

impl Default for Clock {
    fn default() -> Self {
        Clock { start: Instant::now(), phase: AtomicUsize::new(Phase::Calm as usize) }
    }
}

impl Clock {
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as usize, Ordering::Relaxed);
    }

    /// Microseconds since the run began.
    pub(super) fn micros(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }
}

/// One client's.
#[derive(Debug)]
pub(super) struct Pulse {
    pub(super) name: String,
    /// It is PostgreSQL's own client.
    pub(super) direct: bool,
    pub(super) clock: Arc<Clock>,
    answers: AtomicU64,
    /// By phase.
    longest: Mutex<[Duration; 2]>,
}

impl Pulse {
    pub(super) fn new(name: &str, direct: bool, clock: Arc<Clock>) -> Pulse {
        Pulse { name: name.to_owned(), direct, clock, answers: AtomicU64::new(0), longest: Mutex::default() }
    }

    /// An answer came, for which its client had waited so long.
    pub(super) fn beat(&self, pause: Duration) {
        let phase = self.clock.phase.load(Ordering::Relaxed);
        let mut longest = self.longest.lock().unwrap();
        longest[phase] = longest[phase].max(pause);
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    pub(super) fn figures(&self) -> Figures {
        Figures { name: self.name.clone(), direct: self.direct, answers: self.answers(), longest: *self.longest.lock().unwrap() }
    }
}

/// What became of a client's queries.
#[derive(Debug, Clone)]
pub struct Figures {
    /// What it did, and where.
    pub name: String,
    /// It was PostgreSQL's own client.
    pub direct: bool,
    /// How many answers it had, or parts of one.
    pub answers: u64,
    longest: [Duration; 2],
}

impl Figures {
    /// The longest that it waited for one in a phase, apart from what its query took.
    pub fn longest(&self, phase: Phase) -> Duration {
        self.longest[phase as usize]
    }
}
