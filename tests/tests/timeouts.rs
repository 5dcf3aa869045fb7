//! Times that clients and servers may take, each with its message, by setting, database and user.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::frontend::{flush, parse, query};
use end_to_end::{Client, Fleet, PoolMode, Port, Postgres, SOON, each_fleet, wait_until};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

#[test]
fn a_client_that_waits_is_told_once_a_wait() {
    const TEXT: &str = "No server connection available in postgres backend, client being queued";
    let server = Postgres::start();
    each_fleet(
        &server,
        |builder| builder.pool_size(1).setting("query_wait_notify", 1),
        |fleet, mode| {
            let mut waiting: Vec<Client> = (0..3).map(|_| fleet.client()).collect();
            for _ in 0..2 {
                let mut holder = fleet.client();
                holder.query("begin");
                let start = Instant::now();
                for client in &mut waiting {
                    client.send(&query("select 1"));
                }
                for client in &mut waiting {
                    let notice = client.read();
                    let fields = notice.fields();
                    assert_eq!((notice.kind, fields.severity(), fields.code(), fields.text()), (b'N', "NOTICE", "00000", TEXT));
                }
                assert!(start.elapsed() > Duration::from_millis(950), "after {:?}", start.elapsed());
                waiting[0].expect_silence(Duration::from_millis(300));
                // Who gets a server keeps it there: nobody waits twice.
                if mode == PoolMode::Session {
                    return;
                }
                holder.query("commit");
                for client in &mut waiting {
                    assert_eq!(client.answer().value(), "1");
                }
            }
        },
    );
}

#[test]
fn nobody_is_told_with_query_wait_notify_0() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).pool_size(1).setting("query_wait_notify", 0).setting("query_wait_timeout", 1).start();
    let mut holder = fleet.client();
    holder.query("begin");
    let mut client = fleet.client();
    client.send(&query("select 1"));
    assert_eq!(client.refusal().text(), "query_wait_timeout");
}

const SHAPES: [(usize, PoolMode); 3] = [(1, PoolMode::Transaction), (2, PoolMode::Transaction), (2, PoolMode::Session)];

/// Lets time pass, as PostgreSQL measures it.
fn pass(server: &Postgres, seconds: f64) {
    server.admin().execute("select pg_sleep($1)", &[&seconds]).unwrap();
}

#[track_caller]
fn assert_timed_out(client: &mut Client, text: &str) {
    let fields = loop {
        let message = client.read();
        if message.kind == b'E' {
            break message.fields();
        }
    };
    client.expect_end();
    assert_eq!((fields.severity(), fields.code(), fields.text()), ("FATAL", "08P01", text));
}

/// Each time limit of a user holds for that user, in both modes, and for nobody else.
#[test]
fn a_user_has_time_limits_of_its_own() {
    let server = Postgres::start();
    let limits = [
        ("query_timeout", "query timeout", "select pg_sleep(60)"),
        ("idle_transaction_timeout", "idle transaction timeout", "begin"),
        ("transaction_timeout", "transaction timeout", "begin; select pg_sleep(60)"),
        ("client_idle_timeout", "client_idle_timeout", ""),
    ];
    for (setting, text, sql) in limits {
        for (workers, mode) in SHAPES {
            let fleet = Fleet::builder(&server).workers(workers).pool_mode(mode).user("other", &format!("{setting}=1")).start();
            let mut free = fleet.client();
            let mut bound = Client::login(fleet.port(), "other", "app");
            for client in [&mut free, &mut bound] {
                if !sql.is_empty() {
                    client.send(&query(sql));
                }
            }
            assert_timed_out(&mut bound, text);
            // Ended for a query that runs on, the free one would have been told by now.
            if setting == "query_timeout" || setting == "transaction_timeout" {
                free.cancel(fleet.port());
            }
            let answer = if sql.is_empty() { free.query("select 1") } else { free.answer() };
            assert!(answer.errors.iter().all(|error| error.code() == "57014"), "{setting}: {answer:?}");
        }
    }
}

/// Only what is limited counts: a query's time is its own, not the transaction's, a transaction's not the session's, and nobody's is the
/// time in the queue.
#[test]
fn what_a_time_limit_does_not_count() {
    let server = Postgres::start();
    for (workers, mode) in SHAPES {
        let start = || Fleet::builder(&server).workers(workers).pool_mode(mode).pool_size(1);
        let fleet = start().setting("query_timeout", 1).setting("idle_transaction_timeout", 5).start();
        let mut client = fleet.client();
        client.query("begin");
        for _ in 0..3 {
            assert!(client.query("select pg_sleep(0.5)").errors.is_empty());
        }
        pass(&server, 1.3);
        assert_eq!(client.query("commit").status, 'I');
        // Sent at one go, each has its own time.
        client.send(&query("select pg_sleep(0.6)").repeat(3));
        for _ in 0..3 {
            assert!(client.answer().errors.is_empty());
        }

        let fleet = start().setting("transaction_timeout", 1).start();
        let mut client = fleet.client();
        for _ in 0..2 {
            assert!(client.query("begin; select pg_sleep(0.6); commit").errors.is_empty());
        }
        pass(&server, 1.3);
        client.send(&query("begin; select pg_sleep(0.8); commit"));
        if mode == PoolMode::Transaction {
            let mut waiting = fleet.client();
            waiting.send(&query("begin; select pg_sleep(0.6); commit"));
            assert!(waiting.answer().errors.is_empty(), "it was waiting for most of the time");
        }
        assert!(client.answer().errors.is_empty());
    }
}

/// A batch without its Sync holds a server as an open transaction does.
#[test]
fn a_batch_without_its_sync_is_idle_in_a_transaction() {
    let server = Postgres::start();
    for workers in [1, 2] {
        let fleet = Fleet::builder(&server).workers(workers).setting("idle_transaction_timeout", 1).start();
        let mut client = fleet.client();
        client.send(&[parse("", "select 1"), flush()].concat());
        assert_timed_out(&mut client, "idle transaction timeout");
    }
}

#[test]
fn a_database_or_a_user_has_a_query_wait_timeout_of_its_own() {
    let server = Postgres::start();
    let entry = format!("host=127.0.0.1 port={} dbname=app", server.port());
    for workers in [1, 2] {
        let fleet = Fleet::builder(&server)
            .workers(workers)
            .pool_size(1)
            .setting("query_wait_timeout", 0)
            .database("app", &entry)
            .database("hasty", format!("{entry} query_wait_timeout=1"))
            .user("other", "query_wait_timeout=1")
            .start();
        for (user, database) in [("app", "hasty"), ("other", "app")] {
            let login = || Client::login(fleet.port(), user, database);
            let mut holder = login();
            holder.query("begin");
            let mut patient_holder = fleet.client();
            patient_holder.query("begin");
            let (mut hasty, mut patient) = (login(), fleet.client());
            for client in [&mut hasty, &mut patient] {
                client.send(&query("select 1"));
            }
            assert_timed_out(&mut hasty, "query_wait_timeout");
            patient_holder.query("commit");
            assert_eq!(patient.answer().value(), "1");
        }
    }
}

/// With a lifetime of 0 a connection serves once, also when it was lent before.
#[test]
fn a_server_lifetime_of_0() {
    let server = Postgres::start();
    each_fleet(
        &server,
        |builder| builder.pool_size(2).setting("server_lifetime", 0),
        |fleet, _| {
            let mut seen = std::collections::BTreeSet::new();
            for _ in 0..10 {
                assert!(seen.insert(fleet.client().value("select pg_backend_pid()")), "used twice");
            }
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| assert_eq!(fleet.client().value("select 1"), "1"));
                }
            });
        },
    );
}

/// In front of PostgreSQL: passes everything on but cancel requests, which it takes and never answers.
fn deaf_to_cancels(server: &Postgres) -> Port {
    let (port, target) = (Port::take(), server.port());
    let listener = TcpListener::bind(("127.0.0.1", port.number())).unwrap();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut first = [0; 8];
            if stream.read_exact(&mut first).is_err() {
                continue;
            }
            if first[4..] == 80_877_102_u32.to_be_bytes() {
                held.push(stream);
                continue;
            }
            let mut server = TcpStream::connect(("127.0.0.1", target)).unwrap();
            server.write_all(&first).unwrap();
            let pairs = [(stream.try_clone().unwrap(), server.try_clone().unwrap()), (server, stream)];
            for (mut from, mut to) in pairs {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    port
}

#[test]
fn a_cancel_request_that_gets_nowhere() {
    let server = Postgres::start();
    for workers in [1, 2] {
        let port = deaf_to_cancels(&server);
        let fleet = Fleet::builder(&server)
            .workers(workers)
            .setting("cancel_wait_timeout", 1)
            .pool_size(1)
            .database("app", format!("host=127.0.0.1 port={} dbname=app", port.number()))
            .start();
        let mut client = fleet.client();
        client.send(&query("select pg_sleep(2), pg_backend_pid(), 'slept'"));
        let mut admin = server.admin();
        let running = "select count(*) from pg_stat_activity where query like '%slept%' and usename = 'app'";
        wait_until("the query to run", SOON, || admin.query_one(running, &[]).unwrap().get::<_, i64>(0) == 1);
        client.cancel(fleet.port());
        fleet.wait_for_log("closing because: cancel_wait_timeout");
        let answer = client.answer();
        let pid = answer.rows[0][1].clone().expect("the query is left alone");
        // The request may still reach that backend: nobody else is given it.
        assert_ne!(fleet.client().value("select pg_backend_pid()"), pid);
    }
}
