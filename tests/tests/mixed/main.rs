//! Real drivers at mixed work: fifty connections over five servers in transaction mode read, write, fail, roll back, copy, cancel and
//! check all they get. No result may be wrong, and no error come that a direct connection would not give: each program runs against
//! PostgreSQL itself first, and must end with the same totals through a fleet.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

mod tokio_work;

use end_to_end::{Fleet, Postgres, SOON, Sampler, backends, driver, wait_until};

const SERVERS: usize = 5;
/// Fewer than the texts that a program uses, so that statements are evicted while other clients use them.
const STATEMENTS: usize = 20;

/// Runs `work`, which is given a port and returns the totals (rows, their amounts, bytes, counted rounds of all connections), directly
/// and through fleets of one worker and of two.
fn mixed(totals: &str, work: impl Fn(u16) -> String) {
    let server = Postgres::start();
    assert_eq!(work(server.port()), totals, "directly");
    for workers in [1, 2] {
        let fleet = Fleet::builder(&server).workers(workers).pool_size(SERVERS).setting("max_prepared_statements", STATEMENTS);
        let fleet = fleet.start();
        let mut admin = server.admin();
        wait_until("the last run's backends to be gone", SOON, || backends(&mut admin) == 0);
        let sampler = Sampler::start(&server);
        assert_eq!(work(fleet.port()), totals, "through {workers} workers");
        let most = sampler.finish().most;
        assert!(most <= SERVERS as i64, "{most} servers");
    }
}

#[test]
fn psycopg_with_prepared_statements() {
    mixed("4950 14625 300 150", |port| driver::run("mixed_psycopg.py", port, &["prepared"]));
}

#[test]
fn psycopg_without_prepared_statements() {
    mixed("4950 14625 300 150", |port| driver::run("mixed_psycopg.py", port, &["unprepared"]));
}

#[test]
fn asyncpg() {
    mixed("4950 14625 300 150", |port| driver::run("mixed_asyncpg.py", port, &[]));
}

#[test]
fn node_postgres() {
    mixed("3480 10155 300 150", |port| driver::run("mixed.js", port, &[]));
}

#[test]
fn jdbc() {
    mixed("3300 9750 200 100", |port| driver::run("Mixed.java", port, &[]));
}

#[test]
fn tokio_postgres() {
    mixed("4950 14625 300 150", tokio_work::run);
}
