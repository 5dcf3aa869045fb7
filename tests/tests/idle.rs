//! Thousands of clients that do nothing: what each of them costs.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Client, Fleet, Postgres, process};

const WANTED: usize = 9_000;
const MOST_BYTES_EACH: u64 = 1536;

/// How many connections this process can hold: one descriptor each, and some to spare.
fn possible() -> usize {
    WANTED.min(process::allow_descriptors().saturating_sub(300))
}

fn cost_of_idle_clients(workers: usize, used: bool) {
    let count = possible();
    let server = Postgres::start();
    let fleet = Fleet::builder(&server)
        .workers(workers)
        .setting("max_client_conn", WANTED + 500)
        .setting("log_connections", 0)
        .setting("log_disconnections", 0)
        .start();
    let pids = {
        // Serve once before the measurement begins.
        let clients: Vec<Client> = (0..100).map(|_| fleet.client()).collect();
        drop(clients);
        fleet.processes()
    };
    let before = process::memory(&pids);
    let mut clients: Vec<Client> = Vec::with_capacity(count);
    for _ in 0..count {
        let mut client = fleet.client();
        if used {
            assert_eq!(client.value("select 1"), "1");
        }
        clients.push(client);
    }
    let each = process::memory(&pids).saturating_sub(before) / count as u64;
    println!("{count} idle clients, {workers} workers: {each} bytes each");
    assert!(each <= MOST_BYTES_EACH, "{each} bytes for each of {count} idle clients");
    // They are not only held, they are served.
    for client in clients.iter_mut().step_by(97) {
        assert_eq!(client.value("select 1"), "1");
    }
}

#[test]
fn clients_that_have_only_logged_in() {
    cost_of_idle_clients(2, false);
}

#[test]
fn clients_that_have_asked_something() {
    cost_of_idle_clients(1, true);
}
