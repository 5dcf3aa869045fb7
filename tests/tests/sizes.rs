//! How many server connections a pool has: the reserve, the minimum, and what keeps it there; in the whole fleet.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Client, Fleet, Postgres, SOON, Sampler, backends, each_worker_count, frontend, wait_until};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const RESERVE: &str = "taking connection from reserve_pool";

fn entry(server: &Postgres) -> String {
    format!("host=127.0.0.1 port={} dbname=app", server.port())
}

/// A client of each of `count` that is in a transaction.
fn hold(count: usize, login: impl Fn() -> Client) -> Vec<Client> {
    (0..count)
        .map(|_| {
            let mut client = login();
            assert_eq!(client.query("begin").status, 'T');
            client
        })
        .collect()
}

#[track_caller]
fn wait_for_backends(server: &Postgres, count: i64) {
    let mut admin = server.admin();
    wait_until(&format!("{count} backends"), SOON, || backends(&mut admin) == count);
}

#[test]
fn the_reserve_is_for_those_who_have_waited() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| {
            let builder = builder.pool_size(2).setting("reserve_pool_size", 2).setting("reserve_pool_timeout", 1);
            builder.setting("query_wait_timeout", 3)
        },
        |fleet| {
            let sampler = Sampler::start(&server);
            let holders = hold(2, || fleet.client());
            let start = Instant::now();
            let mut waiting: Vec<Client> = (0..5).map(|_| fleet.client()).collect();
            for client in &mut waiting {
                client.send(&frontend::query("begin"));
            }
            let mut admitted = 0;
            for client in &mut waiting {
                let message = client.read();
                assert!(start.elapsed() >= Duration::from_millis(950), "after {:?}", start.elapsed());
                match message.kind {
                    b'C' => admitted += 1,
                    _ => assert_eq!(message.fields().text(), "query_wait_timeout"),
                }
            }
            assert_eq!(admitted, 2, "the reserve and no more");
            let warnings: Vec<String> = fleet.log().lines().filter(|l| l.contains(RESERVE)).map(str::to_owned).collect();
            assert_eq!(warnings.len(), 2, "{warnings:?}");
            assert!(warnings.iter().all(|line| line.contains("WARNING C-")), "{warnings:?}");
            drop((holders, waiting));
            assert_eq!(sampler.finish().most, 4);
            // What came from the reserve is no surplus: it serves on.
            assert_eq!(fleet.client().value("select 1"), "1");
            assert_eq!(fleet.logged("too many servers in the pool"), 0);
        },
    );
}

#[test]
fn a_reserve_without_a_timeout_is_none() {
    let server = Postgres::start();
    for workers in [1, 2] {
        let fleet = Fleet::builder(&server)
            .workers(workers)
            .pool_size(1)
            .setting("reserve_pool_size", 1)
            .setting("reserve_pool_timeout", 0)
            .setting("query_wait_timeout", 1)
            .start();
        let _holder = hold(1, || fleet.client());
        let mut client = fleet.client();
        client.send(&frontend::query("select 1"));
        assert_eq!(client.refusal().text(), "query_wait_timeout");
        assert_eq!(fleet.logged(RESERVE), 0);
    }
}

#[test]
fn a_database_or_a_user_has_a_reserve_of_its_own() {
    let server = Postgres::start();
    for workers in [1, 2] {
        let fleet = Fleet::builder(&server)
            .workers(workers)
            .pool_size(1)
            .setting("reserve_pool_timeout", "0.2")
            .setting("query_wait_timeout", 2)
            .database("app", format!("{} reserve_pool_size=1", entry(&server)))
            .database("second", entry(&server))
            .user("other", "reserve_pool_size=2")
            .start();
        for (user, database, reserve) in [("app", "app", 1), ("other", "app", 2), ("app", "second", 0), ("other", "second", 2)] {
            let login = || Client::login(fleet.port(), user, database);
            let _holders = hold(1 + reserve, login);
            let mut client = login();
            client.send(&frontend::query("select 1"));
            assert_eq!(client.refusal().text(), "query_wait_timeout", "{user} {database}");
        }
        assert_eq!(fleet.logged(RESERVE), 1 + 2 + 2);
    }
}

/// A pool with a user of its own is filled before any client comes, and after a reload; never beyond, and never beyond the pool's size.
#[test]
fn a_forced_user_s_pool_is_filled_at_start() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| {
            let own = |more: &str| format!("{} user=app {more}", entry(&server));
            let builder = builder.database("filled", own("min_pool_size=4")).database("small", own("min_pool_size=9 pool_size=2"));
            builder.database("endless", own("min_pool_size=3 pool_size=0")).database("empty", own(""))
        },
        |fleet| {
            let sampler = Sampler::start(&server);
            wait_for_backends(&server, 6);
            fleet.change_database("empty", format!("{} user=app min_pool_size=1", entry(&server)));
            fleet.console().query("reload");
            wait_for_backends(&server, 7);
            let mut console = fleet.console();
            let mut idle = || {
                let pools = console.query("show pools");
                ["filled", "small", "endless", "empty"].map(|name| pools.find("database", name, "sv_idle").unwrap_or_default())
            };
            wait_until("all to be idle", SOON, || idle()[..2] == ["4", "2"] && idle()[3] == "1");
            // Closed for PAUSE, they come back after it and not before.
            fleet.console().query("pause");
            wait_for_backends(&server, 0);
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(500) {
                assert_eq!(backends(&mut server.admin()), 0);
            }
            fleet.console().query("resume");
            wait_for_backends(&server, 7);
            assert!(sampler.finish().most <= 7);
        },
    );
}

#[test]
fn other_pools_are_filled_while_they_have_clients() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder.setting("min_pool_size", 3).setting("server_idle_timeout", 1),
        |fleet| {
            let sampler = Sampler::start(&server);
            let mut client = fleet.client();
            wait_for_backends(&server, 3);
            // Idle for longer than server_idle_timeout, they stay; what is more than the minimum goes.
            for mut client in hold(5, || fleet.client()) {
                client.query("commit");
            }
            assert_eq!(backends(&mut server.admin()), 5);
            wait_for_backends(&server, 3);
            let start = Instant::now();
            let mut admin = server.admin();
            while start.elapsed() < Duration::from_millis(2500) {
                assert_eq!(backends(&mut admin), 3);
            }
            assert_eq!(client.value("select 1"), "1");
            assert!(sampler.finish().most <= 5);
        },
    );
}

/// One after the other, a lifetime divided by the pool's size apart, and each is replaced.
#[test]
fn a_pool_is_not_renewed_all_at_once() {
    let server = Postgres::start();
    for workers in [1, 2] {
        let fleet = Fleet::builder(&server)
            .workers(workers)
            .pool_size(4)
            .setting("server_lifetime", 2)
            .database("app", format!("{} user=app min_pool_size=4", entry(&server)))
            .start();
        wait_for_backends(&server, 4);
        let mut admin = server.admin();
        let mut pids = || -> BTreeSet<i32> {
            let rows = admin.query("select pid from pg_stat_activity where usename = 'app'", &[]).unwrap();
            rows.iter().map(|row| row.get(0)).collect()
        };
        let first = pids();
        wait_until("a new generation", SOON, || pids().is_disjoint(&first));
        wait_for_backends(&server, 4);
        let seconds = |line: &str| {
            let clock: Vec<f64> = line.split(' ').nth(1).unwrap().split(':').map(|part| part.parse().unwrap()).collect();
            clock[0] * 3600.0 + clock[1] * 60.0 + clock[2]
        };
        let log = fleet.log();
        let times: Vec<f64> = log.lines().filter(|line| line.contains("server lifetime over")).map(seconds).collect();
        assert!(times.len() >= 4, "{times:?}");
        for pair in times.windows(2) {
            assert!(pair[1] - pair[0] >= 0.49 || pair[1] < pair[0], "{times:?}");
        }
    }
}

/// Nothing is closed to fill a pool.
#[test]
fn a_minimum_makes_no_room() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server)
        .setting("min_pool_size", 2)
        .setting("max_db_connections", 2)
        .setting("query_wait_timeout", 5)
        .start();
    let mut app = fleet.client();
    wait_for_backends(&server, 2);
    let mut other = Client::login(fleet.port(), "other", "app");
    assert_eq!(other.value("select current_user"), "other");
    assert_eq!(app.value("select current_user"), "app");
    let evicted = fleet.logged("evicted");
    assert!(evicted <= 2, "{}", fleet.log());
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(700) {
        assert_eq!(fleet.logged("evicted"), evicted, "{}", fleet.log());
    }
}

/// A server that does not answer is not asked for the sake of the minimum either, before server_login_retry is over.
#[test]
fn a_minimum_waits_for_server_login_retry() {
    let server = Postgres::start();
    let nobody = end_to_end::Port::take();
    let fleet = Fleet::builder(&server)
        .setting("server_login_retry", 2)
        .database("nobody", format!("host=127.0.0.1 port={} user=app min_pool_size=3", nobody.number()))
        .start();
    let failed = "closing because: connect failed";
    fleet.wait_for_log(failed);
    let start = Instant::now();
    wait_until("a second attempt", SOON, || fleet.logged(failed) >= 2);
    assert!(start.elapsed() > Duration::from_millis(1500), "after {:?}", start.elapsed());
}

/// The limits as settings, and the overrides that stand before them; 0 in an entry leaves the setting in force.
#[test]
fn client_limits_as_settings_and_overrides() {
    let server = Postgres::start();
    let cases = [
        ("max_db_client_connections", 2, 2),
        ("max_user_client_connections", 2, 2),
        ("max_db_client_connections", 0, 1),
        ("max_user_client_connections", 0, 1),
    ];
    for workers in [1, 2] {
        for (setting, own, allowed) in cases {
            let builder = Fleet::builder(&server).workers(workers).setting(setting, 1);
            let builder = if setting.starts_with("max_db") {
                builder.database("app", format!("{} {setting}={own}", entry(&server)))
            } else {
                builder.user("app", &format!("{setting}={own}"))
            };
            let fleet = builder.start();
            let held: Vec<Client> = (0..allowed).map(|_| fleet.client()).collect();
            let mut client = Client::tcp(fleet.port());
            client.send(&frontend::startup(&[("user", "app"), ("database", "app")]));
            let fields = client.refusal();
            let text = format!("client connections exceeded ({setting})");
            assert_eq!((fields.severity(), fields.code(), fields.text()), ("FATAL", "53300", text.as_str()));
            drop(held);
        }
    }
}

#[test]
fn server_limits_as_settings_and_overrides() {
    let server = Postgres::start();
    for workers in [1, 2] {
        for (setting, own, allowed) in [("max_db_connections", 0, 2), ("max_db_connections", 3, 3), ("max_user_connections", 0, 2)]
        {
            let builder = Fleet::builder(&server).workers(workers).setting(setting, 2).setting("query_wait_timeout", 1);
            let builder = if setting == "max_db_connections" {
                builder.database("app", format!("{} {setting}={own}", entry(&server)))
            } else {
                builder.user("app", &format!("{setting}={own}"))
            };
            let fleet = builder.start();
            let _holders = hold(allowed, || fleet.client());
            let mut client = fleet.client();
            client.send(&frontend::query("select 1"));
            assert_eq!(client.refusal().text(), "query_wait_timeout", "{setting} {own}");
            assert_eq!(backends(&mut server.admin()), allowed as i64);
            drop((fleet, client));
            wait_for_backends(&server, 0);
        }
    }
}
