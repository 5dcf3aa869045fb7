//! Users that only PostgreSQL knows: auth_user, auth_query, auth_dbname.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Builder, Client, Fields, Fleet, Postgres, SOON, each_worker_count, program::psql, wait_until};

fn log_in(fleet: &Fleet, user: &str, database: &str, password: &str) -> Result<Client, Fields> {
    let mut client = Client::tcp(fleet.port());
    client.start(&[("user", user), ("database", database)], Some(password)).map(|()| client)
}

#[track_caller]
fn assert_refused(result: Result<Client, Fields>, code: &str, text: &str) {
    let fields = result.expect_err("the login should be refused");
    assert_eq!((fields.severity(), fields.code(), fields.text()), ("FATAL", code, text));
}

/// Clients log in by SCRAM; whom auth_file does not know, the superuser looks up.
fn asking(builder: Builder) -> Builder {
    builder.setting("auth_type", "scram-sha-256").setting("auth_user", "postgres")
}

#[test]
fn a_user_of_postgresql_logs_in_through_to_its_server() {
    let server = Postgres::start();
    each_worker_count(&server, asking, |fleet| {
        for _ in 0..4 {
            let mut client = log_in(fleet, "scram_user", "app", "scram-password").unwrap();
            assert_eq!(client.value("select current_user"), "scram_user");
        }
        let url = format!("host=127.0.0.1 port={} user=scram_user dbname=app", fleet.port());
        assert_eq!(psql(&format!("{url} password=scram-password"), "select 7").unwrap(), "7");
        let complaint = psql(&format!("{url} password=wrong"), "select 7").unwrap_err();
        assert!(complaint.contains("FATAL:  SASL authentication failed"), "{complaint}");
    });
}

#[test]
fn a_stranger_hears_what_a_wrong_password_does() {
    let server = Postgres::start();
    let fleet = asking(Fleet::builder(&server)).start();
    for (user, password) in
        [("scram_user", "wrong"), ("stranger", "scram-password"), ("x' or rolname='scram_user", "scram-password")]
    {
        assert_refused(log_in(&fleet, user, "app", password), "28P01", "SASL authentication failed");
    }
    assert_eq!(fleet.logged("no such user: stranger"), 1);
    assert_eq!(fleet.log().lines().filter(|line| line.ends_with(" login failed: db=app")).count(), 2);
    for method in ["md5", "plain"] {
        let fleet = asking(Fleet::builder(&server)).setting("auth_type", method).start();
        assert!(log_in(&fleet, "scram_user", "app", "scram-password").is_ok(), "{method}");
        for (user, password) in [("scram_user", "wrong"), ("stranger", "scram-password")] {
            assert!(log_in(&fleet, user, "app", password).is_err_and(|fields| fields.code() == "28P01"), "{method} {user}");
        }
    }
}

/// PgBouncer takes NULL for the password `md5`.
#[test]
fn null_is_no_password() {
    let server = Postgres::start();
    server.admin().batch_execute("create role nobody login; create role late login password 'x' valid until '2001-01-01'").unwrap();
    for method in ["plain", "md5", "scram-sha-256"] {
        let fleet = asking(Fleet::builder(&server)).setting("auth_type", method).start();
        for password in ["md5", "null", "x"] {
            for user in ["nobody", "late"] {
                let refusal = log_in(&fleet, user, "app", password).expect_err("refused");
                assert_eq!(refusal.code(), "28P01", "{method} {user} {password}");
            }
        }
    }
}

#[test]
fn one_connection_serves_lookup_after_lookup() {
    let server = Postgres::start();
    let fleet = asking(Fleet::builder(&server)).workers(1).start();
    for _ in 0..5 {
        log_in(&fleet, "scram_user", "app", "scram-password").unwrap();
        assert!(log_in(&fleet, "stranger", "app", "x").is_err());
    }
    let own =
        "select count(*) from pg_stat_activity where usename = 'postgres' and application_name <> 'harness' and datname = 'app'";
    let count: i64 = server.admin().query_one(own, &[]).unwrap().get(0);
    assert_eq!(count, 1);
    let closed = fleet.log().lines().filter(|line| line.contains("S-") && line.contains("closing because")).count();
    assert_eq!(closed, 0, "{}", fleet.log());
    let stats = log_in(&fleet, "admin", "pgbouncer", "admin-password").unwrap().query("show pools");
    assert_eq!(stats.lookup("user", "postgres", "sv_idle"), "1");
}

#[test]
fn the_name_that_comes_back_is_the_users() {
    let server = Postgres::start();
    let fleet = asking(Fleet::builder(&server))
        .setting("auth_query", "select 'scram_user', rolpassword from pg_authid where rolname = 'scram_user' and $1 <> 'nobody'")
        .start();
    let mut client = log_in(&fleet, "anything", "app", "scram-password").unwrap();
    assert_eq!(client.value("select current_user"), "scram_user");
    assert_refused(log_in(&fleet, "nobody", "app", "scram-password"), "28P01", "SASL authentication failed");
}

#[test]
fn what_makes_no_sense_is_a_config_error() {
    let server = Postgres::start();
    let database = format!("host=127.0.0.1 port={} dbname=app", server.port());
    let fleet = asking(Fleet::builder(&server))
        .database("three", format!("{database} auth_query='select 1, 2, 3 where $1 <> $1'"))
        .database("nonsense", format!("{database} auth_query='select nonsense'"))
        .database("empty", format!("{database} auth_query=';'"))
        .database("copy", format!("{database} auth_query='copy (select 1) to stdout'"))
        .database("elsewhere", format!("{database} auth_dbname=nowhere"))
        .database("disabled", format!("{database} auth_dbname=app"))
        .database("asker", format!("{database} auth_user=no_such_role"))
        .start();
    for database in ["three", "nonsense", "empty", "copy", "elsewhere", "asker", "pgbouncer"] {
        assert_refused(log_in(&fleet, "scram_user", database, "scram-password"), "08P01", "bouncer config error");
        println!("{database}");
    }
    for text in [
        "expected 2 columns from auth_query, not 3",
        "S: error in auth_query: ERROR: ",
        "authentication database \"nowhere\" is not configured.",
    ] {
        assert!(fleet.logged(text) > 0, "{text} in {}", fleet.log());
    }
    log_in(&fleet, "admin", "pgbouncer", "admin-password").unwrap().query("disable app");
    let text = "authentication database \"app\" is disabled";
    assert_refused(log_in(&fleet, "scram_user", "disabled", "scram-password"), "08P01", text);
}

/// A forced user is who runs queries, not who looks users up; and who is known to the console is looked up in auth_dbname.
#[test]
fn entries_with_a_user_and_the_console() {
    let server = Postgres::start();
    let at = format!("host=127.0.0.1 port={} dbname=app", server.port());
    let fleet = asking(Fleet::builder(&server))
        .setting("auth_dbname", "app")
        .setting("admin_users", "scram_user")
        .database("forced", format!("{at} user=md5_user password=md5-password auth_dbname=forced"))
        .start();
    assert_eq!(log_in(&fleet, "scram_user", "forced", "scram-password").unwrap().value("select current_user"), "md5_user");
    let mut console = log_in(&fleet, "scram_user", "pgbouncer", "scram-password").unwrap();
    let pools = console.query("show pools");
    assert!(pools.find("user", "postgres", "database").is_some() && pools.find("user", "md5_user", "database").is_some());
    assert!(log_in(&fleet, "stranger", "pgbouncer", "x").is_err());
}

/// What a client has set on a connection of the same pool has no bearing on the query (CVE-2025-12819).
#[test]
fn nothing_that_clients_have_set_reaches_the_query() {
    let server = Postgres::start();
    let mut admin = server.admin();
    admin
        .batch_execute(
            "create schema bad; create table bad.users (name text, secret text); insert into bad.users values ('eve', 'eve');
             create table public.users (name text, secret text); insert into public.users values ('joe', 'joe');
             grant usage on schema bad to app; grant select on bad.users, public.users to app",
        )
        .unwrap();
    let fleet = Fleet::builder(&server)
        .workers(1)
        .pool_size(1)
        .setting("auth_type", "plain")
        .setting("auth_user", "app")
        .setting("auth_query", "select name, secret from users where name = $1")
        .start();
    let mut client = Client::tcp(fleet.port());
    client.start(&[("user", "app"), ("database", "app"), ("options", "-c search_path=bad")], Some("app-password")).unwrap();
    assert_eq!(client.value("select name from users"), "eve", "the one connection has it set");
    assert_refused(log_in(&fleet, "eve", "app", "eve"), "28P01", "password authentication failed");
    let error = log_in(&fleet, "joe", "app", "joe").expect_err("there is no such role in PostgreSQL");
    assert_eq!(error.text(), "role \"joe\" does not exist", "but in the table");
    let mut eve = Client::tcp(fleet.port());
    let error = eve.start(&[("user", "eve"), ("database", "app"), ("options", "-c search_path=bad")], Some("eve"));
    assert_eq!(error.expect_err("refused").code(), "28P01");
    assert_eq!(client.value("select name from users"), "eve");
}

#[test]
fn a_login_waits_for_its_lookup_like_a_client() {
    let server = Postgres::start();
    let fleet = asking(Fleet::builder(&server)).pool_size(1).start();
    let mut console = log_in(&fleet, "admin", "pgbouncer", "admin-password").unwrap();
    log_in(&fleet, "scram_user", "app", "scram-password").unwrap();
    console.query("pause app");
    let mut waiting = Client::tcp(fleet.port());
    waiting.send(&end_to_end::frontend::startup(&[("user", "scram_user"), ("database", "app")]));
    wait_until("the login to stand in the queue", SOON, || {
        console.query("show pools").lookup("user", "postgres", "cl_waiting") == "1"
    });
    console.query("resume app");
    waiting.authenticate("scram_user", Some("scram-password")).unwrap();
    // One that goes leaves its place.
    console.query("pause app");
    let mut leaving = Client::tcp(fleet.port());
    leaving.send(&end_to_end::frontend::startup(&[("user", "scram_user"), ("database", "app")]));
    wait_until("the login to stand in the queue", SOON, || {
        console.query("show pools").lookup("user", "postgres", "cl_waiting") == "1"
    });
    drop(leaving);
    wait_until("the queue to be empty", SOON, || console.query("show pools").lookup("user", "postgres", "cl_waiting") == "0");
    console.query("resume app");
    assert_eq!(log_in(&fleet, "scram_user", "app", "scram-password").unwrap().value("select 1"), "1");
}

#[test]
fn timeouts_are_those_of_a_client() {
    let server = Postgres::start();
    let slow = "select rolname, rolpassword from pg_authid, pg_sleep(1.5) where rolname = $1";
    let fleet = asking(Fleet::builder(&server)).setting("auth_query", slow).setting("transaction_timeout", 1).start();
    assert!(log_in(&fleet, "scram_user", "app", "scram-password").is_ok(), "transaction_timeout is not for it");

    let endless = "select rolname, rolpassword from pg_authid, pg_sleep(1000) where rolname = $1";
    let fleet = asking(Fleet::builder(&server))
        .pool_size(1)
        .setting("auth_query", endless)
        .setting("client_login_timeout", 6)
        .setting("query_wait_timeout", 1)
        .start();
    let mut first = Client::tcp(fleet.port());
    first.send(&end_to_end::frontend::startup(&[("user", "scram_user"), ("database", "app")]));
    let mut console = log_in(&fleet, "admin", "pgbouncer", "admin-password").unwrap();
    wait_until("the query to run", SOON, || {
        console.query("show pools").find("user", "postgres", "sv_active").as_deref() == Some("1")
    });
    assert_refused(log_in(&fleet, "scram_user", "app", "x"), "08P01", "query_wait_timeout");
    assert_eq!(first.refusal().text(), "client_login_timeout");
    // Nobody waits for the answer: the query is cancelled, and its place is free again.
    wait_until("the backend to end", 4 * SOON, || {
        let running = "select count(*) from pg_stat_activity where query like '%pg_sleep(1000)%' and pid <> pg_backend_pid()";
        server.admin().query_one(running, &[]).unwrap().get::<_, i64>(0) == 0
    });
}

#[test]
fn its_users_count_in_max_user_client_connections() {
    let server = Postgres::start();
    let fleet = asking(Fleet::builder(&server)).setting("max_user_client_connections", 1).start();
    let _first = log_in(&fleet, "scram_user", "app", "scram-password").unwrap();
    let text = "client connections exceeded (max_user_client_connections)";
    assert_refused(log_in(&fleet, "scram_user", "app", "scram-password"), "53300", text);
}

#[test]
fn a_password_that_is_changed_in_postgresql_is_picked_up() {
    let server = Postgres::start();
    let end_servers = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'scram_user'";
    each_worker_count(&server, asking, |fleet| {
        let mut admin = server.admin();
        let mut console = log_in(fleet, "admin", "pgbouncer", "admin-password").unwrap();
        let mut servers_end = |admin: &mut postgres::Client| {
            admin.execute(end_servers, &[]).unwrap();
            wait_until("the fleet to see it", SOON, || console.query("show servers").find("user", "scram_user", "state").is_none());
        };
        admin.batch_execute("set password_encryption = 'scram-sha-256'; alter role scram_user password 'first'").unwrap();
        let mut old = log_in(fleet, "scram_user", "app", "first").unwrap();
        assert_eq!(old.value("select 1"), "1");
        admin.batch_execute("alter role scram_user password 'second'").unwrap();
        assert_refused(log_in(fleet, "scram_user", "app", "first"), "28P01", "SASL authentication failed");
        servers_end(&mut admin);
        let mut new = log_in(fleet, "scram_user", "app", "second").unwrap();
        assert_eq!(new.value("select 1"), "1");
        drop(new);
        admin.batch_execute("alter role scram_user password 'third'").unwrap();
        servers_end(&mut admin);
        // Who has logged in before cannot be helped, and does not stand in the way of who does now.
        let mut new = log_in(fleet, "scram_user", "app", "third").unwrap();
        assert_eq!(new.value("select 1"), "1");
    });
}
