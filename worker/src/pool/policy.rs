//! Who gets a server that has fallen free, and who is asked for one: decisions from what can be seen, no more.

use crate::clock::Instant;
use shared::ids::{LimitId, Slot};
use std::time::Duration;

/// How much longer a client of another pool must have waited for a seat before a server that a client waits for is closed for it: what it gets
/// is a new connection, and the other one waits on.
pub(crate) const ROOM_SLACK: Duration = Duration::from_millis(100);

/// What happens to a free server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// It serves this worker's longest waiter.
    Ours,
    /// It goes to that worker.
    Lend(Slot),
    /// It is closed: a client that has waited longer cannot use it, but its seat.
    Close(Room),
    /// Nobody waits.
    Park,
}

/// Whose seat a server gives up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Room {
    /// The pool's, for a replication client.
    Pool,
    /// That of a limit which several pools share, for a client of another pool.
    Limit(LimitId),
}

/// Who waits for a free server, and since when.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Waits {
    /// Our longest waiter.
    pub(crate) ours: Option<Instant>,
    /// The worker whose client has waited longest elsewhere.
    pub(crate) theirs: Option<(Slot, Instant)>,
    /// A client here that needs a connection of its own in this pool.
    pub(crate) candidate: Option<Instant>,
    /// The longest of those who wait, anywhere, for a limit that the server counts in.
    pub(crate) blocked: Option<(LimitId, Instant)>,
}

/// `slack`: how much longer another worker's client must have waited to go first (fairness_slack). Passing a connection on costs both workers
/// four to five system calls, and chance makes waits differ by about as much as they are long.
pub(crate) fn next(waits: &Waits, slack: Duration) -> Next {
    let (served, since) = match (waits.ours, waits.theirs) {
        (None, None) => return waits.candidate.map_or(Next::Park, |_| Next::Close(Room::Pool)),
        (None, Some((slot, theirs))) => (Next::Lend(slot), theirs),
        (Some(ours), Some((slot, theirs))) if theirs + slack < ours => (Next::Lend(slot), theirs),
        (Some(ours), _) => (Next::Ours, ours),
    };
    match (waits.candidate, waits.blocked) {
        (Some(candidate), _) if candidate < since => Next::Close(Room::Pool),
        (_, Some((limit, blocked))) if blocked + ROOM_SLACK < since => Next::Close(Room::Limit(limit)),
        _ => served,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLACK: Duration = Duration::from_millis(15);

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    fn waits(ours: Option<u64>, theirs: Option<u64>) -> Waits {
        Waits { ours: ours.map(at), theirs: theirs.map(|since| (Slot(3), at(since))), ..Waits::default() }
    }

    #[test]
    fn the_longest_waiter_is_served_first_within_the_slack() {
        let next = |ours, theirs| super::next(&waits(ours, theirs), SLACK);
        assert_eq!(next(None, None), Next::Park);
        assert_eq!(next(Some(90), None), Next::Ours);
        assert_eq!(next(None, Some(99)), Next::Lend(Slot(3)));
        assert_eq!(next(Some(80), Some(65)), Next::Ours);
        assert_eq!(next(Some(80), Some(64)), Next::Lend(Slot(3)));
        assert_eq!(next(Some(80), Some(u64::MAX / 1000)), Next::Ours);
    }

    #[test]
    fn without_slack_a_millisecond_decides() {
        let next = |ours, theirs| super::next(&waits(Some(ours), Some(theirs)), Duration::ZERO);
        assert_eq!((next(10, 10), next(10, 9)), (Next::Ours, Next::Lend(Slot(3))));
    }

    #[test]
    fn a_longer_wait_for_a_seat_closes_a_server_that_others_wait_for() {
        let limit = LimitId(7);
        let next =
            |ours, theirs, blocked| super::next(&Waits { blocked: Some((limit, at(blocked))), ..waits(ours, theirs) }, SLACK);
        assert_eq!(next(Some(200), None, 100), Next::Ours);
        assert_eq!(next(Some(200), None, 99), Next::Close(Room::Limit(limit)));
        assert_eq!(next(None, Some(200), 99), Next::Close(Room::Limit(limit)));
        assert_eq!(next(Some(250), Some(120), 99), Next::Lend(Slot(3)), "who goes first is compared");
        assert_eq!(next(None, None, 0), Next::Park, "an idle server makes room by its age");
    }

    #[test]
    fn a_replication_client_takes_its_turn() {
        let next =
            |ours: Option<u64>, candidate| super::next(&Waits { candidate: Some(at(candidate)), ..waits(ours, None) }, SLACK);
        assert_eq!(next(Some(10), 11), Next::Ours);
        assert_eq!(next(Some(11), 10), Next::Close(Room::Pool));
        assert_eq!(next(None, 10), Next::Close(Room::Pool));
    }
}
