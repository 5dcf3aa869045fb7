//! COPY in both directions, through the simple and the extended protocol, finished, broken off and refused.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::frontend::{bind, copy_data, copy_done, copy_fail, execute, parse, query, sync};
use end_to_end::{Client, PoolMode, Postgres, each_fleet};
use std::io::{Read, Write};

/// A server with the table `lines` that everyone may fill.
fn server() -> Postgres {
    let server = Postgres::start();
    server.admin().batch_execute("create table lines (number int, line text); grant all on lines to app").unwrap();
    server
}

fn rows(count: usize) -> Vec<u8> {
    (0..count).flat_map(|number| format!("{number}\tline {number}\n").into_bytes()).collect()
}

#[test]
fn in_and_out_by_simple_query() {
    let server = server();
    each_fleet(
        &server,
        |builder| builder.pool_size(2),
        |fleet, _| {
            let mut client = fleet.client();
            client.query("truncate lines");
            client.send(&query("copy lines from stdin"));
            assert_eq!(client.read().kind, b'G');
            for piece in rows(10_000).chunks(4_321) {
                client.send(&copy_data(piece));
            }
            client.send(&copy_done());
            assert_eq!(client.answer().tags, ["COPY 10000"]);
            let out = client.query("copy (select * from lines order by number) to stdout");
            assert_eq!(out.tags, ["COPY 10000"]);
            assert!(out.copied == rows(10_000), "what went in came out");
            assert_eq!(client.value("select count(*) from lines"), "10000");
        },
    );
}

#[test]
fn in_and_out_by_extended_query() {
    let server = server();
    each_fleet(
        &server,
        |builder| builder.pool_size(2),
        |fleet, _| {
            let mut client = fleet.client();
            client.query("truncate lines");
            let start = |sql: &str| [parse("", sql), bind("", "", &[]), execute("", 0)].concat();
            // As libpq does: Sync goes out with the start and ends nothing, since the server ignores it in COPY; another follows the data.
            client.send(&[start("copy lines from stdin"), sync()].concat());
            assert_eq!(client.answer_until(b'G').order, "12G");
            client.send(&[copy_data(&rows(500)), copy_done(), sync()].concat());
            let answer = client.answer();
            assert_eq!((answer.order.as_str(), answer.tags[0].as_str()), ("CZ", "COPY 500"));
            // All at once.
            client.send(&[start("copy lines from stdin"), copy_data(&rows(500)), copy_done(), sync()].concat());
            assert_eq!(client.answer().tags, ["COPY 500"]);
            client.send(&[start("copy lines to stdout"), sync()].concat());
            let out = client.answer();
            assert_eq!(out.tags, ["COPY 1000"]);
            assert_eq!(out.copied.len(), 2 * rows(500).len());
            assert_eq!(client.value("select 'next'"), "next");
        },
    );
}

#[test]
fn inside_a_transaction() {
    let server = server();
    each_fleet(
        &server,
        |builder| builder.pool_size(1),
        |fleet, _| {
            let mut client = fleet.client();
            client.query("begin");
            client.query("truncate lines");
            client.send(&[query("copy lines from stdin"), copy_data(&rows(10)), copy_done()].concat());
            let answer = client.answer();
            assert_eq!((answer.tags[0].as_str(), answer.status), ("COPY 10", 'T'));
            assert_eq!(client.value("select count(*) from lines"), "10");
            assert_eq!(client.query("rollback").status, 'I');
            assert_eq!(client.value("select count(*) from lines"), client.value("select count(*) from lines"));
        },
    );
}

#[test]
fn errors_on_either_side() {
    let server = server();
    each_fleet(
        &server,
        |builder| builder.pool_size(1),
        |fleet, mode| {
            let mut client = fleet.client();
            client.query("truncate lines");
            // The client gives up.
            client.send(&[query("copy lines from stdin"), copy_data(&rows(3)), copy_fail("changed my mind")].concat());
            let failed = client.answer();
            assert_eq!(failed.error().code(), "57014");
            assert!(failed.error().text().contains("changed my mind"));
            // PostgreSQL gives up; the client's data is still on its way and is thrown away.
            client.send(&query("copy lines from stdin"));
            assert_eq!(client.read().kind, b'G');
            client.send(&copy_data(b"not a number\tx\n"));
            for _ in 0..50 {
                client.send(&copy_data(&rows(1000)));
            }
            client.send(&copy_done());
            assert_eq!(client.answer().error().code(), "22P02");
            assert_eq!(client.value("select count(*) from lines"), "0");
            // COPY that cannot begin; COPY TO that breaks in the middle.
            assert_eq!(client.query("copy nowhere from stdin").error().code(), "42P01");
            let broken = client.query("copy (select 1 / (10 - x) from generate_series(1, 20) x) to stdout");
            assert_eq!((broken.error().code(), broken.status), ("22012", 'I'));
            // The server has not been kept: with a single one, another client is served.
            if mode == PoolMode::Transaction {
                assert_eq!(fleet.client().value("select 'shared'"), "shared");
            }
            assert_eq!(client.value("select 'still here'"), "still here");
        },
    );
}

/// After an error inside the extended protocol everything up to Sync is skipped, the data of a COPY that never began included.
#[test]
fn late_data_after_an_error_is_skipped() {
    let server = server();
    each_fleet(
        &server,
        |builder| builder.pool_size(1),
        |fleet, _| {
            let mut client = fleet.client();
            for _ in 0..3 {
                client.send(&[parse("", "copy nowhere from stdin"), bind("", "", &[]), execute("", 0)].concat());
                client.send(&[copy_data(&rows(3)), copy_done(), sync()].concat());
                assert_eq!(client.answer().error().code(), "42P01");
                assert_eq!(client.value("select 'next'"), "next");
            }
            client.send(&[query("copy nowhere from stdin"), copy_data(&rows(3)), copy_done(), query("select 'after'")].concat());
            assert_eq!(client.answer().error().code(), "42P01");
            assert_eq!(client.answer().value(), "after");
        },
    );
}

#[test]
fn a_client_that_leaves_in_the_middle() {
    let server = server();
    each_fleet(
        &server,
        |builder| builder.pool_size(1),
        |fleet, _| {
            let mut client = fleet.client();
            client.query("truncate lines");
            client.send(&[query("copy lines from stdin"), copy_data(&rows(100))].concat());
            assert_eq!(client.read().kind, b'G');
            drop(client);
            let mut reader = fleet.client();
            reader.send(&query("copy (select repeat('x', 1000) from generate_series(1, 100000)) to stdout"));
            assert_eq!(reader.read().kind, b'H');
            drop(reader);
            assert_eq!(fleet.client().value("select count(*) from lines"), "0");
        },
    );
}

#[test]
fn a_rust_driver_copies() {
    let server = server();
    each_fleet(
        &server,
        |builder| builder,
        |fleet, _| {
            let mut client = fleet.driver().connect(postgres::NoTls).unwrap();
            client.batch_execute("truncate lines").unwrap();
            let mut writer = client.copy_in("copy lines from stdin").unwrap();
            writer.write_all(&rows(5_000)).unwrap();
            assert_eq!(writer.finish().unwrap(), 5_000);
            let mut out = Vec::new();
            client.copy_out("copy (select * from lines order by number) to stdout").unwrap().read_to_end(&mut out).unwrap();
            assert!(out == rows(5_000));
            let mut transaction = client.transaction().unwrap();
            // Dropped without finish(): CopyFail.
            drop(transaction.copy_in("copy lines from stdin").unwrap());
            assert!(transaction.batch_execute("select 1").is_err());
            transaction.rollback().unwrap();
            assert_eq!(client.query_one("select count(*) from lines", &[]).unwrap().get::<_, i64>(0), 5_000);
        },
    );
}

#[test]
fn many_clients_at_once() {
    let server = server();
    each_fleet(
        &server,
        |builder| builder.pool_size(8),
        |fleet, _| {
            fleet.client().query("truncate lines");
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let mut client: Client = fleet.client();
                        for _ in 0..20 {
                            client.send(&[query("copy lines from stdin"), copy_data(&rows(50)), copy_done()].concat());
                            assert_eq!(client.answer().tags, ["COPY 50"]);
                        }
                    });
                }
            });
            assert_eq!(fleet.client().value("select count(*) from lines"), "8000");
        },
    );
}
