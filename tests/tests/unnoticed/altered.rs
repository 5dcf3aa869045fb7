//! Tables change while drivers hold prepared statements.
//!
//! The scenario, the same in every language: four clients hold four prepared statements (all columns; all columns of the row with a
//! value; a constant where a parameter finds a row; a value of an enumerated type). A table or a type changes in another connection.
//! Then each client uses each statement, on each of the three servers; one does so in a transaction first, and one comes late. Each use is
//! compared with what a statement gives that nobody has prepared before. Kept: the servers still hold the statements. Evicted: they
//! have been pushed out by others, and come back after the change.
//!
//! PostgreSQL itself makes the drivers feel the change (`cached plan must not change result type`); some recover, some never do. Through
//! a fleet it may only be better than that. One thing is worse and stays so: a client that prepares a text anew may be given a server's
//! older statement of the same text. Its first use in a transaction can only fail, and so does the first use with a parameter of a type that
//! was made anew since, if it is sent in binary: nobody has heard of the change before.

use end_to_end::{Fleet, Postgres, driver};

const SERVERS: usize = 3;

fn outcomes(program: &str, port: u16, variant: &str) -> Vec<(String, String)> {
    let printed = driver::run(program, port, &[variant]);
    printed
        .lines()
        .map(|line| line.split_once(": ").unwrap())
        .map(|(use_, outcome)| (use_.to_owned(), outcome.to_owned()))
        .collect()
}

fn altered(program: &str, variant: &str) {
    let server = Postgres::start();
    let direct = outcomes(program, server.port(), variant);
    assert!(direct.len() > 400, "{} uses", direct.len());
    for workers in [1, 2] {
        let fleet = Fleet::builder(&server).workers(workers).pool_size(SERVERS).setting("max_prepared_statements", 20);
        let fleet = fleet.start();
        let pooled = outcomes(program, fleet.port(), variant);
        let worse: Vec<_> = direct.iter().zip(&pooled).filter(|(direct, pooled)| !is_as_good(direct, pooled)).collect();
        assert!(worse.is_empty(), "{workers} workers: {} uses are worse, as {:#?}", worse.len(), &worse[..worse.len().min(8)]);
        assert_eq!(pooled.len(), direct.len());
    }
}

fn is_as_good(direct: &(String, String), pooled: &(String, String)) -> bool {
    let stale_in_transaction = || pooled.0.ends_with("transaction 0") && ["0A000", "XX000"].contains(&pooled.1.as_str());
    let first_of_a_type =
        || pooled.0.starts_with("the type anew") && pooled.0.ends_with("late client, use 0") && pooled.1 == "XX000";
    direct.0 == pooled.0 && (direct.1 == pooled.1 || pooled.1 == "right" || stale_in_transaction() || first_of_a_type())
}

#[test]
fn psycopg_after_alter_table_statements_kept() {
    altered("altered_psycopg.py", "kept");
}

#[test]
fn psycopg_after_alter_table_statements_evicted() {
    altered("altered_psycopg.py", "evicted");
}

#[test]
fn asyncpg_after_alter_table_statements_kept() {
    altered("altered_asyncpg.py", "kept");
}

#[test]
fn node_postgres_after_alter_table_statements_kept() {
    altered("altered.js", "kept");
}

#[test]
fn node_postgres_after_alter_table_statements_evicted() {
    altered("altered.js", "evicted");
}

#[test]
fn jdbc_after_alter_table_statements_kept() {
    altered("Altered.java", "kept");
}

#[test]
fn asyncpg_after_alter_table_statements_evicted() {
    altered("altered_asyncpg.py", "evicted");
}

#[test]
fn jdbc_after_alter_table_statements_evicted() {
    altered("Altered.java", "evicted");
}
