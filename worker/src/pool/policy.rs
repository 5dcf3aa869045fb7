//! Who gets a server that has fallen free: a decision from what can be seen, no more.

use crate::clock::Instant;
use shared::ids::Slot;
use std::time::Duration;

/// Another worker's client is served before one of ours when it has waited half as long again and this much longer. Passing a connection on
/// costs both workers some 10 µs; without a slack a saturated fleet would pass on every one, and with a fixed one alone it would as soon as
/// waits are long.
pub(crate) const SLACK: Duration = Duration::from_millis(5);

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

/// `now`: the present moment. `ours`: since when our longest waiter waits. `theirs`: the worker whose client has waited longest elsewhere, and since when.
pub(crate) fn next(now: Instant, ours: Option<Instant>, theirs: Option<(Slot, Instant)>) -> Next {
    match (ours, theirs) {
        (None, None) => Next::Park,
        (None, Some((slot, _))) => Next::Lend(slot),
        (Some(ours), Some((slot, theirs))) if now - theirs > SLACK + (now - ours) * 3 / 2 => Next::Lend(slot),
        (Some(_), _) => Next::Ours,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_waiter_is_served_first_within_the_slack() {
        let at = |ms: u64| Instant::from_micros(ms * 1000);
        let next = |ours, theirs| next(at(100), ours, theirs);
        let other = Slot(3);
        assert_eq!(next(None, None), Next::Park);
        assert_eq!(next(Some(at(90)), None), Next::Ours);
        assert_eq!(next(None, Some((other, at(99)))), Next::Lend(other));
        // Ours waits 20 ms: theirs goes first from 35 ms on.
        assert_eq!(next(Some(at(80)), Some((other, at(65)))), Next::Ours);
        assert_eq!(next(Some(at(80)), Some((other, at(64)))), Next::Lend(other));
        assert_eq!(next(Some(at(80)), Some((other, Instant::from_micros(u64::MAX)))), Next::Ours);
    }
}
