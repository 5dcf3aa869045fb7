use super::*;

#[test]
fn pause_is_answered_when_the_last_worker_is_quiet() {
    let mut w = World::up(2);
    w.ask(1, Request::Pause);
    assert!(w.logged("PAUSE command issued"));
    assert_eq!(w.sent().len(), 2);
    w.say(0, Said::Paused(1));
    assert_eq!(w.answered(1), None);
    w.say(1, Said::Paused(1));
    assert_eq!(w.answered(1), Some(&Answer::Done));
    w.ask(2, Request::Pause);
    assert_eq!(w.answered(2), Some(&Answer::Failed(Failure::AlreadyPaused)));
    w.ask(3, Request::State);
    assert_eq!(w.answered(3), Some(&Answer::State { paused: true }));
    w.ask(4, Request::Resume);
    assert_eq!(w.answered(4), Some(&Answer::Done));
    w.ask(5, Request::Resume);
    assert_eq!(w.answered(5), Some(&Answer::Failed(Failure::NotPaused)));
}

#[test]
fn a_worker_that_dies_does_not_hold_it_up_but_its_backends_do() {
    let mut w = World::up(2);
    w.ask(1, Request::Pause);
    w.say(0, Said::Paused(1));
    w.die_with(1, KILLED, 2);
    assert_eq!(w.answered(1), None, "two backends still run");
    assert!(matches!(w.actions.last(), Some(Action::Spawn { paused: true, .. })));
    w.event(Event::OrphanFreed);
    assert_eq!(w.answered(1), None);
    w.event(Event::OrphanFreed);
    assert_eq!(w.answered(1), Some(&Answer::Done));
}

#[test]
fn resume_answers_a_pause_that_still_waits() {
    let mut w = World::up(1);
    w.ask(1, Request::Pause);
    w.ask(2, Request::Resume);
    assert_eq!(w.answered(1), Some(&Answer::Done));
    assert_eq!(w.answered(2), Some(&Answer::Done));
}

#[test]
fn signals() {
    let mut w = World::up(1);
    w.event(Event::Signal(Signal::Usr2));
    assert!(w.logged("got SIGUSR2, but not paused/suspended"));
    w.event(Event::Signal(Signal::Usr1));
    assert!(w.logged("got SIGUSR1, pausing all activity"));
    assert_eq!(w.sent(), [(0, ToWorker::Pause { paused: true, round: 1 })]);
    w.event(Event::Signal(Signal::Usr1));
    assert!(w.logged("got SIGUSR1, but already paused/suspended"));
    w.event(Event::Signal(Signal::Usr2));
    assert!(w.logged("got SIGUSR2, continuing from PAUSE"));
    assert_eq!(w.sent(), [(0, ToWorker::Pause { paused: false, round: 1 })]);
    w.event(Event::Signal(Signal::Term));
    w.event(Event::Signal(Signal::Usr2));
    assert!(w.logged("got SIGUSR2 while shutting down, ignoring"));
}

#[test]
fn resume_while_draining() {
    let mut w = World::up(1);
    w.ask(1, Request::Pause);
    w.event(Event::Signal(Signal::Term));
    w.ask(2, Request::Resume);
    assert_eq!(w.answered(2), Some(&Answer::Done), "clients that are waited for must be able to go on");
    w.ask(3, Request::Shutdown(shared::control::StopMode::WaitForServers));
    w.ask(4, Request::Resume);
    assert_eq!(w.answered(4), Some(&Answer::Failed(Failure::ShuttingDown)));
}
