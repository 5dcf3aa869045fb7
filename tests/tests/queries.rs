//! Every way to ask PostgreSQL something, through every kind of fleet.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::frontend::{self, bind, close, describe, execute, extended, flush, parse, query, sync};
use end_to_end::{Client, Fleet, PoolMode, Postgres, each_fleet, process};
use std::collections::BTreeSet;

#[test]
fn simple_queries() {
    let server = Postgres::start();
    each_fleet(
        &server,
        |builder| builder,
        |fleet, _| {
            let mut client = fleet.client();
            assert_eq!(client.value("select 40 + 2"), "42");
            let several = client.query("select 1; select 2, 'two'; create temp table t (x int); drop table t");
            assert_eq!(several.order, "TDCTDCCCZ");
            assert_eq!(several.tags, ["SELECT 1", "SELECT 1", "CREATE TABLE", "DROP TABLE"]);
            assert_eq!(client.query("").order, "IZ", "EmptyQueryResponse");
            let failed = client.query("select 1; select 1/0; select 2");
            assert_eq!((failed.order.as_str(), failed.error().code(), failed.status), ("TDCEZ", "22012", 'I'));
            assert_eq!(failed.error().severity(), "ERROR");
            assert_eq!(client.query("begin").status, 'T');
            assert_eq!(client.query("select nonsense").status, 'E');
            assert_eq!(client.query("select 1").error().code(), "25P02");
            assert_eq!(client.query("rollback").status, 'I');
            let nulls = client.query("select null, '', 'x'");
            assert_eq!(nulls.rows, [[None, Some(String::new()), Some("x".to_owned())]]);
            client.send(&frontend::terminate());
            client.expect_end();
        },
    );
}

#[test]
fn several_queries_at_once() {
    let server = Postgres::start();
    each_fleet(
        &server,
        |builder| builder,
        |fleet, _| {
            let mut client = fleet.client();
            let all: Vec<u8> = (0..200).flat_map(|number| query(&format!("select {number}"))).collect();
            client.send(&all);
            for number in 0..200 {
                assert_eq!(client.answer().value(), number.to_string());
            }
        },
    );
}

#[test]
fn extended_queries_and_pipelines() {
    let server = Postgres::start();
    each_fleet(
        &server,
        |builder| builder,
        |fleet, _| {
            let mut client = fleet.client();
            client.send(&extended("select $1::int + 1", &["41"]));
            let answer = client.answer();
            assert_eq!((answer.order.as_str(), answer.value()), ("12TDCZ", "42"));

            let pipeline: Vec<u8> = (0..100).flat_map(|number| extended("select $1::int", &[&number.to_string()])).collect();
            client.send(&pipeline);
            for number in 0..100 {
                assert_eq!(client.answer().value(), number.to_string());
            }

            // One Sync for many: one implicit transaction, and an error skips the rest of it.
            let step = |sql: &str| [parse("", sql), bind("", "", &[]), execute("", 0)].concat();
            client.send(&[step("select 1"), step("select 1/0"), step("select 3"), sync(), extended("select 4", &[])].concat());
            let failed = client.answer();
            assert_eq!((failed.order.as_str(), failed.error().code()), ("12DC1EZ", "22012"));
            assert_eq!(client.answer().value(), "4");

            // Flush instead of Sync: the answers come, the transaction stays open, the server stays ours.
            client.send(&[parse("", "select pg_backend_pid()"), bind("", "", &[]), execute("", 0), flush()].concat());
            let first = client.answer_until(b'C').rows;
            client.send(&[parse("", "select pg_backend_pid()"), bind("", "", &[]), execute("", 0), sync()].concat());
            assert_eq!(client.answer().rows, first);

            // A portal read in pieces.
            client.send(
                &[query("begin"), parse("", "select generate_series(1, 5)"), bind("p", "", &[]), execute("p", 2), flush()].concat(),
            );
            assert_eq!(client.answer().status, 'T');
            assert_eq!(client.answer_until(b's').rows.len(), 2);
            client.send(&[execute("p", 0), close(b'P', "p"), sync(), query("commit")].concat());
            let rest = client.answer();
            assert_eq!((rest.order.as_str(), rest.status), ("DDDC3Z", 'T'));
            assert_eq!(client.answer().status, 'I');
        },
    );
}

#[test]
fn unnamed_statements_describe_and_errors() {
    let server = Postgres::start();
    each_fleet(
        &server,
        |builder| builder.pool_size(2),
        |fleet, mode| {
            let mut clients = [fleet.client(), fleet.client()];
            for _ in 0..5 {
                for (number, client) in clients.iter_mut().enumerate() {
                    client.send(&[parse("", "select $1::text, $2::int"), describe(b'S', ""), sync()].concat());
                    assert_eq!(client.answer().order, "1tTZ");
                    client.send(&extended("select $1::text || 'x'", &[&number.to_string()]));
                    assert_eq!(client.answer().value(), format!("{number}x"));
                    client.send(&extended("selec nonsense", &[]));
                    assert_eq!(client.answer().error().code(), "42601");
                    client.send(&[parse("", "insert into nowhere values (1)"), sync()].concat());
                    assert_eq!(client.answer().error().code(), "42P01");
                    if mode == PoolMode::Session {
                        client.send(&[bind("", "absent", &[]), sync()].concat());
                        assert_eq!(client.answer().error().code(), "26000");
                    }
                }
            }
        },
    );
}

/// A client's own statement names, used from one transaction to the next.
#[test]
fn named_statements_in_session_mode() {
    let server = Postgres::start();
    for workers in [1, 2, 4] {
        let fleet = Fleet::builder(&server).workers(workers).pool_mode(PoolMode::Session).start();
        named_statements(&fleet);
    }
}

#[test]
fn named_statements_in_transaction_mode() {
    let server = Postgres::start();
    for workers in [1, 2, 4] {
        let fleet = Fleet::builder(&server).workers(workers).pool_size(3).start();
        named_statements(&fleet);
    }
}

fn named_statements(fleet: &Fleet) {
    let mut clients: Vec<Client> = (0..3).map(|_| fleet.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        // The same name means something else to each client.
        client.send(&[parse("mine", &format!("select {number} + $1::int")), describe(b'S', "mine"), sync()].concat());
        assert_eq!(client.answer().order, "1tTZ");
    }
    for round in 0..10 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(&[bind("", "mine", &[&round.to_string()]), execute("", 0), sync()].concat());
            let answer = client.answer();
            assert_eq!((answer.order.as_str(), answer.value()), ("2DCZ", (number + round).to_string().as_str()));
        }
    }
    for client in &mut clients {
        client.send(&[close(b'S', "mine"), parse("mine", "select 'anew'"), bind("", "mine", &[]), execute("", 0), sync()].concat());
        let answer = client.answer();
        assert_eq!((answer.order.as_str(), answer.value()), ("312DCZ", "anew"));
    }
}

#[test]
fn function_calls() {
    let server = Postgres::start();
    let oid: u32 = server.admin().query_one("select 'sqrt(float8)'::regprocedure::oid", &[]).unwrap().get(0);
    each_fleet(
        &server,
        |builder| builder,
        |fleet, _| {
            let mut client = fleet.client();
            for _ in 0..3 {
                client.send(&frontend::function_call(oid, &["9"]));
                let message = client.read();
                assert_eq!((message.kind, &message.body[4..]), (b'V', &b"3"[..]));
                assert_eq!(client.answer().order, "Z");
                assert_eq!(client.value("select 'next'"), "next");
            }
        },
    );
}

#[test]
fn notices_and_errors_come_through_untouched() {
    let server = Postgres::start();
    let mut admin = server.admin();
    admin.batch_execute("create function speak() returns void language plpgsql as $$ begin raise notice 'heard %', 1; raise warning using message = 'w', detail = 'd', hint = 'h', errcode = '01ABC'; end $$").unwrap();
    each_fleet(
        &server,
        |builder| builder,
        |fleet, _| {
            let mut direct = Client::login(server.port(), "app", "app");
            let mut client = fleet.client();
            for sql in [
                "select speak()",
                "select 1/0",
                "select * from nowhere",
                "do $$ begin raise exception 'x' using detail = 'y'; end $$",
            ] {
                let (through, straight) = (client.query(sql), direct.query(sql));
                assert_eq!(through.order, straight.order, "{sql}");
                assert_eq!(through.notices, straight.notices, "{sql}");
                assert_eq!(through.errors, straight.errors, "{sql}");
            }
        },
    );
}

#[test]
fn transaction_mode_shares_servers_and_session_mode_does_not() {
    let server = Postgres::start();
    each_fleet(
        &server,
        |builder| builder.pool_size(4),
        |fleet, mode| {
            let mut clients: Vec<Client> = (0..4).map(|_| fleet.client()).collect();
            let pids: BTreeSet<String> = clients.iter_mut().map(|client| client.value("select pg_backend_pid()")).collect();
            match mode {
                PoolMode::Session => assert_eq!(pids.len(), 4, "each its own"),
                // One after the other: one server is enough, lent to whichever worker needs it. A second is opened when the first is
                // still on its way back at another worker while the next client asks; a third never.
                PoolMode::Transaction => assert!(pids.len() <= fleet.worker_count().min(2), "{pids:?}"),
            }
            // A transaction keeps its server, in both.
            let client = &mut clients[0];
            client.query("begin");
            let inside = client.value("select pg_backend_pid()");
            for _ in 0..5 {
                assert_eq!(client.value("select pg_backend_pid()"), inside);
            }
            client.query("rollback");
        },
    );
}

#[test]
fn a_client_that_leaves_in_a_transaction_takes_its_server_with_it() {
    let server = Postgres::start();
    server.admin().batch_execute("create table kept (x int); grant all on kept to app").unwrap();
    each_fleet(
        &server,
        |builder| builder.pool_size(1),
        |fleet, _| {
            let mut client = fleet.client();
            client.query("begin");
            client.query("insert into kept values (1)");
            drop(client);
            let mut next = fleet.client();
            assert_eq!(next.value("select count(*) from kept"), "0");
            assert_eq!(next.query("commit").notices.len(), 1, "there is no transaction in progress");
        },
    );
}

#[test]
fn large_queries_and_values() {
    let server = Postgres::start();
    each_fleet(
        &server,
        |builder| builder,
        |fleet, _| {
            let mut client = fleet.client();
            for size in [1_000, 4_090, 8_192, 65_536, 1_000_000, 20_000_000] {
                let text = "x".repeat(size);
                assert_eq!(client.value(&format!("select length('{text}')")), size.to_string());
                client.send(&extended("select $1::text", &[&text]));
                assert!(client.answer().value() == text, "{size} bytes there and back");
            }
        },
    );
}

/// A client that does not read must cost its server's socket buffers, not the pooler's memory, and must not hold up the others.
#[test]
fn a_slow_reader_costs_no_memory() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(1).start();
    let mut slow = fleet.client();
    let mut other = fleet.client();
    assert_eq!(slow.value("select 1") + &other.value("select 2"), "12");
    let before = process::memory(&fleet.processes());
    let rows = 100_000;
    slow.send(&query(&format!("select repeat('y', 1000) from generate_series(1, {rows})")));
    for _ in 0..200 {
        assert_eq!(other.value("select 'meanwhile'"), "meanwhile");
    }
    let grown = process::memory(&fleet.processes()).saturating_sub(before);
    assert!(grown < 4 << 20, "memory grew by {grown} bytes for a client that does not read");
    let answer = slow.answer();
    assert_eq!(answer.rows.len(), rows);
    assert!(answer.rows.iter().all(|row| row[0].as_ref().unwrap().len() == 1000));
}

/// The same with the roles swapped: PostgreSQL does not read (it sleeps), the client sends.
#[test]
fn a_slow_server_costs_no_memory() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(1).start();
    let mut client = fleet.client();
    client.query("create temp table t (x text)");
    let before = process::memory(&fleet.processes());
    let mut sender = fleet.client();
    sender.send(&query("select pg_sleep(2)"));
    let writer = std::thread::spawn(move || {
        let insert = query(&format!("select length('{}')", "z".repeat(100_000)));
        for _ in 0..300 {
            sender.send(&insert);
        }
        assert_eq!(sender.answer().order, "TDCZ");
        for _ in 0..300 {
            assert_eq!(sender.answer().value(), "100000");
        }
    });
    let mut most = 0;
    while !writer.is_finished() {
        most = most.max(process::memory(&fleet.processes()));
        assert_eq!(client.value("select 'meanwhile'"), "meanwhile");
    }
    writer.join().unwrap();
    let grown = most.saturating_sub(before);
    assert!(grown < 4 << 20, "memory grew by {grown} bytes for a server that does not read");
}
