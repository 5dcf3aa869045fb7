//! Replication clients, logical and physical: a server connection of their own, in whatever mode the pool is.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::program::{postgres_program, stderr};
use end_to_end::{Client, Event, Fleet, PoolMode, Postgres, SOON, each_fleet, each_worker_count, frontend, wait_until};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

/// A PostgreSQL that lets `app` replicate.
fn server() -> Postgres {
    let server = Postgres::start_with("wal_level = logical\nmax_wal_senders = 10\nmax_replication_slots = 10");
    let mut admin = server.admin();
    let file: String = admin.query_one("show hba_file", &[]).unwrap().get(0);
    let mut hba = std::fs::OpenOptions::new().append(true).open(file).unwrap();
    hba.write_all(b"\nhost replication all all trust\n").unwrap();
    admin.batch_execute("alter role app replication; select pg_reload_conf()").unwrap();
    server
}

fn replica(fleet: &Fleet, kind: &str) -> Client {
    let mut client = Client::tcp(fleet.port());
    client.start(&[("user", "app"), ("database", "app"), ("replication", kind), ("application_name", "replica")], None).unwrap();
    client
}

fn column(fleet: &Fleet, show: &str, name: &str) -> Vec<String> {
    fleet.console().query(show).column(name)
}

#[test]
fn a_logical_stream_brings_what_others_write() {
    let server = server();
    each_fleet(
        &server,
        |builder| builder.pool_size(3),
        |fleet, mode| {
            let mut writer = fleet.client();
            writer.query("drop table if exists streamed; create table streamed (n int)");
            let mut stream = replica(fleet, "database");
            assert_eq!(stream.parameters["application_name"], "replica");
            assert_eq!(stream.query("IDENTIFY_SYSTEM").rows.len(), 1);
            let slot = "CREATE_REPLICATION_SLOT pgfleet_test TEMPORARY LOGICAL test_decoding";
            assert!(stream.query(slot).errors.is_empty());
            stream.send(&frontend::query("START_REPLICATION SLOT pgfleet_test LOGICAL 0/0"));
            assert_eq!(stream.read().kind, b'W');
            for number in 0..100 {
                assert!(writer.query(&format!("insert into streamed values ({number})")).errors.is_empty());
            }
            let mut seen = 0;
            while seen < 100 {
                let message = stream.read();
                assert_eq!(message.kind, b'd');
                seen += usize::from(String::from_utf8_lossy(&message.body).contains("streamed: INSERT: n[integer]"));
            }
            assert!(column(fleet, "show clients", "replication").contains(&"logical".to_owned()));
            assert!(column(fleet, "show servers", "replication").contains(&"logical".to_owned()));
            // The client ends the stream, and can go on with queries; SQL too, since it is connected to a database.
            stream.send(&frontend::copy_done());
            let answer = stream.answer();
            assert!(answer.errors.is_empty(), "{:?}", answer.errors);
            assert_eq!(stream.value("select 'sql'"), "sql");
            let pid = stream.value("select pg_backend_pid()");
            assert_eq!(stream.value("select pg_backend_pid()"), pid);
            drop(stream);
            let mut admin = server.admin();
            let gone = || admin.query("select 1 from pg_stat_activity where pid::text = $1", &[&pid]).unwrap().is_empty();
            wait_until("the replication backend to end", SOON, gone);
            assert_eq!(writer.value("select count(*) from streamed"), "100", "in {} mode", mode.name());
        },
    );
}

/// Its server goes with it to another worker, the stream under way included.
#[test]
fn a_stream_goes_on_while_workers_are_replaced() {
    let server = server();
    each_worker_count(
        &server,
        |builder| builder.pool_size(4),
        |fleet| {
            let mut writer = fleet.client();
            writer.query("drop table if exists streamed; create table streamed (n int)");
            let (mut stream, mut waiting, mut physical) =
                (replica(fleet, "database"), replica(fleet, "database"), replica(fleet, "true"));
            let system = physical.query("IDENTIFY_SYSTEM").rows[0][0].clone();
            let [pid, other] = [&mut stream, &mut waiting].map(|client| client.value("select pg_backend_pid()"));
            assert!(stream.query("CREATE_REPLICATION_SLOT pgfleet_moved TEMPORARY LOGICAL test_decoding").errors.is_empty());
            stream.send(&frontend::query("START_REPLICATION SLOT pgfleet_moved LOGICAL 0/0"));
            assert_eq!(stream.read().kind, b'W');
            let mut next = 0;
            for round in 1..=3 {
                std::thread::scope(|scope| {
                    scope.spawn(|| Event::Restart.happen(fleet));
                    for number in next..100 * round {
                        assert_eq!(writer.query(&format!("insert into streamed values ({number})")).tags, ["INSERT 0 1"]);
                    }
                });
                while next < 100 * round {
                    let message = stream.read();
                    let text = String::from_utf8_lossy(&message.body).into_owned();
                    if let Some((_, number)) = text.split_once("streamed: INSERT: n[integer]:") {
                        assert_eq!(number, next.to_string(), "each comes once, in order");
                        next += 1;
                    }
                }
                assert_eq!(waiting.value("select pg_backend_pid()"), other);
                assert_eq!(physical.query("IDENTIFY_SYSTEM").rows[0][0], system);
            }
            stream.send(&frontend::copy_done());
            assert!(stream.answer().errors.is_empty());
            assert_eq!(stream.value("select pg_backend_pid()"), pid);
            assert_eq!(fleet.logged("WARNING"), 0, "{}", fleet.log());
        },
    );
}

/// Statement pooling is for queries: a replica has its server to itself there too.
#[test]
fn statement_mode_leaves_a_replica_its_server() {
    let server = server();
    for workers in [1, 2] {
        let fleet = Fleet::builder(&server).workers(workers).setting("pool_mode", "statement").start();
        let mut writer = fleet.client();
        writer.query("drop table if exists streamed; create table streamed (n int)");
        let mut stream = replica(&fleet, "database");
        assert_eq!(stream.query("IDENTIFY_SYSTEM").rows.len(), 1);
        let pid = stream.value("select pg_backend_pid()");
        let slot = "CREATE_REPLICATION_SLOT pgfleet_statement TEMPORARY LOGICAL test_decoding";
        assert!(stream.query(slot).errors.is_empty());
        stream.send(&frontend::query("START_REPLICATION SLOT pgfleet_statement LOGICAL 0/0"));
        assert_eq!(stream.read().kind, b'W');
        assert_eq!(writer.query("insert into streamed values (1)").tags, ["INSERT 0 1"]);
        while !String::from_utf8_lossy(&stream.read().body).contains("streamed: INSERT: n[integer]:1") {}
        stream.send(&frontend::copy_done());
        assert!(stream.answer().errors.is_empty());
        assert_eq!(stream.value("select pg_backend_pid()"), pid);
    }
}

#[test]
fn a_base_backup_is_taken_through_the_pooler() {
    let server = server();
    // libpq asks for a database of this name when it is to replicate physically.
    let entry = format!("host=127.0.0.1 port={}", server.port());
    let fleet = Fleet::builder(&server).workers(2).pool_mode(PoolMode::Transaction).database("replication", entry).start();
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("backup");
    let url = format!("host=127.0.0.1 port={} user=app dbname=app", fleet.port());
    let mut backup = postgres_program("pg_basebackup");
    let output = backup.args(["-X", "stream", "-c", "fast", "-d", &url, "-D"]).arg(&target).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(target.join("backup_manifest").exists());
    assert_eq!(fleet.client().value("select 1"), "1");
}

/// Many servers fall free at once while it waits: one of them makes way.
#[test]
fn it_takes_one_server_and_not_all() {
    let server = server();
    each_worker_count(
        &server,
        |builder| builder.pool_mode(PoolMode::Transaction).pool_size(10),
        |fleet| {
            let mut holders: Vec<Client> = (0..10).map(|_| fleet.client()).collect();
            for holder in &mut holders {
                holder.query("begin");
            }
            let mut waiting = Client::tcp(fleet.port());
            waiting.send(&frontend::startup(&[("user", "app"), ("database", "app"), ("replication", "true")]));
            wait_until("it to wait", SOON, || fleet.console().query("show clients").rows.len() == 12);
            for holder in &mut holders {
                holder.send(&frontend::query("commit"));
            }
            for holder in &mut holders {
                holder.answer();
            }
            waiting.authenticate("app", None).unwrap();
            let evicted = fleet.logged("evicted for pool_size");
            assert!((1..=2).contains(&evicted), "{evicted} servers made way");
        },
    );
}

/// A pool whose servers are never idle gives one up when it is the replica's turn.
#[test]
fn it_takes_its_turn_in_a_saturated_pool() {
    let server = server();
    each_worker_count(
        &server,
        |builder| builder.pool_mode(PoolMode::Transaction).pool_size(2),
        |fleet| {
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                for _ in 0..12 {
                    scope.spawn(|| {
                        let mut client = fleet.client();
                        while !stop.load(Ordering::Relaxed) {
                            client.value("select 1 from pg_sleep(0.05)");
                        }
                    });
                }
                wait_until("clients to wait", SOON, || column(fleet, "show pools", "cl_waiting").contains(&"10".to_owned()));
                assert!(replica(fleet, "true").query("IDENTIFY_SYSTEM").errors.is_empty());
                stop.store(true, Ordering::Relaxed);
            });
        },
    );
}

/// Replication counts in its pool: idle servers make room for it, and when all are in use it waits for one.
#[test]
fn it_counts_in_its_pool() {
    let server = server();
    each_fleet(
        &server,
        |builder| builder.pool_size(2).setting("query_wait_timeout", 5),
        |fleet, _| {
            let mut first = fleet.client();
            let mut second = fleet.client();
            first.query("begin");
            second.query("begin");
            let mut waiting = Client::tcp(fleet.port());
            waiting.send(&frontend::startup(&[("user", "app"), ("database", "app"), ("replication", "true")]));
            let seats = || {
                let pools = fleet.console().query("show pools");
                let count = |name: &str| pools.lookup("database", "app", name).parse::<u32>().unwrap();
                count("sv_active") + count("sv_idle") + count("sv_login") + count("sv_tested")
            };
            assert_eq!(seats(), 2);
            drop(first);
            waiting.authenticate("app", None).unwrap();
            assert!(waiting.query("IDENTIFY_SYSTEM").errors.is_empty());
            assert!(seats() <= 2);
            // Now one server is the replica's and one in a transaction: a third client waits until the replica leaves.
            let mut third = fleet.client();
            third.send(&frontend::query("select 3"));
            drop(waiting);
            assert_eq!(third.answer().value(), "3");
            second.query("rollback");
        },
    );
}

#[test]
fn what_postgresql_refuses_is_refused() {
    let server = server();
    let fleet = Fleet::builder(&server).secret("rejected_user", "x").start();
    let mut client = Client::tcp(fleet.port());
    let who = [("user", "rejected_user"), ("database", "app"), ("replication", "database")];
    let error = client.start(&who, None).unwrap_err();
    assert_eq!((error.severity(), error.code(), error.text()), ("FATAL", "08P01", "login failed"));
    assert_eq!(fleet.client().value("select 1"), "1");
}

/// A connection that is closed while it logs in is opened anew.
#[test]
fn a_login_that_is_cut_off_is_begun_again() {
    let server = server();
    let fleet = Fleet::builder(&server).start();
    assert_eq!(fleet.client().value("select 1"), "1");
    server.freeze();
    let mut waiting = Client::tcp(fleet.port());
    waiting.send(&frontend::startup(&[("user", "app"), ("database", "app"), ("replication", "yes")]));
    wait_until("the replication connection to begin", SOON, || column(&fleet, "show servers", "state").contains(&"new".to_owned()));
    fleet.console().query("reconnect app");
    server.thaw();
    waiting.authenticate("app", None).unwrap();
    assert!(waiting.query("IDENTIFY_SYSTEM").errors.is_empty());
}

/// A connection that is to be closed is closed at once: it would never fall free.
#[test]
fn a_changed_entry_ends_it() {
    let server = server();
    let mut fleet = Fleet::builder(&server).start();
    let mut stream = replica(&fleet, "yes");
    assert!(stream.query("IDENTIFY_SYSTEM").errors.is_empty());
    fleet.change_database("app", format!("host=127.0.0.1 port={} connect_query='select 1'", server.port()));
    assert_eq!(fleet.console().query("reload").tags, ["RELOAD"]);
    let error = stream.refusal();
    assert_eq!((error.severity(), error.code(), error.text()), ("FATAL", "08P01", "database configuration changed"));
}
