//! The classes of errors that drivers make exceptions of.

use super::same;
use end_to_end::{Fleet, Postgres, driver};

/// What a driver makes of an SQLSTATE at login.
const CLASSES: [(&str, &str); 4] = [
    ("28P01", "InvalidPasswordError"),
    ("28000", "InvalidAuthorizationSpecificationError"),
    ("3D000", "InvalidCatalogNameError"),
    ("53300", "TooManyConnectionsError"),
];

/// Logs in through every driver that tells the SQLSTATE of a refusal.
#[track_caller]
fn login(fleet: &Fleet, [user, password, database]: [&str; 3], state: &str) {
    let class =
        CLASSES.iter().find(|(code, _)| *code == state).map_or_else(|| state.to_owned(), |(code, name)| format!("{name} {code}"));
    for (program, expected) in [("unnoticed_asyncpg.py", class.as_str()), ("unnoticed.js", state), ("Unnoticed.java", state)] {
        let seen = driver::run(program, fleet.port(), &["login", user, password, database]);
        assert_eq!(seen, expected, "{program}: {user} {password} {database}");
    }
}

#[test]
fn drivers_know_why_a_login_was_refused() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server)
        .setting("auth_type", "scram-sha-256")
        .secret("scram_user", "scram-password")
        .user("other", "max_user_client_connections=1")
        .start();
    let right = ["scram_user", "scram-password", "app"];
    login(&fleet, right, "no error");
    login(&fleet, ["scram_user", "wrong", "app"], "28P01");
    login(&fleet, ["nobody", "scram-password", "app"], "28P01");
    login(&fleet, ["scram_user", "scram-password", "nowhere"], "3D000");
    login(&fleet, ["scram_user", "scram-password", "nowhere"], "3D000");
    login(&fleet, right, "no error");
    let mut other = fleet.driver();
    let _holds_the_only_place = other.user("other").password("other-password").connect(postgres::NoTls).unwrap();
    login(&fleet, ["other", "other-password", "app"], "53300");
}

/// A database that is created later is there at once: its absence is no failure to log in that would be remembered.
#[test]
fn a_database_that_was_missing_is_there_when_it_is_created() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server)
        .database("*", format!("host=127.0.0.1 port={}", server.port()))
        .setting("server_login_retry", 600)
        .start();
    for _ in 0..2 {
        login(&fleet, ["app", "", "later"], "3D000");
    }
    server.admin().batch_execute("create database later owner app").unwrap();
    login(&fleet, ["app", "", "later"], "no error");
}

#[test]
fn a_terminated_backend_says_so() {
    let programs = ["unnoticed_psycopg.py", "unnoticed_asyncpg.py", "unnoticed.js", "Unnoticed.java"];
    same(&programs, "terminated", |builder| builder);
}
