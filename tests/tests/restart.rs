//! Workers are replaced under load, and no client notices.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::tls::Authority;
use end_to_end::{Client, Fleet, Postgres, Regulars, SOON, Sampler, frontend, network, process, wait_until};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::io::BufRead;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

const SERVERS: usize = 12;

/// How many in a row: 5, or as many as PGFLEET_RESTARTS says.
fn restarts() -> u32 {
    std::env::var("PGFLEET_RESTARTS").map_or(5, |count| count.parse().unwrap())
}

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

#[track_caller]
fn restart(fleet: &Fleet) {
    let before = fleet.all_workers();
    let answer = fleet.console().query("restart");
    assert_eq!((answer.errors.len(), answer.tags.as_slice()), (0, &["RESTART".to_owned()][..]), "{answer:?}\n{}", fleet.log());
    let after = fleet.all_workers();
    assert!(after.len() == before.len() && before.iter().all(|pid| !after.contains(pid)), "{before:?} {after:?}");
}

/// Prepares once, and goes by it.
fn prepared(fleet: &Fleet, stop: &AtomicBool) {
    let mut driver = fleet.driver().connect(postgres::NoTls).unwrap();
    let statement = driver.prepare("select $1::int + 1, current_setting('application_name')").unwrap();
    driver.batch_execute("set application_name = 'prepared'").unwrap();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let row = driver.query_one(&statement, &[&number]).unwrap();
        assert_eq!((row.get::<_, i32>(0), row.get::<_, &str>(1)), (number + 1, "prepared"));
    }
}

/// Copies in both directions, more than any buffer holds.
fn copies(fleet: &Fleet, stop: &AtomicBool, done: &AtomicU32) {
    let mut client = fleet.client();
    while !stop.load(Ordering::Relaxed) {
        let answer = client.query("copy (select generate_series(1, 300000)) to stdout");
        assert_eq!(answer.copied.lines().count(), 300_000);
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Answers of all lengths inside TLS, by this version.
fn inside_tls(fleet: &Fleet, authority: &Authority, version: &'static rustls::SupportedProtocolVersion, stop: &AtomicBool) {
    let mut client = Client::tls(fleet.port(), &authority.client(version, None));
    client.start(&[("user", "app"), ("database", "app")], None).unwrap();
    let mut length = 1;
    while !stop.load(Ordering::Relaxed) {
        assert_eq!(client.value(&format!("select repeat('x', {length})")).len(), length);
        length = length * 2 % 300_007;
    }
}

#[test]
fn again_and_again_under_load() {
    let alone = network::own();
    let authority = Authority::new();
    let server = Postgres::start_with(&authority.postgres("server"));
    let sessions = format!("host=127.0.0.1 port={} dbname=app pool_mode=session pool_size=3", server.port());
    let builder = Fleet::builder(&server).workers(2).pool_size(SERVERS).database("sessions", sessions);
    let fleet = builder.client_tls(&authority, "allow").server_tls(&authority, "verify-full").start();
    fleet.all_workers();
    let mut listening = Client::login(fleet.port(), "app", "sessions");
    assert!(listening.query("listen news").errors.is_empty());
    assert!(listening.query("create temporary table mine as select 42 as x").errors.is_empty());
    let before = fill(&fleet, &server);
    let sampler = Sampler::start(&server);
    let (stop, copied) = (AtomicBool::new(false), AtomicU32::new(0));
    let regulars = [
        Regulars::start(fleet.port(), 10, "app", Duration::ZERO),
        Regulars::start(fleet.port(), 6, "app", Duration::from_millis(300)),
    ];
    std::thread::scope(|scope| {
        scope.spawn(|| prepared(&fleet, &stop));
        scope.spawn(|| prepared(&fleet, &stop));
        scope.spawn(|| inside_tls(&fleet, &authority, &rustls::version::TLS12, &stop));
        scope.spawn(|| inside_tls(&fleet, &authority, &rustls::version::TLS13, &stop));
        scope.spawn(|| copies(&fleet, &stop, &copied));
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(fleet.client().value("select 'just here'"), "just here");
            }
        });
        let mut sleeper = fleet.client();
        for round in 0..restarts() {
            sleeper.send(&frontend::query("select pg_sleep(60)"));
            restart(&fleet);
            sleeper.cancel(fleet.port());
            assert_eq!(sleeper.answer().error().code(), "57014", "its key is good in round {round}");
            fleet.client().query(&format!("notify news, '{round}'"));
            wait_until("the notification", SOON, || listening.query("select 1").notified == ["news"]);
            assert_eq!(listening.value("select x from mine"), "42", "it has its own server still");
        }
        let so_far = copied.load(Ordering::Relaxed);
        wait_until("copies to go on", SOON, || copied.load(Ordering::Relaxed) > so_far);
        stop.store(true, Ordering::Relaxed);
    });
    for visit in regulars.into_iter().flat_map(Regulars::finish) {
        assert!(visit.lost.is_none() && visit.greeted && visit.answered > 0, "{visit:?}");
    }
    assert_eq!(backends(&server), before, "none was closed, none opened");
    assert!(sampler.finish().most <= (SERVERS + 3) as i64);
    if alone {
        for name in ["ListenDrops", "ListenOverflows"] {
            assert_eq!(network::counter("TcpExt", name), 0, "{name}");
        }
        assert_eq!(network::counter("Tcp", "EstabResets"), 0);
    }
    for level in ["WARNING", "ERROR", "FATAL"] {
        assert_eq!(fleet.logged(level), 0, "{}", fleet.log());
    }
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
