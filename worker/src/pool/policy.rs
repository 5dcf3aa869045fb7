//! Who gets a server that has fallen free: a decision from what can be seen, no more.

use crate::clock::Instant;
use shared::ids::Slot;
use std::time::Duration;

/// What happens to a free server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// It serves this worker's longest waiter.
    Ours,
    /// It goes to that worker.
    Lend(Slot),
    /// Nobody waits.
    Park,
}

/// `ours`: since when our longest waiter waits. `theirs`: the worker whose client has waited longest elsewhere, and since when. `slack`: how much
/// longer that one must have waited to go first (fairness_slack). Passing a connection on costs both workers four to five system calls, and
/// chance makes waits differ by about as much as they are long.
pub(crate) fn next(ours: Option<Instant>, theirs: Option<(Slot, Instant)>, slack: Duration) -> Next {
    match (ours, theirs) {
        (None, None) => Next::Park,
        (None, Some((slot, _))) => Next::Lend(slot),
        (Some(ours), Some((slot, theirs))) if theirs + slack < ours => Next::Lend(slot),
        (Some(_), _) => Next::Ours,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_waiter_is_served_first_within_the_slack() {
        let at = |ms: u64| Instant::from_micros(ms * 1000);
        let next = |ours: Option<u64>, theirs: Option<u64>| {
            super::next(ours.map(at), theirs.map(|since| (Slot(3), at(since))), Duration::from_millis(15))
        };
        assert_eq!(next(None, None), Next::Park);
        assert_eq!(next(Some(90), None), Next::Ours);
        assert_eq!(next(None, Some(99)), Next::Lend(Slot(3)));
        assert_eq!(next(Some(80), Some(65)), Next::Ours);
        assert_eq!(next(Some(80), Some(64)), Next::Lend(Slot(3)));
        assert_eq!(next(Some(80), Some(u64::MAX / 1000)), Next::Ours);
    }

    #[test]
    fn without_slack_a_microsecond_decides() {
        let at = Instant::from_micros;
        let next = |ours, theirs| super::next(Some(at(ours)), Some((Slot(1), at(theirs))), Duration::ZERO);
        assert_eq!((next(10, 10), next(10, 9)), (Next::Ours, Next::Lend(Slot(1))));
    }
}
