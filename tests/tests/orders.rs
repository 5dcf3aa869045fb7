//! Console commands that act in every worker: they are answered when all of them have done it, and no death of a worker holds them up.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::frontend::{query, startup};
use end_to_end::{Answer, Builder, Client, Fleet, PoolMode, Postgres, SOON, backends, process, wait_for, wait_until};
use nix::sys::signal::Signal;
use std::time::Duration;

/// How long a command that is to wait is watched.
const A_WHILE: Duration = Duration::from_millis(100);

/// A second entry for the same database.
fn with_other(server: &Postgres, builder: Builder) -> Builder {
    builder.database("other", format!("host=127.0.0.1 port={} dbname=app", server.port()))
}

fn each(server: &Postgres, modes: &[PoolMode], build: impl Fn(Builder) -> Builder, mut case: impl FnMut(&mut Fleet, PoolMode)) {
    for workers in [1, 2] {
        for &mode in modes {
            println!("{workers} workers, {mode:?}");
            let mut fleet = build(Fleet::builder(server).workers(workers).pool_mode(mode)).start();
            fleet.all_workers();
            case(&mut fleet, mode);
        }
    }
}

const BOTH: [PoolMode; 2] = [PoolMode::Session, PoolMode::Transaction];
const TRANSACTION: [PoolMode; 1] = [PoolMode::Transaction];

#[track_caller]
fn done(console: &mut Client, command: &str) {
    let answer = console.query(command);
    let verb = command.split(' ').next().unwrap().to_uppercase();
    assert_eq!((answer.tags.as_slice(), answer.errors.len()), (&[verb][..], 0), "{command}: {answer:?}");
}

#[track_caller]
fn refused(console: &mut Client, command: &str, text: &str) {
    let answer = console.query(command);
    let error = answer.error();
    assert_eq!((error.severity(), error.code(), error.text()), ("ERROR", "08P01", text), "{command}");
}

#[track_caller]
fn killed(client: &mut Client, text: &str) {
    let error = client.refusal();
    assert_eq!((error.severity(), error.code(), error.text()), ("FATAL", "57P01", text));
}

fn is_paused(console: &mut Client, database: &str) -> bool {
    console.query("show databases").lookup("name", database, "paused") == "1"
}

fn row_of(console: &mut Client, client: &Client) -> Option<(Answer, usize)> {
    let clients = console.query("show clients");
    let at = clients.column("port").iter().position(|port| *port == client.local_port().to_string())?;
    Some((clients, at))
}

#[track_caller]
fn id_of(console: &mut Client, client: &Client) -> String {
    let (clients, at) = row_of(console, client).expect("the client is listed");
    clients.column("id").swap_remove(at)
}

fn id_in_state(console: &mut Client, client: &Client, state: &str) -> Option<String> {
    let (clients, at) = row_of(console, client)?;
    (clients.column("state")[at] == state).then(|| clients.column("id").swap_remove(at))
}

fn used(fleet: &Fleet, count: usize, database: &str) -> Vec<Client> {
    (0..count).map(|_| Client::login(fleet.port(), "app", database)).collect()
}

#[test]
fn a_database_is_paused_and_resumed() {
    let server = Postgres::start();
    let mut admin = server.admin();
    each(
        &server,
        &BOTH,
        |builder| with_other(&server, builder).pool_size(3),
        |fleet, mode| {
            let (mut busy, mut idle) = (fleet.client(), used(fleet, 4, "app"));
            busy.query("begin");
            let mut apart = Client::login(fleet.port(), "app", "other");
            assert_eq!(apart.value("select 1"), "1");
            let (mut first, mut second, mut third) = (fleet.console(), fleet.console(), fleet.console());
            first.send(&query("pause app"));
            second.send(&query("PAUSE app;"));
            wait_until("the database to be paused", SOON, || is_paused(&mut third, "app"));
            first.expect_silence(A_WHILE);
            second.expect_silence(A_WHILE);
            assert_eq!(busy.value("select 2"), "2", "what has begun goes on");
            assert_eq!(apart.value("select 3"), "3", "another database is not concerned");
            busy.query("commit");
            if mode == PoolMode::Session {
                first.expect_silence(A_WHILE);
            }
            drop(busy);
            for console in [&mut first, &mut second] {
                assert_eq!(console.answer().tags, ["PAUSE"]);
            }
            wait_until("its backends to go", SOON, || backends(&mut admin) == 1);
            done(&mut first, "pause app");
            assert_eq!(third.query("show state").lookup("key", "paused", "value"), "no");
            for client in &mut idle {
                client.send(&query("select 'after'"));
            }
            refused(&mut first, "resume", "pooler is not paused/suspended");
            idle[0].expect_silence(A_WHILE);
            // The pause of all comes and goes apart from it.
            drop(apart);
            done(&mut first, "pause");
            refused(&mut second, "pause", "already suspended/paused");
            done(&mut second, "resume");
            idle[0].expect_silence(A_WHILE);
            done(&mut second, "resume app");
            for mut client in idle {
                assert_eq!(client.answer().value(), "after");
            }
            refused(&mut second, "resume app", "database app is not paused");
            assert!(!is_paused(&mut third, "app"));
            for line in ["PAUSE 'app' command issued", "RESUME 'app' command issued", "RESUME command issued"] {
                assert!(fleet.logged(line) > 0, "{line}");
            }
        },
    );
}

/// What PAUSE promises is that PostgreSQL is quiet, so a dead worker's query is waited for; and its successor is paused.
#[test]
fn a_worker_dies_while_its_database_is_being_paused() {
    let server = Postgres::start();
    let mut admin = server.admin();
    for workers in [1, 2] {
        let fleet = Fleet::builder(&server).workers(workers).start();
        let pids = fleet.all_workers();
        let mut others: Vec<Client> = pids.iter().map(|&pid| fleet.client_at(pid)).collect();
        let mut busy = fleet.client_at(pids[0]);
        busy.query("begin");
        busy.send(&query("select pg_sleep(600)"));
        let mut console = fleet.console();
        wait_until("the query to run", SOON, || console.query("show pools").lookup("user", "app", "sv_active") == "1");
        let (mut pausing, mut closing) = (fleet.console(), fleet.console());
        done(&mut console, "reconnect app");
        pausing.send(&query("pause app"));
        closing.send(&query("wait_close app"));
        wait_until("the database to be paused", SOON, || is_paused(&mut console, "app"));
        pausing.expect_silence(A_WHILE);
        process::signal(pids[0], Signal::SIGKILL);
        assert_eq!((pausing.answer().tags, closing.answer().tags), (vec!["PAUSE".to_owned()], vec!["WAIT_CLOSE".to_owned()]));
        assert_eq!(backends(&mut admin), 0);
        let fresh = fleet.all_workers();
        let successor = fresh.into_iter().find(|pid| !pids.contains(pid)).unwrap();
        assert!(is_paused(&mut console, "app"));
        // Nobody has told it what to greet clients with since RECONNECT: they wait in their login.
        let mut waiting = Client::tcp(fleet.port());
        waiting.send(&startup(&[("user", "app"), ("database", "app")]));
        waiting.expect_silence(A_WHILE);
        done(&mut console, "resume app");
        waiting.authenticate("app", None).unwrap();
        assert_eq!(waiting.value("select 1"), "1");
        assert_eq!(fleet.client_at(successor).value("select 2"), "2");
        others.truncate(0);
    }
}

#[test]
fn a_disabled_database_admits_nobody_new() {
    let server = Postgres::start();
    each(
        &server,
        &TRANSACTION,
        |builder| builder,
        |fleet, _| {
            let mut before = fleet.client();
            let mut console = fleet.console();
            done(&mut console, "disable app");
            assert_eq!(console.query("show databases").lookup("name", "app", "disabled"), "1");
            for _ in 0..6 {
                let mut client = Client::tcp(fleet.port());
                let error = client.start(&[("user", "app"), ("database", "app")], None).unwrap_err();
                assert_eq!((error.severity(), error.text()), ("FATAL", "database \"app\" is disabled"));
                let mut stranger = Client::tcp(fleet.port());
                let error = stranger.start(&[("user", "nobody"), ("database", "app")], None).unwrap_err();
                assert_eq!(error.code(), "28P01", "only who is admitted is told");
            }
            assert_eq!(before.value("select 1"), "1");
            done(&mut console, "reload");
            assert_eq!(console.query("show databases").lookup("name", "app", "disabled"), "1", "a reload keeps it");
            done(&mut console, "enable app");
            done(&mut console, "enable app");
            assert_eq!(fleet.client().value("select 1"), "1");
            assert_eq!((fleet.logged("DISABLE 'app' command issued"), fleet.logged("ENABLE 'app' command issued")), (1, 2));
        },
    );
}

#[test]
fn a_successor_knows_what_is_disabled() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(2).start();
    let mut console = fleet.console();
    done(&mut console, "disable app");
    for pid in fleet.all_workers() {
        process::signal(pid, Signal::SIGKILL);
    }
    for _ in 0..6 {
        let mut client = Client::tcp(fleet.port());
        let error = client.start(&[("user", "app"), ("database", "app")], None).unwrap_err();
        assert_eq!(error.text(), "database \"app\" is disabled");
    }
}

fn backend_pid(client: &mut Client) -> String {
    client.value("select pg_backend_pid()")
}

#[test]
fn servers_are_connected_anew() {
    let server = Postgres::start();
    let mut admin = server.admin();
    each(
        &server,
        &BOTH,
        |builder| with_other(&server, builder),
        |fleet, mode| {
            let mut console = fleet.console();
            done(&mut console, "wait_close");
            let (mut busy, mut apart) = (fleet.client(), Client::login(fleet.port(), "app", "other"));
            busy.query("begin");
            let (old, other) = (backend_pid(&mut busy), backend_pid(&mut apart));
            let mut idle = fleet.client();
            let idle_server = backend_pid(&mut idle);
            drop(idle);
            done(&mut console, "reconnect app");
            wait_until("the idle server to go", SOON, || !process::is_alive(idle_server.parse().unwrap()));
            let servers = console.query("show servers");
            assert_eq!(servers.lookup("remote_pid", &old, "close_needed"), "1");
            assert_eq!(servers.lookup("remote_pid", &other, "close_needed"), "0");
            let mut waiting = fleet.console();
            waiting.send(&query("wait_close app"));
            waiting.expect_silence(A_WHILE);
            done(&mut console, "wait_close other");
            assert_eq!(backend_pid(&mut busy), old);
            busy.query("commit");
            if mode == PoolMode::Session {
                waiting.expect_silence(A_WHILE);
                drop(busy);
            } else {
                assert_ne!(backend_pid(&mut busy), old);
            }
            assert_eq!(waiting.answer().tags, ["WAIT_CLOSE"]);
            assert_eq!(backend_pid(&mut apart), other);
            done(&mut console, "reconnect");
            if mode == PoolMode::Transaction {
                assert_ne!(backend_pid(&mut apart), other);
            }
            // WAIT_CLOSE leaves nothing behind that would answer a later PAUSE too early.
            let mut holder = fleet.client();
            holder.query("begin");
            waiting.send(&query("pause app"));
            waiting.expect_silence(A_WHILE);
            holder.query("commit");
            drop(holder);
            assert_eq!(waiting.answer().tags, ["PAUSE"]);
            drop(apart);
            done(&mut console, "pause");
            wait_until("all backends to go", SOON, || backends(&mut admin) == 0);
        },
    );
}

#[test]
fn a_database_is_killed() {
    let server = Postgres::start();
    let mut admin = server.admin();
    each(
        &server,
        &BOTH,
        |builder| with_other(&server, builder).pool_size(1),
        |fleet, _| {
            let mut running = fleet.client();
            running.send(&query("select pg_sleep(600)"));
            let mut idle = used(fleet, 3, "app");
            let mut console = fleet.console();
            wait_until("the query to run", SOON, || console.query("show pools").lookup("user", "app", "sv_active") == "1");
            idle[0].send(&query("select 1"));
            wait_until("one to wait", SOON, || console.query("show pools").lookup("user", "app", "cl_waiting") == "1");
            let mut apart = Client::login(fleet.port(), "app", "other");
            assert_eq!(apart.value("select 1"), "1");
            done(&mut console, "kill app");
            for client in std::iter::once(&mut running).chain(&mut idle) {
                killed(client, "database removed");
            }
            wait_until("its backends to go", SOON, || backends(&mut admin) == 1);
            assert!(is_paused(&mut console, "app") && !is_paused(&mut console, "other"));
            assert_eq!(apart.value("select 2"), "2");
            done(&mut console, "resume app");
            assert_eq!(fleet.client().value("select 3"), "3");
            done(&mut console, "kill");
            killed(&mut apart, "database removed");
            assert!(is_paused(&mut console, "app") && is_paused(&mut console, "other"));
            refused(&mut console, "resume", "pooler is not paused/suspended");
            done(&mut console, "pause");
            refused(&mut console, "kill app", "already suspended/paused");
            refused(&mut console, "kill", "already suspended/paused");
            done(&mut console, "resume");
            done(&mut console, "resume app");
            done(&mut console, "resume other");
            assert_eq!(fleet.client().value("select 4"), "4");
            assert_eq!((fleet.logged("KILL 'app' command issued"), fleet.logged("KILL command issued")), (1, 1));
        },
    );
}

#[test]
fn a_client_is_killed() {
    let server = Postgres::start();
    let mut admin = server.admin();
    each(
        &server,
        &TRANSACTION,
        |builder| builder.pool_size(1),
        |fleet, _| {
            let mut console = fleet.console();
            let (mut busy, mut waiting) = (fleet.client(), fleet.client());
            let mut idle = used(fleet, 4, "app");
            busy.query("begin");
            waiting.send(&query("select 1"));
            let id = wait_for("one to wait", SOON, || id_in_state(&mut console, &waiting, "waiting"));
            done(&mut console, &format!("kill_client {id}"));
            killed(&mut waiting, "admin forced disconnect");
            refused(&mut console, &format!("kill_client {id}"), "client not found");
            for client in &mut idle {
                let id = id_of(&mut console, client);
                done(&mut console, &format!("kill_client {id}x"));
                killed(client, "admin forced disconnect");
            }
            let id = id_of(&mut console, &busy);
            done(&mut console, &format!("KILL_CLIENT {id};"));
            killed(&mut busy, "admin forced disconnect");
            let mut other = fleet.console();
            let id = id_of(&mut console, &other);
            done(&mut console, &format!("kill_client {id}"));
            killed(&mut other, "admin forced disconnect");
            // One that waits for its command, too.
            let mut holder = fleet.client();
            holder.query("begin");
            let mut blocked = fleet.console();
            blocked.send(&query("pause app"));
            wait_until("the database to be paused", SOON, || is_paused(&mut console, "app"));
            let id = id_of(&mut console, &blocked);
            done(&mut console, &format!("kill_client {id}"));
            killed(&mut blocked, "admin forced disconnect");
            drop(holder);
            wait_until("the backend to go", SOON, || backends(&mut admin) == 0);
            refused(&mut console, "kill_client", "invalid client pointer supplied");
            refused(&mut console, "kill_client x1", "invalid client pointer supplied");
            refused(&mut console, "kill_client 2147483647", "client not found");
            refused(&mut console, "kill_client 99999999999999", "client not found");
        },
    );
}

/// The number that a log line names a client by, as SHOW CLIENTS has it: worker, then count.
fn id_in_log(line: &str) -> u32 {
    let digits = line.split("C-0x").nth(1).unwrap().split(':').next().unwrap();
    let (slot, count) = digits.split_at(digits.len() - 8);
    (u32::from_str_radix(slot, 16).unwrap() - 1) << 25 | u32::from_str_radix(count, 16).unwrap()
}

#[test]
fn a_client_that_is_logging_in_is_killed() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(2).setting("auth_type", "scram-sha-256").start();
    let mut client = Client::tcp(fleet.port());
    client.send(&startup(&[("user", "app"), ("database", "app")]));
    let line = fleet.wait_for_log(&format!("@127.0.0.1:{} login attempt", client.local_port()));
    let mut console = Client::tcp(fleet.port());
    console.start(&[("user", "admin"), ("database", "pgbouncer")], Some("admin-password")).unwrap();
    done(&mut console, &format!("kill_client {}", id_in_log(&line)));
    killed(&mut client, "admin forced disconnect");
}

/// A console session lives in the supervisor; the worker's successor must not give its number to anybody else.
#[test]
fn numbers_are_not_given_twice() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(1).start();
    let mut consoles: Vec<Client> = (0..5).map(|_| fleet.console()).collect();
    let pids = fleet.all_workers();
    process::signal(pids[0], Signal::SIGKILL);
    wait_until("the successor", SOON, || fleet.workers().iter().any(|pid| !pids.contains(pid)));
    let _clients = used(&fleet, 5, "app");
    let mut ids = consoles[0].query("show clients").column("id");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 10);
}

#[test]
fn what_commands_refuse() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).start();
    let mut console = fleet.console();
    for (verb, word) in [
        ("pause", "pause"),
        ("kill", "kill"),
        ("reconnect", "reconnect"),
        ("disable", "disable"),
        ("enable", "enable"),
        ("wait_close", "wait in"),
    ] {
        refused(&mut console, &format!("{verb} nowhere"), "no such database: nowhere");
        refused(&mut console, &format!("{verb} pgbouncer"), &format!("cannot {word} admin db: pgbouncer"));
    }
    refused(&mut console, "resume nowhere", "no such database: nowhere");
    refused(&mut console, "resume pgbouncer", "database pgbouncer is not paused");
    refused(&mut console, "disable", "a database is required");
    refused(&mut console, "enable", "a database is required");
    refused(&mut console, "suspend", "invalid command 'suspend', use SHOW HELP;");
    let mut stats = Client::login(fleet.port(), "stats", "pgbouncer");
    for command in ["pause app", "resume app", "disable app", "enable app", "reconnect", "kill", "kill_client 1", "wait_close"] {
        refused(&mut stats, command, "admin access needed");
    }
}

#[test]
fn databases_that_the_fallback_stands_for() {
    let server = Postgres::start();
    each(
        &server,
        &TRANSACTION,
        |builder| builder.database("*", format!("host=127.0.0.1 port={}", server.port())),
        |fleet, _| {
            let mut console = fleet.console();
            refused(&mut console, "resume postgres", "no such database: postgres");
            refused(&mut console, "enable postgres", "no such database: postgres");
            assert_eq!(console.query("show databases").find("name", "postgres", "paused"), None);
            done(&mut console, "pause postgres");
            assert!(is_paused(&mut console, "postgres"));
            let mut client = Client::tcp(fleet.port());
            client.send(&startup(&[("user", "app"), ("database", "postgres")]));
            client.expect_silence(A_WHILE);
            done(&mut console, "resume postgres");
            client.authenticate("app", None).unwrap();
            assert_eq!(client.value("select current_database()"), "postgres");
            refused(&mut console, "resume postgres", "database postgres is not paused");
            assert_eq!(fleet.logged("registered new auto-database: postgres"), 1);
        },
    );
}

/// PgBouncer resumes and never answers the session; here it is told.
#[test]
fn a_command_that_waits_is_cancelled() {
    let server = Postgres::start();
    each(
        &server,
        &TRANSACTION,
        |builder| builder,
        |fleet, _| {
            let mut holder = fleet.client();
            holder.query("begin");
            let (mut waiting, mut console) = (fleet.console(), fleet.console());
            done(&mut console, "reconnect");
            for (command, is_paused) in [("pause", true), ("pause app", true), ("wait_close", false)] {
                waiting.send(&query(command));
                waiting.expect_silence(A_WHILE);
                let state = console.query("show state").lookup("key", "paused", "value");
                assert_eq!(state == "yes", command == "pause");
                assert_eq!(console.query("show databases").lookup("name", "app", "paused") == "1", is_paused && command != "pause");
                console.cancel(fleet.port());
                waiting.expect_silence(A_WHILE);
                waiting.cancel(fleet.port());
                let answer = waiting.answer();
                let error = answer.error();
                assert_eq!(
                    (error.severity(), error.code(), error.text()),
                    ("ERROR", "57014", "canceling statement due to user request"),
                    "{command}"
                );
                assert_eq!(answer.status, 'I');
                assert_eq!(console.query("show state").lookup("key", "paused", "value"), "no");
                assert_eq!(console.query("show databases").lookup("name", "app", "paused"), "0");
                assert_eq!(fleet.client().value("select 1"), "1");
            }
            assert!(fleet.logged("cancel request for console client") >= 3);
        },
    );
}

/// PgBouncer takes a PAUSE while it waits for clients and then refuses RESUME: it never ends.
#[test]
fn a_pause_while_clients_are_waited_for_can_be_taken_back() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(2).start();
    let mut client = fleet.client();
    assert_eq!(client.value("select 1"), "1");
    let mut console = fleet.console();
    done(&mut console, "pause");
    fleet.signal(Signal::SIGTERM);
    fleet.wait_for_log("got SIGTERM, shutting down");
    client.send(&query("select 2"));
    client.expect_silence(A_WHILE);
    done(&mut console, "resume");
    assert_eq!(client.answer().value(), "2");
    fleet.signal(Signal::SIGUSR1);
    fleet.wait_for_log("got SIGUSR1, pausing all activity");
    client.send(&query("select 3"));
    fleet.signal(Signal::SIGUSR2);
    assert_eq!(client.answer().value(), "3");
    done(&mut console, "shutdown wait_for_servers");
    refused(&mut console, "pause", "pooler is shutting down");
    drop((client, console));
    assert!(fleet.wait_for_exit().success());
}

fn has_row(console: &mut Client, show: &str, column: &str, value: &str) -> bool {
    console.query(show).column(column).iter().any(|found| found == value)
}

fn queries(console: &mut Client) -> u64 {
    console.query("show totals").lookup("name", "total_query_count", "value").parse().unwrap()
}

/// No worker has used it for a while; what it had counted stays in the totals.
#[test]
fn a_pool_that_nobody_uses_is_removed_and_comes_back() {
    let server = Postgres::start();
    each(
        &server,
        &TRANSACTION,
        |builder| with_other(&server, builder).setting("pool_idle_timeout", 1).setting("server_idle_timeout", 1),
        |fleet, _| {
            let mut console = fleet.console();
            let mut apart = Client::login(fleet.port(), "app", "other");
            for mut client in used(fleet, 4, "app") {
                assert_eq!(client.value("select 1"), "1");
            }
            assert!(has_row(&mut console, "show pools", "database", "app"));
            wait_until("the pool to be removed", SOON, || !has_row(&mut console, "show pools", "database", "app"));
            fleet.wait_for_log("cleaning up idle pool for user app on db app because: pool idle timeout (age= ");
            assert!(!has_row(&mut console, "show stats", "database", "app"));
            assert_eq!(queries(&mut console), 4);
            done(&mut console, "pause app");
            done(&mut console, "resume app");
            let mut back = fleet.client();
            assert_eq!(back.value("select 2"), "2");
            assert!(has_row(&mut console, "show pools", "database", "app"));
            assert!(has_row(&mut console, "show stats", "database", "app"));
            assert_eq!(queries(&mut console), 5);
            assert_eq!(apart.value("select 3"), "3");
            assert!(has_row(&mut console, "show pools", "database", "other"));
        },
    );
}

#[test]
fn a_database_that_the_fallback_stands_for_is_dropped_when_nobody_uses_it() {
    let server = Postgres::start();
    each(
        &server,
        &TRANSACTION,
        |builder| {
            let builder = builder.database("*", format!("host=127.0.0.1 port={}", server.port()));
            builder.setting("autodb_idle_timeout", 1).setting("server_idle_timeout", 1)
        },
        |fleet, _| {
            let mut console = fleet.console();
            for database in ["postgres", "app", "postgres"] {
                assert_eq!(Client::login(fleet.port(), "app", database).value("select 1"), "1");
            }
            wait_until("the database to be dropped", SOON, || !has_row(&mut console, "show pools", "database", "postgres"));
            fleet.wait_for_log("dropping database 'postgres' as it does not exist anymore or inactive auto-database");
            assert!(!has_row(&mut console, "show databases", "name", "postgres"));
            assert!(has_row(&mut console, "show pools", "database", "app"), "entries stay");
            assert_eq!(queries(&mut console), 3);
            assert_eq!(Client::login(fleet.port(), "app", "postgres").value("select 2"), "2");
            assert!(has_row(&mut console, "show pools", "database", "postgres"));
        },
    );
}
