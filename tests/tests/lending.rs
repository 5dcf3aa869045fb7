//! Servers on their way from worker to worker, where that is not simple.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Client, Fleet, Postgres, SOON, frontend, place, process, wait_until};
use nix::sys::signal::Signal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// One idle server is being checked for a client here and does not answer: the others are of use to clients elsewhere.
#[test]
fn idle_servers_beside_one_that_is_being_checked() {
    let server = Postgres::start();
    let builder = Fleet::builder(&server).workers(2).pool_size(5).setting("accept_balance", 0);
    let fleet = builder.setting("server_check_delay", 0).setting("server_connect_timeout", 60).start();
    let mut clients = place(&fleet, &[3, 1], || fleet.client());
    let mut elsewhere = clients.pop().unwrap();
    for client in &mut clients {
        client.query("begin");
    }
    let backends: Vec<u32> = clients.iter_mut().map(|client| client.value("select pg_backend_pid()").parse().unwrap()).collect();
    for client in &mut clients {
        client.query("commit");
    }
    // The one used last is taken first.
    let checked = backends[2];
    process::signal(checked, Signal::SIGSTOP);
    clients[0].send(&frontend::query("select 1"));
    wait_until("the check", SOON, || fleet.console().query("show pools").column("sv_tested").contains(&"1".to_owned()));
    let asked = Instant::now();
    let served_by: u32 = elsewhere.value("select pg_backend_pid()").parse().unwrap();
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert!(backends.contains(&served_by) && served_by != checked, "an idle one, not a new one");
    process::signal(checked, Signal::SIGCONT);
    assert_eq!(clients[0].answer().value(), "1");
}

/// What a server is said to hold may be longer than a datagram.
#[test]
fn a_server_with_thousands_of_prepared_statements() {
    let server = Postgres::start();
    let builder = Fleet::builder(&server).workers(2).pool_size(1).setting("accept_balance", 0);
    let fleet = builder.setting("max_prepared_statements", 30_000).start();
    let mut clients = place(&fleet, &[1, 1], || fleet.client());
    let (mut elsewhere, mut client) = (clients.pop().unwrap(), clients.pop().unwrap());
    for batch in 0..130 {
        let parse = |i: i32| frontend::parse(&format!("s{batch}_{i}"), &format!("select '{batch}/{i}'"));
        let mut bytes: Vec<u8> = (0..100).flat_map(parse).collect();
        bytes.extend(frontend::sync());
        client.send(&bytes);
        assert!(client.answer().errors.is_empty());
    }
    let backend = client.value("select pg_backend_pid()");
    assert_eq!(elsewhere.value("select pg_backend_pid()"), backend, "it is the only one");
    client.send(&[frontend::bind("", "s7_8", &[]), frontend::execute("", 0), frontend::sync()].concat());
    assert_eq!(client.answer().value(), "7/8", "and back again, with all that it holds");
    assert_eq!(fleet.logged("could not be"), 0);
}

/// A connection that has been lent leaves no descriptor behind, however quickly the next one follows.
#[test]
fn descriptors_are_given_back_at_once() {
    const POOLS: usize = 10;
    let server = Postgres::start();
    let entry = format!("host=127.0.0.1 port={} dbname=app", server.port());
    let builder = Fleet::builder(&server).workers(2).pool_size(1).setting("accept_balance", 0);
    let fleet = (0..POOLS).fold(builder, |builder, pool| builder.database(&format!("d{pool}"), &entry)).start();
    let login = |pool: usize| Client::login(fleet.port(), "app", &format!("d{pool}"));
    let clients: Vec<Client> = (0..POOLS).flat_map(|pool| place(&fleet, &[1, 1], || login(pool))).collect();
    let workers = fleet.all_workers();
    let most = |pids: &[u32]| pids.iter().map(|pid| process::descriptors(*pid)).max().unwrap();
    let before = most(&workers);
    let stop = AtomicBool::new(false);
    let (seen, sent) = std::thread::scope(|scope| {
        let askers = clients.into_iter().map(|mut client| {
            let stop = &stop;
            scope.spawn(move || {
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(client.value("select 1"), "1");
                    sent += 1;
                }
                sent
            })
        });
        let askers: Vec<_> = askers.collect();
        let end = Instant::now() + Duration::from_secs(2);
        let mut seen = 0;
        while Instant::now() < end {
            seen = seen.max(most(&workers));
        }
        stop.store(true, Ordering::Relaxed);
        (seen, askers.into_iter().map(|asker| asker.join().unwrap()).sum::<u32>())
    });
    println!("{sent} transactions, {before} descriptors before, {seen} at most");
    // Each pool's one server, and once more on its way.
    assert!(sent > 200 && seen <= before + 2 * POOLS + 4, "{sent} transactions, {before} descriptors before, {seen} at most");
}
