use super::*;

#[test]
fn up_when_all_are_ready() {
    let mut w = World::new(2);
    assert_eq!(w.spawned(), [0, 1]);
    w.say(0, Said::Ready);
    assert!(!w.logged("process up"));
    w.say(1, Said::Ready);
    assert!(w.logged("process up: pgfleet 0.1.0"));
    assert!(w.did(&Action::Notify(Notice::Ready)));
}

#[test]
fn a_dead_worker_has_a_successor_at_once() {
    let mut w = World::up(3);
    w.die(1, KILLED);
    assert_eq!(w.spawned(), [1]);
    assert!(w.logged("worker 1 (pid 102) ended: signal 9 (SIGKILL); starting its successor"));
    let log = w.actions.iter().position(|a| matches!(a, Action::Log(..))).unwrap();
    let spawn = w.actions.iter().position(|a| matches!(a, Action::Spawn { .. })).unwrap();
    assert!(log < spawn);
    w.say(1, Said::Ready);
    assert!(w.logged("worker 1 (pid 104) is ready"));
    assert!(!w.logged("process up"), "said once");
}

#[test]
fn incarnations_are_never_reused() {
    let mut w = World::up(2);
    let mut seen = vec![w.workers[0].unwrap().0, w.workers[1].unwrap().0];
    w.die(0, KILLED);
    seen.push(w.workers[0].unwrap().0);
    assert_eq!(seen, [Incarnation(2), Incarnation(3), Incarnation(4)]);
}

#[test]
fn the_log_says_what_a_death_has_cost() {
    let mut w = World::up(1);
    w.lose(0, KILLED, Holdings { clients: 17, servers: 4 }, &[]);
    assert!(
        w.logged("worker 0 (pid 101) ended: signal 9 (SIGKILL); starting its successor; clients lost: 17, server connections: 4")
    );
    w.die(0, KILLED);
    assert!(!w.logged("lost"));
}

#[test]
fn a_loop_is_slowed_down_and_ends_when_one_has_served() {
    let mut w = World::up(2);
    w.die(0, KILLED);
    w.die(0, KILLED);
    w.die(0, KILLED);
    assert!(w.spawned().is_empty());
    assert!(w.logged("die in a loop, the next one starts in 1 s"));
    w.tick(Duration::from_millis(900));
    assert!(w.spawned().is_empty());
    w.tick(Duration::from_millis(100));
    assert_eq!(w.spawned(), [0]);
    w.die(0, Ended::Status(1));
    assert!(w.logged("ended: exit status 1; its workers die in a loop, the next one starts in 2 s"));
    w.tick(secs(2));
    // However long it takes to get ready: that is no service.
    w.tick(secs(5));
    w.die(0, Ended::Status(1));
    assert!(w.logged("the next one starts in 4 s"));
    w.tick(secs(4));
    w.say(0, Said::Ready);
    w.tick(secs(1));
    w.die(0, KILLED);
    assert_eq!(w.spawned(), [0], "back to no delay");
}

/// Somebody kills a worker a second: three of one slot within ten seconds were once taken for a loop, and the slot had nobody for up to half a minute.
#[test]
fn workers_that_have_served_are_replaced_at_once_however_often_they_are_killed() {
    let mut w = World::up(4);
    for _ in 0..30 {
        w.tick(secs(1));
        w.die(2, KILLED);
        assert_eq!(w.spawned(), [2]);
        w.say(2, Said::Ready);
    }
}

#[test]
fn one_looping_worker_does_not_keep_the_fleet_from_being_up() {
    let mut w = World::new(2);
    w.say(0, Said::Ready);
    for _ in 0..3 {
        w.die(1, Ended::Status(1));
    }
    assert!(w.logged("process up"));
    assert_eq!(w.exit, None);
}

#[test]
fn a_start_in_which_every_worker_dies_fails() {
    let mut w = World::new(2);
    for slot in [0, 0, 0, 1, 1, 1] {
        w.die(slot, Ended::Status(1));
    }
    assert!(w.logged("no worker can be started"));
    assert_eq!(w.exit, Some(1));
}

#[test]
fn all_workers_looping_later_does_not_end_the_fleet() {
    let mut w = World::up(1);
    for _ in 0..3 {
        w.die(0, KILLED);
    }
    assert_eq!(w.exit, None);
    w.tick(secs(1));
    assert_eq!(w.spawned(), [0]);
}

#[test]
fn a_failed_fork_is_retried() {
    let mut w = World::up(1);
    w.die(0, KILLED);
    w.workers[0] = None;
    w.event(Event::SpawnFailed { slot: Slot(0), error: "out of memory".into() });
    assert!(w.logged("could not start worker 0: out of memory"));
    w.tick(Duration::ZERO);
    assert_eq!(w.spawned(), [0]);
}

#[test]
fn a_worker_that_does_not_read_is_killed() {
    let mut w = World::up(1);
    w.event(Event::Deaf { slot: Slot(0) });
    assert!(w.did(&Action::Kill(Slot(0))));
}

#[test]
fn welcomes_go_to_the_others_and_to_successors() {
    let mut w = World::up(3);
    let welcome = Welcome { database: "app".into(), user: "u".into(), parameters: vec![] };
    w.say(1, Said::Welcome(welcome.clone()));
    assert_eq!(w.sent(), [(0, ToWorker::Welcome(welcome.clone())), (2, ToWorker::Welcome(welcome.clone()))]);
    w.say(2, Said::Welcome(welcome.clone()));
    assert!(w.sent().is_empty(), "nothing new");
    w.die(0, KILLED);
    assert!(matches!(&w.actions[..], [.., Action::Spawn { welcomes, .. }] if *welcomes == [welcome]));
}
