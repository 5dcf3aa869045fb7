//! Limits are the fleet's, not a worker's: clients in all, per database and per user; servers per pool, database and user.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{
    Client, Fields, Fleet, Postgres, SOON, Sampler, backends, each_fleet, each_worker_count, frontend, wait_for, wait_until,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn try_login(fleet: &Fleet, user: &str, database: &str) -> Result<Client, Fields> {
    let mut client = Client::tcp(fleet.port());
    client.start(&[("user", user), ("database", database)], None).map(|()| client)
}

#[track_caller]
fn assert_full(result: Result<Client, Fields>, text: &str) {
    let fields = result.expect_err("there should be no room");
    assert_eq!((fields.severity(), fields.code(), fields.text()), ("FATAL", "53300", text));
}

#[test]
fn max_client_conn() {
    let server = Postgres::start();
    each_fleet(
        &server,
        |builder| builder.setting("max_client_conn", 10),
        |fleet, _| {
            for _ in 0..3 {
                // Those of the round before may still be leaving.
                let mut clients = wait_for("ten places", SOON, || {
                    let all: Result<Vec<Client>, Fields> = (0..10).map(|_| try_login(fleet, "app", "app")).collect();
                    all.ok()
                });
                for _ in 0..5 {
                    assert_full(try_login(fleet, "app", "app"), "no more connections allowed (max_client_conn)");
                }
                // The console stays within reach.
                assert_eq!(fleet.console().query("show version").rows.len(), 1);
                for client in &mut clients {
                    assert_eq!(client.value("select 1"), "1");
                }
                drop(clients.pop());
                wait_until("the freed place", SOON, || try_login(fleet, "app", "app").is_ok());
            }
        },
    );
}

#[test]
fn clients_per_database_and_per_user() {
    let server = Postgres::start();
    let entry = format!("host=127.0.0.1 port={} dbname=app", server.port());
    each_worker_count(
        &server,
        |builder| {
            builder
                .database("narrow", format!("{entry} max_db_client_connections=3"))
                .user("other", "max_user_client_connections=2")
        },
        |fleet| {
            let narrow: Vec<_> = (0..3).map(|_| try_login(fleet, "app", "narrow").unwrap()).collect();
            assert_full(try_login(fleet, "app", "narrow"), "client connections exceeded (max_db_client_connections)");
            let user: Vec<_> = (0..2).map(|_| try_login(fleet, "other", "app").unwrap()).collect();
            assert_full(try_login(fleet, "other", "app"), "client connections exceeded (max_user_client_connections)");
            assert!(try_login(fleet, "app", "app").is_ok());
            drop((narrow, user));
            wait_until("room again", SOON, || try_login(fleet, "other", "narrow").is_ok());
        },
    );
}

/// More clients than servers, all wanting one at once: as many backends as allowed and not one more, and everyone is served.
#[test]
fn servers_per_pool() {
    let server = Postgres::start();
    each_fleet(
        &server,
        |builder| builder.pool_size(5),
        |fleet, _| {
            let sampler = Sampler::start(&server);
            std::thread::scope(|scope| {
                for _ in 0..20 {
                    scope.spawn(|| {
                        for _ in 0..3 {
                            assert_eq!(fleet.client().query("select pg_sleep(0.01)").errors.len(), 0);
                        }
                    });
                }
            });
            let seen = sampler.finish();
            assert_eq!(seen.most, 5, "{seen:?}");
        },
    );
}

/// 16 clients, half of each (user, database), 3 queries each; returns the most backends seen.
fn crowd(server: &Postgres, fleet: &Fleet, pools: [(&'static str, &'static str); 2]) -> i64 {
    let mut admin = server.admin();
    wait_until("the servers of an earlier fleet to go", SOON, || backends(&mut admin) == 0);
    let sampler = Sampler::start(server);
    let port = fleet.port();
    std::thread::scope(|scope| {
        for number in 0..16 {
            scope.spawn(move || {
                let (user, database) = pools[number % 2];
                for _ in 0..3 {
                    assert_eq!(Client::login(port, user, database).query("select pg_sleep(0.01)").errors.len(), 0);
                }
            });
        }
    });
    sampler.finish().most
}

#[test]
fn servers_per_database() {
    let server = Postgres::start();
    let entry = format!("host=127.0.0.1 port={} dbname=app max_db_connections=4", server.port());
    each_worker_count(
        &server,
        |builder| builder.pool_size(10).database("app", &entry),
        |fleet| {
            assert_eq!(crowd(&server, fleet, [("app", "app"), ("other", "app")]), 4);
        },
    );
}

#[test]
fn servers_per_user() {
    let server = Postgres::start();
    let entry = format!("host=127.0.0.1 port={} dbname=app", server.port());
    each_worker_count(
        &server,
        |builder| builder.pool_size(10).database("second", &entry).user("other", "max_user_connections=3"),
        |fleet| assert_eq!(crowd(&server, fleet, [("other", "app"), ("other", "second")]), 3),
    );
}

/// A pool that is full gives way to another pool of the same database when max_db_connections is what is full.
#[test]
fn an_idle_server_of_another_pool_is_evicted() {
    let server = Postgres::start();
    let entry = format!("host=127.0.0.1 port={} dbname=app max_db_connections=2", server.port());
    each_worker_count(
        &server,
        |builder| builder.database("app", &entry),
        |fleet| {
            let mut admin = server.admin();
            for user in ["app", "other", "app", "other"] {
                let mut first = Client::login(fleet.port(), user, "app");
                let mut second = Client::login(fleet.port(), user, "app");
                first.query("begin");
                second.query("begin");
                assert_eq!(first.value("select current_user"), user);
                assert_eq!(second.value("select current_user"), user);
                first.query("commit");
                second.query("commit");
                assert!(backends(&mut admin) <= 2);
            }
        },
    );
}

/// PostgreSQL works on for a client that is gone. Its backend counts until it has ended, and is made to end.
#[test]
fn a_client_that_leaves_in_the_middle_of_a_query() {
    let server = Postgres::start();
    each_fleet(
        &server,
        |builder| builder.pool_size(2),
        |fleet, _| {
            let mut admin = server.admin();
            let sampler = Sampler::start(&server);
            for _ in 0..3 {
                let mut leaving: Vec<Client> = (0..2).map(|_| fleet.client()).collect();
                for client in &mut leaving {
                    client.send(&frontend::query("select pg_sleep(60), 'left alone'"));
                }
                let running = "select count(*) from pg_stat_activity where state = 'active' and query like '%left alone%' and usename = 'app'";
                wait_until("the queries to run", SOON, || admin.query_one(running, &[]).unwrap().get::<_, i64>(0) == 2);
                drop(leaving);
                assert_eq!(fleet.client().value("select 1"), "1");
            }
            assert!(sampler.finish().most <= 2, "what runs on counts");
        },
    );
}

#[test]
fn query_wait_timeout() {
    let server = Postgres::start();
    each_fleet(
        &server,
        |builder| builder.pool_size(1).setting("query_wait_timeout", 1),
        |fleet, _| {
            let mut holder = fleet.client();
            holder.query("begin");
            let mut waiting: Vec<Client> = (0..4).map(|_| fleet.client()).collect();
            let start = Instant::now();
            for client in &mut waiting {
                client.send(&frontend::query("select 1"));
            }
            for client in &mut waiting {
                let fields = client.refusal();
                assert_eq!((fields.severity(), fields.code(), fields.text()), ("FATAL", "08P01", "query_wait_timeout"));
            }
            assert!(start.elapsed() >= Duration::from_millis(950), "after {:?}", start.elapsed());
            // Who has a server is not affected, and the next in line gets it.
            assert_eq!(holder.query("commit").status, 'I');
            drop(holder);
            assert_eq!(fleet.client().value("select 1"), "1");
        },
    );
}

/// The client that waited longest is served first, wherever it is. A worker may prefer its own clients to others that have waited up to
/// 15 ms longer; so these come 20 ms apart.
#[test]
fn the_longest_waiter_is_served_first() {
    const APART_US: u64 = 20_000;
    let server = Postgres::start();
    server.admin().batch_execute("create table served (number int, at serial); grant all on served, served_at_seq to app").unwrap();
    each_worker_count(
        &server,
        |builder| builder.pool_size(1),
        |fleet| {
            server.admin().batch_execute("truncate served").unwrap();
            let mut holder = fleet.client();
            holder.query("begin");
            let mut console = fleet.console();
            let mut waiting: Vec<Client> = (0..12).map(|_| fleet.client()).collect();
            for (number, client) in (1..).zip(&mut waiting) {
                client.send(&frontend::query(&format!("insert into served values ({number})")));
                wait_until("the client to have waited", SOON, || {
                    let pools = console.query("show pools");
                    let cell = |name| pools.lookup("user", "app", name).parse::<u64>().unwrap();
                    cell("cl_waiting") == number && cell("maxwait") * 1_000_000 + cell("maxwait_us") >= number * APART_US
                });
            }
            holder.query("commit");
            for client in &mut waiting {
                assert_eq!(client.answer().tags, ["INSERT 0 1"]);
            }
            let order = holder.query("select number from served order by at").column("number");
            let expected: Vec<String> = (1..=12).map(|number: u32| number.to_string()).collect();
            assert_eq!(order, expected);
        },
    );
}

/// An idle server at one worker is of use to a client at another.
#[test]
fn no_client_waits_beside_an_idle_server() {
    let server = Postgres::start();
    for workers in [2, 4] {
        let fleet = Fleet::builder(&server).workers(workers).pool_size(1).setting("query_wait_timeout", 10).start();
        let pids = fleet.all_workers();
        let mut clients: Vec<Client> = pids.iter().map(|&pid| fleet.client_at(pid)).collect();
        let mut backends_used = std::collections::BTreeSet::new();
        let start = Instant::now();
        for _ in 0..100 {
            for client in &mut clients {
                backends_used.insert(client.value("select pg_backend_pid()"));
            }
        }
        assert_eq!(backends_used.len(), 1, "one and the same server for all");
        let each = start.elapsed() / (100 * workers as u32);
        assert!(each < Duration::from_millis(20), "a server takes {each:?} to change hands");
    }
}

/// Databases of one host share max_host_connections, whoever the users are, and make room for one another.
#[test]
fn a_host_has_a_limit_of_its_own() {
    let server = Postgres::start();
    let entry = format!("host=127.0.0.1 port={} dbname=app", server.port());
    each_worker_count(
        &server,
        |builder| builder.database("app", &entry).database("second", &entry).setting("max_host_connections", 3),
        |fleet| {
            let mut admin = server.admin();
            for database in ["app", "second", "app"] {
                let mut clients: Vec<Client> = (0..3).map(|_| Client::login(fleet.port(), "app", database)).collect();
                for client in &mut clients {
                    assert_eq!(client.query("begin").status, 'T');
                }
                assert_eq!(backends(&mut admin), 3, "{database}");
                for client in &mut clients {
                    client.query("commit");
                }
            }
        },
    );
}

#[test]
fn simple_queries_can_be_refused() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).setting("disable_pqexec", 1).start();
    let mut client = fleet.client();
    client.send(&frontend::query("select 1"));
    assert_eq!(client.refusal().text(), "PQexec disallowed");
}

/// A seat that pools share goes to the client that has waited longest, in whichever pool and worker it waits; not to the pool that comes first.
#[test]
fn a_seat_that_pools_share_goes_to_the_longest_waiter() {
    let server = Postgres::start();
    server.admin().batch_execute("create table took (name text, at serial); grant all on took, took_at_seq to app").unwrap();
    let entry = format!("host=127.0.0.1 port={} dbname=app", server.port());
    let names = ["a", "b", "c", "d"];
    each_worker_count(
        &server,
        |builder| {
            let builder = builder.setting("max_user_connections", 1).database("holder", &entry);
            names.iter().fold(builder, |builder, name| builder.database(name, &entry))
        },
        |fleet| {
            let mut console = fleet.console();
            for _ in 0..3 {
                server.admin().batch_execute("truncate took").unwrap();
                let login = |database: &str| Client::login(fleet.port(), "app", database);
                // All have been greeted, so the pools are there, in the order of their names.
                let mut waiting: Vec<Client> = names.iter().map(|name| login(name)).collect();
                let mut holder = login("holder");
                assert_eq!(holder.query("begin").status, 'T');
                for (client, name) in waiting.iter_mut().zip(names).rev() {
                    client.send(&frontend::query(&format!("insert into took values ('{name}')")));
                    // Further apart than the 15 ms by which a worker may prefer its own.
                    wait_until("the client to have waited", SOON, || {
                        let pools = console.query("show pools");
                        pools.find("database", name, "cl_waiting").is_some_and(|waiting| waiting == "1")
                            && pools.lookup("database", name, "maxwait_us").parse::<u64>().unwrap() >= 30_000
                    });
                }
                holder.query("commit");
                for client in &mut waiting {
                    assert_eq!(client.answer().tags, ["INSERT 0 1"]);
                }
                let order = holder.query("select name from took order by at").column("name");
                assert_eq!(order, ["d", "c", "b", "a"]);
            }
        },
    );
}

/// A pool whose servers are never idle gives one up for a client of another pool that has waited longer.
#[test]
fn a_saturated_pool_starves_no_other() {
    let server = Postgres::start();
    let entry = format!("host=127.0.0.1 port={} dbname=app", server.port());
    each_worker_count(
        &server,
        |builder| builder.setting("max_user_connections", 2).database("busy", &entry).database("quiet", &entry),
        |fleet| {
            let port = fleet.port();
            let stop = AtomicBool::new(false);
            let sampler = Sampler::start(&server);
            std::thread::scope(|scope| {
                for _ in 0..12 {
                    scope.spawn(|| {
                        let mut client = Client::login(port, "app", "busy");
                        while !stop.load(Ordering::Relaxed) {
                            client.value("select 1 from pg_sleep(0.1)");
                        }
                    });
                }
                let waiting = || fleet.console().query("show pools").lookup("database", "busy", "cl_waiting") == "10";
                wait_until("the pool to be full and the others to wait", SOON, waiting);
                let mut client = Client::login(port, "app", "quiet");
                for _ in 0..3 {
                    assert_eq!(client.value("select 1 from pg_sleep(0.1)"), "1");
                }
                stop.store(true, Ordering::Relaxed);
            });
            assert!(sampler.finish().most <= 2);
            assert!(fleet.logged("evicted for max_user_connections") > 0);
        },
    );
}

/// A limit that a reload brings counts the connections that were there before it.
#[test]
fn a_limit_that_comes_later() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder.pool_size(5),
        |fleet| {
            let mut holders: Vec<Client> = (0..4).map(|_| fleet.client()).collect();
            for holder in &mut holders {
                assert_eq!(holder.query("begin").status, 'T');
            }
            fleet.change("max_user_connections", 2);
            assert!(fleet.console().query("reload").errors.is_empty());
            let mut fifth = fleet.client();
            fifth.send(&frontend::query("select 5"));
            wait_until("the client to wait", SOON, || {
                fleet.console().query("show pools").lookup("database", "app", "cl_waiting") == "1"
            });
            let mut admin = server.admin();
            assert_eq!(backends(&mut admin), 4);
            for holder in &mut holders {
                holder.query("commit");
            }
            assert_eq!(fifth.answer().value(), "5");
            wait_until("the surplus to be closed", SOON, || backends(&mut admin) <= 2);
        },
    );
}

/// max_packet_size holds for what servers send as well.
#[test]
fn a_message_of_the_servers_that_is_too_long() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder.setting("max_packet_size", 4096),
        |fleet| {
            let mut client = fleet.client();
            assert_eq!(client.value("select length(repeat('x', 4000))"), "4000");
            client.send(&frontend::query("select repeat('x', 5000)"));
            let refusal = client.refusal();
            assert_eq!((refusal.severity(), refusal.code(), refusal.text()), ("FATAL", "08P01", "bad pkt header"));
            let mut client = fleet.client();
            client.send(&frontend::query(&format!("select '{}'", "x".repeat(5000))));
            assert!(client.refusal().text().starts_with("bad packet header: '51"));
        },
    );
}

/// However many ask for a query to be cancelled, PostgreSQL gets few connections for it.
#[test]
fn a_crowd_of_cancel_requests_shares_connections() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(2).pool_size(1).start();
    let mut client = fleet.client();
    client.send(&frontend::query("select pg_sleep(60)"));
    let running = || fleet.console().query("show pools").lookup("database", "app", "sv_active") == "1";
    wait_until("the query to run", SOON, running);
    server.freeze();
    let mut askers: Vec<Client> = (0..40).map(|_| Client::tcp(fleet.port())).collect();
    for asker in &mut askers {
        asker.send(&frontend::cancel(&client.key));
    }
    let waiting = || {
        let pools = fleet.console().query("show pools");
        let count = |column: &str| pools.lookup("database", "app", column).parse::<u32>().unwrap();
        let asked = count("cl_waiting_cancel_req") + count("cl_active_cancel_req");
        assert!(count("sv_active_cancel") + count("sv_login") <= 2, "{asked} requests");
        asked == 40
    };
    wait_until("all requests to be on their way", SOON, waiting);
    server.thaw();
    assert_eq!(client.answer().error().code(), "57014");
    for asker in &mut askers {
        asker.expect_end();
    }
}

/// The names that are limited are kept as long as the fleet runs, and there is room for 8,192: clients that have not said who they are cannot fill it.
#[test]
fn made_up_names_do_not_use_up_limits() {
    let server = Postgres::start();
    let host = format!("host=127.0.0.1 port={} dbname=app", server.port());
    let fleet = Fleet::builder(&server)
        .workers(2)
        .setting("auth_type", "scram-sha-256")
        .setting("log_connections", 0)
        .setting("log_disconnections", 0)
        .setting("log_pooler_errors", 0)
        .secret("plain_user", "plain-password")
        .database("*", format!("{host} user=app max_db_connections=1 max_db_client_connections=2"))
        .start();
    let port = fleet.port();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for number in 0..2060 {
                    let mut client = Client::tcp(port);
                    let database = format!("x{thread}_{number}");
                    client.send(&frontend::startup(&[("user", "plain_user"), ("database", &database)]));
                    client.read();
                }
            });
        }
    });
    let login = || {
        let mut client = Client::tcp(port);
        client.start(&[("user", "plain_user"), ("database", "late")], Some("plain-password")).map(|()| client)
    };
    let mut clients = [login().unwrap(), login().unwrap()];
    assert_full(login(), "client connections exceeded (max_db_client_connections)");
    let sampler = Sampler::start(&server);
    for client in &mut clients {
        client.send(&frontend::query("select pg_sleep(0.1)"));
    }
    for client in &mut clients {
        assert_eq!(client.answer().errors.len(), 0);
    }
    assert_eq!(sampler.finish().most, 1);
}
