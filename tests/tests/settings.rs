//! Settings that no other subject shows at work: each is seen by what PostgreSQL, the kernel or a client notices of it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Client, Fleet, PoolMode, Postgres, SOON, backends, each_worker_count, frontend, process, wait_until};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

fn entry(server: &Postgres) -> String {
    format!("host=127.0.0.1 port={} dbname=app", server.port())
}

fn with(fleet: &Fleet, parameters: &[(&str, &str)]) -> Result<Client, (String, String)> {
    let mut client = Client::tcp(fleet.port());
    let all = [&[("user", "app"), ("database", "app")], parameters].concat();
    client.start(&all, None).map(|()| client).map_err(|error| (error.code().to_owned(), error.text().to_owned()))
}

fn waiting(fleet: &Fleet, column: &str, value: &str) -> String {
    fleet.console().query("show pools").find(column, value, "cl_waiting").unwrap_or_default()
}

/// As many transactions at once as the pool may have servers; one more waits for its turn.
#[track_caller]
fn assert_pool_size(server: &Postgres, fleet: &Fleet, user: &str, database: &str, size: usize) {
    let mut admin = server.admin();
    wait_until("earlier servers to go", SOON, || backends(&mut admin) == 0);
    let mut clients: Vec<Client> = (0..=size).map(|_| Client::login(fleet.port(), user, database)).collect();
    let mut last = clients.pop().unwrap();
    for client in &mut clients {
        assert_eq!(client.query("begin").status, 'T');
    }
    last.send(&frontend::query("select 'in turn'"));
    let pools = || fleet.console().query("show pools");
    wait_until("the one too many to queue", SOON, || {
        let pools = pools();
        let row = pools.column("user").into_iter().zip(pools.column("database")).zip(pools.column("cl_waiting"));
        row.into_iter().any(|((of, at), waiting)| of == user && at == database && waiting == "1")
    });
    assert_eq!(backends(&mut admin), size as i64, "{user} at {database}");
    drop(clients);
    assert_eq!(last.answer().value(), "in turn");
    drop(last);
    fleet.console().query("reconnect");
}

#[test]
fn entries_have_pool_sizes_of_their_own() {
    let server = Postgres::start();
    for workers in [1, 2] {
        let fleet = Fleet::builder(&server)
            .workers(workers)
            .pool_size(4)
            .database("narrow", format!("{} pool_size=2", entry(&server)))
            .user("other", "pool_size=1")
            .start();
        for (user, database, size) in [("app", "narrow", 2), ("other", "narrow", 1), ("other", "app", 1), ("app", "app", 4)] {
            assert_pool_size(&server, &fleet, user, database, size);
        }
    }
}

#[test]
fn a_user_has_a_pool_mode_of_its_own() {
    let server = Postgres::start();
    for (general, own) in [(PoolMode::Transaction, PoolMode::Session), (PoolMode::Session, PoolMode::Transaction)] {
        for workers in [1, 2] {
            let mode = format!("pool_mode={}", own.name());
            let fleet = Fleet::builder(&server).workers(workers).pool_mode(general).pool_size(1).user("other", &mode).start();
            for (user, mode) in [("app", general), ("other", own)] {
                let login = || Client::login(fleet.port(), user, "app");
                let (mut first, mut second) = (login(), login());
                assert_eq!(first.value("select 1"), "1");
                second.send(&frontend::query("select 2"));
                if mode == PoolMode::Session {
                    wait_until("the second to wait for the first to leave", SOON, || waiting(&fleet, "user", user) == "1");
                    drop(first);
                }
                assert_eq!(second.answer().value(), "2");
                let pools = fleet.console().query("show pools");
                assert_eq!(pools.lookup("user", user, "pool_mode"), mode.name());
            }
        }
    }
}

#[test]
fn an_entrys_parameters_are_those_of_its_servers() {
    let server = Postgres::start();
    let own = "client_encoding=LATIN1 datestyle='SQL, DMY' timezone=Asia/Tokyo application_name=of_the_entry";
    each_worker_count(
        &server,
        |builder| builder.database("app", format!("{} {own}", entry(&server))),
        |fleet| {
            let mut client = fleet.client();
            for (name, value) in [
                ("client_encoding", "LATIN1"),
                ("DateStyle", "SQL, DMY"),
                ("TimeZone", "Asia/Tokyo"),
                ("application_name", "of_the_entry"),
            ] {
                assert_eq!(client.value(&format!("show {name}")), value);
                assert_eq!(client.parameters[name], value, "told at the login");
            }
            let mut asking = with(fleet, &[("TimeZone", "UTC")]).unwrap();
            assert_eq!(asking.value("show timezone") + &asking.value("show datestyle"), "UTCSQL, DMY");
        },
    );
}

#[test]
fn a_database_has_a_server_lifetime_of_its_own() {
    let server = Postgres::start();
    for workers in [1, 2] {
        let fleet =
            Fleet::builder(&server).workers(workers).database("brief", format!("{} server_lifetime=1", entry(&server))).start();
        let mut lasting = fleet.client();
        let pid = lasting.value("select pg_backend_pid()");
        assert_eq!(Client::login(fleet.port(), "app", "brief").value("select 1"), "1");
        let line = fleet.wait_for_log("closing because: server lifetime over");
        assert!(line.contains(" brief/app@"), "{line}");
        assert_eq!(lasting.value("select pg_backend_pid()"), pid);
    }
}

#[test]
fn idle_servers_are_used_in_turn_or_the_last_one_first() {
    let server = Postgres::start();
    for (workers, in_turn) in [(1, 0), (1, 1), (2, 0), (2, 1)] {
        let fleet = Fleet::builder(&server).workers(workers).pool_size(3).setting("server_round_robin", in_turn).start();
        let worker = fleet.all_workers()[0];
        let mut clients: Vec<Client> = (0..3).map(|_| fleet.client_at(worker)).collect();
        for client in &mut clients {
            client.query("begin");
        }
        for client in &mut clients {
            client.query("commit");
        }
        let pids: Vec<String> = (0..6).map(|_| clients[0].value("select pg_backend_pid()")).collect();
        let distinct: BTreeSet<_> = pids.iter().collect();
        assert_eq!(distinct.len(), if in_turn == 1 { 3 } else { 1 }, "{pids:?}");
        if in_turn == 1 {
            assert_eq!(pids[..3], pids[3..]);
        }
    }
}

#[test]
fn a_host_that_is_full_makes_room() {
    let server = Postgres::start();
    for workers in [1, 2] {
        let fleet =
            Fleet::builder(&server).workers(workers).database("second", entry(&server)).setting("max_host_connections", 1).start();
        for database in ["app", "second", "app"] {
            assert_eq!(Client::login(fleet.port(), "app", database).value("select 1"), "1");
        }
        assert_eq!(fleet.logged("closing because: evicted for max_host_connections"), 2);
    }
}

/// PostgreSQL does not notice that nobody waits for the answer: the statement ends as it would have, and its seat is taken until then.
#[test]
fn the_query_of_a_vanished_client_may_run_on() {
    const RUN: &str = "with gate as materialized (select pg_advisory_lock(7)) insert into finished select 1 from gate";
    let server = Postgres::start();
    let mut admin = server.admin();
    admin.batch_execute("create table finished (n int); grant all on finished to app").unwrap();
    for (workers, cancel) in [(1, 0), (2, 0), (1, 1), (2, 1)] {
        admin.batch_execute("truncate finished; select pg_advisory_lock(7)").unwrap();
        let fleet = Fleet::builder(&server).workers(workers).pool_size(1).setting("cancel_on_disconnect", cancel).start();
        let mut leaving = fleet.client();
        leaving.send(&frontend::query(RUN));
        let running = "select count(*) from pg_stat_activity where wait_event = 'advisory'";
        let mut waits_at_gate = || admin.query_one(running, &[]).unwrap().get::<_, i64>(0) == 1;
        wait_until("the query to run", SOON, &mut waits_at_gate);
        drop(leaving);
        let mut next = fleet.client();
        next.send(&frontend::query("select 'next'"));
        if cancel == 0 {
            wait_until("the next client to wait", SOON, || waiting(&fleet, "user", "app") == "1");
            fleet.wait_for_log("client disconnected with query in progress");
            assert!(waits_at_gate(), "cancelled");
            admin.batch_execute("select pg_advisory_unlock(7)").unwrap();
            assert_eq!(next.answer().value(), "next");
        } else {
            assert_eq!(next.answer().value(), "next");
            admin.batch_execute("select pg_advisory_unlock(7)").unwrap();
        }
        let finished: i64 = admin.query_one("select count(*) from finished", &[]).unwrap().get(0);
        assert_eq!(finished, 1 - i64::from(cancel));
    }
}

#[test]
fn further_parameters_can_be_tracked() {
    let server = Postgres::start();
    for workers in [1, 2] {
        let fleet = Fleet::builder(&server)
            .workers(workers)
            .pool_size(1)
            .setting("startup_parameters", "reject")
            .setting("track_extra_parameters", "IntervalStyle, default_transaction_read_only")
            .start();
        let mut careful = with(&fleet, &[("default_transaction_read_only", "on")]).unwrap();
        let mut plain = fleet.client();
        for _ in 0..2 {
            assert_eq!(careful.value("show default_transaction_read_only"), "on");
            assert_eq!(plain.value("show default_transaction_read_only"), "off");
        }
        let refusal = ("08P01".to_owned(), "unsupported startup parameter: work_mem".to_owned());
        assert_eq!(with(&fleet, &[("work_mem", "5MB")]).unwrap_err(), refusal);
    }
}

#[test]
fn ignored_options_still_bring_tracked_parameters() {
    let server = Postgres::start();
    for (workers, others) in [(1, "apply"), (2, "apply"), (1, "reject"), (2, "reject")] {
        let builder = Fleet::builder(&server).workers(workers).setting("startup_parameters", others);
        let fleet = builder.setting("ignore_startup_parameters", "options").start();
        let options = "-c statement_timeout=7s -c IntervalStyle=iso_8601 --work-mem=5MB --timezone=Asia/Tokyo";
        let mut client = with(&fleet, &[("options", options)]).unwrap();
        for (name, value) in [("statement_timeout", "0"), ("work_mem", "4MB")] {
            assert_eq!(client.value(&format!("show {name}")), value, "dropped");
        }
        for (name, value) in [("intervalstyle", "iso_8601"), ("timezone", "Asia/Tokyo")] {
            assert_eq!(client.value(&format!("show {name}")), value, "applied");
        }
    }
}

#[test]
fn scram_iterations_are_what_clients_are_asked_for() {
    let server = Postgres::start();
    for workers in [1, 2] {
        let mut fleet = Fleet::builder(&server).workers(workers).setting("auth_type", "scram-sha-256").start();
        for iterations in [4096, 1000, 10_000] {
            fleet.change("scram_iterations", iterations);
            let mut console = Client::tcp(fleet.port());
            console.start(&[("user", "admin"), ("database", "pgbouncer")], Some("admin-password")).unwrap();
            assert_eq!(console.query("reload").tags, ["RELOAD"]);
            let challenge = Client::tcp(fleet.port()).scram_challenge("app");
            assert!(challenge.ends_with(&format!(",i={iterations}")), "{challenge}");
            Client::tcp(fleet.port()).start(&[("user", "app"), ("database", "app")], Some("app-password")).unwrap();
        }
    }
}

#[test]
fn statement_mode_resets_only_when_always() {
    let server = Postgres::start();
    for (always, workers) in [(0, 1), (0, 2), (1, 1), (1, 2)] {
        let fleet = Fleet::builder(&server)
            .workers(workers)
            .pool_size(1)
            .setting("pool_mode", "statement")
            .setting("server_reset_query", "reset work_mem")
            .setting("server_reset_query_always", always)
            .start();
        let mut client = fleet.client();
        client.query("set work_mem = '7MB'");
        assert_eq!(client.value("show work_mem"), if always == 1 { "4MB" } else { "7MB" });
    }
}

#[test]
fn the_unix_socket_has_the_mode_asked_for() {
    let server = Postgres::start();
    for (workers, mode) in [(1, 0o770), (2, 0o700), (2, 0o777)] {
        let fleet = Fleet::builder(&server).workers(workers).setting("unix_socket_mode", format!("{mode:04o}")).start();
        let socket = fleet.folder().join(format!(".s.PGSQL.{}", fleet.port()));
        assert_eq!(std::fs::metadata(socket).unwrap().permissions().mode() & 0o777, mode);
    }
}

#[test]
fn a_worker_that_hangs_is_replaced() {
    let server = Postgres::start();
    for workers in [1, 2] {
        let fleet = Fleet::builder(&server).workers(workers).setting("worker_hang_timeout", 1).start();
        let stopped = fleet.all_workers()[0];
        process::signal(stopped, Signal::SIGSTOP);
        wait_until("it to be killed", SOON, || !fleet.workers().contains(&stopped));
        fleet.wait_for_log("(worker_hang_timeout)");
        assert_eq!(fleet.all_workers().len(), workers);
        assert_eq!(fleet.client().value("select 1"), "1");
    }
}

#[test]
fn another_file_can_be_read() {
    let server = Postgres::start();
    for workers in [1, 2] {
        let fleet = Fleet::builder(&server).workers(workers).setting("default_pool_size", 7).start();
        let another = fleet.folder().join("another.ini");
        let text = std::fs::read_to_string(fleet.config_path()).unwrap();
        std::fs::write(&another, text.replace("default_pool_size = 7", "default_pool_size = 8")).unwrap();
        let mut console = fleet.console();
        let mut shown = |name: &str| console.query("show config").lookup("key", name, "value");
        assert_eq!(shown("conffile"), fleet.config_path().display().to_string());
        assert_eq!(fleet.console().query(&format!("set conffile = '{}'", another.display())).errors.len(), 0);
        assert_eq!(shown("default_pool_size"), "7", "read at the next reload");
        assert_eq!(fleet.console().query("reload").tags, ["RELOAD"]);
        assert_eq!((shown("default_pool_size"), shown("conffile")), ("8".to_owned(), another.display().to_string()));
        assert_eq!(fleet.client().value("select 1"), "1");
    }
}
