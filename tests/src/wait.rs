//! Waiting for a state. The one place in these tests that sleeps, apart from clients that think ([`crate::traffic`]) and tests that do something at one moment
//! after another.

use std::time::{Duration, Instant};

/// Long enough for anything that should happen at once, on a machine that is busy with other tests.
pub const SOON: Duration = Duration::from_secs(20);

const POLL: Duration = Duration::from_millis(5);

/// Returns as soon as `condition` holds; panics, naming `what`, when it does not within `limit`.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, condition: impl FnMut() -> bool) {
    assert!(holds_within(limit, condition), "waited {limit:?} for {what}");
}

/// Returns the first value that `look` finds; panics, naming `what`, when it finds none within `limit`.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    wait_until(what, limit, || {
        found = look();
        found.is_some()
    });
    found.expect("the condition has just held")
}

/// Waits at most `limit`; says whether `condition` came to hold.
pub fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(POLL);
    }
}
