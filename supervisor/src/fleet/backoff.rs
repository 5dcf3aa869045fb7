//! When a dead worker's successor starts: at once, unless the slot's workers die in a loop.
//!
//! A pause is for workers that do nothing but start and die: it spares the machine, the log and PostgreSQL. It costs the clients of the slot
//! the whole pause, so it is not for one that has served, however it ended: killed from outside, say, or by a client that comes back.
//! Such a worker is replaced at once, however often that happens.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// This many deaths in a row …
const DEATHS: u32 = 3;
/// … of workers that had served for less than this, or not at all, are a loop.
const YOUNG: Duration = Duration::from_millis(500);
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// One slot's history of deaths.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Backoff {
    early_deaths: u32,
}

impl Backoff {
    /// A worker died that had served for `served`, zero if it never was ready: how long its successor has to wait.
    pub(super) fn died(&mut self, served: Duration) -> Duration {
        self.early_deaths = if served < YOUNG { self.early_deaths.saturating_add(1) } else { 0 };
        match self.early_deaths.checked_sub(DEATHS) {
            None => Duration::ZERO,
            Some(more) => FIRST_DELAY.saturating_mul(1_u32.checked_shl(more).unwrap_or(u32::MAX)).min(LONGEST_DELAY),
        }
    }

    /// Whether the slot's workers die in a loop.
    pub(super) fn looping(&self) -> bool {
        self.early_deaths >= DEATHS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_worker_that_has_served_is_replaced_at_once_however_often_it_dies() {
        let mut b = Backoff::default();
        for _ in 0..100 {
            assert_eq!(b.died(Duration::from_millis(500)), secs(0));
        }
        assert!(!b.looping());
    }

    #[test]
    fn a_loop_doubles_up_to_the_longest() {
        let mut b = Backoff::default();
        let delays: Vec<u64> = (0..9).map(|_| b.died(Duration::from_millis(499)).as_secs()).collect();
        assert_eq!(delays, [0, 0, 1, 2, 4, 8, 16, 30, 30]);
        assert!(b.looping());
        assert_eq!((0..100).map(|_| b.died(secs(0))).max(), Some(secs(30)));
    }

    #[test]
    fn who_serves_ends_the_loop() {
        let mut b = Backoff::default();
        for _ in 0..5 {
            b.died(secs(0));
        }
        assert!(b.looping());
        assert_eq!(b.died(secs(2)), secs(0));
        assert!(!b.looping());
        assert_eq!(
            [0, 0, 0].map(|served| b.died(secs(served))),
            [secs(0), secs(0), secs(1)],
            "and it takes as many deaths to begin"
        );
    }
}
