//! RESTART: by whom, and what becomes of it when workers die meanwhile. That no client notices is shown in `unbroken`.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Client, Fleet, Postgres, Regulars, SOON, Sampler, process, wait_until};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

const SERVERS: usize = 12;

fn backends(server: &Postgres) -> BTreeSet<i32> {
    let rows = server.admin().query("select pid from pg_stat_activity where usename = 'app'", &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Every connection of the pool is opened.
fn fill(fleet: &Fleet, server: &Postgres) -> BTreeSet<i32> {
    let mut clients: Vec<Client> = (0..SERVERS).map(|_| fleet.client()).collect();
    for client in &mut clients {
        assert_eq!(client.query("begin").status, 'T');
    }
    for client in &mut clients {
        client.query("commit");
    }
    backends(server)
}

/// By the command line too.
#[test]
fn from_the_shell() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(1).start();
    let before = fleet.all_workers();
    let mut client = fleet.client();
    let backend = client.value("select pg_backend_pid()");
    let restart = fleet.command(&["restart"]).stdout(Stdio::piped()).output().unwrap();
    assert!(restart.status.success(), "{restart:?}");
    assert!(String::from_utf8_lossy(&restart.stdout).ends_with("restarted\n"), "{restart:?}");
    assert_ne!(fleet.all_workers(), before);
    assert_eq!(client.value("select pg_backend_pid()"), backend);
}

/// Whoever dies meanwhile takes its own sessions with it and nothing else.
#[test]
fn workers_die_while_they_are_replaced() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(2).pool_size(SERVERS).start();
    fleet.all_workers();
    let sampler = Sampler::start(&server);
    let regulars = Regulars::start(fleet.port(), 16, "app", Duration::from_millis(20));
    for round in 0..6_usize {
        std::thread::scope(|scope| {
            scope.spawn(|| fleet.console().query("restart"));
            let seen = regulars.answered();
            wait_until("some traffic", SOON, || regulars.answered() > seen + 20 * (round as u64 % 3));
            let workers = fleet.workers();
            process::signal(workers[round % workers.len()], Signal::SIGKILL);
        });
        wait_until("two to serve", SOON, || fleet.console().query("show workers").column("state") == ["serving", "serving"]);
        let seen = regulars.answered();
        wait_until("the load to go on", SOON, || regulars.answered() > seen + 50);
    }
    regulars.finish();
    assert_eq!(fill(&fleet, &server).len(), SERVERS);
    assert!(sampler.finish().most <= SERVERS as i64);
}
