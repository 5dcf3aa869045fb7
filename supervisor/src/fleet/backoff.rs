//! When a dead worker's successor starts: at once, unless the slot's workers die in a loop.

use super::event::Moment;
use std::time::Duration;

/// This many deaths …
const DEATHS: usize = 3;
/// … within this time are a loop.
const WITHIN: Duration = Duration::from_secs(10);
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// A worker that was up this long ends the loop.
const HEALTHY: Duration = Duration::from_secs(60);

/// One slot's history of deaths.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    deaths: Vec<Moment>,
    delay: Duration,
}

impl Backoff {
    /// A worker that had been up for `uptime` died at `now`: how long its successor has to wait.
    pub(super) fn died(&mut self, now: Moment, uptime: Duration) -> Duration {
        if uptime >= HEALTHY {
            *self = Self::default();
        }
        self.deaths.retain(|&at| now.saturating_sub(at) < WITHIN);
        self.deaths.push(now);
        if !self.delay.is_zero() {
            self.delay = (self.delay * 2).min(LONGEST_DELAY);
        } else if self.deaths.len() >= DEATHS {
            self.delay = FIRST_DELAY;
        }
        self.delay
    }

    /// Whether the slot's workers die in a loop.
    pub(super) fn looping(&self) -> bool {
        !self.delay.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_single_death_waits_for_nothing() {
        let mut b = Backoff::default();
        assert_eq!(b.died(secs(100), secs(5)), secs(0));
        assert_eq!(b.died(secs(111), secs(5)), secs(0));
        assert_eq!(b.died(secs(122), secs(5)), secs(0), "never three within ten seconds");
        assert!(!b.looping());
    }

    #[test]
    fn a_loop_doubles_up_to_the_longest() {
        let mut b = Backoff::default();
        let mut now = secs(100);
        let mut delays = vec![];
        for _ in 0..9 {
            let d = b.died(now, secs(0));
            delays.push(d.as_secs());
            now += d;
        }
        assert_eq!(delays, [0, 0, 1, 2, 4, 8, 16, 30, 30]);
        assert!(b.looping());
    }

    #[test]
    fn a_minute_up_forgets() {
        let mut b = Backoff::default();
        for at in 0..3 {
            b.died(secs(at), secs(0));
        }
        assert!(b.looping());
        assert_eq!(b.died(secs(100), secs(59)), secs(2));
        assert_eq!(b.died(secs(200), secs(60)), secs(0));
        assert!(!b.looping());
    }
}
