use super::*;
use shared::control::{StopMode, Welcome};
use shared::ids::ConnectionId;

fn app() -> Scope {
    Scope::Database("app".into())
}

fn welcome(database: &str) -> Welcome {
    Welcome { database: database.into(), user: "u".into(), parameters: vec![] }
}

/// What a worker started now begins with.
fn next_start(w: &mut World, slot: usize) -> (Marks, Vec<Welcome>) {
    w.die(slot, KILLED);
    let start = w.actions.iter().find_map(|action| match action {
        Action::Spawn { marks, welcomes, .. } => Some((marks.clone(), welcomes.clone())),
        _ => None,
    });
    start.unwrap()
}

#[test]
fn every_verb_goes_to_every_worker_and_is_answered_when_all_have_done_it() {
    for (request, order, line) in [
        (Request::Disable("app".into()), Order::Disable("app".into()), "DISABLE 'app' command issued"),
        (Request::Enable("app".into()), Order::Enable("app".into()), "ENABLE 'app' command issued"),
        (Request::Reconnect(app()), Order::Reconnect(app()), "RECONNECT 'app' command issued"),
        (Request::Reconnect(Scope::All), Order::Reconnect(Scope::All), "RECONNECT command issued"),
        (Request::WaitClose(app()), Order::WaitClose(app()), "WAIT_CLOSE 'app' command issued"),
        (Request::WaitClose(Scope::All), Order::WaitClose(Scope::All), "WAIT_CLOSE command issued"),
        (Request::Kill(app(), vec!["app".into()]), Order::Kill(vec!["app".into()]), "KILL 'app' command issued"),
        (Request::Kill(Scope::All, vec!["app".into()]), Order::Kill(vec!["app".into()]), "KILL command issued"),
    ] {
        let mut w = World::up(2);
        w.ask(1, request);
        assert!(w.logged(line), "{line}");
        assert_eq!(w.orders(), [(0, 1, order.clone()), (1, 1, order)]);
        w.done(1, 1);
        w.done(1, 1);
        assert_eq!(w.answered(1), None);
        w.done(0, 1);
        assert_eq!(w.answered(1), Some(&Answer::Done), "{line}");
    }
}

#[test]
fn a_worker_that_dies_or_starts_in_between_is_not_waited_for() {
    let mut w = World::up(2);
    w.ask(1, Request::Disable("app".into()));
    w.done(0, 1);
    let (marks, _) = next_start(&mut w, 1);
    assert!(marks.disabled.contains("app"));
    assert_eq!(w.answered(1), Some(&Answer::Done));
    w.done(1, 1);
    assert!(w.actions.is_empty(), "a successor was never asked");
}

#[test]
fn a_successor_that_is_not_ready_yet_is_given_the_order_too() {
    let mut w = World::up(2);
    w.die(1, KILLED);
    w.ask(1, Request::Disable("app".into()));
    assert_eq!(w.orders().len(), 2);
    w.done(0, 1);
    assert_eq!(w.answered(1), None);
    w.done(1, 1);
    assert_eq!(w.answered(1), Some(&Answer::Done));
}

#[test]
fn all_workers_dead_is_an_answer() {
    let mut w = World::up(2);
    w.ask(1, Request::WaitClose(Scope::All));
    w.die(0, KILLED);
    w.die(1, KILLED);
    assert_eq!(w.answered(1), Some(&Answer::Done));
}

#[test]
fn wait_close_waits_for_dead_workers_backends() {
    let mut w = World::up(2);
    w.ask(1, Request::WaitClose(app()));
    w.done(0, 1);
    w.die_with(1, KILLED, &["app", "other"]);
    assert_eq!(w.answered(1), None);
    w.orphan_freed("app");
    assert_eq!(w.answered(1), Some(&Answer::Done));
    w.ask(2, Request::WaitClose(Scope::All));
    w.done(0, 2);
    w.done(1, 2);
    assert_eq!(w.answered(2), None);
    w.orphan_freed("other");
    assert_eq!(w.answered(2), Some(&Answer::Done));
}

#[test]
fn two_sessions_at_once_are_answered_apart() {
    let mut w = World::up(2);
    w.ask(1, Request::Pause(app()));
    w.ask(2, Request::WaitClose(app()));
    w.ask(3, Request::Reconnect(app()));
    w.done(0, 3);
    w.done(1, 3);
    assert_eq!(w.answered(3), Some(&Answer::Done));
    w.done(0, 1);
    w.done(0, 2);
    w.done(1, 2);
    assert_eq!((w.answered(1), w.answered(2)), (None, Some(&Answer::Done)));
    w.done(1, 1);
    assert_eq!(w.answered(1), Some(&Answer::Done));
}

#[test]
fn what_is_killed_is_paused_until_it_is_resumed_by_name() {
    let mut w = World::up(1);
    w.ask(1, Request::Kill(Scope::All, vec!["app".into(), "other".into()]));
    w.done(0, 1);
    let (marks, _) = next_start(&mut w, 0);
    assert_eq!((marks.is_paused("app"), marks.is_paused("other"), marks.all_paused), (true, true, false));
    w.ask(2, Request::Resume(Scope::All));
    assert_eq!(w.answered(2), Some(&Answer::Failed(Failure::NotPaused)));
    w.ask(3, Request::Resume(app()));
    w.done(0, 2);
    assert_eq!(w.answered(3), Some(&Answer::Done));
    w.ask(4, Request::Pause(Scope::All));
    w.ask(5, Request::Kill(app(), vec!["app".into()]));
    assert_eq!(w.answered(5), Some(&Answer::Failed(Failure::AlreadyPaused)));
}

#[test]
fn a_kill_of_nothing_and_one_of_more_than_a_message_holds() {
    let mut w = World::up(1);
    w.ask(1, Request::Kill(Scope::All, vec![]));
    assert_eq!(w.answered(1), Some(&Answer::Done));
    w.ask(2, Request::Kill(Scope::All, (0..1500).map(|n| format!("db{n}")).collect()));
    assert_eq!(w.orders().len(), 2);
    w.done(0, 1);
    assert_eq!(w.answered(2), None);
    w.done(0, 2);
    assert_eq!(w.answered(2), Some(&Answer::Done));
}

#[test]
fn a_client_is_killed_where_it_is() {
    let id = ConnectionId(7);
    let mut w = World::up(2);
    w.ask(1, Request::KillClient(id));
    assert_eq!(w.orders(), [(0, 1, Order::KillClient(id)), (1, 1, Order::KillClient(id))]);
    w.say(0, Said::Done(1, Outcome::NotFound));
    w.done(1, 1);
    assert_eq!(w.answered(1), Some(&Answer::Done));
    w.ask(2, Request::KillClient(id));
    w.say(0, Said::Done(2, Outcome::NotFound));
    w.die(1, KILLED);
    assert_eq!(w.answered(2), Some(&Answer::Failed(Failure::ClientNotFound)));
}

/// A welcome that was under way when RECONNECT came tells of the old server.
#[test]
fn reconnect_forgets_what_servers_said() {
    let mut w = World::up(2);
    w.say(0, Said::Welcome(welcome("app")));
    w.say(0, Said::Welcome(welcome("other")));
    w.ask(1, Request::Reconnect(app()));
    w.done(0, 1);
    w.say(1, Said::Welcome(welcome("app")));
    assert!(w.sent().is_empty(), "from before the order");
    w.say(0, Said::Welcome(welcome("app")));
    assert_eq!(w.sent().len(), 1, "from after it");
    let (marks, welcomes) = next_start(&mut w, 1);
    assert_eq!((marks.reconnected("app"), marks.reconnected("other")), (1, 0));
    assert_eq!(welcomes, [welcome("app"), welcome("other")]);
}

#[test]
fn an_entry_that_is_removed_takes_its_marks_along() {
    let mut w = World::up(1);
    let gone = || Scope::Database("gone".into());
    for (ask, request) in [(1, Request::Pause(gone())), (2, Request::Disable("gone".into())), (3, Request::Disable("app".into()))] {
        w.ask(ask, request);
    }
    w.ask(4, Request::Reload);
    let generation = w.load();
    w.say(0, Said::Prepared(generation));
    w.say(0, Said::Committed(generation));
    let (marks, _) = next_start(&mut w, 0);
    assert_eq!((marks.paused.len(), marks.disabled), (0, ["app".to_owned()].into()));
}

#[test]
fn a_fleet_that_is_ending_takes_no_orders() {
    let mut w = World::up(1);
    w.ask(1, Request::Shutdown(StopMode::Immediate));
    for (ask, request) in
        [(2, Request::Pause(app())), (3, Request::Reconnect(Scope::All)), (4, Request::KillClient(ConnectionId(1)))]
    {
        w.ask(ask, request);
        assert_eq!(w.answered(ask), Some(&Answer::Failed(Failure::ShuttingDown)));
    }
}

/// A session that moves from a worker that has not been told to one that has been is seen by neither.
#[test]
fn what_sessions_may_have_moved_past_is_told_again() {
    for (request, first, last) in [
        (Request::KillClient(ConnectionId(7)), Outcome::NotFound, Answer::Failed(Failure::ClientNotFound)),
        (Request::WaitClose(app()), Outcome::Done, Answer::Done),
    ] {
        let mut w = World::up(2);
        w.resize(1);
        w.listening(0, 1);
        w.ask(1, request);
        let number = w.last_order;
        for slot in [0, 1] {
            w.say(slot, Said::Done(number, first.clone()));
        }
        assert_eq!((w.orders().len(), w.answered(1)), (2, None));
        // It took a while: sessions have moved since some have looked.
        w.tick(secs(1));
        for slot in [0, 1] {
            w.say(slot, Said::Done(number + 1, first.clone()));
        }
        assert_eq!(w.answered(1), None);
        w.done(0, number + 2);
        w.say(1, Said::Done(number + 2, first));
        let found = if last == Answer::Done { last } else { Answer::Done };
        assert_eq!(w.answered(1), Some(&found), "a moment later nobody has anything to wait for");
    }
    let mut w = World::up(2);
    w.ask(1, Request::KillClient(ConnectionId(7)));
    for slot in [0, 1] {
        w.say(slot, Said::Done(1, Outcome::NotFound));
    }
    assert_eq!(w.answered(1), Some(&Answer::Failed(Failure::ClientNotFound)), "where nobody leaves, once is enough");
}
