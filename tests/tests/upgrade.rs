//! Another binary takes the running fleet over: the same process, the same clients, the same servers.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::program::binary;
use end_to_end::upgrading::{Unmoved, copy, disturb, is_upgraded, upgrade};
use end_to_end::{Client, Fleet, Postgres, SOON, each_worker_count, frontend, process, wait_until};
use nix::sys::signal::Signal;
use std::cell::RefCell;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

#[test]
fn from_the_shell() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).start();
    let (before, supervisor) = (fleet.all_workers(), fleet.pid());
    let mut client = fleet.client();
    client.query("set application_name = 'stays'");
    let backend = client.value("select pg_backend_pid()");
    let done = upgrade(&fleet, None);
    assert!(done.status.success(), "{done:?}");
    assert!(String::from_utf8_lossy(&done.stdout).ends_with("upgraded\n"), "{done:?}");
    is_upgraded(&fleet, &before);
    assert_eq!(fleet.pid(), supervisor);
    assert_eq!(client.value("show application_name"), "stays");
    assert_eq!(client.value("select pg_backend_pid()"), backend);
}

#[test]
fn a_binary_that_cannot_take_over_changes_nothing() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).start();
    let faulty = Path::new(env!("CARGO_BIN_EXE_faulty"));
    let plain = copy(&fleet, &binary(), "plain");
    fs::set_permissions(&plain, Permissions::from_mode(0o644)).unwrap();
    let text = fleet.folder().join("text");
    fs::write(&text, "no program").unwrap();
    fs::set_permissions(&text, Permissions::from_mode(0o755)).unwrap();
    for (binary, reason) in [
        (plain, "cannot be executed: Permission denied"),
        (text, "ended without an answer: exit status"),
        (fleet.folder().join("absent"), "No such file or directory"),
        (fleet.folder().to_owned(), "is not a file"),
        (copy(&fleet, faulty, "ends"), "ended without an answer: exit status 3"),
        (copy(&fleet, faulty, "crashes"), "ended without an answer: signal 6 (SIGABRT)"),
        (copy(&fleet, faulty, "hangs"), "does not answer within 10 s"),
    ] {
        let unmoved = Unmoved::new(&fleet);
        let output = upgrade(&fleet, Some(&binary));
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(reason), "{output:?}");
        unmoved.check(&fleet);
    }
    let unmoved = Unmoved::new(&fleet);
    fleet.change("pool_size_of_the_moon", 3);
    let output = upgrade(&fleet, None);
    // Neither does the command accept such a file; the console asks the new binary.
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let refused = fleet.console().query("upgrade");
    assert!(
        refused.errors[0].text().contains("refuses") && refused.errors[0].text().contains("pool_size_of_the_moon"),
        "{refused:?}"
    );
    unmoved.check(&fleet);
}

#[test]
fn a_canary_that_fails_brings_the_binary_before_back() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(1).start();
    let supervisor = fleet.pid();
    // One that has never been heard of has longer to say that it is ready.
    for (fault, reasons) in [
        (Signal::SIGKILL, &["ended before it was ready: signal 9"][..]),
        (Signal::SIGSTOP, &["ended before it was ready: signal 9", "was not ready within 20 s"]),
    ] {
        let (output, unmoved) = disturb(&fleet, &[&binary()], |canary, _| process::signal(canary, fault));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(reasons.iter().any(|reason| said.contains(reason)), "{output:?}");
        assert!(fleet.logged("the version before is brought back") > 0);
        wait_until("the canary to be gone", SOON, || process::children(supervisor).len() == 1);
        unmoved.check(&fleet);
    }
    let before = fleet.all_workers();
    let mut client = fleet.client();
    assert_eq!(client.query("begin").status, 'T');
    let done = upgrade(&fleet, None);
    assert!(done.status.success(), "{done:?}");
    is_upgraded(&fleet, &before);
    assert_eq!(client.query("commit").errors.len(), 0);
}

#[test]
fn a_new_supervisor_that_crashes_brings_the_binary_before_back() {
    each_worker_count(&Postgres::start(), |builder| builder, a_new_supervisor_crashes);
}

fn a_new_supervisor_crashes(fleet: &mut Fleet) {
    let supervisor = fleet.pid();
    let mut stays = fleet.client();
    stays.query("set application_name = 'stays'");
    let sessions = RefCell::new((0..50).map(|_| fleet.console()).collect::<Vec<Client>>());
    let (output, unmoved) = disturb(fleet, &[&binary()], |canary, too_late| {
        process::signal(canary, Signal::SIGSTOP);
        // What the image before had open is closed by the new one.
        let ended = fleet.logged("closing because: client unexpected eof");
        drop(sessions.borrow_mut().pop());
        wait_until("the session to end", SOON, || fleet.logged("closing because: client unexpected eof") > ended);
        if !too_late() {
            process::signal(supervisor, Signal::SIGSEGV);
        }
    });
    assert!(String::from_utf8_lossy(&output.stderr).contains("was ended by signal 11 (SIGSEGV)"), "{output:?}");
    assert_eq!(fleet.pid(), supervisor);
    wait_until("the canary to be gone", SOON, || process::children(supervisor).len() == fleet.worker_count());
    unmoved.check(fleet);
    let before = fleet.all_workers();
    let done = upgrade(fleet, None);
    assert!(done.status.success(), "{done:?}");
    is_upgraded(fleet, &before);
    assert_eq!(stays.value("show application_name"), "stays");
}

/// A start would fail by it.
#[test]
fn a_file_that_has_become_unreadable_since_the_start_is_no_hindrance() {
    let server = Postgres::start();
    let resolv_conf = tempfile::NamedTempFile::new().unwrap();
    fs::write(resolv_conf.path(), "nameserver 127.0.0.1\n").unwrap();
    fs::set_permissions(resolv_conf.path(), Permissions::from_mode(0o644)).unwrap();
    let fleet = Fleet::builder(&server).setting("resolv_conf", resolv_conf.path().display()).start();
    let before = fleet.all_workers();
    fs::set_permissions(resolv_conf.path(), Permissions::from_mode(0o000)).unwrap();
    let output = upgrade(&fleet, None);
    assert!(output.status.success(), "{output:?}");
    is_upgraded(&fleet, &before);
}

/// What waits at the console goes on waiting, and is answered by another image.
#[test]
fn sessions_of_the_console_go_on() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).start();
    let mut client = fleet.client();
    assert_eq!(client.query("begin").status, 'T');
    let (mut idle, mut pausing) = (fleet.console(), fleet.console());
    assert!(!idle.query("show pools").rows.is_empty());
    pausing.send(&frontend::query("pause app"));
    fleet.wait_for_log("PAUSE 'app' command issued");
    let before = fleet.all_workers();
    // A paused pool's linked session stays with its worker: its transaction is waited for.
    let mut upgrading = fleet.console();
    upgrading.send(&frontend::query("upgrade"));
    fleet.wait_for_log("has taken over");
    assert!(!idle.query("show databases").rows.is_empty());
    assert_eq!(client.query("commit").errors.len(), 0);
    assert_eq!(pausing.answer().tags, ["PAUSE"]);
    assert_eq!(upgrading.answer().tags, ["UPGRADE"]);
    is_upgraded(&fleet, &before);
    assert_eq!(pausing.query("resume app").tags, ["RESUME"]);
    assert_eq!(client.value("select 1"), "1");
}

/// A signal that comes while everything stands still is obeyed by whoever goes on.
#[test]
fn signals_are_not_lost() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).start();
    for round in 0..5 {
        let name = format!("round{round}");
        let mut upgrading = fleet.console();
        upgrading.send(&frontend::query("upgrade"));
        fleet.change_database(&name, format!("host=127.0.0.1 port={} dbname=app", server.port()));
        std::thread::sleep(Duration::from_millis(round * 4));
        fleet.signal(Signal::SIGHUP);
        assert_eq!(upgrading.answer().tags, ["UPGRADE"]);
        wait_until("the new configuration", SOON, || {
            fleet.console().query("show databases").rows.iter().any(|row| row[0].as_deref() == Some(name.as_str()))
        });
    }
}

#[test]
fn who_may_say_which_binary() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).start();
    let refused = fleet.console().query(&format!("upgrade '{}'", binary().display()));
    assert!(refused.errors[0].text().contains("by the user that the fleet runs as"), "{refused:?}");
    let before = fleet.all_workers();
    assert_eq!(fleet.console().query("upgrade").tags, ["UPGRADE"]);
    is_upgraded(&fleet, &before);
}

#[test]
fn as_pgbouncer_spells_it() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).start();
    let before = fleet.all_workers();
    let output = fleet.command(&["-R"]).output().unwrap();
    assert!(output.status.success(), "{}", fleet.log());
    is_upgraded(&fleet, &before);
}
