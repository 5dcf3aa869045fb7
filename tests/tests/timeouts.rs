//! Times that clients and servers may take, each with its message, by setting, database and user.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::frontend::query;
use end_to_end::{Client, Fleet, PoolMode, Postgres, each_fleet};
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
