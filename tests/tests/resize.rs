//! `workers` has another value at a reload: slots join and leave, and no client notices.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Answer, Client, Fleet, Postgres, SOON, Sampler, backends, frontend, network, process, wait_for, wait_until};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::io::BufRead;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

fn states(console: &mut Client) -> Vec<String> {
    console.query("show workers").column("state")
}

/// Waits until the fleet has so many workers, and none on its way in or out.
#[track_caller]
fn wait_for_workers(fleet: &Fleet, count: usize) {
    let mut console = fleet.console();
    wait_until(&format!("{count} workers"), SOON, || states(&mut console) == vec!["serving"; count]);
    assert_eq!(fleet.workers().len(), count);
}

/// The process on a slot.
fn pid_of(console: &mut Client, slot: usize) -> u32 {
    console.query("show workers").lookup("slot", &slot.to_string(), "pid").parse().unwrap()
}

fn pids_in_postgres(server: &Postgres) -> BTreeSet<i32> {
    let rows = server.admin().query("select pid from pg_stat_activity where usename = 'app'", &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// As many transactions at once as there are servers, each through another connection.
#[track_caller]
fn fill(fleet: &Fleet, server: &Postgres, size: usize) {
    let mut clients: Vec<Client> = (0..size).map(|_| fleet.client()).collect();
    for client in &mut clients {
        assert_eq!(client.query("begin").status, 'T');
    }
    assert_eq!(backends(&mut server.admin()), size as i64);
    for client in &mut clients {
        assert_eq!(client.query("commit").status, 'I');
    }
}

/// Comes, asks so many times, goes, and comes again, until `stop`. Anything but the answers panics.
fn come_and_go(port: u16, queries: usize, stop: &AtomicBool, visits: &AtomicUsize) {
    while !stop.load(Ordering::Relaxed) {
        let mut client = Client::login(port, "app", "app");
        for number in 0..queries {
            assert_eq!(client.value(&format!("select {number}")), number.to_string());
        }
        visits.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn up_and_down_under_load() {
    const SERVERS: usize = 8;
    let alone = network::own();
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(2).pool_size(SERVERS).start();
    fleet.all_workers();
    let sampler = Sampler::start(&server);
    let (stop, short, long) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let port = fleet.port();
    std::thread::scope(|scope| {
        // So many that some wait to be accepted whenever a listener changes hands.
        for _ in 0..40 {
            scope.spawn(|| come_and_go(port, 1, &stop, &short));
        }
        for _ in 0..6 {
            scope.spawn(|| come_and_go(port, 100, &stop, &long));
        }
        for _ in 0..2 {
            for workers in [2, 4, 1, 3, 2] {
                fleet.resize(workers);
                wait_for_workers(&fleet, workers);
                let (before, after) = (short.load(Ordering::Relaxed), long.load(Ordering::Relaxed));
                wait_until("the load to go on", SOON, || {
                    short.load(Ordering::Relaxed) > before + 50 && long.load(Ordering::Relaxed) > after + 12
                });
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let seen = sampler.finish();
    assert!(seen.most <= SERVERS as i64, "{seen:?}");
    fill(&fleet, &server, SERVERS);
    if alone {
        for (group, name) in
            [("TcpExt", "ListenDrops"), ("TcpExt", "ListenOverflows"), ("Tcp", "EstabResets"), ("Tcp", "AttemptFails")]
        {
            assert_eq!(network::counter(group, name), 0, "{group} {name}");
        }
    }
    for level in ["WARNING", "ERROR", "FATAL"] {
        assert_eq!(fleet.logged(level), 0, "{}", fleet.log());
    }
}

/// As `come_and_go`, but the connection may be lost: its worker may be killed.
fn come_and_go_whatever_happens(port: u16, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let mut client = Client::try_tcp(port).expect("nobody is ever refused");
        let said = client.try_send(&frontend::startup(&[("user", "app"), ("database", "app")]));
        let asked = said.and_then(|()| client.try_send(&frontend::query("select 1")));
        while let (Ok(()), Ok(Some(message))) = (&asked, client.try_read()) {
            assert_ne!(message.kind, b'E', "{:?}", message.fields());
            if message.kind == b'C' {
                break;
            }
        }
    }
}

/// Numbers that come faster than workers do, and workers killed meanwhile, whatever they are just doing.
#[test]
fn a_storm_of_reloads_and_deaths() {
    const SERVERS: usize = 6;
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(2).pool_size(SERVERS).start();
    fleet.all_workers();
    let sampler = Sampler::start(&server);
    let (stop, port) = (AtomicBool::new(false), fleet.port());
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| come_and_go_whatever_happens(port, &stop));
        }
        for round in 0..12_usize {
            let mut console = fleet.console();
            for step in 0..3 {
                fleet.resize(1 + (round * 5 + step * 3) % 7);
                // Answered when every reload so far is in force, with the workers on their way in and out.
                let reloaded = console.query("reload");
                assert!(reloaded.errors.is_empty(), "{reloaded:?}");
            }
            let workers = fleet.workers();
            process::signal(workers[round % workers.len()], Signal::SIGKILL);
        }
        stop.store(true, Ordering::Relaxed);
    });
    for workers in [5, 2] {
        fleet.resize(workers);
        wait_for_workers(&fleet, workers);
        fill(&fleet, &server, SERVERS);
    }
    assert!(sampler.finish().most <= SERVERS as i64);
}

/// A connection that says nothing, at a certain worker: it holds up its leaving.
#[track_caller]
fn silent_at(fleet: &Fleet, slot: usize) -> Client {
    let mut console = fleet.console();
    let mut others = Vec::new();
    let mut clients = |slot: usize| -> Vec<u32> {
        let workers = console.query("show workers");
        let count = |slot: &String| workers.lookup("slot", slot, "clients").parse().unwrap();
        let all: Vec<u32> = workers.column("slot").iter().map(count).collect();
        vec![all[slot], all.iter().sum()]
    };
    wait_for("a connection at a given worker", SOON, || {
        let before = clients(slot);
        let silent = Client::try_tcp(fleet.port()).unwrap();
        let mut after = before.clone();
        wait_until("it to be accepted", SOON, || {
            after = clients(slot);
            after[1] > before[1]
        });
        if after[0] > before[0] {
            return Some(silent);
        }
        others.push(silent);
        None
    })
}

/// Sessions of every kind go on at another worker, with the same servers.
#[test]
fn clients_of_a_worker_that_leaves_go_on_elsewhere() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(2).pool_size(3).setting("query_wait_timeout", 20).start();
    fleet.all_workers();
    let mut console = fleet.console();
    let leaving = pid_of(&mut console, 1);
    let [mut idle, mut open, mut busy, mut copying, mut queued] = [(); 5].map(|()| fleet.client_at(leaving));
    assert!(idle.query("set application_name = 'idle'").errors.is_empty());
    assert_eq!(open.query("begin").status, 'T');
    assert_eq!(open.query("create temporary table mine(x int) on commit drop").status, 'T');
    busy.send(&frontend::query("select pg_sleep(1.5), 'slept'"));
    copying.send(&frontend::query("copy (select generate_series(1, 3000000)) to stdout"));
    wait_until("three to have servers", SOON, || console.query("show pools").lookup("user", "app", "sv_active") == "3");
    queued.send(&frontend::query("select 'queued'"));
    wait_until("one to wait", SOON, || console.query("show pools").lookup("user", "app", "cl_waiting") == "1");
    let before = pids_in_postgres(&server);
    fleet.resize(1);
    wait_for_workers(&fleet, 1);
    assert!(!process::is_alive(leaving));
    assert_eq!(open.query("select count(*) from mine").value(), "0", "its transaction goes on");
    assert_eq!(open.query("commit").status, 'I');
    assert_eq!(busy.answer().rows[0][1].as_deref(), Some("slept"));
    assert_eq!(copying.answer().copied.lines().count(), 3_000_000);
    assert_eq!(queued.answer().value(), "queued");
    assert_eq!(idle.value("show application_name"), "idle");
    assert_eq!(pids_in_postgres(&server), before, "none was closed, none opened");
    assert_eq!(console.query("show clients").column("user").iter().filter(|user| *user == "app").count(), 5);
    assert_eq!(fleet.logged("WARNING"), 0, "{}", fleet.log());
}

#[test]
fn a_worker_that_leaves_is_one_of_the_fleet_until_it_has_left() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(3).pool_size(4).start();
    fleet.all_workers();
    let mut console = fleet.console();
    let leaving = pid_of(&mut console, 2);
    let mut client = fleet.client_at(leaving);
    let mut silent = silent_at(&fleet, 2);
    fleet.resize(2);
    wait_until("the worker to drain", SOON, || states(&mut console) == ["serving", "serving", "draining"]);
    let others: Vec<Client> = (0..30).map(|_| fleet.client()).collect();
    wait_until("its listener to be another's", SOON, || fleet.worker_of(&fleet.client()) != leaving);
    for other in &others[15..] {
        assert_ne!(fleet.worker_of(other), leaving, "who comes now is accepted by others");
    }
    assert!(console.query("pause").errors.is_empty());
    client.send(&frontend::query("select 'after the pause'"));
    wait_until("the client to wait", SOON, || console.query("show pools").lookup("user", "app", "cl_waiting") == "1");
    assert!(console.query("resume").errors.is_empty());
    assert_eq!(client.answer().value(), "after the pause");
    fleet.change("default_pool_size", 5);
    assert!(console.query("reload").errors.is_empty());
    fleet.wait_for_log(&format!("worker 2 (pid {leaving}) leaves when its clients have gone: "));
    assert!(process::is_alive(leaving));
    // Who was about to log in does so here, and goes on elsewhere.
    silent.start(&[("user", "app"), ("database", "app")], None).unwrap();
    wait_for_workers(&fleet, 2);
    assert!(!process::is_alive(leaving));
    assert_eq!(silent.value("select 1"), "1");
    assert_eq!(fleet.logged(&format!("worker 2 (pid {leaving}) has left")), 1);
    assert_eq!(console.query("show config").lookup("key", "workers", "value"), "2");
}

#[test]
fn idle_servers_move_to_those_who_stay() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(2).pool_size(6).start();
    fleet.all_workers();
    let leaving = pid_of(&mut fleet.console(), 1);
    let mut clients: Vec<Client> = (0..6).map(|_| fleet.client_at(leaving)).collect();
    for client in &mut clients {
        assert_eq!(client.query("begin").status, 'T');
    }
    let before = pids_in_postgres(&server);
    assert_eq!(before.len(), 6);
    // Half of them are idle when it is told to leave, half fall idle afterwards.
    for client in &mut clients[..3] {
        client.query("commit");
    }
    fleet.resize(1);
    for client in &mut clients[3..] {
        client.query("commit");
    }
    drop(clients);
    wait_for_workers(&fleet, 1);
    assert_eq!(pids_in_postgres(&server), before, "none was closed, none opened");
    fill(&fleet, &server, 6);
    assert_eq!(pids_in_postgres(&server), before, "and they are used");
}

/// What a worker counted is in the totals to the last query, whenever it leaves.
#[test]
fn totals_lose_nothing() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(4).start();
    fleet.all_workers();
    let mut console = fleet.console();
    let mut clients: Vec<Client> = fleet.workers().into_iter().flat_map(|pid| [0; 3].map(|_| fleet.client_at(pid))).collect();
    fleet.resize(1);
    for client in &mut clients {
        for _ in 0..10 {
            assert_eq!(client.value("select 1"), "1");
        }
    }
    wait_for_workers(&fleet, 1);
    assert_eq!(console.query("show stats_totals").lookup("database", "app", "query_count"), "120");
}

#[test]
fn raised_again_while_a_worker_leaves() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(2).start();
    let before = fleet.all_workers();
    let mut console = fleet.console();
    let leaving = pid_of(&mut console, 1);
    let mut client = fleet.client_at(leaving);
    let _silent = silent_at(&fleet, 1);
    for _ in 0..3 {
        fleet.resize(1);
        wait_until("it to leave", SOON, || states(&mut console) == ["serving", "draining"]);
        assert_eq!(client.value("select 1"), "1");
        fleet.resize(2);
        wait_for_workers(&fleet, 2);
        assert_eq!(client.value("select 2"), "2");
        assert_eq!(fleet.client_at(leaving).value("select 3"), "3", "it accepts again");
    }
    // Orders for it to come and go faster than they can be carried out.
    for _ in 0..5 {
        for workers in [1, 3, 1, 2] {
            fleet.resize(workers);
        }
    }
    assert!(console.query("reload").errors.is_empty());
    wait_for_workers(&fleet, 2);
    assert_eq!(client.value("select 4"), "4");
    assert_eq!(fleet.client_at(leaving).value("select 5"), "5");
    let after = fleet.all_workers();
    assert!(before.iter().all(|pid| after.contains(pid)), "{before:?} {after:?}");
}

#[test]
fn a_leaving_worker_or_its_caretaker_is_killed() {
    const SERVERS: usize = 4;
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(3).pool_size(SERVERS).start();
    fleet.all_workers();
    let sampler = Sampler::start(&server);
    let mut console = fleet.console();
    let [first, third] = [0, 2].map(|slot| pid_of(&mut console, slot));
    let mut at_third = fleet.client_at(third);
    assert_eq!(at_third.query("begin").status, 'T');
    let silent = [silent_at(&fleet, 1), silent_at(&fleet, 2)];
    fleet.resize(1);
    wait_until("both to leave", SOON, || states(&mut console) == ["serving", "draining", "draining"]);
    wait_until("the client to be elsewhere", SOON, || console.query("show workers").lookup("slot", "2", "clients") == "1");
    process::signal(third, Signal::SIGKILL);
    wait_until("it to go", SOON, || states(&mut console) == ["serving", "draining"]);
    assert_eq!(at_third.query("commit").status, 'I', "it is not its client any more");
    // Whoever is sent to any of the three slots' listeners waits for the successor, and is not reset.
    process::signal(first, Signal::SIGKILL);
    for _ in 0..60 {
        assert_eq!(fleet.client().value("select 1"), "1");
    }
    drop(silent);
    wait_for_workers(&fleet, 1);
    fill(&fleet, &server, SERVERS);
    fleet.resize(3);
    wait_for_workers(&fleet, 3);
    for _ in 0..60 {
        assert_eq!(fleet.client().value("select 1"), "1");
    }
    fill(&fleet, &server, SERVERS);
    assert!(sampler.finish().most <= SERVERS as i64);
}

/// A worker that was alone told nobody what it had: the second must find it.
#[test]
fn a_lone_worker_gets_a_colleague() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(1).pool_size(2).setting("query_wait_timeout", 20).start();
    fleet.all_workers();
    let mut console = fleet.console();
    let first = pid_of(&mut console, 0);
    let mut holders: Vec<Client> = (0..2).map(|_| fleet.client()).collect();
    for holder in &mut holders {
        assert_eq!(holder.query("begin").status, 'T');
    }
    let mut waiting = fleet.client();
    waiting.send(&frontend::query("begin"));
    wait_until("it to wait", SOON, || console.query("show pools").lookup("user", "app", "cl_waiting") == "1");
    fleet.resize(2);
    wait_for_workers(&fleet, 2);
    let second = pid_of(&mut console, 1);
    let mut late = fleet.client_at(second);
    late.send(&frontend::query("begin"));
    wait_until("both to wait", SOON, || console.query("show pools").lookup("user", "app", "cl_waiting") == "2");
    holders[0].query("commit");
    assert_eq!(waiting.answer().status, 'T', "who waited longer is served first");
    holders[1].query("commit");
    assert_eq!(late.answer().status, 'T');
    let pids = pids_in_postgres(&server);
    waiting.query("commit");
    // One idle server at the first worker, one at the second: either serves two clients.
    late.query("commit");
    for worker in [first, second] {
        let mut clients = [fleet.client_at(worker), fleet.client_at(worker)];
        for client in &mut clients {
            assert_eq!(client.query("begin").status, 'T');
        }
        for client in &mut clients {
            assert_eq!(client.query("commit").status, 'I');
        }
    }
    assert_eq!(pids_in_postgres(&server), pids);
}

/// The same with idle servers alone.
#[test]
fn what_a_lone_worker_has_idle_is_found_by_its_first_colleague() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(1).pool_size(2).setting("query_wait_timeout", 20).start();
    fleet.all_workers();
    fill(&fleet, &server, 2);
    let pids = pids_in_postgres(&server);
    fleet.resize(2);
    wait_for_workers(&fleet, 2);
    let second = pid_of(&mut fleet.console(), 1);
    let mut clients = [fleet.client_at(second), fleet.client_at(second)];
    for client in &mut clients {
        assert_eq!(client.query("begin").status, 'T');
    }
    assert_eq!(pids_in_postgres(&server), pids);
}

#[test]
fn by_the_console_too() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(2).start();
    fleet.all_workers();
    let mut console = fleet.console();
    let ok = |answer: Answer| assert!(answer.errors.is_empty(), "{answer:?}");
    ok(console.query("set workers = 3"));
    wait_for_workers(&fleet, 3);
    let listeners = |console: &mut Client| {
        let fds = console.query("show fds");
        fds.column("task").iter().zip(fds.column("addr")).filter(|(task, addr)| *task == "pooler" && addr != "unix").count()
    };
    assert_eq!(listeners(&mut console), 3);
    let cpus = std::thread::available_parallelism().unwrap().get();
    ok(console.query("set workers = 0"));
    wait_for_workers(&fleet, cpus);
    assert_eq!(console.query("set workers = 65").errors[0].text(), "SET failed");
    ok(console.query("set workers = 5"));
    wait_for_workers(&fleet, 5);
    // Unix sockets: with so many workers each client wakes one of them.
    for _ in 0..20 {
        let mut client = Client::unix(fleet.folder(), fleet.port());
        client.start(&[("user", "app"), ("database", "app")], None).unwrap();
        assert_eq!(client.value("select 1"), "1");
    }
    ok(console.query("reload"));
    wait_for_workers(&fleet, 2);
    assert_eq!(listeners(&mut console), 5.max(cpus), "a listener is never closed");
}

/// What cannot be had is refused whole, and nothing changes.
#[test]
fn more_workers_than_there_are_descriptors_for() {
    let server = Postgres::start();
    // Three for each worker are too many, with those that the supervisor has besides.
    setrlimit(Resource::RLIMIT_NOFILE, 150, 150).unwrap();
    let mut fleet = Fleet::builder(&server).workers(2).start();
    fleet.all_workers();
    fleet.change("query_wait_timeout", 77);
    fleet.resize(63);
    fleet.wait_for_log("workers: no 61 more than 2: ");
    fleet.wait_for_log("RELOAD failed, the configuration in force stays as it was");
    let mut console = fleet.console();
    assert_eq!(console.query("reload").errors[0].text(), "RELOAD failed, see logs for additional details");
    let shown = console.query("show config");
    assert_eq!(
        (shown.lookup("key", "workers", "value"), shown.lookup("key", "query_wait_timeout", "value")),
        ("2".into(), "120".into())
    );
    wait_for_workers(&fleet, 2);
    for _ in 0..40 {
        assert_eq!(fleet.client().value("select 1"), "1", "nobody was sent to a listener that is not there");
    }
    fleet.resize(3);
    wait_for_workers(&fleet, 3);
}

#[test]
fn shut_down_while_workers_leave() {
    let server = Postgres::start();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let mut fleet = Fleet::builder(&server).workers(3).start();
        fleet.all_workers();
        let mut console = fleet.console();
        let leaving = pid_of(&mut console, 2);
        let mut client = fleet.client_at(leaving);
        assert_eq!(client.query("begin").status, 'T');
        let silent = silent_at(&fleet, 2);
        fleet.resize(1);
        wait_until("it to leave", SOON, || states(&mut console).last().is_some_and(|state| state == "draining"));
        drop(console);
        fleet.signal(signal);
        if signal != Signal::SIGQUIT {
            wait_for("new clients to be refused", SOON, || Client::try_tcp(fleet.port()).err());
            assert_eq!(client.query("commit").status, 'I');
        }
        drop((client, silent));
        assert!(fleet.wait_for_exit().success());
    }
}
