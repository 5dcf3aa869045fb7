//! A reload applies to all workers or to none, and no client notices either.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::program::{postgres_program, stderr, stdout};
use end_to_end::{Client, Fleet, Postgres, SOON, Sampler, backends, each_worker_count, frontend, holds_within, wait_until};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::time::Duration;

fn config(fleet: &Fleet, name: &str) -> String {
    fleet.console().query("show config").lookup("key", name, "value")
}

#[test]
fn valid_and_invalid_changes_under_load() {
    let server = Postgres::start();
    for workers in [2, 4] {
        let mut fleet = Fleet::builder(&server).workers(workers).pool_size(10).start();
        fleet.all_workers();
        let sampler = Sampler::start(&server);
        let script = fleet.folder().join("select.sql");
        std::fs::write(&script, "select 1;\n").unwrap();
        let mut load = postgres_program("pgbench");
        load.args(["-n", "-M", "extended", "-c", "40", "-j", "2", "-T", "6", "-f"]).arg(&script).arg(fleet.url());
        let load = load.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
        wait_until("the load to run", SOON, || {
            fleet
                .console()
                .query("show pools")
                .find("user", "app", "cl_active")
                .is_some_and(|count| count.parse::<u32>().unwrap() > 20)
        });
        // In force in every worker: the pool grows to what it may be now.
        fleet.change("default_pool_size", 15);
        fleet.change("query_wait_timeout", 77);
        fleet.signal(Signal::SIGHUP);
        wait_until("the reload", SOON, || config(&fleet, "default_pool_size") == "15");
        assert_eq!(config(&fleet, "query_wait_timeout"), "77");
        let mut admin = server.admin();
        wait_until("the pool to grow", SOON, || backends(&mut admin) == 15);
        // Refused whole: the good line in the same file is not applied either.
        fleet.change("default_pool_size", 18);
        fleet.change("query_wait_timeout", "nonsense");
        fleet.signal(Signal::SIGHUP);
        let line = fleet.wait_for_log("query_wait_timeout: invalid value");
        assert!(line.contains("ERROR") || line.contains("WARNING"), "{line}");
        assert_eq!((config(&fleet, "default_pool_size"), config(&fleet, "query_wait_timeout")), ("15".to_owned(), "77".to_owned()));
        let output = load.wait_with_output().unwrap();
        let said = format!("{}\n{}", stdout(&output), stderr(&output));
        assert!(output.status.success() && said.contains("number of failed transactions: 0 "), "{said}");
        assert_eq!(sampler.finish().most, 15);
    }
}

#[test]
fn every_worker_applies_it() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder,
        |fleet| {
            let workers = fleet.all_workers();
            let mut clients: Vec<Client> = workers.iter().map(|&pid| fleet.client_at(pid)).collect();
            let entry = format!("host=127.0.0.1 port={} dbname=app", server.port());
            fleet.change_database("added", entry);
            assert_eq!(fleet.console().query("reload").tags, ["RELOAD"]);
            // A client at each worker finds the new entry at once: the answer came after the last worker had it.
            let mut reached = BTreeSet::new();
            while reached.len() < workers.len() {
                let mut client = Client::login(fleet.port(), "app", "added");
                assert_eq!(client.value("select 1"), "1");
                reached.insert(fleet.worker_of(&client));
            }
            for client in &mut clients {
                assert_eq!(client.value("select 1"), "1");
            }
        },
    );
}

#[test]
fn the_console_says_why_a_reload_failed() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).start();
    for (name, value) in [("pool_mode", "sometimes"), ("no_such_setting", "1"), ("max_client_conn", "many")] {
        let before = fleet.console().query("show config").rows;
        fleet.change(name, value);
        let answer = fleet.console().query("reload");
        assert_eq!((answer.error().severity(), answer.error().code()), ("ERROR", "F0000"));
        assert_eq!(answer.error().text(), "RELOAD failed, see logs for additional details");
        let detail = &answer.error().0[&'D'];
        assert!(detail.contains("pgfleet.ini:") && detail.contains(name), "{detail}");
        fleet.wait_for_log(name);
        assert_eq!(fleet.console().query("show config").rows, before, "{name} = {value} left a trace");
        fleet.unset(name);
        assert_eq!(fleet.console().query("reload").tags, ["RELOAD"]);
    }
}

#[test]
fn a_reload_tells_what_has_changed() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).start();
    let reload = |fleet: &Fleet| {
        let answer = fleet.console().query("reload");
        assert_eq!(answer.tags, ["RELOAD"]);
        answer.notices.iter().map(|notice| format!("{} {}", notice.severity(), notice.text())).collect::<Vec<_>>()
    };
    assert_eq!(reload(&fleet), ["NOTICE nothing has changed"]);
    fleet.change("query_timeout", 30);
    fleet.change("listen_backlog", 77);
    fleet.change_database("added", format!("host=127.0.0.1 port={} password=hidden", server.port()));
    fleet.change_secret("other", "another-secret");
    let lines = [
        "query_timeout: 30, was 0",
        "databases added: added",
        "auth_file: users with another secret: other",
        "listen_backlog: 77 needs pgfleet to be stopped and started; until then 128 stays in force",
    ];
    let notices = ["NOTICE", "NOTICE", "NOTICE", "WARNING"].iter().zip(lines).map(|(severity, line)| format!("{severity} {line}"));
    assert_eq!(reload(&fleet), notices.collect::<Vec<_>>());
    for line in lines {
        fleet.wait_for_log(line);
    }
    assert_eq!(config(&fleet, "listen_backlog"), "128");
    assert_eq!(fleet.logged("another-secret") + fleet.logged("hidden"), 0);
    // A bad value says so where it was set.
    let refused = fleet.console().query("set query_timeout = 'nonsense'");
    let detail = "invalid value \"nonsense\" for parameter query_timeout: must be a number of seconds";
    assert_eq!(refused.error().0[&'D'], detail);
}

/// They were read from the configuration that a client's session began with, or so their rows in the table had it.
#[test]
fn settings_that_pgbouncer_reads_only_at_its_start() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).setting("startup_parameters", "reject").start();
    let mut client = fleet.client();
    assert_eq!(client.value("select 1"), "1");
    fleet.change("track_extra_parameters", "IntervalStyle, default_transaction_read_only");
    fleet.change("disable_pqexec", 1);
    assert_eq!(fleet.console().query("reload").notices.len(), 2);
    client.send(&frontend::query("select 1"));
    assert_eq!(client.refusal().text(), "PQexec disallowed");
    let parameters = [("user", "app"), ("database", "app"), ("default_transaction_read_only", "on")];
    assert_eq!(Client::tcp(fleet.port()).start(&parameters, None), Ok(()));
}

/// Each is answered, few are carried out, and what the file says in the end is in force.
#[test]
fn a_storm_of_reloads_is_a_few() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(4).start();
    fleet.all_workers();
    let mut client = fleet.client();
    let mut consoles: Vec<Client> = (0..50).map(|_| fleet.console()).collect();
    let before = fleet.logged("RELOAD done");
    for round in 0..200 {
        fleet.change("query_timeout", 100 + round);
        fleet.signal(Signal::SIGHUP);
        if round % 4 == 0 {
            consoles[round / 4].send(&frontend::query("reload"));
        }
        assert_eq!(client.value("select 1"), "1");
    }
    for console in &mut consoles {
        assert_eq!(console.answer().tags, ["RELOAD"]);
    }
    wait_until("the last value to be in force", SOON, || config(&fleet, "query_timeout") == "299");
    let done = fleet.logged("RELOAD done") - before;
    println!("{done} reloads for 250 requests");
    // All at once: those that came while the file was read are one more.
    let before = fleet.logged("RELOAD done");
    for console in &mut consoles {
        console.send(&frontend::query("reload"));
        fleet.signal(Signal::SIGHUP);
    }
    for console in &mut consoles {
        assert_eq!(console.answer().tags, ["RELOAD"]);
    }
    let done = fleet.logged("RELOAD done") - before;
    assert!(done <= 25, "{done} reloads for 50 requests at once");
}

#[test]
fn a_missing_file_changes_nothing() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).start();
    std::fs::remove_file(fleet.config_path()).unwrap();
    fleet.signal(Signal::SIGHUP);
    fleet.wait_for_log("config file loading failed");
    assert_eq!(fleet.client().value("select 1"), "1");
}

#[test]
fn users_come_and_go_with_the_auth_file() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder.setting("auth_type", "md5"),
        |fleet| {
            let log_in = |user: &str, password: &str| {
                Client::tcp(fleet.port())
                    .start(&[("user", user), ("database", "app")], Some(password))
                    .map_err(|fields| fields.code().to_owned())
            };
            assert_eq!(log_in("app", "app-password"), Ok(()));
            let file = fleet.folder().join("userlist.txt");
            let text =
                std::fs::read_to_string(&file).unwrap().replace("app-password", "changed") + "\"plain_user\" \"plain-password\"\n";
            std::fs::write(&file, text).unwrap();
            fleet.signal(Signal::SIGHUP);
            // Every worker: 16 logins in a row see the new file, once the reload is through.
            wait_until("the reload", SOON, || (0..16).all(|_| log_in("app", "changed").is_ok()));
            assert_eq!(log_in("app", "app-password"), Err("28P01".to_owned()));
            assert_eq!(log_in("plain_user", "plain-password"), Ok(()));
        },
    );
}

#[test]
fn a_lowered_limit_closes_the_surplus() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder.pool_size(10),
        |fleet| {
            let mut admin = server.admin();
            wait_until("the servers of the fleet before to go", SOON, || backends(&mut admin) == 0);
            let mut clients: Vec<Client> = (0..10).map(|_| fleet.client()).collect();
            for client in &mut clients {
                client.query("begin");
            }
            assert_eq!(backends(&mut admin), 10);
            fleet.change("default_pool_size", 4);
            fleet.signal(Signal::SIGHUP);
            wait_until("the reload", SOON, || config(fleet, "default_pool_size") == "4");
            // Transactions under way end in peace.
            for client in &mut clients {
                assert_eq!(client.query("commit").tags, ["COMMIT"]);
            }
            wait_until("the surplus to be closed", SOON, || backends(&mut admin) <= 4);
            let mut sleeping = Vec::new();
            for client in &mut clients {
                client.send(&frontend::query("select pg_sleep(0.2)"));
                sleeping.push(client);
            }
            let over = holds_within(Duration::from_millis(600), || backends(&mut admin) > 4);
            assert!(!over, "more than 4 after the limit was lowered");
            for client in sleeping {
                assert_eq!(client.answer().errors.len(), 0);
            }
        },
    );
}

/// Servers of an entry that now leads elsewhere are not used any more; clients stay.
#[test]
fn a_changed_database_entry_moves_its_clients_over() {
    let server = Postgres::start();
    server.admin().batch_execute("create database second owner app").unwrap();
    each_worker_count(
        &server,
        |builder| builder,
        |fleet| {
            let mut clients: Vec<Client> = (0..6).map(|_| fleet.client()).collect();
            for client in &mut clients {
                assert_eq!(client.value("select current_database()"), "app");
            }
            fleet.change_database("app", format!("host=127.0.0.1 port={} dbname=second", server.port()));
            assert_eq!(fleet.console().query("reload").tags, ["RELOAD"]);
            for client in &mut clients {
                assert_eq!(client.value("select current_database()"), "second");
            }
            fleet.change_database("app", format!("host=127.0.0.1 port={}", server.port()));
            assert_eq!(fleet.console().query("reload").tags, ["RELOAD"]);
        },
    );
}
