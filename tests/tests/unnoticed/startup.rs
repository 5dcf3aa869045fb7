//! What clients ask for when they connect.

use super::same;
use end_to_end::{Fleet, PoolMode, Postgres, driver};

const ALL: [&str; 4] = ["unnoticed_psycopg.py", "unnoticed_asyncpg.py", "unnoticed.js", "Unnoticed.java"];

/// One server for all, so that clients with different values follow each other on it.
#[test]
fn startup_parameters_hold_in_transaction_mode() {
    same(&ALL, "startup", |builder| builder.pool_size(1));
}

#[test]
fn startup_parameters_hold_in_session_mode() {
    same(&ALL, "startup", |builder| builder.pool_mode(PoolMode::Session).pool_size(4));
}

#[test]
fn resetting_goes_back_to_what_was_asked_for_at_startup() {
    same(&["unnoticed_psycopg.py", "unnoticed_asyncpg.py"], "reset", |builder| builder.pool_mode(PoolMode::Session));
}

#[test]
fn the_pid_is_the_backends() {
    same(&ALL, "pid", |builder| builder.pool_mode(PoolMode::Session).setting("report_backend_pid", 1));
}

/// A setting of the role's that no longer makes sense is what PostgreSQL warns of when a connection starts.
#[test]
fn notices_at_the_start_of_a_connection_reach_its_client() {
    let server = Postgres::start();
    server.admin().batch_execute("create role passing; alter role app set role = 'passing'; drop role passing").unwrap();
    let direct = driver::run("unnoticed.js", server.port(), &["notices"]);
    assert!(direct.contains("passing"), "{direct}");
    let fleet = Fleet::builder(&server).pool_mode(PoolMode::Session).setting("report_backend_pid", 1).start();
    assert_eq!(driver::run("unnoticed.js", fleet.port(), &["notices"]), direct);
}
