//! Who gets in: every method towards clients, every method towards PostgreSQL, and what the refused are told.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Client, Fields, Fleet, Postgres, SOON, each_worker_count, process, program::psql, wait_for, wait_until};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;

fn log_in(fleet: &Fleet, user: &str, database: &str, password: &str) -> Result<Client, Fields> {
    let mut client = Client::tcp(fleet.port());
    client.start(&[("user", user), ("database", database)], Some(password)).map(|()| client)
}

#[track_caller]
fn assert_refused(result: Result<Client, Fields>, code: &str, text: &str) {
    let fields = result.expect_err("the login should be refused");
    assert_eq!((fields.severity(), fields.code(), fields.text()), ("FATAL", code, text));
    let letters: String = fields.0.keys().filter(|&&letter| letter != 'V').collect();
    assert_eq!(letters, "CMS", "the fields of {fields:?}");
}

/// The verifier that PostgreSQL itself stores for this password.
fn scram_verifier(server: &Postgres) -> String {
    let mut admin = server.admin();
    admin.query_one("select rolpassword from pg_authid where rolname = 'scram_user'", &[]).unwrap().get(0)
}

/// The hash that PostgreSQL itself stores for this password.
fn md5_hash(server: &Postgres) -> String {
    server.admin().query_one("select rolpassword from pg_authid where rolname = 'md5_user'", &[]).unwrap().get(0)
}

#[test]
fn trust_needs_a_known_user() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder,
        |fleet| {
            let mut client = fleet.client();
            assert_eq!(client.value("select current_user"), "app");
            assert_refused(log_in(fleet, "stranger", "app", ""), "28P01", "\"trust\" authentication failed");
            assert_eq!(client.value("select 1"), "1", "others go on");
        },
    );
}

#[test]
fn plain_md5_and_scram_clients() {
    let server = Postgres::start();
    let verifier = scram_verifier(&server);
    for method in ["plain", "md5", "scram-sha-256"] {
        let builder = Fleet::builder(&server)
            .setting("auth_type", method)
            .setting("server_login_retry", 1)
            .database("app", format!("host=127.0.0.1 port={} user=app", server.port()))
            .secret("clear", "clear-secret")
            .secret("scram_user", &verifier);
        let fleet = builder.start();
        for _ in 0..3 {
            let mut client = log_in(&fleet, "clear", "app", "clear-secret").unwrap();
            assert_eq!(client.value("select 1"), "1", "{method}, from clear text");
            // With md5, too, a stored SCRAM verifier is asked for by SCRAM.
            let mut client = log_in(&fleet, "scram_user", "app", "scram-password").unwrap();
            assert_eq!(client.value("select 1"), "1", "{method}, from a SCRAM verifier");
        }
        let text = if method == "scram-sha-256" { "SASL authentication failed" } else { "password authentication failed" };
        assert_refused(log_in(&fleet, "clear", "app", "wrong"), "28P01", text);
        assert_refused(log_in(&fleet, "stranger", "app", "clear-secret"), "28P01", text);
        // What libpq makes of it.
        let url = format!("host=127.0.0.1 port={} user=clear dbname=app", fleet.port());
        assert_eq!(psql(&format!("{url} password=clear-secret"), "select 7").unwrap(), "7");
        let complaint = psql(&format!("{url} password=wrong"), "select 7").unwrap_err();
        assert!(complaint.contains(&format!("FATAL:  {text}")), "{complaint}");
    }
}

#[test]
fn md5_secrets_work_with_plain_and_md5_but_not_with_scram() {
    let server = Postgres::start();
    let secret = md5_hash(&server);
    for method in ["plain", "md5", "scram-sha-256"] {
        let fleet = Fleet::builder(&server)
            .setting("auth_type", method)
            .database("app", format!("host=127.0.0.1 port={} user=app", server.port()))
            .secret("md5_user", &secret)
            .start();
        let result = log_in(&fleet, "md5_user", "app", "md5-password");
        if method == "scram-sha-256" {
            assert_refused(result, "28P01", "SASL authentication failed");
        } else {
            assert_eq!(result.unwrap().value("select 1"), "1", "{method}");
            assert_refused(log_in(&fleet, "md5_user", "app", "wrong"), "28P01", "password authentication failed");
        }
    }
}

#[test]
fn an_empty_password_never_matches() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).setting("auth_type", "plain").secret("blank", "").start();
    assert_refused(log_in(&fleet, "blank", "app", ""), "28P01", "empty password returned by client");
}

#[test]
fn every_method_that_postgresql_asks_the_pooler_for() {
    let server = Postgres::start();
    let at = format!("host=127.0.0.1 port={} dbname=app", server.port());
    each_worker_count(
        &server,
        |builder| {
            let mut builder = builder.secret("scram_user", "scram-password").secret("md5_user", &md5_hash(&server));
            for (name, entry) in [
                ("clear", "user=plain_user password=plain-password"),
                ("md5", "user=md5_user password=md5-password"),
                ("scram", "user=scram_user password=scram-password"),
                // The password comes from the auth_file: an md5 hash answers an md5 request, clear text answers SCRAM.
                ("md5_from_file", "user=md5_user"),
                ("scram_from_file", "user=scram_user"),
            ] {
                builder = builder.database(name, format!("{at} {entry}"));
            }
            builder
        },
        |fleet| {
            for (database, user) in [
                ("clear", "plain_user"),
                ("md5", "md5_user"),
                ("scram", "scram_user"),
                ("md5_from_file", "md5_user"),
                ("scram_from_file", "scram_user"),
            ] {
                let mut client = Client::login(fleet.port(), "app", database);
                assert_eq!(client.value("select current_user"), user, "{database}");
            }
        },
    );
}

/// What is in the auth_file decides which methods of the client's and which of PostgreSQL's it is good for.
#[test]
fn every_secret_with_every_method_of_both_sides() {
    let server = Postgres::start();
    let mut admin = server.admin();
    // The method that PostgreSQL asks for goes by the user.
    let users = [("plain_user", "plain-password"), ("md5_user", "md5-password"), ("scram_user", "scram-password")];
    let secret_of = |admin: &mut postgres::Client, kind: &str, user: &str, password: &str| -> String {
        match kind {
            "plain" => password.to_owned(),
            "md5" => admin.query_one("select 'md5' || md5($1 || $2)", &[&password, &user]).unwrap().get(0),
            // What PostgreSQL itself has: the same salt.
            _ if user == "scram_user" => scram_verifier(&server),
            _ => {
                let role = format!("set password_encryption = 'scram-sha-256'; create role scratch password '{password}'");
                admin.batch_execute(&role).unwrap();
                let verifier = admin.query_one("select rolpassword from pg_authid where rolname = 'scratch'", &[]).unwrap().get(0);
                admin.batch_execute("drop role scratch").unwrap();
                verifier
            }
        }
    };
    for kind in ["plain", "md5", "scram-sha-256"] {
        let secrets: Vec<String> = users.iter().map(|(user, password)| secret_of(&mut admin, kind, user, password)).collect();
        for method in ["trust", "plain", "md5", "scram-sha-256"] {
            let builder = Fleet::builder(&server).setting("auth_type", method);
            let builder = users.iter().zip(&secrets).fold(builder, |builder, ((user, _), secret)| builder.secret(user, secret));
            let fleet = builder.start();
            for (user, password) in users {
                println!("a {kind} secret, the client by {method}, {user}");
                // Whoever proves it by SCRAM, or says it in clear text, gives the key that the verifier was made of.
                let gives_key = kind == "scram-sha-256" && method != "trust";
                let refusal = match (kind, user) {
                    ("md5", _) if method == "scram-sha-256" => Some(("28P01", "SASL authentication failed")),
                    ("plain", _) | ("md5", "md5_user") => None,
                    ("scram-sha-256", "scram_user") if gives_key => None,
                    _ => Some(("08P01", "server login failed: wrong password type")),
                };
                let result = log_in(&fleet, user, "app", password);
                match refusal {
                    None => assert_eq!(result.unwrap().value("select current_user"), user),
                    Some((code, text)) => assert_refused(result, code, text),
                }
            }
        }
    }
}

/// The keys of a client's login open only what has the same salt, and only for the user that logged in.
#[test]
fn a_scram_verifier_of_another_salt_or_user_opens_nothing() {
    let server = Postgres::start();
    let mut admin = server.admin();
    admin.batch_execute("set password_encryption = 'scram-sha-256'; create role twin password 'scram-password'").unwrap();
    let twin: String = admin.query_one("select rolpassword from pg_authid where rolname = 'twin'", &[]).unwrap().get(0);
    let fleet = Fleet::builder(&server)
        .setting("auth_type", "scram-sha-256")
        .secret("scram_user", &twin)
        .secret("twin", &twin)
        .database("forced", format!("host=127.0.0.1 port={} dbname=app user=scram_user", server.port()))
        .start();
    let text = "password authentication failed for user \"scram_user\"";
    assert_refused(log_in(&fleet, "scram_user", "app", "scram-password"), "28P01", text);
    assert_refused(log_in(&fleet, "twin", "forced", "scram-password"), "08P01", "server login failed: wrong password type");
}

/// A verifier alone cannot log in anywhere; the key that the client proves it with can.
#[test]
fn a_scram_verifier_passes_the_clients_proof_on() {
    let server = Postgres::start();
    let verifier = scram_verifier(&server);
    each_worker_count(
        &server,
        |builder| builder.setting("auth_type", "scram-sha-256").secret("scram_user", &verifier),
        |fleet| {
            for _ in 0..4 {
                let mut client = log_in(fleet, "scram_user", "app", "scram-password").unwrap();
                assert_eq!(client.value("select current_user"), "scram_user");
            }
        },
    );
}

#[test]
fn postgresql_refusing_the_pooler_is_told_in_its_own_words() {
    let server = Postgres::start();
    let at = format!("host=127.0.0.1 port={} dbname=app", server.port());
    let fleet = Fleet::builder(&server)
        .database("wrong_password", format!("{at} user=scram_user password=nonsense"))
        .database("rejected", format!("{at} user=rejected_user"))
        .database("absent", format!("host=127.0.0.1 port={} dbname=no_such_database", server.port()))
        .database("wrong_type", format!("{at} user=scram_user password=md5{}", "0".repeat(32)))
        .start();
    let refusal = |database| log_in(&fleet, "app", database, "").expect_err("refused");
    let fields = refusal("wrong_password");
    assert_eq!((fields.severity(), fields.code()), ("FATAL", "28P01"));
    assert_eq!(fields.text(), "password authentication failed for user \"scram_user\"");
    assert_eq!(refusal("rejected").code(), "28000");
    // Errors about the request are not remembered: the second client hears PostgreSQL's own words as the first did.
    for _ in 0..2 {
        let fields = refusal("absent");
        assert_eq!((fields.code(), fields.text()), ("3D000", "database \"no_such_database\" does not exist"));
    }
    assert_eq!(refusal("wrong_type").text(), "server login failed: wrong password type");
    server.admin().batch_execute("create database no_such_database owner app").unwrap();
    assert_eq!(Client::login(fleet.port(), "app", "absent").value("select 1"), "1", "once it exists it can be reached at once");
}

#[test]
fn unknown_database_is_told_only_to_those_who_are_known() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).setting("auth_type", "md5").start();
    for _ in 0..2 {
        assert_refused(log_in(&fleet, "app", "nowhere", "app-password"), "3D000", "no such database: nowhere");
    }
    assert_refused(log_in(&fleet, "app", "nowhere", "wrong"), "28P01", "password authentication failed");
    assert_refused(log_in(&fleet, "stranger", "nowhere", "wrong"), "28P01", "password authentication failed");
    let url = format!("host=127.0.0.1 port={} user=app password=app-password dbname=nowhere", fleet.port());
    assert!(psql(&url, "select 1").unwrap_err().contains("FATAL:  no such database: nowhere"));
    assert_eq!(log_in(&fleet, "app", "app", "app-password").unwrap().value("select 1"), "1");
}

#[test]
fn the_fallback_database_offers_every_database_of_its_server() {
    let server = Postgres::start();
    server.admin().batch_execute("create database second owner app").unwrap();
    let fleet = Fleet::builder(&server).database("*", format!("host=127.0.0.1 port={}", server.port())).start();
    assert_eq!(Client::login(fleet.port(), "app", "second").value("select current_database()"), "second");
    assert_eq!(Client::login(fleet.port(), "app", "app").value("select current_database()"), "app");
}

#[test]
fn a_unix_socket_of_postgresql_and_of_the_fleet() {
    let server = Postgres::start();
    let entry = format!("host={} port={} dbname=app", server.socket_dir().display(), server.port());
    each_worker_count(
        &server,
        |builder| builder.database("local", &entry),
        |fleet| {
            for _ in 0..4 {
                let mut client = Client::unix(fleet.folder(), fleet.port());
                client.start(&[("user", "app"), ("database", "local")], None).unwrap();
                assert_eq!(client.value("select inet_client_addr() is null"), "t");
            }
        },
    );
}

/// The salt that each of these workers shows somebody who says to be `user`.
#[track_caller]
fn salts(fleet: &Fleet, workers: &[u32], user: &str) -> Vec<String> {
    let mut seen = BTreeMap::new();
    wait_for("every worker to be asked", SOON, || {
        let mut client = Client::tcp(fleet.port());
        let challenge = client.scram_challenge(user);
        seen.insert(fleet.worker_of(&client), challenge.split(',').find(|field| field.starts_with("s=")).unwrap().to_owned());
        workers.iter().map(|worker| seen.get(worker).cloned()).collect()
    })
}

/// A user's salt stays as it is; if a stranger's did not, whoever asks twice would know who is no user.
#[test]
fn a_stranger_has_the_same_salt_at_every_worker_and_at_those_that_come_after() {
    let server = Postgres::start();
    let start = || {
        let builder = Fleet::builder(&server).workers(2).setting("auth_type", "scram-sha-256");
        builder.secret("scram_user", &scram_verifier(&server)).start()
    };
    let fleet = start();
    let workers = fleet.all_workers();
    let [salt, other] = &salts(&fleet, &workers, "stranger")[..] else { panic!("not two workers") };
    assert_eq!(salt, other);
    assert_ne!(*salt, salts(&fleet, &workers, "another stranger")[0]);
    process::signal(workers[0], Signal::SIGKILL);
    wait_until("a successor", SOON, || !fleet.workers().contains(&workers[0]));
    assert_eq!(salts(&fleet, &fleet.all_workers(), "stranger"), [salt.clone(), salt.clone()]);
    drop(fleet);
    // What the machine has of its own outlives the fleet; a container may have nothing of the kind.
    if std::fs::read_to_string("/etc/machine-id").is_ok_and(|id| id.trim_end().len() == 32) {
        let fleet = start();
        assert_eq!(*salt, salts(&fleet, &fleet.all_workers(), "stranger")[0]);
    }
}
