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
            let fields = bad.start(&[("user", "app"), ("database", "app"), ("timezone", "Nowhere/Land")], None).unwrap_err();
            let text = "invalid value for parameter \"TimeZone\": \"Nowhere/Land\"";
            assert_eq!((fields.severity(), fields.code(), fields.text()), ("FATAL", "22023", text));
            // While no server can be asked, a login is not held up; what PostgreSQL thinks of its values shows at the first query.
            fleet.console().query("pause");
            let mut late = Client::tcp(fleet.port());
            late.start(&[("user", "app"), ("database", "app"), ("timezone", "Nowhere/Else")], None).unwrap();
            fleet.console().query("resume");
            late.send(&end_to_end::frontend::query("select 1"));
            let fields = late.refusal();
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

fn refused(fleet: &Fleet, parameters: &[(&str, &str)]) -> (String, String) {
    let mut client = Client::tcp(fleet.port());
    let error = client.start(&[&[("user", "app"), ("database", "app")], parameters].concat(), None).unwrap_err();
    assert_eq!(error.severity(), "FATAL");
    (error.code().to_owned(), error.text().to_owned())
}

/// Whatever PostgreSQL takes at startup holds for the client, and for nobody else on the same server.
#[test]
fn any_startup_parameter_is_applied() {
    let server = Postgres::start();
    each_fleet(
        &server,
        |builder| builder.pool_size(1),
        |fleet, mode| {
            let values = [("extra_float_digits", "2"), ("statement_timeout", "7s"), ("search_path", "one, \"Two\"")];
            for _ in 0..2 {
                let options = ("options", r"-c work_mem=5MB --lock-timeout=3s -c my.own=a\ b");
                let mut own = with(fleet, &[&values[..], &[options]].concat());
                for (name, value) in values.iter().chain(&[("work_mem", "5MB"), ("lock_timeout", "3s"), ("my.own", "a b")]) {
                    assert_eq!(own.value(&format!("show {name}")), *value);
                }
                if mode == PoolMode::Session {
                    drop(own);
                    own = with(fleet, &[]);
                }
                let mut plain = if mode == PoolMode::Session { own } else { fleet.client() };
                assert_eq!(plain.value("show statement_timeout") + &plain.value("show work_mem"), "04MB");
                assert_eq!(plain.value("show search_path"), "\"$user\", public");
                assert_eq!(plain.value("select current_setting('my.own', true) is null or current_setting('my.own') = ''"), "t");
            }
            // What PostgreSQL does not take is refused with its own words, as by a direct connection.
            let unknown = refused(fleet, &[("no_such_parameter", "1")]);
            assert_eq!(unknown, ("42704".into(), "unrecognized configuration parameter \"no_such_parameter\"".into()));
            let (code, text) = refused(fleet, &[("TimeZone", "Nowhere")]);
            assert_eq!((code.as_str(), text.as_str()), ("22023", "invalid value for parameter \"TimeZone\": \"Nowhere\""));
            assert_eq!(refused(fleet, &[("options", "-c shared_buffers=1MB")]).0, "55P02");
            assert_eq!(fleet.client().value("select 1"), "1");
        },
    );
}

#[test]
fn startup_parameters_can_be_refused_as_by_pgbouncer() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).setting("startup_parameters", "reject").start();
    let text = |parameters: &[(&str, &str)]| refused(&fleet, parameters);
    let refusal = |text: &str| ("08P01".to_owned(), text.to_owned());
    assert_eq!(text(&[("extra_float_digits", "2")]), refusal("unsupported startup parameter: extra_float_digits"));
    assert_eq!(
        text(&[("options", "-c statement_timeout=1")]),
        refusal("unsupported startup parameter in options: statement_timeout")
    );
    let mut tracked = with(&fleet, &[("datestyle", "German"), ("options", "-c IntervalStyle=iso_8601")]);
    assert_eq!(tracked.value("show datestyle") + &tracked.value("show intervalstyle"), "German, DMYiso_8601");
}

/// A client is told the server's spelling of its values, whether the pool has learned it before or not.
#[test]
fn values_are_told_back_as_the_server_spells_them() {
    let server = Postgres::start();
    each_fleet(
        &server,
        |builder| builder.pool_size(2),
        |fleet, _| {
            for _ in 0..3 {
                let own = with(fleet, &[("client_encoding", "utf-8"), ("timezone", "europe/BERLIN"), ("datestyle", "iso")]);
                let told = |name: &str| own.parameters[name].clone();
                let spelled = [told("client_encoding"), told("TimeZone"), told("DateStyle")];
                assert_eq!(spelled, ["UTF8", "Europe/Berlin", "ISO, MDY"]);
            }
        },
    );
}

/// RESET, RESET ALL and DISCARD ALL go back to what the client asked for at startup, not to the server's own defaults.
#[test]
fn reset_goes_back_to_the_startup_values() {
    let server = Postgres::start();
    each_fleet(
        &server,
        |builder| builder.pool_size(1),
        |fleet, mode| {
            let mut own = with(fleet, &[("TimeZone", "Asia/Tokyo"), ("options", "-c statement_timeout=7s -c work_mem=5MB")]);
            for reset in ["reset all", "discard all", "select 1; reset all"] {
                own.query("set timezone = 'UTC'");
                if mode == PoolMode::Session {
                    own.query("set statement_timeout = '1h'");
                }
                assert!(own.query(reset).errors.is_empty());
                assert_eq!(own.value("show timezone"), "Asia/Tokyo", "after {reset}");
                assert_eq!(own.value("show statement_timeout") + &own.value("show work_mem"), "7s5MB", "after {reset}");
                assert_eq!(own.parameters["TimeZone"], "Asia/Tokyo");
            }
            own.query("set timezone = 'UTC'");
            own.query("reset statement_timeout");
            assert_eq!(own.value("show timezone"), "UTC", "only what was named is set back");
            assert_eq!(own.value("show statement_timeout"), "7s");
            own.send(&end_to_end::frontend::extended("reset timezone", &[]));
            assert!(own.answer().errors.is_empty());
            assert_eq!(own.value("show timezone"), "Asia/Tokyo");
            own.query("begin");
            own.query("set timezone = 'UTC'");
            own.query("reset timezone");
            own.query("rollback");
            assert_eq!(own.value("show timezone"), "Asia/Tokyo");
        },
    );
}

#[test]
fn application_name_add_host_appends_the_clients_address() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder.setting("application_name_add_host", 1),
        |fleet| {
            for (asked, name) in [(&[("application_name", "mine")][..], "mine"), (&[], "app")] {
                let mut client = with(fleet, asked);
                let expected = format!("{name} - 127.0.0.1:{}", client.local_port());
                assert_eq!(client.value("show application_name"), expected);
                assert_eq!(client.parameters["application_name"], expected);
                client.query("set application_name = 'other'");
                assert_eq!(client.value("show application_name"), "other");
            }
        },
    );
}

/// In session mode a client can be told the process that serves it; cancelling works as ever.
#[test]
fn report_backend_pid_tells_the_servers_process() {
    let server = Postgres::start();
    each_fleet(
        &server,
        |builder| builder.pool_size(3).setting("report_backend_pid", 1),
        |fleet, mode| {
            let mut client = fleet.client();
            let told = client.key[..4].iter().fold(0_u32, |pid, byte| pid << 8 | u32::from(*byte));
            assert_eq!(client.value("select pg_backend_pid()") == told.to_string(), mode == PoolMode::Session);
            let mut admin = server.admin();
            for _ in 0..6 {
                client.send(&end_to_end::frontend::query("select pg_sleep(60)"));
                end_to_end::wait_until("the query to run", end_to_end::SOON, || {
                    let running = "select count(*) from pg_stat_activity where state = 'active' and query like '%pg_sleep(60)'";
                    admin.query_one(running, &[]).unwrap().get::<_, i64>(0) == 1
                });
                client.cancel(fleet.port());
                assert_eq!(client.answer().error().code(), "57014");
            }
        },
    );
}

/// What one client's startup values are is nobody else's, whatever goes wrong while they are set or set back.
#[test]
fn values_never_reach_another_client() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder.pool_size(1),
        |fleet| {
            let path = ("search_path", "tenant_a");
            let mut first = with(fleet, &[path]);
            assert_eq!(first.value("show search_path"), "tenant_a");
            // One that is refused sets nothing back: the connection still has the first one's values.
            assert_eq!(refused(fleet, &[("nosuch", "1")]).0, "42704");
            assert_eq!(fleet.client().value("show search_path"), "\"$user\", public");
            // A RESET that fails is not the one that succeeds later.
            assert_eq!(first.query("reset nosuch").error().code(), "42704");
            assert!(first.query("reset all").errors.is_empty());
            assert_eq!(with(fleet, &[path]).value("show search_path"), "tenant_a");
            // A style without an order has the server's own, not the last client's.
            fleet.client().query("set datestyle = 'SQL, DMY'");
            for _ in 0..2 {
                let mut iso = with(fleet, &[("DateStyle", "ISO")]);
                assert_eq!(iso.parameters["DateStyle"].clone() + &iso.value("show datestyle"), "ISO, MDYISO, MDY");
            }
            // Case matters in a name.
            let mut upper = with(fleet, &[("application_name", "App")]);
            let mut lower = with(fleet, &[("application_name", "app")]);
            assert_eq!(upper.value("show application_name") + &lower.value("show application_name"), "Appapp");
        },
    );
}

/// Npgsql sends DISCARD ALL and its first command in one breath.
#[test]
fn nothing_goes_past_a_reset_in_a_pipeline() {
    let server = Postgres::start();
    each_fleet(
        &server,
        |builder| builder.pool_size(1),
        |fleet, _| {
            let mut client = with(fleet, &[("search_path", "tenant_a")]);
            for reset in ["discard all", "reset search_path", "RESET ALL"] {
                let show = end_to_end::frontend::extended("show search_path", &[]);
                client.send(&[end_to_end::frontend::query(reset), end_to_end::frontend::query("show search_path"), show].concat());
                assert!(client.answer().errors.is_empty());
                for _ in 0..2 {
                    assert_eq!(client.answer().value(), "tenant_a", "after {reset}");
                }
            }
        },
    );
}

/// A value that nobody has asked for before has a server look at it; a pool that is full does not hold the login up for that.
#[test]
fn a_full_pool_holds_up_no_login() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder.pool_size(1),
        |fleet| {
            let mut holder = fleet.client();
            holder.query("begin");
            let mut late = with(fleet, &[("TimeZone", "asia/tokyo"), ("options", "-c statement_timeout=7s")]);
            assert_eq!(late.parameters["TimeZone"], "asia/tokyo", "in its own spelling");
            holder.query("commit");
            assert_eq!(late.value("show timezone") + &late.value("show statement_timeout"), "Asia/Tokyo7s");
            assert_eq!(late.parameters["TimeZone"], "Asia/Tokyo", "told when it is known");
        },
    );
}
