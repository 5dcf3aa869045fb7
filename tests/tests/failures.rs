//! PostgreSQL going away, refusing, or never answering; clients that take too long.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::frontend::{self, message, query, strings};
use end_to_end::impostor::{Impostor, authentication};
use end_to_end::{Client, Fleet, Port, Postgres, SOON, each_fleet, each_worker_count, wait_until};
use std::time::{Duration, Instant};

#[test]
fn a_terminated_backend_speaks_for_itself() {
    let server = Postgres::start();
    each_fleet(
        &server,
        |builder| builder,
        |fleet, _| {
            let mut bystander = fleet.client();
            assert_eq!(bystander.value("select 1"), "1");
            let mut client = fleet.client();
            client.query("begin");
            let pid: i32 = client.value("select pg_backend_pid()").parse().unwrap();
            server.admin().execute("select pg_terminate_backend($1)", &[&pid]).unwrap();
            let fields = client.refusal();
            assert_eq!((fields.severity(), fields.code()), ("FATAL", "57P01"));
            assert_eq!(fields.text(), "terminating connection due to administrator command");
            // In the middle of a query, too.
            let mut client = fleet.client();
            client.query("begin");
            let pid: i32 = client.value("select pg_backend_pid()").parse().unwrap();
            client.send(&query("select pg_sleep(60)"));
            server.admin().execute("select pg_terminate_backend($1)", &[&pid]).unwrap();
            assert_eq!(client.refusal().code(), "57P01");
            assert_eq!(bystander.value("select 1"), "1");
        },
    );
}

/// An idle server that PostgreSQL closes is nobody's loss.
#[test]
fn a_terminated_idle_backend_is_replaced_unseen() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder,
        |fleet| {
            let mut client = fleet.client();
            for _ in 0..5 {
                let pid: i32 = client.value("select pg_backend_pid()").parse().unwrap();
                let mut admin = server.admin();
                admin.execute("select pg_terminate_backend($1)", &[&pid]).unwrap();
                let gone = "select count(*) from pg_stat_activity where pid = $1";
                wait_until("the backend to go", SOON, || admin.query_one(gone, &[&pid]).unwrap().get::<_, i64>(0) == 0);
                assert_ne!(client.value("select pg_backend_pid()"), pid.to_string());
            }
        },
    );
}

#[test]
fn a_crashed_backend() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).setting("server_login_retry", 1).start();
    let mut client = fleet.client();
    client.query("begin");
    let pid: u32 = client.value("select pg_backend_pid()").parse().unwrap();
    end_to_end::process::signal(pid, nix::sys::signal::Signal::SIGKILL);
    // It said nothing before it died.
    let fields = client.refusal();
    assert_eq!((fields.severity(), fields.code(), fields.text()), ("FATAL", "08P01", "server conn crashed?"));
    wait_until("the fleet to reach PostgreSQL again", SOON, || {
        let mut client = Client::tcp(fleet.port());
        if client.start(&[("user", "app"), ("database", "app")], None).is_err() {
            return false;
        }
        client.send(&query("select 1"));
        matches!(client.try_read(), Ok(Some(message)) if message.kind == b'T')
    });
}

/// Clients wait for PostgreSQL to come back, as long as query_wait_timeout lets them.
#[test]
fn clients_wait_while_postgresql_is_away() {
    let mut server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(2).setting("server_login_retry", 1).setting("query_wait_timeout", 30).start();
    let mut clients: Vec<Client> = (0..6).map(|_| fleet.client()).collect();
    for client in &mut clients {
        assert_eq!(client.value("select 1"), "1");
    }
    server.stop();
    for client in &mut clients {
        client.send(&query("select 'at last'"));
    }
    server.start_again();
    let mut answered = 0;
    for client in &mut clients {
        // Told at once that logins have been failing, or served after the wait: never hung, never closed without a word.
        let message = loop {
            let message = client.read();
            if matches!(message.kind, b'D' | b'E') {
                break message;
            }
        };
        if message.kind == b'E' {
            let text = message.fields().text().to_owned();
            assert!(text.starts_with("server login has been failing"), "{text}");
        } else {
            answered += 1;
        }
    }
    println!("{answered} of 6 waited");
    wait_until("new clients to be served", SOON, || {
        let mut client = Client::tcp(fleet.port());
        client.start(&[("user", "app"), ("database", "app")], None).is_ok_and(|()| {
            client.send(&query("select 1"));
            matches!(client.try_read(), Ok(Some(message)) if message.kind == b'T')
        })
    });
}

#[test]
fn nothing_listens_where_the_database_should_be() {
    let server = Postgres::start();
    let nobody = Port::take();
    let fleet = Fleet::builder(&server)
        .setting("query_wait_timeout", 2)
        .setting("server_login_retry", 1)
        .database("nobody", format!("host=127.0.0.1 port={}", nobody.number()))
        .start();
    let mut client = Client::tcp(fleet.port());
    client.send(&frontend::startup(&[("user", "app"), ("database", "nobody")]));
    let fields = client.refusal();
    assert_eq!(fields.severity(), "FATAL");
    assert!(fields.text() == "query_wait_timeout" || fields.text().starts_with("server login has been failing"), "{fields:?}");
    fleet.wait_for_log("connect failed");
    assert_eq!(fleet.client().value("select 1"), "1");
}

/// A server that answers a startup packet with `greeting` and then only listens.
fn impostor(greeting: Vec<u8>) -> Impostor {
    Impostor::start(move |peer| {
        peer.send(&greeting);
        peer.listen();
    })
}

fn fields(severity: &str, code: Option<&str>, text: &str) -> Vec<u8> {
    let mut body = strings(&[&format!("S{severity}")]);
    if let Some(code) = code {
        body.extend(strings(&[&format!("C{code}")]));
    }
    body.extend(strings(&[&format!("M{text}")]));
    body.push(0);
    message(b'E', &body)
}

/// What a server may say instead of a welcome, and what its clients are told.
#[test]
fn servers_that_misbehave_in_the_login() {
    let server = Postgres::start();
    let first = b"r=abc,s=c2FsdA==,i=4096";
    let long_nonce = [b"r=".to_vec(), vec![b'n'; 5000], b",s=c2FsdA==,i=4096".to_vec()].concat();
    let scram = |data: &[u8]| [authentication(10, b"SCRAM-SHA-256\0\0"), authentication(11, data)].concat();
    let cases: Vec<(&str, Vec<u8>, Option<&str>)> = vec![
        ("gssapi", authentication(7, &[]), None),
        ("unknown-method", authentication(4711, &[]), None),
        (
            "mechanisms",
            authentication(10, b"SCRAM-SHA-512\0\0"),
            Some("server login failed: none of the server's SASL authentication mechanisms are supported"),
        ),
        ("refusal", fields("FATAL", Some("53300"), "sorry, too many clients already"), Some("sorry, too many clients already")),
        ("no-sqlstate", fields("FATAL", None, "an error without a code"), Some("an error without a code")),
        ("foreign-nonce", scram(first), None),
        ("long-nonce", scram(&long_nonce), None),
        ("hours-of-hashing", scram(b"r=abc,s=c2FsdA==,i=2147483647"), None),
        ("empty-error", message(b'E', &[0]), None),
        ("huge-length", vec![b'R', 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0], None),
        ("negative-length", vec![b'R', 0xff, 0xff, 0xff, 0xff], None),
        ("junk", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), None),
        ("truncated-authentication", message(b'R', &[0, 0]), None),
        ("truncated-parameter", [authentication(0, &[]), message(b'S', b"no end")].concat(), None),
        ("truncated-key", [authentication(0, &[]), message(b'K', &[1, 2])].concat(), None),
    ];
    let mut builder = Fleet::builder(&server)
        .workers(1)
        .setting("query_wait_timeout", 3)
        .setting("client_login_timeout", 5)
        .setting("server_connect_timeout", 2)
        .setting("server_login_retry", 1)
        .secret("app", "app-password");
    let mut impostors = Vec::new();
    for (name, greeting, _) in &cases {
        let impostor = impostor(greeting.clone());
        builder = builder.database(name, format!("host=127.0.0.1 port={} user=app password=secret", impostor.port()));
        impostors.push(impostor);
    }
    let fleet = builder.start();
    let mut waiting: Vec<Client> = cases
        .iter()
        .map(|(name, _, _)| {
            let mut client = Client::tcp(fleet.port());
            client.send(&frontend::startup(&[("user", "app"), ("database", name)]));
            client
        })
        .collect();
    // The one worker serves everybody else meanwhile.
    let start = Instant::now();
    for _ in 0..50 {
        assert_eq!(fleet.client().value("select 1"), "1");
    }
    assert!(start.elapsed() < Duration::from_secs(3), "the worker stood still: {:?}", start.elapsed());
    for ((name, _, text), client) in cases.iter().zip(&mut waiting) {
        println!("the server that answers with {name}");
        // Closed without a word is as good, where there are no words for it.
        let Some(message) = client.try_read().unwrap_or(None) else {
            assert!(text.is_none(), "{name}: closed");
            continue;
        };
        let fields = message.fields();
        assert_eq!((message.kind, fields.severity()), (b'E', "FATAL"), "{name}");
        assert_eq!(fields.code().len(), 5, "{name}: {fields:?}");
        if let Some(text) = text {
            assert_eq!(fields.text(), *text, "{name}");
        }
    }
    assert_eq!(fleet.client().value("select 1"), "1");
}

#[test]
fn a_server_that_accepts_and_says_nothing() {
    let server = Postgres::start();
    let silent = impostor(Vec::new());
    let fleet = Fleet::builder(&server)
        .setting("server_connect_timeout", 1)
        .setting("server_login_retry", 1)
        .setting("query_wait_timeout", 3)
        .database("silent", format!("host=127.0.0.1 port={}", silent.port()))
        .start();
    let mut client = Client::tcp(fleet.port());
    client.send(&frontend::startup(&[("user", "app"), ("database", "silent")]));
    fleet.wait_for_log("closing because: connect timeout");
    assert_eq!(client.refusal().severity(), "FATAL");
    assert_eq!(fleet.client().value("select 1"), "1");
}

#[test]
fn a_login_that_finds_no_server_in_time() {
    let server = Postgres::start();
    let silent = impostor(Vec::new());
    let fleet = Fleet::builder(&server)
        .setting("client_login_timeout", 1)
        .setting("query_wait_timeout", 30)
        .database("silent", format!("host=127.0.0.1 port={}", silent.port()))
        .start();
    let mut client = Client::tcp(fleet.port());
    client.send(&frontend::startup(&[("user", "app"), ("database", "silent")]));
    let fields = client.refusal();
    assert_eq!((fields.severity(), fields.code(), fields.text()), ("FATAL", "08P01", "client_login_timeout (server down)"));
}

#[test]
fn server_lifetime_and_idle_timeout_close_idle_servers() {
    let server = Postgres::start();
    for (name, reason) in [("server_idle_timeout", "server idle timeout"), ("server_lifetime", "server lifetime over")] {
        let fleet = Fleet::builder(&server).setting(name, 1).start();
        let mut client = fleet.client();
        let first = client.value("select pg_backend_pid()");
        fleet.wait_for_log(&format!("closing because: {reason}"));
        let mut admin = server.admin();
        wait_until("the backend to go", SOON, || end_to_end::backends(&mut admin) == 0);
        assert_ne!(client.value("select pg_backend_pid()"), first);
    }
}

#[test]
fn time_limits_of_clients() {
    let server = Postgres::start();
    for (setting, text, sql) in [
        ("query_timeout", "query timeout", "select pg_sleep(60)"),
        ("idle_transaction_timeout", "idle transaction timeout", "begin"),
        ("transaction_timeout", "transaction timeout", "begin"),
        ("client_idle_timeout", "client_idle_timeout", "select 1"),
    ] {
        let fleet = Fleet::builder(&server).setting(setting, 1).start();
        let mut client = fleet.client();
        client.send(&query(sql));
        let end = loop {
            let message = client.read();
            if message.kind == b'E' {
                break message.fields();
            }
        };
        client.expect_end();
        assert_eq!((end.severity(), end.code(), end.text()), ("FATAL", "08P01", text), "{setting}");
        let mut admin = server.admin();
        if setting != "client_idle_timeout" {
            wait_until("its backend to go", SOON, || end_to_end::backends(&mut admin) == 0);
        }
    }
}
