//! Two hundred pgbench clients on twenty server connections: no error, and never a backend too many.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::program::{load_seconds, postgres_program, stderr, stdout};
use end_to_end::{Fleet, Postgres, Sampler};

const CLIENTS: u32 = 200;
const SERVERS: i64 = 20;

fn prepared_server() -> Postgres {
    let server = Postgres::start();
    let url = format!("host=127.0.0.1 port={} user=app dbname=app", server.port());
    let output = postgres_program("pgbench").args(["-i", "-q", "-s", "2", &url]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    server
}

/// Runs pgbench with `script` over each protocol it has, against a fleet of so many workers.
fn load(workers: usize, script: &str) {
    let server = prepared_server();
    let fleet = Fleet::builder(&server).workers(workers).pool_size(SERVERS as usize).start();
    fleet.all_workers();
    for protocol in ["simple", "extended", "prepared"] {
        let sampler = Sampler::start(&server);
        // Up to version 15 pgbench waits for the answer when it prepares: clients of one thread would wait for servers that other
        // clients of the same thread hold in their transactions.
        let threads = if protocol == "prepared" { CLIENTS.to_string() } else { "2".to_owned() };
        let output = postgres_program("pgbench")
            .args(["-n", "-b", script, "-M", protocol, "-j", &threads])
            .args(["-c", &CLIENTS.to_string(), "-T", &load_seconds().to_string(), &fleet.url()])
            .output()
            .unwrap();
        let seen = sampler.finish();
        let said = format!("{}\n{}", stdout(&output), stderr(&output));
        assert!(output.status.success(), "{protocol}: {said}");
        assert!(!said.contains("aborted") && !said.contains("error"), "{protocol}: {said}");
        assert!(said.contains("number of failed transactions: 0 "), "{protocol}: {said}");
        assert!(seen.samples > 50, "{protocol}: {seen:?}");
        assert_eq!(seen.most, SERVERS, "{protocol}: the pool is filled, and not over: {seen:?}");
    }
    for level in ["ERROR", "FATAL", "WARNING"] {
        assert_eq!(fleet.logged(level), 0, "{}", fleet.log());
    }
}

#[test]
fn select_only_with_1_worker() {
    load(1, "select-only");
}

#[test]
fn select_only_with_2_workers() {
    load(2, "select-only");
}

#[test]
fn select_only_with_4_workers() {
    load(4, "select-only");
}

#[test]
fn tpcb_with_2_workers() {
    load(2, "tpcb-like");
}

#[test]
fn tpcb_with_4_workers() {
    load(4, "tpcb-like");
}

/// A login per transaction: the whole way in and out again, all the time.
#[test]
fn connect_per_transaction() {
    let server = prepared_server();
    for workers in [1, 4] {
        let fleet = Fleet::builder(&server).workers(workers).pool_size(SERVERS as usize).start();
        let sampler = Sampler::start(&server);
        let output = postgres_program("pgbench")
            .args(["-n", "-C", "-S", "-j", "2", "-c", "50", "-T", &load_seconds().to_string(), &fleet.url()])
            .output()
            .unwrap();
        let said = format!("{}\n{}", stdout(&output), stderr(&output));
        assert!(output.status.success() && said.contains("number of failed transactions: 0 "), "{said}");
        let seen = sampler.finish();
        assert!(seen.most <= SERVERS, "{seen:?}");
    }
}
