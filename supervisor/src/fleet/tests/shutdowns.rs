use super::*;
use shared::control::StopMode::{Immediate, WaitForClients, WaitForServers};

const OK: Ended = Ended::Status(0);

#[test]
fn term_waits_for_clients() {
    let mut w = World::up(2);
    w.event(Event::Signal(Signal::Term));
    assert!(w.logged("got SIGTERM, shutting down, waiting for all clients disconnect"));
    assert!(w.did(&Action::CloseListeners) && w.did(&Action::Notify(Notice::Stopping)));
    assert_eq!(w.sent(), [(0, ToWorker::Stop(WaitForClients)), (1, ToWorker::Stop(WaitForClients))]);
    w.die(0, OK);
    assert!(w.spawned().is_empty() && w.exit.is_none());
    w.tick(secs(100_000));
    assert!(w.exit.is_none());
    w.die(1, OK);
    assert!(w.logged("client connections dropped, exiting"));
    assert_eq!(w.exit, Some(0));
}

#[test]
fn int_waits_for_servers_and_for_orphans() {
    let mut w = World::up(2);
    w.event(Event::Signal(Signal::Int));
    assert!(w.logged("got SIGINT, shutting down, waiting for all servers connections to be released"));
    assert_eq!(w.sent(), [(0, ToWorker::Stop(WaitForServers)), (1, ToWorker::Stop(WaitForServers))]);
    w.die_with(0, KILLED, &["app"]);
    assert!(w.logged("worker 0 (pid 101) ended: signal 9 (SIGKILL)") && w.spawned().is_empty());
    w.die(1, OK);
    assert_eq!(w.exit, None);
    w.orphan_freed("app");
    assert!(w.logged("server connections dropped, exiting"));
    assert_eq!(w.exit, Some(0));
}

#[test]
fn console_sessions_are_clients_too() {
    let mut w = World::up(1);
    w.event(Event::ConsoleOpened);
    w.ask(1, Request::Shutdown(WaitForClients));
    assert!(w.logged("SHUTDOWN WAIT_FOR_CLIENTS command issued"));
    assert_eq!(w.answered(1), Some(&Answer::Done));
    w.die(0, OK);
    assert_eq!(w.exit, None);
    w.event(Event::ConsoleClosed);
    assert_eq!(w.exit, Some(0));
}

#[test]
fn a_second_signal_hurries_whatever_the_first_was() {
    for (first, second) in
        [(Signal::Term, Signal::Term), (Signal::Term, Signal::Int), (Signal::Int, Signal::Term), (Signal::Int, Signal::Int)]
    {
        let mut w = World::up(1);
        w.event(Event::Signal(first));
        w.event(Event::Signal(second));
        let name = if second == Signal::Term { "SIGTERM" } else { "SIGINT" };
        assert!(w.logged(&format!("got {name} while shutting down, fast exit")));
        assert_eq!(w.sent(), [(0, ToWorker::Stop(Immediate))]);
        assert!(!w.did(&Action::CloseListeners), "closed already");
        w.die(0, OK);
        assert_eq!(w.exit, Some(0));
        assert!(!w.logged("dropped, exiting"));
    }
}

#[test]
fn quit_kills_what_does_not_go() {
    let mut w = World::up(2);
    w.event(Event::Signal(Signal::Quit));
    assert!(w.logged("got SIGQUIT, fast exit"));
    w.die(0, OK);
    w.tick(secs(1));
    assert!(!w.did(&Action::Kill(Slot(1))));
    w.tick(secs(1));
    assert!(w.did(&Action::Kill(Slot(1))));
    w.die(1, KILLED);
    assert_eq!(w.exit, Some(0));
}

#[test]
fn a_signal_while_ending_kills_at_once() {
    let mut w = World::up(1);
    w.event(Event::Signal(Signal::Quit));
    w.event(Event::Signal(Signal::Term));
    assert!(w.did(&Action::Kill(Slot(0))));
    w.event(Event::Signal(Signal::Int));
    assert!(!w.did(&Action::Kill(Slot(0))), "once");
}

#[test]
fn the_console_may_change_its_mind() {
    let mut w = World::up(1);
    w.ask(1, Request::Shutdown(WaitForClients));
    w.ask(2, Request::Shutdown(WaitForServers));
    assert_eq!(w.sent(), [(0, ToWorker::Stop(WaitForServers))]);
    w.ask(3, Request::Shutdown(Immediate));
    assert!(w.logged("SHUTDOWN command issued"));
    assert_eq!(w.answered(3), None, "its end is the answer");
    w.die(0, OK);
    assert_eq!(w.exit, Some(0));
}

#[test]
fn a_crash_and_a_shutdown_at_once() {
    let mut w = World::up(2);
    for _ in 0..3 {
        w.die(0, KILLED);
    }
    w.event(Event::Signal(Signal::Term));
    w.tick(secs(60));
    assert!(w.spawned().is_empty(), "nothing is started on the way out");
    w.die(1, OK);
    assert_eq!(w.exit, Some(0));
}

#[test]
fn a_reload_under_way_does_not_hold_it_up() {
    let mut w = World::up(2);
    w.ask(1, Request::Reload);
    let g = w.load();
    w.say(0, Said::Prepared(g));
    w.event(Event::Signal(Signal::Quit));
    w.die(1, OK);
    w.die(0, OK);
    assert_eq!(w.exit, Some(0));
}

#[test]
fn a_worker_that_is_only_starting_is_stopped_too() {
    let mut w = World::new(1);
    w.event(Event::Signal(Signal::Term));
    assert_eq!(w.sent(), [(0, ToWorker::Stop(WaitForClients))]);
    w.say(0, Said::Ready);
    assert!(!w.logged("process up"));
    w.die(0, OK);
    assert_eq!(w.exit, Some(0));
}
