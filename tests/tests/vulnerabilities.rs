//! What was found to be vulnerable in PgBouncer up to 1.26.0, tried on a fleet of one worker: nothing may crash, hang, or let anybody in.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::frontend::{self, message, password, strings};
use end_to_end::impostor::{Impostor, Peer, authentication};
use end_to_end::{Client, Fields, Fleet, Postgres, SOON, process, wait_until};
use std::time::Duration;

const SCRAM: &str = "SCRAM-SHA-256";

fn fleet(server: &Postgres) -> end_to_end::Builder {
    Fleet::builder(server).workers(1).setting("auth_type", "scram-sha-256")
}

fn log_in(fleet: &Fleet) -> Client {
    let mut client = Client::tcp(fleet.port());
    client.start(&[("user", "app"), ("database", "app")], Some("app-password")).unwrap();
    client
}

/// Runs `attack` beside a client: the same worker serves it, and new ones, afterwards, and has come to rest.
#[track_caller]
fn unharmed(fleet: &Fleet, attack: impl FnOnce()) {
    let mut bystander = log_in(fleet);
    let workers = fleet.all_workers();
    attack();
    assert_eq!(bystander.value("select 1"), "1");
    assert_eq!(log_in(fleet).value("select 2"), "2");
    assert_eq!(fleet.all_workers(), workers, "no worker has died:\n{}", fleet.log());
    assert!(!fleet.log().contains("panicked"), "{}", fleet.log());
    // A loop without end would use a whole core: 100 ticks a second.
    wait_until("the worker to come to rest", SOON, || {
        let before = process::cpu_ticks(workers[0]);
        std::thread::sleep(Duration::from_millis(300));
        process::cpu_ticks(workers[0]) - before < 10
    });
}

/// A client that has been offered SCRAM.
fn offered_scram(fleet: &Fleet, user: &str) -> Client {
    let mut client = Client::tcp(fleet.port());
    client.send(&frontend::startup(&[("user", user), ("database", "app")]));
    let offer = client.read();
    assert_eq!((offer.kind, offer.body[3]), (b'R', 10), "AuthenticationSASL");
    client
}

/// A SASLInitialResponse whose length field says what it likes.
fn initial_response(length: u32, data: &[u8]) -> Vec<u8> {
    password(&[strings(&[SCRAM]).as_slice(), &length.to_be_bytes(), data].concat())
}

/// A client that has been sent the server's first SCRAM message.
fn in_the_middle_of_scram(fleet: &Fleet, user: &str) -> (Client, String) {
    let mut client = offered_scram(fleet, user);
    let first = b"n,,n=,r=clients-nonce";
    client.send(&initial_response(first.len() as u32, first));
    let challenge = client.read();
    assert_eq!((challenge.kind, challenge.body[3]), (b'R', 11), "AuthenticationSASLContinue");
    let nonce = String::from_utf8(challenge.body[4..].to_vec()).unwrap();
    let nonce = nonce.split(',').next().unwrap().strip_prefix("r=").unwrap().to_owned();
    (client, nonce)
}

#[track_caller]
fn assert_ends(client: &mut Client) -> Fields {
    let fields = client.refusal();
    assert_eq!(fields.severity(), "FATAL");
    fields
}

/// CVE-2026-6664: the length of a SCRAM message was added to a position without a look at overflow, so that a client without a login could
/// have memory read that is not the message's.
#[test]
fn a_scram_message_of_a_false_length() {
    let server = Postgres::start();
    let fleet = fleet(&server).start();
    unharmed(&fleet, || {
        for length in [6, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, u32::MAX - 40, 1_000_000] {
            let mut client = offered_scram(&fleet, "app");
            client.send(&initial_response(length, b"n,,n="));
            assert_eq!(assert_ends(&mut client).code(), "28P01", "{length:#x}");
        }
        for body in [&b""[..], b"SCRAM-SHA-256", b"SCRAM-SHA-256\0", b"SCRAM-SHA-256\0\0\0", b"\0\0\0\0\0"] {
            let mut client = offered_scram(&fleet, "app");
            client.send(&password(body));
            assert_ends(&mut client);
        }
    });
}

/// A fleet whose database `hostile` is on an impostor; its other one is not.
fn beside(server: &Postgres, talk: impl Fn(&mut Peer) + Send + Sync + 'static) -> (Fleet, Impostor) {
    let impostor = Impostor::start(talk);
    let entry = format!("host=127.0.0.1 port={} user=app password=secret", impostor.port());
    let fleet = fleet(server).setting("server_login_retry", 1).database("hostile", entry).start();
    (fleet, impostor)
}

/// A login to the database `hostile`: what it is told in the end.
fn visit(fleet: &Fleet) -> Result<Client, Fields> {
    let mut client = Client::tcp(fleet.port());
    client.start(&[("user", "app"), ("database", "hostile")], Some("app-password")).map(|()| client)
}

/// Offers SCRAM, and answers the first message with what `first` makes of the nonce.
fn scram_server(peer: &mut Peer, first: impl Fn(&str) -> String) {
    peer.send(&authentication(10, &[strings(&[SCRAM]).as_slice(), b"\0"].concat()));
    let Some(initial) = peer.read() else { return };
    let text = String::from_utf8_lossy(&initial.body).into_owned();
    let nonce = text.rsplit("r=").next().unwrap_or_default();
    peer.send(&authentication(11, first(nonce).as_bytes()));
    peer.listen();
}

/// CVE-2026-6665: a server's nonce was copied into a buffer of a fixed size, however long it was.
#[test]
fn a_server_with_a_long_nonce() {
    let server = Postgres::start();
    let (fleet, _impostor) = beside(&server, |peer| {
        scram_server(peer, |nonce| format!("r={nonce}{},s=QUFBQUFBQUFBQUFBQUFBQQ==,i=4096", "x".repeat(60_000)));
    });
    unharmed(&fleet, || {
        let fields = visit(&fleet).expect_err("such a server is not answered");
        assert!(fields.text().starts_with("server login failed"), "{fields:?}");
    });
}

/// CVE-2026-6666: an error without a SQLSTATE was looked at as if it had one, and the process crashed.
#[test]
fn a_server_whose_error_has_no_sqlstate() {
    let server = Postgres::start();
    for fields in [&["SFATAL", "Mno code", ""][..], &["Mno severity either", ""], &["", ""], &["S"]] {
        let error = message(b'E', &strings(fields));
        let (fleet, _impostor) = beside(&server, move |peer| peer.send(&error));
        unharmed(&fleet, || {
            visit(&fleet).expect_err("there is no server");
        });
    }
    // And in answer to a query.
    let (fleet, _impostor) = beside(&server, |peer| {
        peer.welcome();
        while peer.read().is_some() {
            peer.send(&[message(b'E', &strings(&["SERROR", "Mno code", ""])), message(b'Z', b"I")].concat());
        }
    });
    unharmed(&fleet, || {
        let mut client = visit(&fleet).unwrap();
        assert_eq!(client.query("select 1").error().text(), "no code");
    });
}

/// CVE-2026-6667: whoever could look at the console could disconnect clients with KILL_CLIENT.
#[test]
fn kill_client_is_for_administrators() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(1).start();
    let mut victim = fleet.client();
    let mut console = Client::login(fleet.port(), "stats", "pgbouncer");
    let id = console.query("show clients").lookup("user", "app", "id");
    assert_eq!(console.query(&format!("kill_client {id}")).error().text(), "admin access needed");
    assert_eq!(victim.value("select 1"), "1");
}

/// CVE-2026-6668, CVE-2026-107348: a buffer was made larger by doubling until the declared length fitted; above 2^31 it never did.
#[test]
fn a_packet_that_declares_more_than_two_gigabytes() {
    let server = Postgres::start();
    let fleet = fleet(&server).start();
    unharmed(&fleet, || {
        for length in [0x7fff_ffff_u32, 0x8000_0000, 0x8000_0001, u32::MAX] {
            let mut client = Client::tcp(fleet.port());
            client.send(&length.to_be_bytes());
            client.send(&frontend::VERSION_3.to_be_bytes());
            // Told so or not: with this length it may look like a message of a session, which is closed without a word.
            let end = client.try_read();
            assert!(!matches!(&end, Ok(Some(message)) if message.kind != b'E'), "{length:#x}: {end:?}");
            let mut client = offered_scram(&fleet, "app");
            client.send(&[&b"p"[..], &length.to_be_bytes(), b"SCRAM"].concat());
            assert_ends(&mut client);
            let mut client = log_in(&fleet);
            client.send(&[&b"P"[..], &length.to_be_bytes(), b"name"].concat());
            drop(client);
        }
    });
}

/// CVE-2026-6669: a server said how many times its password is hashed, and was obeyed: two thousand million rounds stopped everything.
#[test]
fn a_server_that_asks_for_too_many_iterations() {
    let server = Postgres::start();
    for iterations in ["2000000000", "1000001", "4294967297", "0", "-1"] {
        let (fleet, _impostor) = beside(&server, move |peer| {
            scram_server(peer, |nonce| format!("r={nonce}abc,s=QUFBQUFBQUFBQUFBQUFBQQ==,i={iterations}"));
        });
        unharmed(&fleet, || {
            let fields = visit(&fleet).expect_err("such a server is not answered");
            assert!(fields.text().starts_with("server login failed"), "{fields:?}");
        });
    }
}

/// CVE-2026-19888: the client's last SCRAM message was read as if it had a nonce, for users who do not exist too.
#[test]
fn a_last_scram_message_without_a_nonce() {
    let server = Postgres::start();
    let fleet = fleet(&server).start();
    unharmed(&fleet, || {
        for user in ["app", "stranger"] {
            for text in ["c=biws", "c=biws,p=AAAA", "", ",", "c=biws,r=", "c=biws,r=,p=", "c=biws,r=clients-nonce", "p=AAAA", "r"] {
                let (mut client, _) = in_the_middle_of_scram(&fleet, user);
                client.send(&password(text.as_bytes()));
                assert_eq!(assert_ends(&mut client).text(), "SASL authentication failed", "{user}: {text}");
            }
        }
    });
}

/// CVE-2026-107349: an option without a name was passed over without moving on.
#[test]
fn startup_options_without_a_name() {
    let server = Postgres::start();
    let fleet = fleet(&server).start();
    unharmed(&fleet, || {
        for options in ["-c=", "-c =", "-c", "--=", "--", "-c==", "-c a=b -c=", "\\", "-c \\"] {
            let mut client = Client::tcp(fleet.port());
            client.send(&frontend::startup(&[("user", "app"), ("database", "app"), ("options", options)]));
            // Refused, or asked for the password: in any case answered.
            assert!(matches!(client.read().kind, b'E' | b'R'), "{options}");
        }
    });
}

/// CVE-2026-107350: a second startup message during SCRAM was obeyed, and whoever then proved to be the first user was in as the second.
#[test]
fn a_second_startup_message_during_scram() {
    let server = Postgres::start();
    let fleet = fleet(&server).start();
    unharmed(&fleet, || {
        let again = frontend::startup(&[("user", "admin"), ("database", "pgbouncer")]);
        for database in ["app", "unknown"] {
            let mut client = Client::tcp(fleet.port());
            client.send(&frontend::startup(&[("user", "app"), ("database", database)]));
            assert_eq!(client.read().kind, b'R');
            client.send(&again);
            assert_eq!(assert_ends(&mut client).text(), "client re-sent startup pkt");
        }
        let (mut client, _) = in_the_middle_of_scram(&fleet, "app");
        client.send(&again);
        assert_eq!(assert_ends(&mut client).text(), "client re-sent startup pkt");
    });
}

/// CVE-2021-3935: what an attacker had put behind the request for encryption was taken as sent by the client inside it.
#[test]
fn bytes_behind_a_request_for_encryption() {
    let server = Postgres::start();
    let fleet = fleet(&server).start();
    unharmed(&fleet, || {
        for (code, name) in [(frontend::SSL_REQUEST, "SSL"), (frontend::GSSENC_REQUEST, "GSSAPI encryption")] {
            let mut client = Client::tcp(fleet.port());
            let smuggled = frontend::startup(&[("user", "app"), ("database", "app")]);
            client.send(&[frontend::untyped(code, &[]), smuggled].concat());
            let text = format!("received unencrypted data after {name} request");
            assert_eq!(assert_ends(&mut client).text(), text);
        }
    });
}

/// CVE-2025-12819: auth_query ran with the search_path of the startup message, so that whoever could make a table, or a function, said who may
/// log in and ran as auth_user.
#[test]
fn a_search_path_for_auth_query() {
    let server = Postgres::start();
    let mut admin = server.admin();
    admin
        .batch_execute(
            "create table public.users (name text, secret text); grant select on public.users to app;
             create schema evil authorization other; create table evil.users (name text, secret text);
             insert into evil.users values ('eve', 'eve'); grant usage on schema evil to public; grant select on evil.users to public",
        )
        .unwrap();
    let fleet = Fleet::builder(&server)
        .workers(1)
        .pool_size(1)
        .setting("auth_type", "plain")
        .setting("auth_user", "app")
        .setting("auth_query", "select name, secret from users where name = $1")
        .setting("track_extra_parameters", "IntervalStyle, search_path")
        .start();
    let attempt = |option: (&str, &str)| {
        let mut client = Client::tcp(fleet.port());
        let refusal = client.start(&[("user", "eve"), ("database", "app"), option], Some("eve")).expect_err("eve is nobody");
        assert_eq!(refusal.text(), "password authentication failed", "{option:?}");
    };
    let search_paths = [("search_path", "evil"), ("search_path", "evil, public"), ("options", "-c search_path=evil")];
    // On the connection that the login has opened, on one that is there, and on one that a client has set its own value on.
    search_paths.into_iter().for_each(attempt);
    let mut client = Client::tcp(fleet.port());
    client.start(&[("user", "app"), ("database", "app"), search_paths[0]], Some("app-password")).unwrap();
    assert_eq!(client.value("select name from users"), "eve", "the fleet's one connection has it set");
    search_paths.into_iter().for_each(attempt);
    // The lookup does find who stands in the right table: PostgreSQL has no such role.
    admin.execute("insert into public.users values ('joe', 'joe')", &[]).unwrap();
    let mut joe = Client::tcp(fleet.port());
    let refusal = joe.start(&[("user", "joe"), ("database", "app"), search_paths[0]], Some("joe")).expect_err("no role");
    assert_eq!(refusal.text(), "role \"joe\" does not exist");
}

/// CVE-2025-2291: the default auth_query did not look at VALID UNTIL, so that a password which PostgreSQL takes no longer still logged in.
#[test]
fn a_password_that_has_expired() {
    let server = Postgres::start();
    let mut admin = server.admin();
    let mut valid_until = |time: &str| admin.batch_execute(&format!("alter role scram_user valid until '{time}'")).unwrap();
    // PostgreSQL itself does not mind: it trusts whom the entry logs in as, and connections are there already.
    let forced = format!("host=127.0.0.1 port={} dbname=app user=other", server.port());
    for method in ["scram-sha-256", "md5", "plain"] {
        let fleet = fleet(&server)
            .setting("auth_type", method)
            .setting("auth_user", "postgres")
            .setting("auth_dbname", "app")
            .database("forced", &forced)
            .start();
        let attempt = |database: &str| {
            let mut client = Client::tcp(fleet.port());
            let login = client.start(&[("user", "scram_user"), ("database", database)], Some("scram-password"));
            login.map(|()| client.value("select 1"))
        };
        for time in ["infinity", "2999-01-01"] {
            valid_until(time);
            for database in ["app", "forced"] {
                assert_eq!(attempt(database).unwrap(), "1", "{method} {database} {time}");
            }
        }
        for time in ["2001-01-01", "-infinity"] {
            valid_until(time);
            for database in ["app", "forced"] {
                assert_eq!(attempt(database).expect_err("refused").code(), "28P01", "{method} {database} {time}");
            }
        }
    }
}
