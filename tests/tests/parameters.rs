//! Session parameters: what a client asked for holds for it, whichever server it gets and whoever had that server before.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Client, Fleet, PoolMode, Postgres, each_fleet, each_worker_count};

const TRACKED: [(&str, &str); 6] = [
    ("client_encoding", "LATIN1"),
    ("DateStyle", "German, DMY"),
    ("TimeZone", "Asia/Tokyo"),
    ("application_name", "first's own; it''s"),
    ("standard_conforming_strings", "off"),
    ("IntervalStyle", "iso_8601"),
];

fn with(fleet: &Fleet, parameters: &[(&str, &str)]) -> Client {
    let mut client = Client::tcp(fleet.port());
    client.start(&[&[("user", "app"), ("database", "app")], parameters].concat(), None).unwrap();
    client
}

#[test]
fn startup_parameters_hold_on_a_shared_server() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder.pool_size(1),
        |fleet| {
            let mut plain = fleet.client();
            let defaults: Vec<String> = TRACKED.iter().map(|(name, _)| plain.value(&format!("show {name}"))).collect();
            let mut own = with(fleet, &TRACKED);
            let mut third = with(fleet, &[("TimeZone", "UTC"), ("application_name", "third")]);
            for _ in 0..4 {
                for (name, value) in TRACKED {
                    assert_eq!(own.value(&format!("show {name}")), value);
                }
                assert_eq!(third.value("show timezone") + &third.value("show application_name"), "UTCthird");
                for ((name, _), default) in TRACKED.iter().zip(&defaults) {
                    assert_eq!(&plain.value(&format!("show {name}")), default, "{name} of the client that asked for nothing");
                }
            }
        },
    );
}

/// Two clients change the same settings by SET; one server takes turns between them.
#[test]
fn set_is_tracked_for_each_client() {
    let server = Postgres::start();
    each_fleet(
        &server,
        |builder| builder.pool_size(2),
        |fleet, _| {
            let mut first = fleet.client();
            let mut second = fleet.client();
            for round in 0..5 {
                let zone = ["Asia/Tokyo", "Europe/Berlin", "UTC", "America/Lima", "Asia/Kolkata"][round];
                let answer = first
                    .query(&format!("set timezone = '{zone}'; set datestyle = 'SQL, DMY'; set application_name = 'first {round}'"));
                assert_eq!(answer.tags, ["SET", "SET", "SET"]);
                assert_eq!(first.parameters["TimeZone"], zone, "ParameterStatus reaches the client that set it");
                second.query(&format!(
                    "set timezone = 'Pacific/Auckland'; set client_encoding = 'LATIN1'; set application_name = 'second {round}'"
                ));
                assert_eq!(first.value("show timezone"), zone);
                assert_eq!(first.value("show datestyle"), "SQL, DMY");
                assert_eq!(first.value("show application_name"), format!("first {round}"));
                assert_eq!(first.value("show client_encoding"), "UTF8");
                assert_eq!(second.value("show timezone"), "Pacific/Auckland");
                assert_eq!(second.value("show datestyle"), "ISO, MDY");
                assert_eq!(second.value("show client_encoding"), "LATIN1");
                assert_eq!(second.value("show application_name"), format!("second {round}"));
            }
        },
    );
}

/// The settings that PostgreSQL sends back when a transaction that changed them is rolled back count, not the SET itself.
#[test]
fn a_rolled_back_set_does_not_hold() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder.pool_size(1),
        |fleet| {
            let mut client = fleet.client();
            let before = client.value("show timezone");
            client.query("begin; set timezone = 'Asia/Tokyo'");
            assert_eq!(client.value("show timezone"), "Asia/Tokyo");
            client.query("rollback");
            fleet.client().query("set timezone = 'Europe/Berlin'");
            assert_eq!(client.value("show timezone"), before);
        },
    );
}

#[test]
fn the_welcome_is_complete_and_the_clients_own() {
    let server = Postgres::start();
    let direct = Client::login(server.port(), "app", "app");
    each_fleet(
        &server,
        |builder| builder,
        |fleet, _| {
            for client in
                [fleet.client(), fleet.client(), with(fleet, &[("client_encoding", "LATIN1"), ("timezone", "Asia/Tokyo")])]
            {
                for name in direct.parameters.keys() {
                    assert!(client.parameters.contains_key(name), "{name} is missing: {:?}", client.parameters);
                }
                assert_eq!(client.parameters["server_version"], direct.parameters["server_version"]);
                assert_eq!(client.key.len(), 8);
                assert_eq!(client.key[0] & 0x80, 0, "drivers read the first half as a positive number");
            }
            let own = with(fleet, &[("client_encoding", "LATIN1"), ("timezone", "Asia/Tokyo")]);
            assert_eq!((own.parameters["client_encoding"].as_str(), own.parameters["TimeZone"].as_str()), ("LATIN1", "Asia/Tokyo"));
        },
    );
}

#[test]
fn a_value_that_postgresql_refuses_is_fatal_for_its_client_only() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder,
        |fleet| {
            let mut good = fleet.client();
            assert_eq!(good.value("select 1"), "1");
            let mut bad = Client::tcp(fleet.port());
            let login = bad.start(&[("user", "app"), ("database", "app"), ("timezone", "Nowhere/Land")], None);
            // At the first query in transaction mode; a login that is checked earlier is as good.
            let fields = login.err().unwrap_or_else(|| {
                bad.send(&end_to_end::frontend::query("select 1"));
                bad.refusal()
            });
            assert_eq!((fields.severity(), fields.code(), fields.text()), ("FATAL", "08P01", "invalid server parameter"));
            assert_eq!(good.value("select 1"), "1");
        },
    );
}

/// In session mode a server is cleaned before the next client gets it; in transaction mode it is not, unless asked for.
#[test]
fn server_reset_query_cleans_up_between_sessions() {
    let server = Postgres::start();
    each_fleet(
        &server,
        |builder| builder.pool_size(1),
        |fleet, mode| {
            let mut first = fleet.client();
            first.query("set work_mem = '17MB'; create temp table left_behind (x int); prepare kept as select 1");
            let pid = first.value("select pg_backend_pid()");
            drop(first);
            let mut second = fleet.client();
            assert_eq!(second.value("select pg_backend_pid()"), pid, "the same server");
            let left = second.query("select * from left_behind");
            match mode {
                PoolMode::Session => {
                    assert_eq!(left.error().code(), "42P01");
                    assert_eq!(second.value("show work_mem"), "4MB");
                    assert_eq!(second.value("select count(*) from pg_prepared_statements"), "0");
                }
                PoolMode::Transaction => assert_eq!(left.errors.len(), 0, "no reset in transaction mode"),
            }
            second.query("discard all");
        },
    );
}

#[test]
fn server_reset_query_can_be_another_or_none() {
    let server = Postgres::start();
    server.admin().batch_execute("create table resets (at timestamptz default now()); grant all on resets to app").unwrap();
    let count = |fleet: &Fleet| fleet.client().value("select count(*) from resets");
    for mode in [PoolMode::Session, PoolMode::Transaction] {
        let own =
            Fleet::builder(&server).pool_mode(mode).pool_size(1).setting("server_reset_query", "insert into resets default values");
        let fleet = own.clone().start();
        drop(fleet.client());
        let before: u32 = count(&fleet).parse().unwrap();
        let after: u32 = count(&fleet).parse().unwrap();
        assert_eq!(after - before, u32::from(mode == PoolMode::Session));
        let fleet = own.setting("server_reset_query_always", 1).start();
        let before: u32 = count(&fleet).parse().unwrap();
        assert_eq!(count(&fleet).parse::<u32>().unwrap() - before, 1, "always");
    }
    let fleet = Fleet::builder(&server).pool_mode(PoolMode::Session).pool_size(1).setting("server_reset_query", "").start();
    fleet.client().query("create temp table left_behind (x int)");
    assert_eq!(fleet.client().query("select * from left_behind").errors.len(), 0, "none");
}
