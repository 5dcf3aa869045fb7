//! Which feature of PostgreSQL works in which pooling mode: PgBouncer's feature map, row by row, with 1 and 2 workers.
//!
//! "Never" rows are state that stays with the server: in transaction and statement mode the next client finds it there. That is certain with
//! one server, and tested so that it is known when it changes. Rows that are a subject of their own have a file of their own:
//!
//! | feature | test |
//! |---|---|
//! | parameters at startup | `parameters_at_startup`, `parameters.rs` |
//! | SET of anything else | `state_is_the_sessions_own`, `state_stays_with_the_server` |
//! | multi-statement transactions | `transactions_of_several_statements`; refused: `modes.rs` |
//! | LISTEN, NOTIFY | `listen`, `notify` |
//! | cursors WITHOUT HOLD | `cursors_within_a_transaction` |
//! | cursors WITH HOLD, temporary tables that stay, LOAD, advisory locks, SQL PREPARE | `state_is_the_sessions_own`, `state_stays_with_the_server` |
//! | named statements | `named_statements`, `named_statements_that_are_not_tracked`, `queries.rs` |
//! | DEALLOCATE ALL, DISCARD ALL | `statements_all_given_up` |
//! | temporary tables ON COMMIT DROP | `temporary_tables_of_one_transaction` |
//! | plans after DDL | `a_plan_follows_its_tables` |
//! | COPY, pipelines, FunctionCall | `copy_pipelines_and_function_calls` for statement mode, `copy.rs`, `queries.rs` |
//! | cancel | `cancel_requests` for statement mode, `cancel.rs` |
//! | replication | `replication.rs` |
//! | server_reset_query | `parameters.rs`, `hygiene.rs`, `settings.rs` for statement mode |
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use Mode::{Session, Statement, Transaction};
use end_to_end::frontend::{self, bind, close, copy_data, copy_done, execute, extended, parse, query, sync};
use end_to_end::{Client, Fleet, Postgres, SOON, wait_for, wait_until};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Session,
    Transaction,
    Statement,
}

const ALL: [Mode; 3] = [Session, Transaction, Statement];

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Session => "session",
            Transaction => "transaction",
            Statement => "statement",
        }
    }
}

/// Runs a case in the modes, with 1 and 2 workers. Where servers are shared there is only one; a session has one to itself.
fn each(server: &Postgres, modes: &[Mode], settings: &[(&str, &str)], case: impl Fn(&Fleet, Mode)) {
    for &mode in modes {
        for workers in [1, 2] {
            println!("{mode:?}, {workers} workers");
            let pool_size = if mode == Session { 4 } else { 1 };
            let builder = Fleet::builder(server).workers(workers).setting("pool_mode", mode.name()).pool_size(pool_size);
            let builder = settings.iter().fold(builder, |builder, (name, value)| builder.setting(name, value));
            case(&builder.secret("postgres", "unused").start(), mode);
        }
    }
}

/// Another client does something in between, on the same server where servers are shared.
#[track_caller]
fn interrupt(fleet: &Fleet) {
    assert_eq!(fleet.client().value("select 'in between'"), "in between");
}

#[test]
fn parameters_at_startup() {
    let server = Postgres::start();
    let asked = [
        ("client_encoding", "LATIN1"),
        ("DateStyle", "SQL, DMY"),
        ("IntervalStyle", "iso_8601"),
        ("TimeZone", "Asia/Tokyo"),
        ("standard_conforming_strings", "off"),
        ("application_name", "its own"),
    ];
    each(&server, &ALL, &[], |fleet, _| {
        let mut other = fleet.client();
        let defaults: Vec<String> = asked.iter().map(|(name, _)| other.value(&format!("show {name}"))).collect();
        let mut client = Client::tcp(fleet.port());
        client.start(&[&[("user", "app"), ("database", "app")], &asked[..]].concat(), None).unwrap();
        for _ in 0..3 {
            for ((name, value), default) in asked.iter().zip(&defaults) {
                assert_eq!(client.parameters[*name], *value, "as it is greeted");
                assert_eq!(client.value(&format!("show {name}")), *value);
                assert_eq!(&other.value(&format!("show {name}")), default, "{name} of the other");
            }
        }
    });
}

/// What a session keeps on its server, how it is made, and a query that gives `there` where it is.
const STATE: [(&str, &str, &str); 6] = [
    ("SET", "set work_mem = '17MB'", "select case current_setting('work_mem') when '17MB' then 'there' end"),
    (
        "WITH HOLD",
        "declare held cursor with hold for select 1",
        "select case count(*) when 1 then 'there' end from pg_cursors where name = 'held'",
    ),
    (
        "temporary table",
        "create temp table kept (x int) on commit delete rows",
        "select 'there' where to_regclass('pg_temp.kept') is not null",
    ),
    ("LOAD", "load 'plpgsql'", "select case when current_setting('plpgsql.variable_conflict', true) is not null then 'there' end"),
    (
        "advisory lock",
        "select pg_advisory_lock(7)",
        "select case count(*) when 1 then 'there' end from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
    ),
    (
        "PREPARE",
        "prepare by_sql as select 1",
        "select case count(*) when 1 then 'there' end from pg_prepared_statements where name = 'by_sql'",
    ),
];

fn superuser(fleet: &Fleet) -> Client {
    Client::login(fleet.port(), "postgres", "app")
}

fn is_there(client: &mut Client, look: &str) -> bool {
    let answer = client.query(look);
    assert!(answer.errors.is_empty(), "{answer:?}");
    answer.rows.iter().any(|row| row[0].as_deref() == Some("there"))
}

#[test]
fn state_is_the_sessions_own() {
    let server = Postgres::start();
    each(&server, &[Session], &[], |fleet, _| {
        for (what, make, look) in STATE {
            let mut client = superuser(fleet);
            let mut other = superuser(fleet);
            let backend = client.value("select pg_backend_pid()");
            assert!(client.query(make).errors.is_empty(), "{what}");
            assert!(is_there(&mut client, look), "{what} in its session");
            assert!(!is_there(&mut other, look), "{what} elsewhere");
            assert!(is_there(&mut client, look), "{what} later");
            drop(client);
            // The next session on this server finds nothing; only a library once loaded stays loaded.
            drop(other);
            let mut clients = Vec::new();
            let mut next = wait_for("a session on the same server", SOON, || {
                let mut next = superuser(fleet);
                if next.value("select pg_backend_pid()") == backend {
                    return Some(next);
                }
                clients.push(next);
                None
            });
            assert_eq!(is_there(&mut next, look), what == "LOAD", "{what} for the next");
        }
    });
}

#[test]
fn state_stays_with_the_server() {
    let server = Postgres::start();
    each(&server, &[Transaction, Statement], &[], |fleet, _| {
        let mut client = superuser(fleet);
        let mut other = superuser(fleet);
        for (what, make, look) in STATE {
            assert!(client.query(make).errors.is_empty(), "{what}");
            assert!(is_there(&mut other, look), "{what} is where it was made");
        }
    });
}

#[test]
fn transactions_of_several_statements() {
    let server = Postgres::start();
    server.admin().batch_execute("create table numbers (n int); grant all on numbers to app").unwrap();
    each(&server, &[Session, Transaction], &[("default_pool_size", "2")], |fleet, _| {
        let (mut client, mut other) = (fleet.client(), fleet.client());
        client.query("truncate numbers");
        assert_eq!(client.query("begin").status, 'T');
        let backend = client.value("select pg_backend_pid()");
        for number in 0..5 {
            client.query(&format!("insert into numbers values ({number})"));
            assert_eq!(other.value("select count(*) from numbers"), "0");
        }
        client.query("savepoint s");
        assert_eq!(client.query("insert into numbers values (1/0)").status, 'E');
        assert_eq!(client.query("rollback to s").status, 'T');
        assert_eq!(client.value("select pg_backend_pid()"), backend);
        assert_eq!(client.query("commit").status, 'I');
        assert_eq!(other.value("select count(*) from numbers"), "5");
    });
}

#[test]
fn listen() {
    let server = Postgres::start();
    each(&server, &ALL, &[], |fleet, mode| {
        let (mut client, mut other) = (fleet.client(), fleet.client());
        assert_eq!(client.query("listen channel").tags, ["LISTEN"]);
        let notified = other.query("notify channel");
        assert_eq!(notified.tags, ["NOTIFY"]);
        if mode == Session {
            // Unasked, while it is idle.
            let message = client.read();
            assert_eq!((message.kind, message.channel().as_str()), (b'A', "channel"));
        } else {
            // The server listens, whoever uses it; the one that asked hears nothing.
            assert_eq!(notified.notified, ["channel"]);
            assert!(client.query("select 1").notified.is_empty());
            other.query("unlisten *");
        }
    });
}

#[test]
fn notify() {
    let server = Postgres::start();
    each(&server, &ALL, &[], |fleet, mode| {
        let mut listener = Client::login(server.port(), "app", "app");
        listener.query("listen channel");
        let mut client = fleet.client();
        assert_eq!(client.query("notify channel").tags, ["NOTIFY"]);
        assert_eq!(listener.read().channel(), "channel");
        client.send(&extended("select pg_notify('channel', $1)", &["payload"]));
        assert!(client.answer().errors.is_empty());
        assert_eq!(listener.read().strings().last().unwrap(), "payload", "{mode:?}");
    });
}

#[test]
fn cursors_within_a_transaction() {
    let server = Postgres::start();
    each(&server, &ALL, &[], |fleet, mode| {
        let mut client = fleet.client();
        if mode == Statement {
            let refused = client.query("declare c cursor for select generate_series(1, 5)");
            assert_eq!(refused.error().code(), "25P01", "no transaction block to live in");
            return;
        }
        client.query("begin");
        client.query("declare c cursor for select generate_series(1, 5)");
        assert_eq!(client.query("fetch 2 from c").rows.len(), 2);
        assert_eq!(client.query("fetch all from c").rows.len(), 3);
        client.query("commit");
        assert_eq!(client.query("fetch 1 from c").error().code(), "34000");
    });
}

#[test]
fn named_statements() {
    let server = Postgres::start();
    each(&server, &ALL, &[], |fleet, mode| {
        let mut client = fleet.client();
        let mut same_name = fleet.client();
        for (client, number) in [(&mut client, 1), (&mut same_name, 2)] {
            client.send(&[parse("mine", &format!("select $1::int + {number}")), sync()].concat());
            assert_eq!(client.answer().order, "1Z");
        }
        for _ in 0..3 {
            interrupt(fleet);
            for (client, sum) in [(&mut client, "11"), (&mut same_name, "12")] {
                client.send(&[bind("", "mine", &["10"]), execute("", 0), sync()].concat());
                assert_eq!(client.answer().value(), sum);
            }
        }
        let names = client.value("select string_agg(name, ',') from pg_prepared_statements where name = 'mine'");
        assert_eq!(names, if mode == Session { "mine" } else { "" }, "untouched in session mode");
    });
}

#[test]
fn named_statements_that_are_not_tracked() {
    let server = Postgres::start();
    each(&server, &[Transaction, Statement], &[("max_prepared_statements", "0")], |fleet, _| {
        let (mut client, mut other) = (fleet.client(), fleet.client());
        client.send(&[parse("mine", "select 1"), sync()].concat());
        assert_eq!(client.answer().order, "1Z");
        other.send(&[parse("mine", "select 2"), sync()].concat());
        assert_eq!(other.answer().error().code(), "42P05", "the name is the server's");
        other.send(&[bind("", "mine", &[]), execute("", 0), close(b'S', "mine"), sync()].concat());
        assert_eq!(other.answer().value(), "1", "and so is the statement");
    });
}

#[test]
fn statements_all_given_up() {
    let server = Postgres::start();
    each(&server, &ALL, &[], |fleet, _| {
        let mut client = fleet.client();
        for command in ["deallocate all", "discard all"] {
            for text in ["select 'before'", "select 'after'"] {
                client.send(&[parse("mine", text), bind("", "mine", &[]), execute("", 0), sync()].concat());
                assert_eq!(client.answer().order, "12DCZ", "{command}: {text}");
                interrupt(fleet);
                assert_eq!(client.query(command).tags, [command.to_uppercase()]);
                interrupt(fleet);
            }
            // By the extended protocol, too, as drivers send it.
            client.send(&[parse("mine", "select 1"), sync(), extended(command, &[])].concat());
            assert_eq!((client.answer().order.as_str(), client.answer().tags[0].as_str()), ("1Z", command.to_uppercase().as_str()));
        }
        client.send(&[parse("mine", "select 'at last'"), bind("", "mine", &[]), execute("", 0), sync()].concat());
        assert_eq!(client.answer().value(), "at last");
    });
}

#[test]
fn temporary_tables_of_one_transaction() {
    let server = Postgres::start();
    each(&server, &ALL, &[], |fleet, mode| {
        let mut client = fleet.client();
        let steps = [
            if mode == Statement { "" } else { "begin" },
            "create temp table brief (x int) on commit drop",
            "insert into brief values (1), (2)",
            "select count(*) from brief",
            if mode == Statement { "" } else { "commit" },
        ];
        for _ in 0..2 {
            if mode == Statement {
                // One message is one transaction.
                assert_eq!(client.query(&steps.join(";")).rows, [[Some("2".to_owned())]]);
            } else {
                let answers: Vec<_> = steps.iter().map(|step| client.query(step)).collect();
                assert_eq!(answers[3].value(), "2");
            }
            assert_eq!(fleet.client().query("select * from brief").error().code(), "42P01");
        }
    });
}

/// A statement whose tables change in a way that leaves its result as it was goes on working, wherever it is prepared.
#[test]
fn a_plan_follows_its_tables() {
    let server = Postgres::start();
    let mut admin = server.admin();
    admin.batch_execute("create table changing (id int, name text); grant all on changing to app").unwrap();
    each(&server, &ALL, &[], |fleet, _| {
        let mut admin = server.admin();
        admin.batch_execute("truncate changing; insert into changing values (1, 'one')").unwrap();
        let mut client = fleet.client();
        client.send(&[parse("mine", "select name from changing where id = $1"), sync()].concat());
        assert_eq!(client.answer().order, "1Z");
        for change in [
            "create index on changing (id)",
            "alter table changing add column more int",
            "alter table changing drop column more",
            "drop index changing_id_idx",
            "analyze changing",
        ] {
            admin.batch_execute(change).unwrap();
            client.send(&[bind("", "mine", &["1"]), execute("", 0), sync()].concat());
            assert_eq!(client.answer().value(), "one", "after {change}");
        }
    });
}

#[test]
fn copy_pipelines_and_function_calls() {
    let server = Postgres::start();
    server.admin().batch_execute("create table lines (line text); grant all on lines to app").unwrap();
    let sqrt: u32 = server.admin().query_one("select 'sqrt(float8)'::regprocedure::oid", &[]).unwrap().get(0);
    each(&server, &[Statement], &[], |fleet, _| {
        let mut client = fleet.client();
        client.query("truncate lines");
        client.send(&[query("copy lines from stdin"), copy_data(b"one\ntwo\n"), copy_done()].concat());
        assert_eq!(client.answer().tags, ["COPY 2"]);
        interrupt(fleet);
        assert_eq!(client.query("copy lines to stdout").copied, b"one\ntwo\n");
        let pipeline: Vec<u8> = (0..20).flat_map(|number| extended("select $1::int", &[&number.to_string()])).collect();
        client.send(&pipeline);
        for number in 0..20 {
            assert_eq!(client.answer().value(), number.to_string());
        }
        let step = |sql: &str| [parse("", sql), bind("", "", &[]), execute("", 0)].concat();
        client.send(&[step("insert into lines values ('three')"), step("select 1/0"), sync()].concat());
        assert_eq!(client.answer().error().code(), "22012");
        assert_eq!(client.value("select count(*) from lines"), "2", "one Sync is one transaction");
        client.send(&frontend::function_call(sqrt, &["9"]));
        let message = client.read();
        assert_eq!((message.kind, &message.body[4..]), (b'V', &b"3"[..]));
        assert_eq!(client.answer().order, "Z");
        interrupt(fleet);
    });
}

#[test]
fn cancel_requests() {
    let server = Postgres::start();
    each(&server, &[Statement], &[], |fleet, _| {
        let mut admin = server.admin();
        let mut client = fleet.client();
        client.send(&query("select pg_sleep(60)"));
        let running = "select 1 from pg_stat_activity where state = 'active' and query = 'select pg_sleep(60)'";
        wait_until("the query to run", SOON, || !admin.query(running, &[]).unwrap().is_empty());
        client.cancel(fleet.port());
        assert_eq!(client.answer().error().code(), "57014");
        // One that is idle has nothing to cancel, and the server's next user is none of its business.
        client.cancel(fleet.port());
        interrupt(fleet);
        assert_eq!(client.value("select 1"), "1");
    });
}
