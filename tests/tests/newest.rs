//! The newest PostgreSQL there is as server: every way in which it may ask the pooler for a proof, and what only it reports.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Client, Fleet, Postgres, each_fleet};

const USERS: [(&str, &str); 4] =
    [("app", "unasked"), ("plain_user", "plain-password"), ("md5_user", "md5-password"), ("scram_user", "scram-password")];

#[test]
fn every_password_method() {
    let server = Postgres::start_newest("");
    each_fleet(
        &server,
        |builder| {
            USERS
                .iter()
                .fold(builder, |builder, (user, password)| builder.secret(user, password))
                .setting("auth_type", "scram-sha-256")
        },
        |fleet, _| {
            for (user, password) in USERS {
                let mut client = Client::tcp(fleet.port());
                client.start(&[("user", user), ("database", "app")], Some(password)).unwrap();
                assert_eq!(client.value("select current_user"), user);
                assert!(client.value("show server_version_num").parse::<u32>().unwrap() >= 180_000);
            }
        },
    );
}

/// PostgreSQL 18 reports search_path whenever it changes: so it follows the client, whichever server it is given.
#[test]
fn search_path_follows_the_client() {
    let server = Postgres::start_newest("");
    let fleet = Fleet::builder(&server).workers(2).pool_size(1).start();
    let (mut one, mut other) = (fleet.client(), fleet.client());
    one.query("set search_path = first");
    for _ in 0..3 {
        assert_eq!(other.value("show search_path"), "\"$user\", public");
        assert_eq!(one.value("show search_path"), "first");
    }
}
