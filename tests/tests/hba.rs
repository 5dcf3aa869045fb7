//! Who may log in from where and how: auth_hba_file, auth_ident_file, and the methods that only they know.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Builder, Client, Fields, Fleet, Postgres, each_worker_count, program};
use std::net::Ipv4Addr;

const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn with_rules(builder: Builder, rules: &str) -> Builder {
    builder.setting("auth_type", "hba").setting("auth_hba_file", "hba.conf").file("hba.conf", rules)
}

fn log_in(mut client: Client, user: &str, database: &str, password: Option<&str>) -> Result<Client, Fields> {
    client.start(&[("user", user), ("database", database)], password).map(|()| client)
}

#[track_caller]
fn assert_refused(result: Result<Client, Fields>, code: &str, text: &str) {
    let fields = result.expect_err("the login should be refused");
    assert_eq!((fields.severity(), fields.code(), fields.text()), ("FATAL", code, text));
}

/// What the tests' own user is called.
fn own_name() -> String {
    nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name
}

#[test]
fn each_rule_has_its_method_for_its_databases_users_and_addresses() {
    let server = Postgres::start();
    let rules = "\
        local all all trust\n\
        host  app  other  all          reject\n\
        host  app  app    127.0.0.1/32 trust\n\
        host  app  app    127.0.0.0/8  scram-sha-256\n\
        host  more @users all          md5\n\
        hostssl all all   all          trust\n\
        host  secured all all          cert\n\
        host  pgbouncer admin 127.0.0.0 255.255.255.0 password\n\
        host  pgbouncer all   all      reject\n";
    let build = |builder: Builder| {
        let entry = format!("host=127.0.0.1 port={} dbname=app", server.port());
        with_rules(builder, rules).database("more", entry).file("users", "app, \"other\"\n# admin\n")
    };
    each_worker_count(&server, build, |fleet| {
        let port = fleet.port();
        let from = |address| Client::tcp_from(address, port);
        assert_eq!(log_in(from(LOCAL), "app", "app", None).unwrap().value("select 1"), "1");
        assert_eq!(log_in(from(ELSEWHERE), "app", "app", Some("app-password")).unwrap().value("select 1"), "1");
        assert_refused(log_in(from(ELSEWHERE), "app", "app", Some("wrong")), "28P01", "SASL authentication failed");
        assert_refused(log_in(from(LOCAL), "other", "app", None), "28000", "login rejected");
        assert_eq!(log_in(Client::unix(fleet.folder(), port), "other", "app", None).unwrap().value("select 1"), "1");
        assert_refused(
            log_in(Client::unix(fleet.folder(), port), "stranger", "app", None),
            "28P01",
            "\"trust\" authentication failed",
        );
        for user in ["app", "other"] {
            let password = format!("{user}-password");
            assert_eq!(log_in(from(LOCAL), user, "more", Some(&password)).unwrap().value("select 1"), "1");
            assert_refused(log_in(from(LOCAL), user, "more", Some("wrong")), "28P01", "password authentication failed");
        }
        assert_refused(log_in(from(LOCAL), "admin", "more", None), "28000", "no authentication method is found");
        assert_refused(log_in(from(LOCAL), "app", "secured", None), "28000", "certificate authentication failed");
        fleet.wait_for_log("TLS connection required");
        assert_refused(log_in(from(LOCAL), "app", "nowhere", None), "28000", "no authentication method is found");
        for console in ["pgbouncer", "pgfleet"] {
            assert!(log_in(from(LOCAL), "admin", console, Some("admin-password")).is_ok(), "{console}");
            assert_refused(log_in(from(LOCAL), "admin", console, Some("wrong")), "28P01", "password authentication failed");
            assert_refused(log_in(from(LOCAL), "stats", console, None), "28000", "login rejected");
        }
    });
}

#[test]
fn replication_has_rules_of_its_own() {
    let server = Postgres::start();
    let fleet = with_rules(Fleet::builder(&server), "host all all all trust\nhost replication other all trust\n").start();
    let replication = |user: &str, how: &str| {
        let mut client = Client::tcp(fleet.port());
        client.start(&[("user", user), ("database", "app"), ("replication", how)], None).map(|()| client)
    };
    assert_refused(replication("app", "true"), "28000", "no authentication method is found");
    // They come as far as PostgreSQL, which has its own opinion of them.
    for (user, how) in [("other", "true"), ("app", "database")] {
        let text = replication(user, how).map_err(|fields| fields.text().to_owned());
        assert!(text.as_ref().err().is_none_or(|text| text != "no authentication method is found"), "{user}, {how}: {text:?}");
    }
}

#[test]
fn peer_asks_the_operating_system() {
    let server = Postgres::start();
    let own = own_name();
    let rules = "local mapped all peer map=m\nlocal all all peer\nhost app all all peer\n";
    let ident = format!("m nobody-at-all all\nm {own} app\nall {own} all\n");
    let build = |builder: Builder| {
        let entry = format!("host=127.0.0.1 port={} dbname=app user=app", server.port());
        let builder = with_rules(builder, rules).database("mapped", &entry).database("forced", &entry);
        builder.setting("auth_ident_file", "ident.conf").file("ident.conf", &ident)
    };
    each_worker_count(&server, build, |fleet| {
        let unix = |user: &str, database: &str| log_in(Client::unix(fleet.folder(), fleet.port()), user, database, None);
        for _ in 0..3 {
            assert_eq!(unix("app", "mapped").unwrap().value("select current_user"), "app");
            assert_eq!(unix(&own, "forced").unwrap().value("select 1"), "1");
        }
        let url = format!("host={} port={} dbname=forced user={own}", fleet.folder().display(), fleet.port());
        assert_eq!(program::psql(&url, "select current_user"), Ok("app".to_owned()));
        assert_refused(unix("other", "mapped"), "28000", "unix socket login rejected");
        fleet.wait_for_log("ident map: m does not have a match");
        assert_refused(unix("app", "app"), "28000", "unix socket login rejected");
        assert_refused(log_in(Client::tcp(fleet.port()), &own, "app", None), "28000", "unix socket login rejected");
    });
}

#[test]
fn what_is_sent_before_the_system_has_answered_is_not_lost() {
    let server = Postgres::start();
    let entry = format!("host=127.0.0.1 port={} dbname=app user=app", server.port());
    let fleet = with_rules(Fleet::builder(&server), "local all all peer\n").database("forced", entry).start();
    let mut client = Client::unix(fleet.folder(), fleet.port());
    let own = own_name();
    let startup = end_to_end::frontend::startup(&[("user", &own), ("database", "forced")]);
    client.send(&[startup, end_to_end::frontend::query("select 7")].concat());
    client.authenticate(&own, None).unwrap();
    assert_eq!(client.answer().value(), "7");
}

#[test]
fn a_reload_applies_new_rules_or_none() {
    let server = Postgres::start();
    let build = |builder: Builder| with_rules(builder, "local all all trust\nhost all all all trust\n");
    each_worker_count(&server, build, |fleet| {
        let workers = fleet.all_workers();
        let log_in_everywhere = |expected: Option<&str>| {
            for _ in 0..4 * workers.len() {
                let result = log_in(Client::tcp(fleet.port()), "app", "app", None);
                assert_eq!(result.err().map(|fields| fields.text().to_owned()).as_deref(), expected);
            }
        };
        log_in_everywhere(None);
        let mut console = fleet.console();
        let folder = fleet.folder().display().to_string();
        let rules = |text: &str| std::fs::write(format!("{folder}/hba.conf"), text).unwrap();
        rules("local all all trust\nhost all all all reject\n");
        assert_eq!(console.query("reload").tags, ["RELOAD"]);
        log_in_everywhere(Some("login rejected"));

        rules("local all all trust\nhost all all all trust\nhosts all all all reject\n");
        console.query("reload").error();
        fleet.wait_for_log("hba.conf:3: auth_hba_file: hba line 3: unknown type: hosts");
        log_in_everywhere(Some("login rejected"));

        assert_eq!(console.query("set auth_type = 'trust'").tags.len(), 1);
        log_in_everywhere(None);
        console.query("set auth_type = 'hba'").error();
        rules("local all all trust\nhost all all all trust\n");
        assert_eq!(console.query("set auth_type = 'hba'").tags.len(), 1);
        log_in_everywhere(None);
    });
}

#[test]
fn a_fleet_does_not_start_on_rules_that_it_does_not_understand() {
    let server = Postgres::start();
    for (rules, expected) in [
        (
            "host all +admins all reject\nhost all all all trust\n",
            "hba.conf:1: auth_hba_file: hba line 1: +admins is not supported",
        ),
        ("include more.conf\n", "hba.conf:1: auth_hba_file: hba line 1: could not open file"),
    ] {
        let unstarted = with_rules(Fleet::builder(&server), rules).write();
        let output = unstarted.command(&[]).status().unwrap();
        assert_eq!(output.code(), Some(1));
        let log = std::fs::read_to_string(unstarted.folder().join("log.txt")).unwrap();
        assert!(log.contains(expected), "{log}");
    }
}

#[test]
fn any_makes_everybody_the_forced_user() {
    let server = Postgres::start();
    let build = |builder: Builder| {
        let entry = format!("host=127.0.0.1 port={} dbname=app user=app", server.port());
        builder.setting("auth_type", "any").database("forced", entry)
    };
    each_worker_count(&server, build, |fleet| {
        let log_in = |user: &str, database: &str| log_in(Client::tcp(fleet.port()), user, database, None);
        assert_eq!(log_in("whoever", "forced").unwrap().value("select current_user"), "app");
        assert_refused(log_in("app", "app"), "08P01", "bouncer config error");
        fleet.wait_for_log("auth_type=any requires forced user");
        assert_refused(log_in("app", "nowhere"), "3D000", "no such database: nowhere");
        let mut client = log_in("whoever", "pgbouncer").unwrap();
        assert_eq!(client.query("show version").tags, ["SHOW"]);
        assert_eq!(client.query("reload").error().text(), "admin access needed");
        assert_eq!(log_in("admin", "pgbouncer").unwrap().query("reload").tags, ["RELOAD"]);
    });
}
