//! Time as the worker uses it: microseconds of CLOCK_MONOTONIC, read once per turn of the loop and comparable between processes.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment, in microseconds of CLOCK_MONOTONIC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(crate) struct Instant(u64);

/// This moment.
pub(crate) fn now() -> Instant {
    #[cfg(test)]
    if let Some(now) = simulated::now() {
        return now;
    }
    Instant(shared::sys::clock::monotonic_us())
}

impl Instant {
    /// From what another process put into shared memory or a message.
    pub(crate) const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    pub(crate) fn as_micros(self) -> u64 {
        self.0
    }

    pub(crate) fn saturating_duration_since(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The wall-clock time of this moment, in microseconds since 1970.
    pub(crate) fn to_wall(self) -> u64 {
        shared::sys::clock::wall_us().saturating_sub(now().0.saturating_sub(self.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(duration.as_micros().try_into().unwrap_or(u64::MAX)))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

/// Time as a simulation has it, in its own thread.
#[cfg(test)]
pub(crate) mod simulated {
    use super::Instant;
    use std::cell::Cell;

    thread_local! {
        static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
    }

    pub(super) fn now() -> Option<Instant> {
        NOW.get()
    }

    /// For this thread it is `now` until it is told otherwise; `None`: what the clock says.
    pub(crate) fn set(now: Option<Instant>) {
        NOW.set(now);
    }
}
