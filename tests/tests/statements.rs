//! Prepared statements beyond what a pooler usually knows of them: tables change, SQL names them, unnamed ones are kept.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Client, Fleet, Postgres, each_worker_count, frontend};

fn prepare(client: &mut Client, name: &str, sql: &str) {
    client.send(&[frontend::parse(name, sql), frontend::describe(b'S', name), frontend::sync()].concat());
    assert!(client.answer().errors.is_empty());
}

/// Runs a prepared statement as libpq and node-postgres do, who ask each time which columns there are; or as asyncpg and JDBC, who know.
fn run(client: &mut Client, name: &str, describes: bool) -> end_to_end::Answer {
    let describe = if describes { frontend::describe(b'P', "") } else { Vec::new() };
    client.send(&[frontend::bind("", name, &[]), describe, frontend::execute("", 0), frontend::sync()].concat());
    client.answer()
}

/// Statements that servers hold, as clients see them.
fn held(client: &mut Client) -> u32 {
    client.value("select count(*) from pg_prepared_statements where name like 'pgfleet%'").parse().unwrap()
}

#[test]
fn a_client_that_asks_for_its_columns_never_notices_that_a_table_has_changed() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder.pool_size(3),
        |fleet| {
            let mut owner = fleet.client();
            owner.query("drop table if exists changing; create table changing (a int); insert into changing values (1)");
            let mut clients: Vec<Client> = (0..6).map(|_| fleet.client()).collect();
            for client in &mut clients {
                prepare(client, "s", "select * from changing");
                assert_eq!(run(client, "s", true).rows.len(), 1);
            }
            for column in ["b", "c"] {
                owner.query(&format!("alter table changing add {column} text default 'new'"));
                for client in &mut clients {
                    for _ in 0..3 {
                        let answer = run(client, "s", true);
                        assert!(answer.errors.is_empty(), "{:?}", answer.errors);
                        assert_eq!(answer.rows[0].len(), if column == "b" { 2 } else { 3 });
                    }
                }
            }
        },
    );
}

/// What a client was told at Parse is what it goes by: it sees PostgreSQL's error, and preparing the same text again helps.
#[test]
fn preparing_again_after_the_error_helps() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder.pool_size(1),
        |fleet| {
            let mut owner = fleet.client();
            owner.query("drop table if exists changing; create table changing (a int); insert into changing values (1)");
            let mut clients: Vec<Client> = (0..4).map(|_| fleet.client()).collect();
            for client in &mut clients {
                prepare(client, "s", "select * from changing");
            }
            owner.query("alter table changing alter a type text");
            for client in &mut clients {
                let answer = run(client, "s", false);
                if let Some(error) = answer.errors.first() {
                    assert_eq!((error.code(), error.text()), ("0A000", "cached plan must not change result type"));
                }
                client.send(&[frontend::close(b'S', "s"), frontend::sync()].concat());
                client.answer();
                prepare(client, "s", "select * from changing");
                let answer = run(client, "s", false);
                assert_eq!((answer.errors.len(), answer.value()), (0, "1"));
            }
            // In a transaction the error is the client's to see, whatever it asks for.
            owner.query("alter table changing alter a type varchar(3)");
            owner.query("begin");
            prepare(&mut owner, "own", "select *, 1 from changing");
            owner.query("alter table changing alter a type char(3)");
            assert_eq!(run(&mut owner, "own", true).error().code(), "0A000");
            assert_eq!(owner.query("select 1").error().code(), "25P02");
            owner.query("rollback");
        },
    );
}

#[test]
fn sql_knows_the_names_that_the_client_gave() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder.pool_size(2),
        |fleet| {
            let mut client = fleet.client();
            let mut other = fleet.client();
            for transaction in [false, true] {
                prepare(&mut client, "Mine", "select $1::int + 1");
                if transaction {
                    client.query("begin");
                }
                assert_eq!(client.value("execute \"Mine\" (41)"), "42");
                assert_eq!(other.query("execute \"Mine\" (1)").error().code(), "26000", "a name is its client's own");
                assert_eq!(client.query("DEALLOCATE \"Mine\"").tags, ["DEALLOCATE"]);
                let again = client.query("deallocate \"Mine\"");
                assert_eq!(again.error().code(), "26000");
                if transaction {
                    client.query("rollback");
                }
                prepare(&mut client, "Mine", "select 2");
                assert_eq!(client.query("deallocate prepare \"Mine\"; ").tags, ["DEALLOCATE"]);
            }
            // What SQL itself has prepared stays PostgreSQL's.
            client.query("begin");
            client.query("prepare sql_made as select 'sql'");
            assert_eq!(client.value("execute sql_made"), "sql");
            assert_eq!(client.query("deallocate sql_made").tags, ["DEALLOCATE"]);
            client.query("commit");
        },
    );
}

/// A name whose Parse fails is free for the next, in the same breath too.
#[test]
fn a_name_whose_parse_fails_can_be_given_again_in_a_pipeline() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder.pool_size(1),
        |fleet| {
            let mut client = fleet.client();
            let bad = [frontend::parse("s", "selec 1"), frontend::sync()].concat();
            let good =
                [frontend::parse("s", "select 'good'"), frontend::bind("", "s", &[]), frontend::execute("", 0), frontend::sync()];
            client.send(&[bad, good.concat()].concat());
            assert_eq!(client.answer().error().code(), "42601");
            assert_eq!(client.answer().value(), "good");
        },
    );
}

#[test]
fn unnamed_statements_are_kept_where_the_setting_says_so() {
    let server = Postgres::start();
    for reuse in [false, true] {
        let setting = u8::from(reuse);
        let fleet: Fleet = Fleet::builder(&server).workers(2).pool_size(1).setting("reuse_unnamed_statements", setting).start();
        let (mut first, mut second) = (fleet.client(), fleet.client());
        for round in 0..4 {
            for client in [&mut first, &mut second] {
                client.send(&frontend::extended("select $1::text || 'x'", &[&round.to_string()]));
                assert_eq!(client.answer().value(), format!("{round}x"));
            }
        }
        assert_eq!(held(&mut first), u32::from(reuse));
        // One that fails leaves nothing behind.
        first.send(&frontend::extended("selec", &[]));
        assert_eq!(first.answer().error().code(), "42601");
        first.send(&[frontend::bind("", "", &[]), frontend::sync()].concat());
        assert_eq!(first.answer().error().code(), "26000");
    }
}
