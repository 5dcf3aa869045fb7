//! How a fleet stops, pauses and goes on; and that nothing of it is ever left behind.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::frontend::query;
use end_to_end::{Client, Fleet, Postgres, Regulars, SOON, each_worker_count, process, wait_until};
use nix::sys::signal::Signal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[test]
fn quit_ends_everything_at_once() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder,
        |fleet| {
            let mut busy = fleet.client();
            busy.send(&query("select pg_sleep(60)"));
            let mut idle = fleet.client();
            fleet.signal(Signal::SIGQUIT);
            assert_eq!(fleet.wait_for_exit().code(), Some(0));
            busy.expect_end();
            idle.expect_end();
            fleet.wait_for_log("got SIGQUIT, fast exit");
            assert!(Client::try_tcp(fleet.port()).is_err(), "nobody listens any more");
            assert!(!fleet.folder().join(format!(".s.PGSQL.{}", fleet.port())).exists(), "the socket file is gone");
        },
    );
}

#[test]
fn term_waits_for_clients() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder,
        |fleet| {
            let mut clients: Vec<Client> = (0..4).map(|_| fleet.client()).collect();
            fleet.signal(Signal::SIGTERM);
            fleet.wait_for_log("got SIGTERM, shutting down, waiting for all clients disconnect");
            wait_until("the listeners to close", SOON, || Client::try_tcp(fleet.port()).is_err());
            for _ in 0..3 {
                for client in &mut clients {
                    assert_eq!(client.value("select 1"), "1", "who is there stays");
                }
            }
            let last = clients.pop();
            drop(clients);
            assert!(fleet.has_ended().is_none(), "one is still there");
            drop(last);
            assert_eq!(fleet.wait_for_exit().code(), Some(0));
        },
    );
}

#[test]
fn int_waits_for_transactions() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder,
        |fleet| {
            let mut inside = fleet.client();
            inside.query("begin");
            let mut idle = fleet.client();
            fleet.signal(Signal::SIGINT);
            fleet.wait_for_log("got SIGINT, shutting down, waiting for all servers connections to be released");
            wait_until("the listeners to close", SOON, || Client::try_tcp(fleet.port()).is_err());
            idle.send(&query("select 1"));
            let fields = idle.refusal();
            assert_eq!((fields.severity(), fields.code(), fields.text()), ("FATAL", "57P01", "server shutting down"));
            assert_eq!(inside.value("select 1"), "1");
            assert_eq!(inside.query("commit").tags, ["COMMIT"]);
            assert_eq!(fleet.wait_for_exit().code(), Some(0));
            inside.expect_end();
        },
    );
}

#[test]
fn a_second_signal_hurries() {
    let server = Postgres::start();
    for (signal, text) in [
        (Signal::SIGTERM, "got SIGTERM while shutting down, fast exit"),
        (Signal::SIGINT, "got SIGINT while shutting down, fast exit"),
    ] {
        let mut fleet = Fleet::builder(&server).workers(2).start();
        let mut client = fleet.client();
        client.query("begin");
        fleet.signal(signal);
        fleet.wait_for_log("shutting down, waiting");
        fleet.signal(signal);
        assert_eq!(fleet.wait_for_exit().code(), Some(0));
        fleet.wait_for_log(text);
        client.expect_end();
    }
}

#[test]
fn the_consoles_shutdown() {
    let server = Postgres::start();
    for workers in [1, 4] {
        let build = || Fleet::builder(&server).workers(workers).start();

        let mut fleet = build();
        let mut console = fleet.console();
        let mut client = fleet.client();
        console.send(&query("shutdown"));
        console.expect_end();
        client.expect_end();
        assert_eq!(fleet.wait_for_exit().code(), Some(0));

        let mut fleet = build();
        let mut console = fleet.console();
        let mut client = fleet.client();
        assert_eq!(console.query("shutdown wait_for_clients").tags, ["SHUTDOWN"]);
        drop(console);
        assert_eq!(client.value("select 1"), "1");
        drop(client);
        assert_eq!(fleet.wait_for_exit().code(), Some(0));

        let mut fleet = build();
        let mut console = fleet.console();
        let mut client = fleet.client();
        client.query("begin");
        assert_eq!(console.query("shutdown wait_for_servers").tags, ["SHUTDOWN"]);
        assert_eq!(client.query("commit").tags, ["COMMIT"]);
        assert_eq!(fleet.wait_for_exit().code(), Some(0));
    }
}

#[test]
fn usr1_pauses_and_usr2_resumes() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder,
        |fleet| {
            let mut inside = fleet.client();
            inside.query("begin");
            let mut clients: Vec<Client> = (0..4).map(|_| fleet.client()).collect();
            for client in &mut clients {
                assert_eq!(client.value("select 1"), "1");
            }
            fleet.signal(Signal::SIGUSR1);
            fleet.wait_for_log("got SIGUSR1, pausing all activity");
            let mut console = fleet.console();
            wait_until("the idle servers to be closed", SOON, || {
                console.query("show pools").lookup("user", "app", "sv_idle") == "0"
            });
            for client in &mut clients {
                client.send(&query("select 'after the pause'"));
            }
            for client in &mut clients {
                client.expect_silence(Duration::from_millis(100));
            }
            assert_eq!(inside.value("select 'inside'"), "inside", "a transaction goes on to its end");
            assert_eq!(inside.query("commit").tags, ["COMMIT"]);
            fleet.signal(Signal::SIGUSR1);
            fleet.wait_for_log("got SIGUSR1, but already paused");
            fleet.signal(Signal::SIGUSR2);
            fleet.wait_for_log("got SIGUSR2, continuing from PAUSE");
            for client in &mut clients {
                assert_eq!(client.answer().value(), "after the pause");
            }
            fleet.signal(Signal::SIGUSR2);
            fleet.wait_for_log("got SIGUSR2, but not paused");
        },
    );
}

/// A worker that is started while the fleet is paused comes up paused.
#[test]
fn a_pause_holds_in_a_successor() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(2).start();
    assert_eq!(fleet.client().value("select 1"), "1");
    fleet.signal(Signal::SIGUSR1);
    fleet.wait_for_log("pausing all activity");
    for pid in fleet.all_workers() {
        process::signal(pid, Signal::SIGKILL);
        wait_until("a successor", SOON, || fleet.workers().len() == 2 && !fleet.workers().contains(&pid));
    }
    let mut client = Client::tcp(fleet.port());
    client.send(&end_to_end::frontend::startup(&[("user", "app"), ("database", "app")]));
    client.send(&query("select 'resumed'"));
    fleet.signal(Signal::SIGUSR2);
    client.authenticate("app", None).unwrap();
    assert_eq!(client.answer().value(), "resumed");
}

#[test]
fn hup_reopens_the_log_file() {
    let server = Postgres::start();
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let log = folder.path().join("own.log");
    let mut fleet = Fleet::builder(&server).workers(2).setting("logfile", log.display()).start();
    let text = || std::fs::read_to_string(&log).unwrap_or_default();
    wait_until("the log file", SOON, || text().contains("process up"));
    std::fs::rename(&log, folder.path().join("rotated.log")).unwrap();
    fleet.signal(Signal::SIGHUP);
    wait_until("a new log file", SOON, || {
        drop(fleet.client());
        log.exists()
    });
    // Supervisor and every worker write to the new one.
    for pid in fleet.all_workers() {
        // The file is there before every worker has it: ask until one's line is in it.
        wait_until("the worker's line", SOON, || {
            let port = fleet.client_at(pid).local_port();
            text().lines().any(|line| line.contains(&format!(":{port} ")) && line.contains(&format!("[{pid}]")))
        });
    }
    assert!(std::fs::read_to_string(folder.path().join("rotated.log")).unwrap().contains("got SIGHUP, re-reading config"));
    // A file that cannot be used is refused; the log is opened anew all the same.
    std::fs::rename(&log, folder.path().join("rotated again.log")).unwrap();
    fleet.change("query_wait_timeout", "nonsense");
    fleet.signal(Signal::SIGHUP);
    wait_until("a line in the newest file", SOON, || {
        drop(fleet.client());
        text().contains("login attempt")
    });
}

#[test]
fn the_pidfile() {
    let server = Postgres::start();
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let pidfile = folder.path().join("fleet.pid");
    let build = || Fleet::builder(&server).workers(2).setting("pidfile", pidfile.display());
    let mut fleet = build().start();
    assert_eq!(std::fs::read_to_string(&pidfile).unwrap(), format!("{}\n", fleet.pid()));
    let second = build().write();
    let output = second.command(&[]).status().unwrap();
    assert_eq!(output.code(), Some(1));
    let log = std::fs::read_to_string(second.folder().join("log.txt")).unwrap();
    assert!(log.contains(&format!("FATAL pidfile '{}' exists, another instance running?", pidfile.display())), "{log}");
    fleet.signal(Signal::SIGQUIT);
    fleet.wait_for_exit();
    assert!(!pidfile.exists());
    // One that a crash has left.
    std::fs::write(&pidfile, "999999999\n").unwrap();
    let fleet = build().start();
    fleet.wait_for_log("stale pidfile, removing");
}

/// A signal for the fleet goes to its supervisor; one that reaches a worker does not act on that worker alone.
#[test]
fn a_signal_to_a_worker_is_not_a_shutdown() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(2).start();
    let pids = fleet.all_workers();
    let mut clients: Vec<Client> = pids.iter().map(|&pid| fleet.client_at(pid)).collect();
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2] {
        for &pid in &pids {
            process::signal(pid, signal);
        }
        for client in &mut clients {
            assert_eq!(client.value("select 1"), "1", "{signal}");
        }
    }
    assert_eq!(fleet.workers(), pids);
}

/// Signals of all kinds but those that end a fleet, at supervisor and workers, and those at workers only, while these are replaced.
#[test]
fn a_storm_of_signals_drops_nobody() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(3).pool_size(6).start();
    fleet.all_workers();
    let regulars = Regulars::start(fleet.port(), 12, "app", Duration::ZERO);
    let harmless = [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];
    let ending = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..3 {
                let answer = fleet.console().query("restart");
                assert_eq!(answer.tags, ["RESTART"], "{answer:?}\n{}", fleet.log());
            }
            over.store(true, Ordering::Relaxed);
        });
        let mut round: usize = 0;
        while !over.load(Ordering::Relaxed) {
            round += 1;
            fleet.signal(harmless[round % 3]);
            if round.is_multiple_of(7) {
                fleet.signal(harmless[round / 7 % 3]);
            }
            for (number, pid) in fleet.workers().into_iter().enumerate() {
                process::signal(pid, harmless[(round + number) % 3]);
                process::signal(pid, ending[(round + number) % 3]);
            }
            // A transaction that a pause holds up ends the worker's hand-over only with it.
            if round.is_multiple_of(20) {
                fleet.signal(Signal::SIGUSR2);
                let seen = regulars.answered();
                wait_until("traffic", SOON, || regulars.answered() > seen);
            }
        }
    });
    fleet.signal(Signal::SIGUSR2);
    let seen = regulars.answered();
    wait_until("traffic when all is over", SOON, || regulars.answered() > seen + 50);
    let states = fleet.console().query("show databases");
    assert_eq!(states.lookup("name", "app", "paused"), "0");
    assert_eq!(fleet.all_workers().len(), 3);
    for visit in regulars.finish() {
        assert!(visit.lost.is_none() && visit.greeted && visit.answered > 0, "{visit:?}");
    }
    fleet.signal(Signal::SIGTERM);
    assert_eq!(fleet.wait_for_exit().code(), Some(0));
}
