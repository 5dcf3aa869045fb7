//! The two clocks: one that processes of a host can compare, one that people can read.

use nix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC` in microseconds: the same for every process of the host, never steps back.
pub fn monotonic_us() -> u64 {
    read(ClockId::CLOCK_MONOTONIC)
}

/// Wall-clock time in microseconds since 1970.
pub fn wall_us() -> u64 {
    read(ClockId::CLOCK_REALTIME)
}

/// Linux always has both clocks, so the call cannot fail; a clock set before 1970 reads as 0.
fn read(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |t| {
        u64::try_from(t.tv_sec()).unwrap_or(0).saturating_mul(1_000_000).saturating_add(t.tv_nsec().unsigned_abs() / 1000)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_does_not_step_back_and_wall_is_recent() {
        let (a, b) = (monotonic_us(), monotonic_us());
        assert!(a > 0 && b >= a);
        assert!(wall_us() > 1_700_000_000_000_000);
    }
}
