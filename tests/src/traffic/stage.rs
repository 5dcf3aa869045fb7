//! What a client is given, and how it asks.

use super::Plan;
use super::door::Door;
use super::pulse::Pulse;
use crate::{Answer, Client, frontend};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub(super) struct Stage {
    pub(super) door: Door,
    pub(super) plan: Plan,
    /// No other client has it.
    pub(super) number: usize,
    pub(super) pulse: Arc<Pulse>,
    pub(super) stop: Arc<AtomicBool>,
    /// The way to PostgreSQL itself.
    pub(super) admin: postgres::Config,
}

impl Stage {
    pub(super) fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Thinks, as clients do: a load that leaves no time would measure the machine.
    pub(super) fn think(&self) {
        Self::think_up_to(self.plan.thought);
    }

    pub(super) fn think_up_to(longest: Duration) {
        std::thread::sleep(rand::random_range(Duration::ZERO..=longest));
    }

    /// Does something that takes so long by itself, and notes how much longer it took.
    pub(super) fn measure<T>(&self, own: Duration, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let value = work();
        self.pulse.beat(began.elapsed().saturating_sub(own));
        value
    }

    /// An answer without an error.
    #[track_caller]
    pub(super) fn answer(&self, client: &mut Client, own: Duration, request: &[u8]) -> Answer {
        let answer = self.measure(own, || {
            client.send(request);
            client.answer()
        });
        assert!(answer.errors.is_empty(), "{answer:?}");
        answer
    }

    /// A simple query that takes no time of its own.
    #[track_caller]
    pub(super) fn query(&self, client: &mut Client, sql: &str) -> Answer {
        self.answer(client, Duration::ZERO, &frontend::query(sql))
    }

    /// The single value that `sql` gives at once.
    #[track_caller]
    pub(super) fn value(&self, client: &mut Client, sql: &str) -> String {
        self.query(client, sql).value().to_owned()
    }

    /// Leaves as a polite client does, and waits for the end.
    #[track_caller]
    pub(super) fn leave(mut client: Client) {
        client.send(&frontend::terminate());
        client.expect_end();
    }
}
