//! Who gets a server that has fallen free: a decision from what can be seen, no more.

use crate::clock::Instant;
use shared::ids::Slot;
use std::time::Duration;

/// How much longer another worker's client must have waited to be served before one of ours. Passing a connection on costs both workers
/// four to five system calls, and chance makes waits differ by about as much as they are long. With 64 clients and 20 servers on 2 workers all of
/// lending comes to 0.15 system calls per query or less, with 5 ms as with 15 ms (`scripts/bench --scenario syscalls`); the larger value is for longer queues.
pub(crate) const SLACK: Duration = Duration::from_millis(15);

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

/// `ours`: since when our longest waiter waits. `theirs`: the worker whose client has waited longest elsewhere, and since when.
pub(crate) fn next(ours: Option<Instant>, theirs: Option<(Slot, Instant)>) -> Next {
    match (ours, theirs) {
        (None, None) => Next::Park,
        (None, Some((slot, _))) => Next::Lend(slot),
        (Some(ours), Some((slot, theirs))) if theirs + SLACK < ours => Next::Lend(slot),
        (Some(_), _) => Next::Ours,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_waiter_is_served_first_within_the_slack() {
        let at = |ms: u64| Instant::from_micros(ms * 1000);
        let other = Slot(3);
        assert_eq!(next(None, None), Next::Park);
        assert_eq!(next(Some(at(90)), None), Next::Ours);
        assert_eq!(next(None, Some((other, at(99)))), Next::Lend(other));
        assert_eq!(next(Some(at(80)), Some((other, at(65)))), Next::Ours);
        assert_eq!(next(Some(at(80)), Some((other, at(64)))), Next::Lend(other));
        assert_eq!(next(Some(at(80)), Some((other, Instant::from_micros(u64::MAX)))), Next::Ours);
    }
}
