//! Processes killed under load: who loses what.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Client, Fleet, Postgres, SOON, Sampler, backends, frontend, process, wait_until};
use nix::sys::signal::Signal;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;

/// What a client under load made of its connection.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// It went on until it was told to stop.
    Content,
    /// The connection ended or broke.
    Lost,
}

/// Queries one after the other until `stop`; a wrong answer panics, a lost connection is reported.
fn keep_asking(mut client: Client, stop: &AtomicBool, asked: &AtomicUsize) -> End {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let sent = client.try_send(&frontend::query(&format!("select {number}")));
        let mut row = None;
        loop {
            match client.try_read() {
                Ok(Some(message)) => match message.kind {
                    b'D' => row = message.values().swap_remove(0),
                    b'Z' => break,
                    b'E' => panic!("an error under load: {:?}", message.fields()),
                    _ => {}
                },
                Ok(None) => return End::Lost,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return End::Lost,
                Err(error) => panic!("no answer: {error}"),
            }
        }
        assert!(sent.is_ok());
        assert_eq!(row, Some(number.to_string()));
        asked.fetch_add(1, Ordering::Relaxed);
    }
    End::Content
}

/// As many transactions at once as there are servers, and one more that has to wait.
#[track_caller]
fn assert_exactly(fleet: &Fleet, server: &Postgres, size: usize) {
    let mut admin = server.admin();
    let mut clients: Vec<Client> = (0..size).map(|_| fleet.client()).collect();
    for client in &mut clients {
        assert_eq!(client.query("begin").status, 'T', "the fleet still fills to {size}");
    }
    assert_eq!(backends(&mut admin), size as i64);
    let mut waiting = fleet.client();
    waiting.send(&frontend::query("select 'in turn'"));
    let mut console = fleet.console();
    wait_until("the one too many to queue", SOON, || console.query("show pools").lookup("user", "app", "cl_waiting") == "1");
    assert_eq!(backends(&mut admin), size as i64);
    drop(clients.pop());
    assert_eq!(waiting.answer().value(), "in turn");
}

#[test]
fn a_killed_worker_costs_its_own_sessions_only() {
    const SERVERS: usize = 20;
    let server = Postgres::start();
    for workers in [2, 4] {
        let fleet = Fleet::builder(&server).workers(workers).pool_size(SERVERS).start();
        let pids = fleet.all_workers();
        let sampler = Sampler::start(&server);
        let stop = AtomicBool::new(false);
        let asked = AtomicUsize::new(0);
        for &victim in &pids {
            stop.store(false, Ordering::Relaxed);
            std::thread::scope(|scope| {
                let mut clients: Vec<(u32, ScopedJoinHandle<'_, End>)> = Vec::new();
                for _ in 0..40 {
                    let client = fleet.client();
                    let worker = fleet.worker_of(&client);
                    let (stop, asked) = (&stop, &asked);
                    clients.push((worker, scope.spawn(move || keep_asking(client, stop, asked))));
                }
                let goal = asked.load(Ordering::Relaxed) + 500;
                wait_until("the load to run", SOON, || asked.load(Ordering::Relaxed) > goal);
                process::signal(victim, Signal::SIGKILL);
                // From the first moment on nobody who connects is refused.
                for _ in 0..40 {
                    let mut client = Client::try_tcp(fleet.port()).expect("not refused");
                    client.start(&[("user", "app"), ("database", "app")], None).expect("logged in");
                    assert_eq!(client.value("select 1"), "1");
                }
                let goal = asked.load(Ordering::Relaxed) + 500;
                wait_until("the load to go on", SOON, || asked.load(Ordering::Relaxed) > goal);
                stop.store(true, Ordering::Relaxed);
                for (worker, client) in clients {
                    let end = client.join().unwrap();
                    assert_eq!(end == End::Lost, worker == victim, "a client of worker {worker}, {victim} was killed: {end:?}");
                }
            });
            wait_until("a successor", SOON, || {
                let now = fleet.workers();
                now.len() == workers && !now.contains(&victim)
            });
        }
        let seen = sampler.finish();
        assert!(seen.most <= SERVERS as i64, "{seen:?}");
        assert_exactly(&fleet, &server, SERVERS);
    }
}

/// The query of a dead worker's client runs on in PostgreSQL: its seat is taken until that backend is gone.
#[test]
fn a_running_query_keeps_its_seat_until_its_backend_is_gone() {
    const SERVERS: usize = 3;
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(2).pool_size(SERVERS).start();
    let pids = fleet.all_workers();
    let sampler = Sampler::start(&server);
    let mut lost: Vec<Client> = (0..SERVERS).map(|_| fleet.client_at(pids[0])).collect();
    for client in &mut lost {
        client.send(&frontend::query("select pg_sleep(60)"));
    }
    let mut admin = server.admin();
    let sleeping =
        "select count(*) from pg_stat_activity where query like '%pg_sleep(60)%' and state = 'active' and usename = 'app'";
    wait_until("the queries to run", SOON, || admin.query_one(sleeping, &[]).unwrap().get::<_, i64>(0) == SERVERS as i64);
    process::signal(pids[0], Signal::SIGKILL);
    // They are cancelled, and their seats are free again, long before a minute has passed.
    assert_exactly(&fleet, &server, SERVERS);
    assert!(sampler.finish().most <= SERVERS as i64);
}

#[test]
fn a_worker_that_dies_again_and_again_is_started_again_and_again() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(2).start();
    for _ in 0..5 {
        let pids = fleet.all_workers();
        process::signal(pids[0], Signal::SIGKILL);
        wait_until("a successor", SOON, || {
            let now = fleet.workers();
            now.len() == 2 && !now.contains(&pids[0])
        });
        assert_eq!(fleet.client().value("select 1"), "1");
    }
    let mut console = fleet.console();
    let restarts = console.query("show workers").column("restarts");
    assert_eq!(restarts.iter().map(|count| count.parse::<u32>().unwrap()).sum::<u32>(), 5, "{restarts:?}");
}

/// While the next worker of a slot whose workers die in a loop is awaited, another one accepts from its listener.
#[test]
fn no_client_waits_for_a_slot_in_backoff() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(2).start();
    let survivor = fleet.all_workers()[0];
    wait_until("the back-off to have grown", SOON, || {
        for pid in fleet.workers().into_iter().filter(|pid| *pid != survivor) {
            process::signal(pid, Signal::SIGKILL);
        }
        fleet.logged("its workers die in a loop, the next one starts in 4 s") > 0
    });
    let mut console = fleet.console();
    let mut clients: Vec<Client> = (0..40).map(|_| fleet.client()).collect();
    for client in &mut clients {
        assert_eq!(client.value("select 1"), "1");
    }
    assert!(console.query("show workers").column("state").contains(&"backoff".to_owned()), "too slow to show anything");
}

#[test]
fn all_workers_killed_at_once() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(4).pool_size(5).start();
    for _ in 0..3 {
        let pids = fleet.all_workers();
        let mut clients: Vec<Client> = (0..8).map(|_| fleet.client()).collect();
        for client in &mut clients {
            assert_eq!(client.value("select 1"), "1");
        }
        for &pid in &pids {
            process::signal(pid, Signal::SIGKILL);
        }
        assert_eq!(fleet.client().value("select 1"), "1", "the backlog waits for the successors");
        wait_until("successors", SOON, || {
            let now = fleet.workers();
            now.len() == 4 && now.iter().all(|pid| !pids.contains(pid))
        });
    }
    assert_exactly(&fleet, &server, 5);
}

/// Without the supervisor the workers go on serving those they have.
#[test]
fn a_killed_supervisor_costs_no_client() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(2).start();
    fleet.all_workers();
    fleet.may_be_left = true;
    let mut clients: Vec<Client> = (0..8).map(|_| fleet.client()).collect();
    for client in &mut clients {
        assert_eq!(client.value("select 1"), "1");
    }
    fleet.signal(Signal::SIGKILL);
    wait_until("the supervisor to go", SOON, || fleet.has_ended().is_some());
    for _ in 0..20 {
        for client in &mut clients {
            assert_eq!(client.value("select 1"), "1");
        }
    }
    assert_eq!(fleet.processes().len(), 2, "both workers live on");
    assert_eq!(fleet.client().value("select 1"), "1", "and accept");
}
