//! Limits that a reload lowers and raises under load, over four workers: never above the greater of the old and the new one, down to the new
//! one as servers fall idle, up at once. And what is opened and closed for the sake of limits across workers.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Builder, Client, Fields, Fleet, Postgres, Regulars, SOON, Sampler, backends, frontend, process, wait_until};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

const WORKERS: usize = 4;
const QUERY: Duration = Duration::from_millis(20);
/// For what takes some tenths of a second on a quiet machine.
const PROMPT: Duration = Duration::from_secs(5);

fn entry(server: &Postgres) -> String {
    format!("host=127.0.0.1 port={} dbname=app", server.port())
}

/// Puts `value` in force and returns when every worker goes by it.
#[track_caller]
fn set(fleet: &mut Fleet, name: &str, value: usize) {
    fleet.change(name, value);
    assert_eq!(fleet.console().query("reload").tags, ["RELOAD"]);
}

/// Two pools under load while `name` goes from the first of the values to the next and so on; as many backends as `limit` says of each value, and
/// never more, among those that `counted` picks.
fn under_load(name: &str, values: &[usize], counted: &str, limit: impl Fn(usize) -> i64, build: impl Fn(Builder) -> Builder) {
    let server = Postgres::start();
    let builder = Fleet::builder(&server).workers(WORKERS).setting(name, values[0]).setting("reserve_pool_timeout", "0.02");
    let mut fleet = build(builder).start();
    let clients = ["app", "other"].map(|user| Regulars::start(fleet.port(), 24, user, QUERY));
    let mut admin = server.admin();
    let sql = format!("select count(*) from pg_stat_activity where usename in ('app', 'other') and {counted}");
    let count = admin.prepare(&sql).unwrap();
    let mut reaches = |what: &str, goal: i64| {
        let start = Instant::now();
        wait_until(what, PROMPT, || admin.query_one(&count, &[]).unwrap().get::<_, i64>(0) == goal);
        println!("{name}: {goal} backends after {:?}", start.elapsed());
    };
    reaches("the first limit to be reached", limit(values[0]));
    for pair in values.windows(2) {
        let (from, to) = (limit(pair[0]), limit(pair[1]));
        let sampler = Sampler::of(&server, counted);
        set(&mut fleet, name, pair[1]);
        reaches("the new limit to be reached", to);
        let seen = sampler.finish();
        assert!(seen.most <= from.max(to), "{name} from {} to {}: {seen:?}", pair[0], pair[1]);
        let sampler = Sampler::of(&server, counted);
        let goal = clients.iter().map(Regulars::answered).sum::<u64>() + 200;
        wait_until("the load to go on", SOON, || clients.iter().map(Regulars::answered).sum::<u64>() > goal);
        let seen = sampler.finish();
        assert_eq!(seen.most, to, "{name} is {}: {seen:?}", pair[1]);
    }
    for visit in clients.into_iter().flat_map(Regulars::finish) {
        assert!(visit.lost.is_none() && visit.longest_gap < PROMPT, "{visit:?}");
    }
}

const VALUES: [usize; 5] = [10, 3, 14, 1, 8];

#[test]
fn pool_size() {
    under_load("default_pool_size", &VALUES, "usename = 'app'", |size| size as i64, |builder| builder);
}

#[test]
fn reserve_pool_size() {
    under_load("reserve_pool_size", &[4, 0, 6, 2], "usename = 'app'", |size| 3 + size as i64, |builder| builder.pool_size(3));
}

#[test]
fn max_db_connections() {
    under_load("max_db_connections", &VALUES, "true", |size| size as i64, |builder| builder);
}

#[test]
fn max_user_connections() {
    let user = "usename = 'other'";
    under_load("max_user_connections", &VALUES, user, |size| size as i64, |builder| builder);
}

#[test]
fn max_host_connections() {
    under_load("max_host_connections", &VALUES, "true", |size| size as i64, |builder| builder);
}

/// As many clients get in as the limit allows, whatever they were before; those who are in stay.
fn clients_in(settings: &[(&str, usize)], text: &str) {
    let server = Postgres::start();
    let (name, first) = settings[0];
    let mut fleet = Fleet::builder(&server).workers(WORKERS).setting(name, first).start();
    let log_in = |fleet: &Fleet| -> Result<Client, Fields> {
        let mut client = Client::tcp(fleet.port());
        client.start(&[("user", "app"), ("database", "app")], None).map(|()| client)
    };
    let mut inside: Vec<Client> = Vec::new();
    let mut fill = |fleet: &Fleet, limit: usize| {
        // Lowered: nobody is sent away, and nobody is let in until there is room.
        while inside.len() > limit {
            assert_eq!(log_in(fleet).unwrap_err().text(), text, "{} are in, {name} is {limit}", inside.len());
            let mut leaving = inside.pop().unwrap();
            assert_eq!(leaving.value("select 1"), "1");
            leaving.send(&frontend::terminate());
            leaving.expect_end();
        }
        while inside.len() < limit {
            // One that has just left may still be counted.
            let deadline = Instant::now() + SOON;
            inside.push(loop {
                match log_in(fleet) {
                    Ok(client) => break client,
                    Err(refusal) => assert!(Instant::now() < deadline, "{refusal:?} with {} of {limit}", inside.len()),
                }
            });
        }
        assert_eq!(log_in(fleet).unwrap_err().text(), text);
    };
    fill(&fleet, first);
    for &(name, value) in &settings[1..] {
        set(&mut fleet, name, value);
        fill(&fleet, value);
    }
}

fn to(name: &str) -> [(&str, usize); 4] {
    [(name, 12), (name, 5), (name, 20), (name, 9)]
}

#[test]
fn max_client_conn() {
    clients_in(&to("max_client_conn"), "no more connections allowed (max_client_conn)");
}

#[test]
fn max_db_client_connections() {
    let name = "max_db_client_connections";
    clients_in(&to(name), &format!("client connections exceeded ({name})"));
}

#[test]
fn max_user_client_connections() {
    let name = "max_user_client_connections";
    clients_in(&to(name), &format!("client connections exceeded ({name})"));
}

/// Exactly as many in the whole fleet: from its start, when all workers begin at once, and after every kill.
#[test]
fn min_pool_size_is_the_fleet_s() {
    const LEAST: i64 = 7;
    let server = Postgres::start();
    let sampler = Sampler::start(&server);
    let fleet = Fleet::builder(&server)
        .workers(WORKERS)
        .pool_size(10)
        .database("app", format!("{} user=app min_pool_size={LEAST}", entry(&server)))
        .start();
    let mut admin = server.admin();
    wait_until("the minimum", SOON, || backends(&mut admin) == LEAST);
    for number in 0..6 {
        let pids = fleet.all_workers();
        process::signal(pids[number % WORKERS], Signal::SIGKILL);
        if number == 5 {
            process::signal(pids[(number + 1) % WORKERS], Signal::SIGKILL);
        }
        let mut console = fleet.console();
        wait_until("the minimum again", SOON, || {
            let workers = console.query("show workers");
            workers.column("state").iter().all(|state| state == "serving")
                && !workers.column("pid").contains(&pids[number % WORKERS].to_string())
                && workers.column("servers").iter().map(|count| count.parse::<i64>().unwrap()).sum::<i64>() == LEAST
                && backends(&mut admin) == LEAST
        });
    }
    assert_eq!(sampler.finish().most, LEAST, "never one more");
}

/// What is full is held, idle, by the workers that the client is not at.
#[test]
fn idle_servers_of_other_workers_make_way() {
    let server = Postgres::start();
    for name in ["max_db_connections", "max_user_connections", "max_host_connections"] {
        // The pools that share the limit: two users of a database, or two databases of a user.
        let (one, two) =
            if name == "max_user_connections" { (("app", "app"), ("app", "second")) } else { (("app", "app"), ("other", "app")) };
        let fleet = Fleet::builder(&server)
            .workers(WORKERS)
            .database("app", entry(&server))
            .database("second", entry(&server))
            .setting("accept_balance", 0)
            .setting(name, 4)
            .start();
        let workers = fleet.all_workers();
        let at = |(user, database): (&str, &str), pid| loop {
            let client = Client::login(fleet.port(), user, database);
            if fleet.worker_of(&client) == pid {
                return client;
            }
        };
        let sampler = Sampler::start(&server);
        let mut holders: Vec<Client> = (0..4).map(|number| at(one, workers[1 + number % 3])).collect();
        let mut comers: Vec<Client> = (0..4).map(|_| at(two, workers[0])).collect();
        for _ in 0..3 {
            for clients in [&mut holders, &mut comers] {
                let start = Instant::now();
                for client in clients.iter_mut() {
                    client.send(&frontend::query("begin"));
                }
                for client in clients.iter_mut() {
                    assert_eq!(client.answer().status, 'T');
                }
                println!("{name}: all four had made way after {:?}", start.elapsed());
                assert!(start.elapsed() < PROMPT, "{name}: {:?}", start.elapsed());
                for client in clients.iter_mut() {
                    client.query("commit");
                }
            }
        }
        // That there were four, each in a transaction, the answers have shown.
        assert!(sampler.finish().most <= 4, "{name}");
        drop((fleet, holders, comers));
        let mut admin = server.admin();
        wait_until("the servers to go", SOON, || backends(&mut admin) == 0);
    }
}

/// Without the supervisor nothing reloads and nobody is replaced; the limits are the workers' own affair.
#[test]
fn without_a_supervisor() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(WORKERS).pool_size(6).setting("max_db_connections", 9).start();
    fleet.all_workers();
    fleet.may_be_left = true;
    fleet.signal(Signal::SIGKILL);
    wait_until("the supervisor to go", SOON, || fleet.has_ended().is_some());
    let samplers = ["true", "usename = 'app'", "usename = 'other'"].map(|condition| Sampler::of(&server, condition));
    let clients = ["app", "other"].map(|user| Regulars::start(fleet.port(), 24, user, QUERY));
    let goal = 1500;
    wait_until("the load", SOON, || clients.iter().map(Regulars::answered).sum::<u64>() > goal);
    let visits = clients.map(Regulars::finish).concat();
    assert!(visits.iter().all(|visit| visit.lost.is_none() && visit.longest_gap < PROMPT), "{visits:?}");
    let most = samplers.map(|sampler| sampler.finish().most);
    assert_eq!(most[0], 9, "{most:?}");
    assert!(most[1] <= 6 && most[2] <= 6, "{most:?}");
}
