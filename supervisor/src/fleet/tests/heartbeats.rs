use super::*;

#[test]
fn a_hung_worker_is_killed_once_and_replaced() {
    let mut w = World::up(2);
    let start = w.now;
    w.now += secs(11);
    let beats = [Some(w.now), Some(start)];
    w.beat(&beats);
    assert!(w.did(&Action::Kill(Slot(1))));
    assert!(!w.did(&Action::Kill(Slot(0))));
    assert!(w.logged("worker 1 (pid 102) has not turned its loop for 11 s (worker_hang_timeout), killing it"));
    w.beat(&beats);
    assert!(w.actions.is_empty());
    w.die(1, KILLED);
    assert_eq!(w.spawned(), [1]);
}

#[test]
fn a_predecessors_heartbeat_does_not_kill_the_successor() {
    let mut w = World::up(1);
    let old = w.now;
    w.tick(secs(100));
    w.die(0, KILLED);
    w.say(0, Said::Ready);
    w.beat(&[Some(old)]);
    assert!(!w.did(&Action::Kill(Slot(0))));
}

#[test]
fn no_hang_timeout_kills_nobody() {
    let mut w = World::up(1);
    w.fleet.rules = Rules::default();
    w.now += secs(100_000);
    w.beat(&[Some(secs(1))]);
    assert!(!w.actions.iter().any(|a| matches!(a, Action::Kill(_))));
}

#[test]
fn a_worker_that_never_gets_ready_is_killed() {
    let mut w = World::new(1);
    w.tick(secs(31));
    assert!(w.did(&Action::Kill(Slot(0))));
}

/// Stopped by somebody, or by a machine that is too busy: the log says when it begins and when it is over, and in between SHOW WORKERS does.
#[test]
fn a_silent_worker_is_named_once_and_so_is_its_return() {
    let mut w = World::up(2);
    let begun = w.now;
    w.now += Duration::from_millis(900);
    w.beat(&[Some(w.now), Some(begun)]);
    assert!(w.actions.is_empty());
    assert_eq!(w.states(), [(0, "serving"), (1, "serving")]);
    w.now += Duration::from_millis(250);
    w.beat(&[Some(w.now), Some(begun)]);
    assert!(w.logged("worker 1 (pid 102) has not turned its loop for 1 s; it is killed after worker_hang_timeout (10 s)"));
    assert_eq!(w.states(), [(0, "serving"), (1, "silent")]);
    w.now += secs(5);
    w.beat(&[Some(w.now), Some(begun)]);
    assert!(w.actions.is_empty(), "said already");
    w.now += Duration::from_millis(250);
    w.beat(&[Some(w.now), Some(w.now)]);
    assert!(w.logged("worker 1 (pid 102) turns its loop again, after 6.4 s"));
    assert_eq!(w.states(), [(0, "serving"), (1, "serving")]);
    w.beat(&[Some(w.now), Some(w.now)]);
    assert!(w.actions.is_empty());
}

/// Its heart beats for the first time when it serves, however long it took to get there.
#[test]
fn a_slow_start_is_no_silence() {
    let mut w = World::new(1);
    let begun = w.now;
    w.now += secs(20);
    w.say(0, Said::Ready);
    w.beat(&[Some(begun)]);
    assert!(!w.logged("loop"));
    assert_eq!(w.states(), [(0, "serving")]);
}

#[test]
fn without_a_timeout_the_line_says_that_nothing_follows() {
    let mut w = World::up(1);
    w.fleet.rules = Rules::default();
    w.now += secs(2);
    w.beat(&[Some(secs(1000))]);
    assert!(w.logged("has not turned its loop for 2 s; worker_hang_timeout does not end it"));
}
