use super::*;
use ToWorker::{Inboxes, Leave, Stay, Unlisten};
use log::Level;

fn listen(of: u8) -> ToWorker {
    ToWorker::Listen { of: Slot(of), listeners: 0, unix_listeners: 0 }
}

fn unlisten(of: u8) -> ToWorker {
    Unlisten { of: Slot(of) }
}

impl World {
    /// A reload to this number of workers: which were started, and who was told what besides to commit.
    pub(super) fn resize(&mut self, workers: usize) -> (Vec<u8>, Vec<(u8, ToWorker)>) {
        self.event(Event::Signal(Signal::Hup));
        let g = self.load_workers(workers);
        let running: Vec<usize> = (0..self.workers.len()).filter(|&slot| self.workers[slot].is_some()).collect();
        for &slot in &running {
            self.say(slot, Said::Prepared(g));
        }
        let started = self.spawned();
        let told = self.sent().into_iter().filter(|(_, message)| !matches!(message, ToWorker::Commit { .. })).collect();
        for &slot in &running {
            self.say(slot, Said::Committed(g));
        }
        (started, told)
    }

    pub(super) fn listening(&mut self, slot: usize, of: u8) {
        self.say(slot, Said::Listening(Slot(of)));
    }
}

const LEFT: Ended = Ended::Status(0);

#[test]
fn more() {
    let mut w = World::up(2);
    w.ask(1, Request::Reload);
    let g = w.load_workers(4);
    w.say(0, Said::Prepared(g));
    w.say(1, Said::Prepared(g));
    let order = |action: &Action| w.actions.iter().position(|a| a == action).unwrap();
    assert!(order(&Action::Adopt) < order(&Action::Grow));
    let told = [0, 1].map(|slot| order(&Action::Send(Slot(slot), Inboxes { first: 2 })));
    let started = w.actions.iter().position(|a| matches!(a, Action::Spawn { .. })).unwrap();
    assert!(order(&Action::Grow) < told[0] && told[0].max(told[1]) < started, "{:?}", w.actions);
    assert_eq!(w.spawned(), [2, 3]);
    assert_eq!(w.workers[3].unwrap().1, g, "with the new configuration");
    assert!(w.logged("workers: 4 instead of 2"));
    w.say(0, Said::Committed(g));
    w.say(1, Said::Committed(g));
    assert!(matches!(w.answered(1), Some(Answer::InForce(_))), "the new ones are not waited for");
    w.say(2, Said::Ready);
    assert!(w.logged("worker 2 (pid 103) is ready"));
    assert_eq!(w.states(), [(0, "serving"), (1, "serving"), (2, "serving"), (3, "starting")]);
}

#[test]
fn a_refused_reload_adds_nothing() {
    let mut w = World::up(1);
    w.ask(1, Request::Reload);
    let g = w.load_workers(3);
    w.say(0, Said::Refused(g, "no".into()));
    assert!(!w.did(&Action::Grow) && w.spawned().is_empty());
    w.event(Event::Signal(Signal::Hup));
    w.event(Event::Loaded(Err("workers: no 2 more than 1: cannot listen on 127.0.0.1:6432".into())));
    assert!(w.logged("cannot listen on 127.0.0.1:6432") && w.spawned().is_empty());
    assert_eq!(w.states(), [(0, "serving")]);
}

/// Its successor is started with all that there is then, and what it was sent is nobody's.
#[test]
fn a_death_while_the_fleet_grows() {
    let mut w = World::up(2);
    w.ask(1, Request::Reload);
    let g = w.load_workers(3);
    w.say(0, Said::Prepared(g));
    w.die(1, KILLED);
    assert!(w.did(&Action::Grow));
    assert_eq!(w.sent(), [(0, ToWorker::Commit { generation: g }), (0, Inboxes { first: 2 })]);
    assert_eq!(w.spawned(), [2, 1]);
    w.die(2, KILLED);
    assert_eq!(w.spawned(), [2]);
}

#[test]
fn fewer() {
    let mut w = World::up(4);
    assert_eq!(w.resize(2).1, [(0, listen(2)), (1, listen(3))], "first somebody else accepts there");
    assert_eq!(w.states(), [(0, "serving"), (1, "serving"), (2, "draining"), (3, "draining")]);
    w.listening(1, 3);
    assert_eq!(w.sent(), [(3, unlisten(3)), (3, Leave)]);
    w.listening(0, 2);
    assert_eq!(w.sent(), [(2, unlisten(2)), (2, Leave)]);
    w.die(3, LEFT);
    assert!(w.logged("worker 3 (pid 104) has left") && w.spawned().is_empty());
    assert_eq!(w.states(), [(0, "serving"), (1, "serving"), (2, "draining")]);
    w.die(2, KILLED);
    assert!(w.logged("worker 2 (pid 103) ended while it was leaving: signal 9 (SIGKILL)"));
    w.tick(secs(60));
    assert!(w.spawned().is_empty() && w.states().len() == 2);
}

#[test]
fn leaving_workers_take_part_in_everything() {
    let mut w = World::up(2);
    w.resize(1);
    w.listening(0, 1);
    w.ask(1, Request::Report(shared::control::ReportKind::Pools));
    assert!(matches!(w.sent().as_slice(), [(1, ToWorker::Report { .. })]), "sessions move from there: it is asked first");
    w.ask(2, Request::Pause(Scope::All));
    assert_eq!(w.orders().len(), 2);
    w.event(Event::Signal(Signal::Hup));
    let g = w.load();
    assert_eq!(w.sent().len(), 2);
    w.say(0, Said::Prepared(g));
    w.die(1, LEFT);
    assert!(w.did(&Action::Adopt), "and is not waited for when it has left");
    w.say(0, Said::Committed(g));
    w.done(0, w.last_order);
    assert_eq!(w.answered(2), Some(&Answer::Done));
}

#[test]
fn a_silent_leaving_worker_is_killed() {
    let mut w = World::up(2);
    w.resize(1);
    w.listening(0, 1);
    let last = w.now;
    w.now += secs(11);
    w.beat(&[Some(w.now), Some(last)]);
    assert!(w.did(&Action::Kill(Slot(1))));
    w.die(1, KILLED);
    assert!(w.spawned().is_empty());
}

#[test]
fn the_log_says_what_a_leaving_worker_waits_for() {
    let mut w = World::up(3);
    let holds = Holdings { clients: 20, servers: 3 };
    let pulse = Pulse { beat: Some(w.now), holds };
    let pulses = vec![pulse, pulse, Pulse { beat: Some(w.now), ..Pulse::default() }];
    w.resize(1);
    w.listening(0, 1);
    w.listening(0, 2);
    w.event(Event::Tick { pulses: pulses.clone(), backlog: false });
    let line = "worker 1 (pid 102) leaves when its clients have gone: 20";
    assert!(w.did(&Action::Log(Level::Info, line.into())));
    assert!(!w.logged("worker 0") && !w.logged("worker 2"));
    w.event(Event::Tick { pulses: pulses.clone(), backlog: false });
    assert!(!w.logged("leaves"), "said already");
    w.resize(3);
    w.resize(1);
    w.listening(0, 1);
    w.event(Event::Tick { pulses, backlog: false });
    assert!(w.logged(line), "but not of this leave");
    w.lose(1, KILLED, holds, &[]);
    assert!(w.logged("ended while it was leaving: signal 9 (SIGKILL); clients lost: 20, server connections: 3"));
}

/// Until its listeners have another ear the worker goes on, however long that takes.
#[test]
fn a_caretaker_that_dies_before_it_has_said_that_it_listens() {
    let mut w = World::up(2);
    w.resize(1);
    w.die(0, KILLED);
    assert_eq!((w.spawned(), w.sent()), (vec![0], vec![(0, listen(1))]), "its successor is asked");
    w.say(0, Said::Ready);
    assert!(w.sent().is_empty());
    w.listening(0, 1);
    assert_eq!(w.sent(), [(1, unlisten(1)), (1, Leave)]);
}

#[test]
fn a_caretaker_that_dies_later_leaves_its_wards_to_its_successor() {
    let mut w = World::up(3);
    w.resize(1);
    w.listening(0, 1);
    w.listening(0, 2);
    w.die(2, LEFT);
    w.die(0, KILLED);
    assert_eq!((w.spawned(), w.sent()), (vec![0], vec![(0, listen(1)), (0, listen(2))]));
    w.listening(0, 1);
    w.listening(0, 2);
    assert!(w.actions.is_empty());
}

/// It has no descriptor left for them, say.
#[test]
fn a_caretaker_that_cannot_listen_is_asked_again() {
    let mut w = World::up(2);
    w.resize(1);
    w.say(0, Said::CannotListen(Slot(1)));
    assert!(w.actions.is_empty());
    w.tick(secs(4));
    assert!(w.sent().is_empty());
    w.tick(secs(1));
    assert_eq!(w.sent(), [(0, listen(1))]);
    w.tick(secs(10));
    assert!(!w.sent().contains(&(0, listen(1))), "it has not answered");
    w.listening(0, 1);
    assert_eq!(w.sent(), [(1, unlisten(1)), (1, Leave)]);
}

#[test]
fn the_successor_of_a_caretaker_that_could_not_listen_is_asked_once() {
    let mut w = World::up(2);
    w.resize(1);
    w.say(0, Said::CannotListen(Slot(1)));
    w.die(0, KILLED);
    assert_eq!(w.sent(), [(0, listen(1))]);
    w.tick(secs(6));
    assert!(w.sent().is_empty());
}

#[test]
fn a_caretaker_that_could_not_listen_is_forgotten_when_the_slot_stays() {
    let mut w = World::up(2);
    w.resize(1);
    w.say(0, Said::CannotListen(Slot(1)));
    assert_eq!(w.resize(2).1, [(0, unlisten(1))]);
    w.say(0, Said::CannotListen(Slot(1)));
    w.tick(secs(6));
    assert!(w.sent().is_empty());
}

#[test]
fn a_caretaker_in_backoff_is_asked_when_it_is_back() {
    let mut w = World::up(2);
    for _ in 0..3 {
        w.die(0, KILLED);
    }
    assert_eq!(w.sent(), [(1, listen(0))]);
    w.listening(1, 0);
    assert!(w.resize(1).1.is_empty());
    w.tick(secs(1));
    assert_eq!((w.spawned(), w.sent()), (vec![0], vec![(0, listen(1))]));
    w.listening(0, 1);
    assert_eq!(w.sent(), [(1, unlisten(1)), (1, Leave)]);
}

#[test]
fn a_leaving_worker_that_dies_before_another_listens() {
    let mut w = World::up(2);
    w.resize(1);
    w.die(1, KILLED);
    assert!(w.spawned().is_empty() && w.sent().is_empty());
    w.listening(0, 1);
    assert!(w.sent().is_empty());
    assert_eq!(w.resize(2), (vec![1], vec![]));
    w.say(1, Said::Ready);
    assert_eq!(w.sent(), [(0, unlisten(1))], "the slot has its own ear again");
}

#[test]
fn raised_again_before_the_caretaker_listens() {
    let mut w = World::up(2);
    w.resize(1);
    assert_eq!(w.resize(2).1, [(0, unlisten(1))]);
    w.listening(0, 1);
    assert!(w.actions.is_empty(), "that was said before it heard");
    assert_eq!(w.states(), [(0, "serving"), (1, "serving")]);
}

#[test]
fn raised_again_while_a_worker_leaves() {
    let mut w = World::up(2);
    w.resize(1);
    w.listening(0, 1);
    assert_eq!(w.resize(2).1, [(1, Stay), (1, listen(1))]);
    assert_eq!(w.states(), [(0, "serving"), (1, "serving")]);
    w.listening(1, 1);
    assert_eq!(w.sent(), [(0, unlisten(1))]);
    w.die(1, KILLED);
    assert_eq!(w.spawned(), [1], "it is a worker like any other");
}

#[test]
fn recalled_and_dismissed_again_before_it_has_answered() {
    let mut w = World::up(2);
    w.resize(1);
    w.listening(0, 1);
    w.resize(2);
    assert_eq!(w.resize(1).1, [(1, unlisten(1)), (1, Leave)], "the caretaker has never stopped listening");
    w.listening(1, 1);
    assert!(w.actions.is_empty());
    w.die(1, LEFT);
    assert!(w.spawned().is_empty());
}

#[test]
fn one_that_left_before_it_heard_that_it_may_stay_is_replaced_at_once() {
    let mut w = World::up(2);
    for _ in 0..5 {
        w.resize(1);
        w.listening(0, 1);
        w.resize(2);
        w.die(1, LEFT);
        assert_eq!(w.spawned(), [1], "that is no crash, so there is no back-off");
        w.say(1, Said::Ready);
        assert_eq!(w.sent(), [(0, unlisten(1))]);
    }
}

#[test]
fn lowered_while_the_new_ones_are_starting() {
    let mut w = World::up(1);
    w.resize(3);
    assert_eq!(w.resize(1).1, [(0, listen(1)), (0, listen(2))]);
    w.listening(0, 1);
    assert_eq!(w.sent(), [(1, unlisten(1)), (1, Leave)]);
    w.say(1, Said::Ready);
    assert_eq!(w.states(), [(0, "serving"), (1, "draining"), (2, "draining")]);
    w.die(2, KILLED);
    assert!(w.spawned().is_empty());
    w.die(1, LEFT);
    w.listening(0, 2);
    assert_eq!((w.sent(), w.states().len()), (vec![], 1));
    // The slots are there already: their inboxes need not be told of.
    assert_eq!(w.resize(3), (vec![1, 2], vec![]));
}

/// A worker that has taken over another's listeners and leaves itself passes both on.
#[test]
fn lowered_step_by_step() {
    let mut w = World::up(4);
    w.resize(2);
    w.listening(1, 3);
    assert_eq!(w.resize(1).1, [(0, listen(1)), (0, listen(3))]);
    w.listening(0, 1);
    assert_eq!(w.sent(), [(1, unlisten(1)), (1, Leave)]);
    w.listening(0, 3);
    assert_eq!(w.sent(), [(1, unlisten(3))]);
    w.listening(0, 2);
    assert_eq!(w.sent(), [(2, unlisten(2)), (2, Leave)]);
}

/// Its clients would wait at its listeners for as long as the next worker is awaited.
#[test]
fn another_worker_listens_for_a_slot_in_backoff() {
    let mut w = World::up(3);
    for _ in 0..2 {
        w.die(1, KILLED);
        assert!(w.sent().is_empty(), "its successor is there at once");
    }
    w.die(1, KILLED);
    assert_eq!(w.sent(), [(2, listen(1))]);
    w.listening(2, 1);
    assert!(w.sent().is_empty());
    w.tick(secs(1));
    assert_eq!((w.spawned(), w.sent()), (vec![1], vec![]), "it has its own listeners from the beginning");
    w.die(1, KILLED);
    w.tick(secs(2));
    assert_eq!((w.spawned(), w.sent()), (vec![1], vec![]), "and the other one goes on until it is ready");
    w.say(1, Said::Ready);
    assert_eq!(w.sent(), [(2, unlisten(1))]);
}

#[test]
fn whoever_listens_for_a_slot_in_backoff_may_die_as_well() {
    let mut w = World::up(3);
    for slot in [1, 1, 1] {
        w.die(slot, KILLED);
    }
    w.listening(2, 1);
    w.sent();
    w.die(2, KILLED);
    assert_eq!((w.spawned(), w.sent()), (vec![2], vec![(2, listen(1))]), "its successor has the same to do");
    w.die(2, KILLED);
    w.sent();
    w.die(2, KILLED);
    assert_eq!(w.sent(), [(0, listen(1)), (0, listen(2))], "until they die in a loop too");
}

#[test]
fn a_slot_in_backoff_that_is_to_be_no_more_is_not_started() {
    let mut w = World::up(2);
    for _ in 0..3 {
        w.die(1, KILLED);
    }
    assert_eq!(w.sent(), [(0, listen(1))]);
    assert!(w.resize(1).1.is_empty(), "another worker listens already");
    w.tick(secs(60));
    assert!(w.spawned().is_empty());
    assert_eq!(w.states(), [(0, "serving")]);
    assert_eq!(w.resize(2).0, [1], "its crashes are forgotten");
}

#[test]
fn a_fleet_that_shuts_down_does_not_change() {
    let mut w = World::up(2);
    w.event(Event::Signal(Signal::Hup));
    let g = w.load_workers(4);
    w.event(Event::Signal(Signal::Term));
    w.say(0, Said::Prepared(g));
    w.say(1, Said::Prepared(g));
    assert!(w.did(&Action::Adopt) && !w.did(&Action::Grow) && w.spawned().is_empty());
}

#[test]
fn shut_down_while_a_worker_leaves() {
    let mut w = World::up(3);
    w.resize(1);
    w.listening(0, 1);
    w.event(Event::Signal(Signal::Int));
    assert_eq!(w.sent().len(), 3);
    w.listening(0, 2);
    assert!(w.sent().is_empty(), "its listeners are being closed");
    for slot in 0..3 {
        w.say(slot, Said::Drained);
    }
    assert!(w.logged("server connections dropped, exiting"));
    for slot in 0..3 {
        w.die(slot, LEFT);
    }
    assert_eq!(w.exit, Some(0));
}

#[test]
fn counters_of_a_worker_that_left_stay_in_the_totals() {
    let mut w = World::up(2);
    w.resize(1);
    w.listening(0, 1);
    w.ask(1, Request::Report(shared::control::ReportKind::Pools));
    let rows = |queries| {
        let row = shared::control::PoolRow { database: "app".into(), user: "u".into(), query_count: queries, ..Default::default() };
        Box::new(shared::control::ReportRows { pools: vec![row], ..Default::default() })
    };
    w.say(0, Said::Report(1, rows(5)));
    w.say(1, Said::Report(1, rows(7)));
    // What it counted after that comes with its last words.
    w.say(1, Said::Report(0, rows(9)));
    w.die(1, LEFT);
    w.ask(2, Request::Report(shared::control::ReportKind::Pools));
    w.say(0, Said::Report(2, rows(5)));
    let Some(Answer::Rows { live, retired, .. }) = w.answered(2) else { panic!() };
    assert_eq!((live.len(), retired[0].query_count), (1, 9));
}
