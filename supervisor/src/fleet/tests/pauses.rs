use super::*;
use shared::control::StopMode;

const PAUSE: Request = Request::Pause(Scope::All);
const RESUME: Request = Request::Resume(Scope::All);

fn app() -> Scope {
    Scope::Database("app".into())
}

fn is_paused(w: &mut World) -> bool {
    w.ask(99, Request::State);
    matches!(w.answered(99), Some(Answer::State(marks)) if marks.all_paused)
}

#[test]
fn pause_is_answered_when_the_last_worker_is_quiet() {
    let mut w = World::up(2);
    w.ask(1, PAUSE);
    assert!(w.logged("PAUSE command issued"));
    assert_eq!(w.orders(), [(0, 1, Order::Pause(Scope::All)), (1, 1, Order::Pause(Scope::All))]);
    w.done(0, 1);
    assert_eq!(w.answered(1), None);
    w.done(1, 1);
    assert_eq!(w.answered(1), Some(&Answer::Done));
    w.ask(2, PAUSE);
    assert_eq!(w.answered(2), Some(&Answer::Failed(Failure::AlreadyPaused)));
    assert!(is_paused(&mut w));
    w.ask(4, RESUME);
    w.done(0, 2);
    assert_eq!(w.answered(4), None, "not before every worker goes on");
    w.done(1, 2);
    assert_eq!(w.answered(4), Some(&Answer::Done));
    w.ask(5, RESUME);
    assert_eq!(w.answered(5), Some(&Answer::Failed(Failure::NotPaused)));
}

#[test]
fn a_worker_that_dies_does_not_hold_it_up_but_its_backends_do() {
    let mut w = World::up(2);
    w.ask(1, PAUSE);
    w.done(0, 1);
    w.die_with(1, KILLED, &["app", "other"]);
    assert_eq!(w.answered(1), None, "two backends still run");
    assert!(matches!(w.actions.last(), Some(Action::Spawn { marks, .. }) if marks.all_paused));
    w.orphan_freed("app");
    assert_eq!(w.answered(1), None);
    w.orphan_freed("other");
    assert_eq!(w.answered(1), Some(&Answer::Done));
}

#[test]
fn a_database_waits_for_its_own_backends_only() {
    let mut w = World::up(2);
    w.ask(1, Request::Pause(app()));
    assert!(w.logged("PAUSE 'app' command issued"));
    w.die_with(1, KILLED, &["other", "app"]);
    assert!(matches!(w.actions.last(), Some(Action::Spawn { marks, .. }) if marks.is_paused("app") && !marks.is_paused("other")));
    w.done(0, 1);
    assert_eq!(w.answered(1), None);
    w.orphan_freed("app");
    assert_eq!(w.answered(1), Some(&Answer::Done));
}

#[test]
fn a_database_and_the_fleet_are_paused_apart() {
    let mut w = World::up(1);
    for (ask, number) in [(1, 1), (2, 2)] {
        w.ask(ask, Request::Pause(app()));
        w.done(0, number);
        assert_eq!(w.answered(ask), Some(&Answer::Done), "again is no error");
    }
    w.ask(3, RESUME);
    assert_eq!(w.answered(3), Some(&Answer::Failed(Failure::NotPaused)));
    w.ask(4, PAUSE);
    w.done(0, 3);
    w.ask(5, Request::Pause(app()));
    w.done(0, 4);
    assert_eq!(w.answered(5), Some(&Answer::Done), "also while all is paused");
    w.ask(6, RESUME);
    w.done(0, 5);
    assert!(!is_paused(&mut w));
    w.ask(7, Request::Resume(app()));
    w.done(0, 6);
    assert_eq!(w.answered(7), Some(&Answer::Done));
    w.ask(8, Request::Resume(app()));
    assert_eq!(w.answered(8), Some(&Answer::Failed(Failure::DatabaseNotPaused("app".into()))));
}

#[test]
fn resume_answers_a_pause_that_still_waits() {
    let mut w = World::up(1);
    w.ask(1, PAUSE);
    w.ask(2, Request::Pause(app()));
    w.ask(3, Request::Pause(app()));
    w.ask(4, RESUME);
    assert_eq!((w.answered(1), w.answered(2)), (Some(&Answer::Done), None));
    w.ask(5, Request::Resume(app()));
    assert_eq!((w.answered(2), w.answered(3)), (Some(&Answer::Done), Some(&Answer::Done)));
    w.done(0, 1);
    assert_eq!(w.answered(1), None, "one answer is enough");
}

#[test]
fn cancel_takes_a_pause_back() {
    for (scope, other) in [(Scope::All, app()), (app(), Scope::All)] {
        let mut w = World::up(2);
        w.ask(1, Request::Pause(scope.clone()));
        w.ask(2, Request::Pause(other.clone()));
        w.event(Event::Cancelled { ask: AskId(1) });
        assert_eq!(w.answered(1), Some(&Answer::Failed(Failure::Cancelled)));
        assert_eq!(w.orders(), [(0, 3, Order::Resume(scope.clone())), (1, 3, Order::Resume(scope))]);
        assert_eq!(w.answered(2), None, "{other:?} is another matter");
        w.event(Event::Cancelled { ask: AskId(1) });
        assert!(w.actions.is_empty());
    }
}

#[test]
fn cancel_of_what_waits_for_nothing_long() {
    let mut w = World::up(1);
    w.ask(1, Request::Reconnect(Scope::All));
    w.event(Event::Cancelled { ask: AskId(1) });
    assert!(w.actions.is_empty());
    w.done(0, 1);
    assert_eq!(w.answered(1), Some(&Answer::Done));
    w.ask(2, Request::WaitClose(Scope::All));
    w.event(Event::Cancelled { ask: AskId(2) });
    assert_eq!(w.answered(2), Some(&Answer::Failed(Failure::Cancelled)));
    assert!(w.orders().is_empty(), "it had changed nothing");
}

#[test]
fn signals() {
    let mut w = World::up(1);
    w.event(Event::Signal(Signal::Usr2));
    assert!(w.logged("got SIGUSR2, but not paused/suspended"));
    w.event(Event::Signal(Signal::Usr1));
    assert!(w.logged("got SIGUSR1, pausing all activity"));
    assert_eq!(w.orders(), [(0, 1, Order::Pause(Scope::All))]);
    w.event(Event::Signal(Signal::Usr1));
    assert!(w.logged("got SIGUSR1, but already paused/suspended"));
    w.event(Event::Signal(Signal::Usr2));
    assert!(w.logged("got SIGUSR2, continuing from PAUSE"));
    assert_eq!(w.orders(), [(0, 2, Order::Resume(Scope::All))]);
    w.event(Event::Signal(Signal::Term));
    w.event(Event::Signal(Signal::Usr2));
    assert!(w.logged("got SIGUSR2 while shutting down, ignoring"));
}

/// PgBouncer takes a PAUSE while it waits for clients, and no RESUME: nothing ever ends then.
#[test]
fn whoever_pauses_while_clients_are_waited_for_can_resume() {
    let mut w = World::up(1);
    w.ask(1, PAUSE);
    w.event(Event::Signal(Signal::Term));
    w.ask(2, RESUME);
    w.done(0, 2);
    assert_eq!(w.answered(2), Some(&Answer::Done));
    w.event(Event::Signal(Signal::Usr1));
    assert!(is_paused(&mut w));
    w.event(Event::Signal(Signal::Usr2));
    assert!(w.logged("got SIGUSR2, continuing from PAUSE"));
    assert!(!is_paused(&mut w));
}

#[test]
fn what_could_not_be_taken_back_is_not_begun() {
    let mut w = World::up(1);
    w.ask(3, Request::Shutdown(StopMode::WaitForServers));
    for (ask, request) in [(4, RESUME), (5, PAUSE)] {
        w.ask(ask, request);
        assert_eq!(w.answered(ask), Some(&Answer::Failed(Failure::ShuttingDown)));
    }
    w.event(Event::Signal(Signal::Usr1));
    assert!(w.logged("got SIGUSR1 while shutting down, ignoring") && !is_paused(&mut w));
}
