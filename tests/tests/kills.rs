//! A random worker is killed every second, under load: no limit is ever exceeded, no seat is lost, and nobody notices but its own clients.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Client, Fleet, Postgres, Regulars, SOON, Sampler, Visit, backends, frontend, holds_within, process, wait_until};
use nix::sys::signal::Signal;
use std::collections::HashMap;
use std::time::{Duration, Instant};

const WORKERS: usize = 4;
const EVERY: Duration = Duration::from_secs(1);
const QUERY: Duration = Duration::from_millis(50);
/// For the fleet to be whole again, on a machine that is busy besides; quiet, it takes a tenth of this.
const RECOVERY: Duration = Duration::from_secs(5);

const AT_WORK: &str = "select count(*) from pg_stat_activity where usename in ('app', 'other') and wait_event = 'PgSleep'";

/// Kills a random worker `times` times. After each: all slots serve again, no seat drains, and `servers` backends are at work.
fn kill_every_second(fleet: &Fleet, server: &Postgres, times: usize, servers: i64) -> HashMap<u32, Instant> {
    let (mut console, mut admin) = (fleet.console(), server.admin());
    let at_work = admin.prepare(AT_WORK).unwrap();
    let (mut killed, mut recoveries) = (HashMap::new(), Vec::new());
    for _ in 0..times {
        let pids = fleet.all_workers();
        let victim = pids[rand::random_range(0..pids.len())];
        let start = Instant::now();
        process::signal(victim, Signal::SIGKILL);
        killed.insert(victim, start);
        wait_until("the fleet to be whole again", RECOVERY, || {
            let workers = console.query("show workers");
            let whole = workers.column("state").iter().all(|state| state == "serving")
                && workers.column("draining_seats").iter().all(|seats| seats == "0")
                && !workers.column("pid").contains(&victim.to_string());
            whole && admin.query_one(&at_work, &[]).unwrap().get::<_, i64>(0) == servers
        });
        recoveries.push(start.elapsed().as_millis());
        // No condition: the time between two kills.
        holds_within(EVERY.saturating_sub(start.elapsed()), || false);
    }
    recoveries.sort_unstable();
    let late = fleet.logged("die in a loop");
    println!(
        "whole again after {} ms at most, {} ms in the middle; {late} successors delayed",
        recoveries[times - 1],
        recoveries[times / 2]
    );
    killed
}

/// Who lost a connection had it at a worker that was killed, and heard of it soon; everybody else went on.
fn assert_only_their_own(fleet: &Fleet, visits: &[Visit], killed: &HashMap<u32, Instant>) {
    let mut workers: HashMap<u16, Vec<u32>> = HashMap::new();
    for (port, pid) in fleet.logins() {
        workers.entry(port).or_default().push(pid);
    }
    let mut lost = 0;
    for visit in visits {
        let Some(end) = visit.lost else { continue };
        lost += 1;
        let at = workers.get(&visit.port).map_or(&[][..], Vec::as_slice);
        // One that was accepted and had not begun to log in is in no log.
        let unlogged = at.is_empty() && !visit.greeted;
        let heard = |kill: &Instant| end >= *kill && end - *kill < RECOVERY;
        let by_a_kill = at.iter().filter_map(|pid| killed.get(pid)).any(heard) || unlogged && killed.values().any(heard);
        assert!(by_a_kill, "{visit:?} was at worker {at:?}; killed were {killed:?}");
    }
    let longest = visits.iter().map(|visit| visit.longest_gap).max().unwrap();
    println!("{} connections, {lost} of them lost; the longest time without an answer: {longest:?}", visits.len());
}

/// As many transactions at once as there are servers, and not one more; then nobody is left anywhere.
fn assert_nothing_lost(fleet: &Fleet, server: &Postgres, servers: usize) {
    let (mut console, mut admin) = (fleet.console(), server.admin());
    let mut settle = || {
        assert_eq!(console.query("reconnect").tags, ["RECONNECT"]);
        wait_until("the servers to be closed", SOON, || backends(&mut admin) == 0);
        wait_until("nothing to be left", SOON, || {
            let workers = console.query("show workers");
            let pools = console.query("show pools");
            let zero = |answer: &end_to_end::Answer, name| answer.column(name).iter().all(|count| count == "0");
            ["servers", "clients", "draining_seats"].iter().all(|name| zero(&workers, name))
                && [
                    "cl_waiting",
                    "sv_active",
                    "sv_active_cancel",
                    "sv_being_canceled",
                    "sv_idle",
                    "sv_used",
                    "sv_tested",
                    "sv_login",
                ]
                .iter()
                .all(|name| zero(&pools, name))
        });
    };
    settle();
    let mut clients: Vec<Client> = (0..servers).map(|_| fleet.client()).collect();
    for client in &mut clients {
        assert_eq!(client.query("begin").status, 'T', "the fleet still fills to {servers}");
    }
    let mut one_more = fleet.client();
    one_more.send(&frontend::query("select 1"));
    one_more.expect_silence(Duration::from_millis(500));
    assert_eq!(backends(&mut server.admin()), servers as i64);
    drop(clients);
    assert_eq!(one_more.answer().value(), "1");
    drop(one_more);
    settle();
}

#[test]
fn one_pool() {
    const SERVERS: i64 = 20;
    const CLIENTS: usize = 60;
    let server = Postgres::start();
    let fleet = Fleet::builder(&server)
        .workers(WORKERS)
        .pool_size(SERVERS as usize)
        // A client that has lost its connection comes back before its place is free.
        .setting("max_client_conn", 2 * CLIENTS)
        .start();
    let sampler = Sampler::start(&server);
    let clients = Regulars::start(fleet.port(), CLIENTS, "app", QUERY);
    let killed = kill_every_second(&fleet, &server, 30, SERVERS);
    let visits = clients.finish();
    let seen = sampler.finish();
    println!("{seen:?}");
    assert_eq!(seen.most, SERVERS, "{seen:?}");
    assert!(seen.samples > 1000, "{seen:?}");
    assert_only_their_own(&fleet, &visits, &killed);
    assert_nothing_lost(&fleet, &server, SERVERS as usize);
    // The clients' own places: all are free, and there are no more of them.
    let log_in = || {
        let mut client = Client::tcp(fleet.port());
        client.start(&[("user", "app"), ("database", "app")], None).map(|()| client)
    };
    let all: Vec<Client> = (0..2 * CLIENTS).map(|_| log_in().expect("a place for each")).collect();
    assert_eq!(log_in().unwrap_err().text(), "no more connections allowed (max_client_conn)");
    drop(all);
}

/// Two pools under one limit, with a reserve and a minimum.
#[test]
fn two_pools_under_a_limit() {
    const EACH: i64 = 8;
    const RESERVE: i64 = 4;
    const ALL: i64 = 14;
    let server = Postgres::start();
    let fleet = Fleet::builder(&server)
        .workers(WORKERS)
        .pool_size(EACH as usize)
        .setting("reserve_pool_size", RESERVE)
        .setting("reserve_pool_timeout", "0.1")
        .setting("min_pool_size", 3)
        .setting("max_db_connections", ALL)
        .start();
    let samplers = ["true", "usename = 'app'", "usename = 'other'"].map(|condition| Sampler::of(&server, condition));
    let clients = ["app", "other"].map(|user| Regulars::start(fleet.port(), 30, user, QUERY));
    let killed = kill_every_second(&fleet, &server, 12, ALL);
    let visits = clients.map(Regulars::finish).concat();
    let [all, app, other] = samplers.map(Sampler::finish);
    println!("{all:?} {app:?} {other:?}");
    assert_eq!(all.most, ALL);
    assert!(app.most <= EACH + RESERVE && other.most <= EACH + RESERVE, "{app:?} {other:?}");
    assert_only_their_own(&fleet, &visits, &killed);
    assert_nothing_lost(&fleet, &server, (EACH + RESERVE) as usize);
}
