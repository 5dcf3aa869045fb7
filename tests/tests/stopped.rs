//! A worker that is stopped under load (SIGSTOP): the others go on, and when it goes on too, what it held is where it belongs.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Client, Fleet, Postgres, Regulars, SOON, Sampler, Visit, backends, frontend, holds_within, process, wait_until};
use nix::sys::signal::Signal;
use std::collections::HashMap;
use std::time::{Duration, Instant};

const WORKERS: usize = 4;
const SERVERS: i64 = 20;
const CLIENTS: usize = 60;
const QUERY: Duration = Duration::from_millis(20);
const AT_WORK: &str = "select count(*) from pg_stat_activity where usename = 'app' and wait_event = 'PgSleep'";

struct Scene {
    server: Postgres,
    fleet: Fleet,
    sampler: Sampler,
    clients: Regulars,
}

impl Scene {
    fn new(setting: (&str, &str)) -> Self {
        let server = Postgres::start();
        let fleet = Fleet::builder(&server).workers(WORKERS).pool_size(SERVERS as usize).setting(setting.0, setting.1).start();
        fleet.all_workers();
        let sampler = Sampler::start(&server);
        let clients = Regulars::start(fleet.port(), CLIENTS, "app", QUERY);
        let scene = Self { server, fleet, sampler, clients };
        scene.wait_for_all_servers("all servers to be at work");
        scene
    }

    fn wait_for_all_servers(&self, what: &str) {
        let mut admin = self.server.admin();
        let at_work = admin.prepare(AT_WORK).unwrap();
        wait_until(what, SOON, || admin.query_one(&at_work, &[]).unwrap().get::<_, i64>(0) == SERVERS);
    }

    /// Ends the load, checks that every server is free and none was one too many, and returns the visits by worker.
    fn finish(self) -> HashMap<u32, Vec<Visit>> {
        let visits = self.clients.finish();
        let seen = self.sampler.finish();
        println!("{seen:?}");
        assert_eq!(seen.most, SERVERS, "{seen:?}");
        assert_all_usable(&self.fleet, &self.server);
        let workers: HashMap<u16, u32> = self.fleet.logins().into_iter().collect();
        let mut by_worker: HashMap<u32, Vec<Visit>> = HashMap::new();
        for visit in visits {
            by_worker.entry(workers[&visit.port]).or_default().push(visit);
        }
        by_worker
    }
}

/// Every server can be had, and not one more.
fn assert_all_usable(fleet: &Fleet, server: &Postgres) {
    let mut clients: Vec<Client> = (0..SERVERS).map(|_| fleet.client()).collect();
    for client in &mut clients {
        assert_eq!(client.query("begin").status, 'T');
    }
    assert_eq!(backends(&mut server.admin()), SERVERS);
    let mut one_more = fleet.client();
    one_more.send(&frontend::query("select 1"));
    one_more.expect_silence(Duration::from_millis(300));
    drop(clients);
    assert_eq!(one_more.answer().value(), "1");
}

fn longest(visits: &[Visit]) -> Duration {
    visits.iter().map(|visit| visit.longest_gap).max().unwrap_or_default()
}

#[test]
fn for_three_seconds() {
    const PAUSE: Duration = Duration::from_secs(3);
    let scene = Scene::new(("worker_hang_timeout", "10"));
    let mut stopped = Vec::new();
    for victim in scene.fleet.all_workers().into_iter().take(2) {
        process::signal(victim, Signal::SIGSTOP);
        holds_within(PAUSE, || false);
        process::signal(victim, Signal::SIGCONT);
        let start = Instant::now();
        scene.wait_for_all_servers("all servers to be at work again");
        println!("all servers at work {:?} after it went on", start.elapsed());
        stopped.push(victim);
        holds_within(Duration::from_secs(1), || false);
    }
    for (worker, visits) in scene.finish() {
        assert!(visits.iter().all(|visit| visit.lost.is_none()), "{visits:?}");
        let gap = longest(&visits);
        println!("worker {worker}: {} clients, longest gap {gap:?}", visits.len());
        let bound = if stopped.contains(&worker) { PAUSE + Duration::from_millis(2500) } else { Duration::from_millis(1500) };
        assert!(gap < bound, "a client of worker {worker} waited {gap:?}; stopped were {stopped:?}");
    }
}

/// It does not come back in time, and has a successor.
#[test]
fn for_longer_than_worker_hang_timeout() {
    let scene = Scene::new(("worker_hang_timeout", "2"));
    let victim = scene.fleet.all_workers()[1];
    process::signal(victim, Signal::SIGSTOP);
    let start = Instant::now();
    wait_until("a successor", SOON, || {
        let now = scene.fleet.workers();
        now.len() == WORKERS && !now.contains(&victim)
    });
    println!("replaced after {:?}", start.elapsed());
    assert_eq!(scene.fleet.logged("has not turned its loop for 2 s (worker_hang_timeout), killing it"), 1);
    scene.wait_for_all_servers("all servers to be at work again");
    println!("all servers at work after {:?}", start.elapsed());
    for (worker, visits) in scene.finish() {
        let gap = longest(&visits);
        println!("worker {worker}: {} clients, longest gap {gap:?}", visits.len());
        assert!(visits.iter().all(|visit| visit.lost.is_none() || worker == victim), "{visits:?}");
        let bound = Duration::from_millis(if worker == victim { 5000 } else { 1500 });
        assert!(gap < bound, "a client of worker {worker} waited {gap:?}; stopped was {victim}");
    }
}

/// One server, and two workers: with a client that waits at the second one, the server is on its way there when that one is stopped.
#[test]
fn while_a_server_is_lent_to_it() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(2).pool_size(1).start();
    let workers = fleet.all_workers();
    let (mut holder, mut here, mut there) = (fleet.client_at(workers[0]), fleet.client_at(workers[0]), fleet.client_at(workers[1]));
    let mut console = fleet.console();
    // Long enough for several lends to nobody, and for none after it is known to hang.
    for pause in [Duration::from_millis(200), Duration::from_millis(2500)] {
        assert_eq!(holder.query("begin").status, 'T');
        let backend = holder.value("select pg_backend_pid()");
        there.send(&frontend::query("select pg_backend_pid()"));
        wait_until("the client to wait", SOON, || console.query("show pools").lookup("user", "app", "cl_waiting") == "1");
        process::signal(workers[1], Signal::SIGSTOP);
        holder.query("commit");
        let start = Instant::now();
        assert_eq!(here.value("select pg_backend_pid()"), backend);
        let took = start.elapsed();
        println!("served here after {took:?}");
        assert!(took < Duration::from_millis(1500), "a lend to a worker that is stopped holds the server for {took:?}");
        there.expect_silence(pause);
        process::signal(workers[1], Signal::SIGCONT);
        assert_eq!(there.answer().value(), backend, "the one server there is");
        assert_eq!(here.value("select pg_backend_pid()"), backend);
    }
    assert_eq!(backends(&mut server.admin()), 1);
}

/// The only server is idle at a worker that is stopped: whoever wants it waits, and has it when that one goes on.
#[test]
fn with_the_only_server() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(2).pool_size(1).start();
    let workers = fleet.all_workers();
    let (mut here, mut there) = (fleet.client_at(workers[0]), fleet.client_at(workers[1]));
    let backend = there.value("select pg_backend_pid()");
    process::signal(workers[1], Signal::SIGSTOP);
    here.send(&frontend::query("select pg_backend_pid()"));
    here.expect_silence(Duration::from_secs(1));
    process::signal(workers[1], Signal::SIGCONT);
    let start = Instant::now();
    assert_eq!(here.answer().value(), backend);
    println!("served {:?} after it went on", start.elapsed());
    assert_eq!(there.value("select pg_backend_pid()"), backend);
    assert_eq!(backends(&mut server.admin()), 1);
}

/// Whoever operates the fleet learns of it before the worker is killed, and what a reload waits for.
#[test]
fn the_log_and_the_console_tell_of_it() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(2).setting("worker_hang_timeout", "60").start();
    let victim = fleet.all_workers()[1];
    let mut console = fleet.console();
    let pid = victim.to_string();
    process::signal(victim, Signal::SIGSTOP);
    wait_until("the worker to be silent", SOON, || console.query("show workers").lookup("pid", &pid, "state") == "silent");
    let name = format!("(pid {victim})");
    let line = fleet.wait_for_log("it is killed after worker_hang_timeout (60 s)");
    assert!(line.contains(&name), "{line}");
    fleet.signal(Signal::SIGHUP);
    let line = fleet.wait_for_log("RELOAD waits for worker");
    assert!(line.contains(&name), "{line}");
    assert_eq!(fleet.logged("RELOAD done"), 0);
    process::signal(victim, Signal::SIGCONT);
    let line = fleet.wait_for_log("turns its loop again");
    assert!(line.contains(&name), "{line}");
    fleet.wait_for_log("RELOAD done, the new configuration is in force");
    wait_until("the worker to serve", SOON, || console.query("show workers").lookup("pid", &pid, "state") == "serving");
}

/// A container is paused and goes on: the supervisor, which wakes first, does not take its workers for hung.
#[test]
fn a_fleet_that_was_stopped_as_a_whole_goes_on() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(2).setting("worker_hang_timeout", 2).start();
    let workers = fleet.all_workers();
    let mut client = fleet.client();
    assert_eq!(client.value("select 1"), "1");
    let signal_workers = |signal| workers.iter().for_each(|pid| process::signal(*pid, signal));
    signal_workers(Signal::SIGSTOP);
    fleet.signal(Signal::SIGSTOP);
    // The time that passes is what the case is about.
    std::thread::sleep(Duration::from_secs(4));
    fleet.signal(Signal::SIGCONT);
    std::thread::sleep(Duration::from_secs(1));
    signal_workers(Signal::SIGCONT);
    assert_eq!(client.value("select 2"), "2");
    assert_eq!((fleet.logged("killing it"), fleet.workers()), (0, workers));
}
