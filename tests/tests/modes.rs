//! Statement pooling, by setting, database and user: a transaction block ends the client and its server.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Client, Fleet, Postgres, SOON, backends, each_worker_count, frontend, wait_until};

const REFUSAL: &str = "transaction blocks not allowed in statement pooling mode";

/// Reads up to the FATAL. Until then no ReadyForQuery may come: it would tell of an open transaction.
#[track_caller]
fn assert_refused(client: &mut Client, what: &str) {
    let fields = loop {
        let message = client.read();
        assert_ne!(message.kind, b'Z', "{what}: taken for done");
        if message.kind == b'E' && message.fields().severity() == "FATAL" {
            break message.fields();
        }
    };
    client.expect_end();
    assert_eq!((fields.code(), fields.text()), ("08P01", REFUSAL), "{what}");
}

#[test]
fn a_transaction_block_ends_client_and_server() {
    let server = Postgres::start();
    server.admin().batch_execute("create table kept (number int); grant all on kept to app").unwrap();
    each_worker_count(
        &server,
        |builder| builder.setting("pool_mode", "statement").pool_size(1),
        |fleet| {
            for blocks in ["begin", "begin; insert into kept values (1)", "select 1; begin", "begin; select 1/0"] {
                let backend = fleet.client().value("select pg_backend_pid()");
                let mut client = fleet.client();
                client.send(&frontend::query(blocks));
                assert_refused(&mut client, blocks);
                // Its server went with it, and what it had begun.
                assert_ne!(fleet.client().value("select pg_backend_pid()"), backend, "{blocks}");
            }
            let mut client = fleet.client();
            client.send(&frontend::extended("begin", &[]));
            assert_refused(&mut client, "the extended protocol");
            assert_eq!(fleet.client().value("select count(*) from kept"), "0");
            let closed = |kind: &str| fleet.log().lines().filter(|line| line.contains(kind) && line.contains(REFUSAL)).count();
            assert_eq!((closed(" S-"), closed(" C-")), (5, 10), "closed on both sides, and an error reported");
        },
    );
}

/// What needs no transaction block works as in transaction mode, and takes turns statement by statement.
#[test]
fn statements_take_turns() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder.setting("pool_mode", "statement").pool_size(1),
        |fleet| {
            let mut clients: Vec<Client> = (0..4).map(|_| fleet.client()).collect();
            for _ in 0..5 {
                for client in &mut clients {
                    client.send(&frontend::parse("named", "select $1::int + 1"));
                    client.send(&[frontend::close(b'S', "named"), frontend::sync()].concat());
                    assert_eq!(client.answer().order, "13Z");
                    client.send(&frontend::extended("select $1::int * 2", &["21"]));
                    assert_eq!(client.answer().value(), "42");
                    assert_eq!(client.query("select 1; select 2").tags.len(), 2);
                    let failed = client.query("select 1/0");
                    assert_eq!((failed.error().code(), failed.status), ("22012", 'I'));
                }
            }
            assert_eq!(backends(&mut server.admin()), 1);
        },
    );
}

#[test]
fn a_database_or_a_user_has_a_mode_of_its_own() {
    let server = Postgres::start();
    let entry = format!("host=127.0.0.1 port={} dbname=app", server.port());
    let fleet = Fleet::builder(&server)
        .database("single", format!("{entry} pool_mode=statement"))
        .user("other", "pool_mode=statement")
        .start();
    for (user, database) in [("app", "single"), ("other", "app")] {
        let mut client = Client::login(fleet.port(), user, database);
        client.send(&frontend::query("begin"));
        assert_refused(&mut client, database);
    }
    assert_eq!(fleet.client().query("begin").status, 'T');
    let pools = fleet.console().query("show pools");
    assert_eq!(pools.lookup("database", "single", "pool_mode"), "statement");
}

/// A reload changes what happens at the next link; a transaction that is open then may end.
#[test]
fn a_reload_to_statement_mode() {
    let server = Postgres::start();
    for workers in [1, 2] {
        let mut fleet = Fleet::builder(&server).workers(workers).start();
        let mut client = fleet.client();
        assert_eq!(client.query("begin").status, 'T');
        fleet.change("pool_mode", "statement");
        fleet.console().query("reload");
        wait_until("the new mode", SOON, || fleet.console().query("show pools").lookup("user", "app", "pool_mode") == "statement");
        assert_eq!(client.query("select 1").status, 'T');
        assert_eq!(client.query("commit").status, 'I');
        client.send(&frontend::query("begin"));
        assert_refused(&mut client, "after the reload");
    }
}
