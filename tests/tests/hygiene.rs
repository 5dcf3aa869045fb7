//! What is done with a server connection before it serves and between two clients: connect_query, server_check_query, server_reset_query,
//! server_fast_close.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Client, Fleet, PoolMode, Postgres, SOON, backends, each_fleet, each_worker_count, frontend, wait_until};

fn entry(server: &Postgres) -> String {
    format!("host=127.0.0.1 port={} dbname=app", server.port())
}

#[test]
fn connect_query_is_run_before_the_first_use() {
    let server = Postgres::start();
    let query = "set work_mem = ''7MB''; set timezone = ''Asia/Tokyo''; select repeat(''x'', 100000)";
    each_fleet(
        &server,
        |builder| builder.setting("server_reset_query", "").database("app", format!("{} connect_query='{query}'", entry(&server))),
        |fleet, _| {
            for _ in 0..3 {
                let mut client = fleet.client();
                assert_eq!(client.value("show work_mem"), "7MB");
                // What it sets of the parameters that clients are told holds for them too.
                assert_eq!(client.value("show timezone"), "Asia/Tokyo");
            }
            assert_eq!(fleet.logged("exec_on_query"), 0);
        },
    );
}

#[test]
fn a_connect_query_that_fails_is_logged_and_no_more() {
    let server = Postgres::start();
    for workers in [1, 2] {
        let fleet = Fleet::builder(&server)
            .workers(workers)
            .database("app", format!("{} connect_query='select 1/0'", entry(&server)))
            .database("open", format!("{} connect_query='begin; set work_mem = ''7MB'''", entry(&server)))
            .database("broken", format!("{} connect_query='begin; select 1/0'", entry(&server)))
            .start();
        assert_eq!(fleet.client().value("select 1"), "1");
        fleet.wait_for_log("S: error while executing exec_on_query: ERROR: division by zero");
        // Nobody comes into a transaction that is not his.
        for database in ["open", "broken"] {
            let mut client = Client::login(fleet.port(), "app", database);
            assert_eq!(client.query("select 1").status, 'I', "{database}");
            assert_ne!(client.value("show work_mem"), "7MB", "{database}");
        }
        assert_eq!(fleet.logged("connect_query has left a transaction open"), 2);
    }
}

/// Connections that were opened with the old query are replaced.
#[test]
fn a_new_connect_query_replaces_connections() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder.database("app", format!("{} connect_query='set work_mem = ''7MB'''", entry(&server))),
        |fleet| {
            let mut client = fleet.client();
            assert_eq!(client.value("show work_mem"), "7MB");
            fleet.change_database("app", format!("{} connect_query='set work_mem = ''8MB'''", entry(&server)));
            fleet.console().query("reload");
            assert_eq!(client.value("show work_mem"), "8MB");
        },
    );
}

/// A table that the check writes to, or reads; gives the number of checks.
fn checks(server: &Postgres) -> i64 {
    server.admin().query_one("select count(*) from checks", &[]).unwrap().get(0)
}

fn server_with_checks() -> Postgres {
    let server = Postgres::start();
    let tables =
        "create table checks (at timestamptz default now()); create table sick (seconds float); grant all on checks, sick to app";
    server.admin().batch_execute(tables).unwrap();
    server
}

/// Waits for a server in this state, in both reports, and for none in any other.
#[track_caller]
fn wait_for_state(fleet: &Fleet, column: &str, state: &str) {
    let mut console = fleet.console();
    wait_until(&format!("a server that is {state}"), SOON, || {
        let row = console.query("show pools").find("user", "app", column);
        row.as_deref() == Some("1") && console.query("show servers").column("state") == [state]
    });
}

/// Nobody is kept waiting by a check of a server that was in use a moment ago; after the delay everybody is, in whichever worker.
#[test]
fn a_server_that_was_idle_for_long_is_checked() {
    let server = server_with_checks();
    each_worker_count(
        &server,
        |builder| {
            let builder = builder.pool_size(5).setting("server_check_delay", 1);
            builder.setting("server_check_query", "insert into checks default values")
        },
        |fleet| {
            server.admin().batch_execute("truncate checks").unwrap();
            let workers = fleet.all_workers();
            drop(fleet.client());
            // Before another client comes: at the other worker it would have a server opened for its greeting.
            wait_for_state(fleet, "sv_idle", "idle");
            let use_once = |worker: u32| assert_eq!(fleet.client_at(worker).value("select 1"), "1");
            use_once(workers[0]);
            use_once(workers[0]);
            assert_eq!(checks(&server), 0);
            // Lent to another worker, it is as old as it was.
            for (count, &worker) in (1..).zip(workers.iter().rev()) {
                wait_for_state(fleet, "sv_used", "used");
                use_once(worker);
                assert_eq!(checks(&server), count);
            }
            assert_eq!(backends(&mut server.admin()), 1, "the check is no reason for another connection");
        },
    );
}

/// With a delay of 0 every use is preceded by a check, unless a reset query has just shown that the server is alive.
#[test]
fn a_delay_of_0_checks_always() {
    let server = server_with_checks();
    each_fleet(
        &server,
        |builder| {
            let builder = builder.pool_size(5).setting("server_check_delay", 0);
            builder.setting("server_check_query", "insert into checks default values")
        },
        |fleet, mode| {
            server.admin().batch_execute("truncate checks").unwrap();
            let mut client = fleet.client();
            client.query("select 1");
            let before = checks(&server);
            for _ in 0..5 {
                assert_eq!(client.value("select 1"), "1");
            }
            assert_eq!(checks(&server) - before, if mode == PoolMode::Session { 0 } else { 5 });
            assert_eq!(backends(&mut server.admin()), 1);
            drop(client);
            // One client after the other, more than there are servers: all are served.
            std::thread::scope(|scope| {
                for _ in 0..10 {
                    scope.spawn(|| assert_eq!(fleet.client().value("select 1"), "1"));
                }
            });
        },
    );
}

#[test]
fn a_server_that_fails_its_check_is_replaced_unseen() {
    let server = server_with_checks();
    each_worker_count(
        &server,
        |builder| {
            let builder = builder.pool_size(1).setting("server_check_delay", 0).setting("server_connect_timeout", 1);
            // It takes as long as the table says, and then fails if it is no more than half a second.
            let query = "select pg_sleep(max(seconds)), 1 / (max(seconds) > 0.5)::int from sick having count(*) > 0";
            builder.setting("server_check_query", query)
        },
        |fleet| {
            let mut client = fleet.client();
            for (seconds, failures) in [(0.5, 1), (600.0, 2)] {
                server.admin().batch_execute("truncate sick").unwrap();
                let first = client.value("select pg_backend_pid()");
                server.admin().execute("insert into sick values ($1)", &[&seconds]).unwrap();
                client.send(&frontend::query("select pg_backend_pid()"));
                wait_for_state(fleet, "sv_tested", "tested");
                let second = client.answer().value().to_owned();
                assert_ne!(first, second, "{}", fleet.log());
                assert_eq!(fleet.logged("closing because: test query failed"), failures);
            }
        },
    );
}

#[test]
fn an_empty_query_checks_and_none_does_not() {
    let server = Postgres::start_with("log_min_duration_statement = 0");
    for (query, checked) in [("<empty>", true), ("", false)] {
        for workers in [1, 2] {
            let before = server.log().matches("statement: \n").count();
            let builder = Fleet::builder(&server).workers(workers).setting("server_check_delay", 0);
            let fleet = builder.setting("server_check_query", query).start();
            let mut client = fleet.client();
            for _ in 0..5 {
                assert_eq!(client.value("select 1"), "1");
            }
            let seen = server.log().matches("statement: \n").count() - before;
            assert_eq!(seen >= 5, checked, "{query:?}: {seen}");
        }
    }
}

#[test]
fn server_fast_close_does_not_wait_for_the_client() {
    let server = Postgres::start();
    for workers in [1, 2] {
        let fleet = Fleet::builder(&server).workers(workers).pool_mode(PoolMode::Session).setting("server_fast_close", 1).start();
        let mut idle: Vec<Client> = (0..3).map(|_| fleet.client()).collect();
        let mut busy = fleet.client();
        for client in &mut idle {
            client.query("select 1");
        }
        busy.query("begin");
        fleet.console().query("reconnect");
        for client in &mut idle {
            let fields = client.refusal();
            assert_eq!((fields.severity(), fields.text()), ("FATAL", "database configuration changed"));
        }
        assert_eq!(busy.query("select 1").status, 'T', "not in a transaction");
        assert_eq!(busy.query("commit").status, 'I');
        assert_eq!(busy.refusal().text(), "database configuration changed");
        let mut admin = server.admin();
        wait_until("the servers to go", SOON, || backends(&mut admin) == 0);
    }
}

#[test]
fn without_server_fast_close_a_client_keeps_its_server() {
    let server = Postgres::start();
    for mode in [PoolMode::Session, PoolMode::Transaction] {
        let fleet =
            Fleet::builder(&server).pool_mode(mode).setting("server_fast_close", i32::from(mode != PoolMode::Session)).start();
        let mut client = fleet.client();
        let first = client.value("select pg_backend_pid()");
        fleet.console().query("reconnect");
        assert_eq!(client.value("select pg_backend_pid()") == first, mode == PoolMode::Session);
    }
}

/// A reset query that fails, or leaves a transaction open, has not cleaned up: the next client gets another server.
#[test]
fn a_server_that_could_not_be_reset_is_closed() {
    let server = Postgres::start();
    for (workers, query) in [(1, "select 1/0"), (2, "select 1/0"), (1, "begin"), (2, "discard all; begin")] {
        let builder = Fleet::builder(&server).workers(workers).pool_size(1).pool_mode(PoolMode::Session);
        let fleet = builder.setting("server_reset_query", query).start();
        let first = fleet.client().value("select pg_backend_pid()");
        fleet.wait_for_log("closing because: reset query failed");
        assert_ne!(fleet.client().value("select pg_backend_pid()"), first, "{query}");
    }
}

#[test]
fn server_reset_query_always_resets_in_transaction_mode() {
    let server = Postgres::start();
    for (always, workers) in [(0, 1), (1, 1), (1, 2)] {
        let fleet = Fleet::builder(&server)
            .workers(workers)
            .pool_size(1)
            .setting("server_reset_query", "reset work_mem")
            .setting("server_reset_query_always", always)
            .start();
        let mut client = fleet.client();
        client.query("set work_mem = '7MB'");
        assert_eq!(client.value("show work_mem") == "7MB", always == 0);
    }
}
