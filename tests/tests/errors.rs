//! What clients are told, row by row of the list of messages that PgBouncer's users know: severity, SQLSTATE and exact text.
//!
//! Every row of the list is in the table below with the place of its test: a case of this file, or the file that is about its subject.
//!
//! | row | text | test |
//! |---|---|---|
//! | 1, 2 | `no username supplied`, `username too long` | `startup::the_user_must_be_named` |
//! | 3, 4 | `unsupported startup parameter…` | `parameters_that_are_not_supported` |
//! | 5 | `unsupported options startup parameter…` | `startup::options_are_taken_apart` |
//! | 6 | `invalid startup packet layout…` | `startup::the_parameters_must_end_where_the_packet_ends` |
//! | 7, 8 | `old V2 protocol not supported`, `bad packet header…` | `startup::nonsense_is_told_so` |
//! | 9 | `client re-sent startup pkt` | `answers_out_of_place_in_the_login` |
//! | 10 | `client password pkt before startup packet` | `startup::a_password_before_the_startup_packet_is_refused` |
//! | 11 | `SSL required` | with TLS |
//! | 12 | `received unencrypted data after …` | `startup::data_behind_an_encryption_request_is_refused` |
//! | 13 | `no more connections allowed (max_client_conn)` | `limits::max_client_conn` |
//! | 14, 15 | `client connections exceeded (…)` | `limits::clients_per_database_and_per_user` |
//! | 16, 17 | `password…`, `SASL authentication failed` | `login::plain_md5_and_scram_clients` |
//! | 18 | `client selected an invalid SASL authentication mechanism` | `answers_out_of_place_in_the_login` |
//! | 19 | `"trust" authentication failed` | `login::trust_needs_a_known_user` |
//! | 20 | `empty password returned by client` | `login::an_empty_password_never_matches` |
//! | 21 to 28 | certificates, peer, LDAP, PAM, hba, auth_query | with these methods |
//! | 29 | `not allowed` | `console::who_may_do_what` |
//! | 30 | `no such database: X` | `login::unknown_database_is_told_only_to_those_who_are_known` |
//! | 31 | `database "X" is disabled` | `orders::a_disabled_database_admits_nobody_new` |
//! | 32 | `pooler is shutting down` | `a_login_that_ends_in_a_shutdown` |
//! | 33 | `database removed` | `a_database_that_is_removed`, `orders::a_database_is_killed` |
//! | 34 | `query_wait_timeout` | `limits::query_wait_timeout` |
//! | 35 | `query_timeout` | `queued_longer_than_query_timeout` |
//! | 36 | `client_login_timeout` | `startup::a_client_that_stops_in_the_middle_is_dropped_after_client_login_timeout` |
//! | 37 | `client_login_timeout (server down)` | `failures::a_login_that_finds_no_server_in_time` |
//! | 38 | `server shutting down` | `signals::int_waits_for_transactions` |
//! | 39 | `server login has been failing…` | `a_server_that_cannot_be_reached_is_told_from_memory` |
//! | 40 | the server's own | `login::postgresql_refusing_the_pooler_is_told_in_its_own_words` |
//! | 41 | `login failed` | `replication::what_postgresql_refuses_is_refused` |
//! | 42, 43 | `server login failed: …` | `credentials_that_do_not_fit_the_server`, `failures::servers_that_misbehave_in_the_login` |
//! | 44 to 47 | `query timeout` and its like | `failures::time_limits_of_clients` |
//! | 48 | `server conn crashed?` | `failures::a_crashed_backend` |
//! | 49 | `invalid server parameter` | `parameters::a_value_that_postgresql_refuses_is_fatal_for_its_client_only` |
//! | 50 | `transaction blocks not allowed in statement pooling mode` | `modes::a_transaction_block_ends_client_and_server` |
//! | 51 | `database configuration changed` | `hygiene::server_fast_close_does_not_wait_for_the_client`, `replication::a_changed_entry_ends_it` |
//! | 52 | `admin forced disconnect` | `orders::a_client_is_killed` |
//! | 53 | `suspend_timeout` | never: there is no SUSPEND (`orders::what_commands_refuse`) |
//! | 54 | `unknown pkt`, `bad pkt header`, `broken ParameterStatus packet` | `servers_that_break_the_protocol`; `suspend_timeout` never |
//! | 55 | `PQexec disallowed` | `limits::simple_queries_can_be_refused` |
//! | 56 | `unknown pkt` | `startup::an_unknown_message_ends_that_connection_only` |
//! | 57 | prepared statements | `statements_that_cannot_be` |
//! | 58 | out of memory and other internal errors | cannot be brought about from outside |
//! | 59 | `bad packet`, `incomplete pkt`, `incomplete query` | `a_console_that_is_sent_nonsense`, `console::what_it_does_not_understand` |
//! | 60 | `No server connection available…` | `timeouts::a_client_that_waits_is_told_once_a_wait` |
//! | 61 | login_notify_message | `a_notice_with_the_login` |
//! | 62 | `SET ignored`, `Console usage` | `a_console_that_is_sent_nonsense`, `console::the_columns_of_every_show`; the one about TLS with TLS |
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::frontend::{self, bind, close, describe, message, parse, query, startup, strings, sync};
use end_to_end::impostor::{Impostor, authentication};
use end_to_end::{Builder, Client, Fleet, Port, Postgres, SOON, wait_until};
use nix::sys::signal::Signal;

const APP: [(&str, &str); 2] = [("user", "app"), ("database", "app")];

/// Runs a case with 1 and 2 workers.
fn fleets(server: &Postgres, build: impl Fn(Builder) -> Builder, case: impl Fn(&mut Fleet)) {
    for workers in [1, 2] {
        println!("a fleet of {workers}");
        case(&mut build(Fleet::builder(server).workers(workers)).start());
    }
}

/// The next message is a FATAL of exactly this SQLSTATE and text, without further fields, and the last one.
#[track_caller]
fn assert_fatal(client: &mut Client, code: &str, text: &str) {
    let fields = client.refusal();
    assert_eq!((fields.severity(), fields.code(), fields.text()), ("FATAL", code, text));
    let letters: String = fields.0.keys().filter(|&&letter| letter != 'V').collect();
    assert_eq!(letters, "CMS", "the fields of {fields:?}");
}

#[test]
fn parameters_that_are_not_supported() {
    let server = Postgres::start();
    fleets(
        &server,
        |builder| builder.setting("startup_parameters", "reject"),
        |fleet| {
            for (parameter, text) in [
                (("no_such_parameter", "5"), "unsupported startup parameter: no_such_parameter"),
                (("options", "-c no_such_parameter=5"), "unsupported startup parameter in options: no_such_parameter"),
                (("options", "--no_such-parameter=5"), "unsupported startup parameter in options: no_such_parameter"),
            ] {
                let mut client = Client::tcp(fleet.port());
                client.send(&startup(&[APP[0], APP[1], parameter]));
                assert_fatal(&mut client, "08P01", text);
            }
        },
    );
}

#[test]
fn answers_out_of_place_in_the_login() {
    let server = Postgres::start();
    fleets(
        &server,
        |builder| builder.setting("auth_type", "scram-sha-256"),
        |fleet| {
            let first = b"n,,n=,r=0123456789abcdef";
            let initial = [strings(&["SCRAM-SHA-256-PLUS"]), (first.len() as u32).to_be_bytes().to_vec(), first.to_vec()].concat();
            for (packet, text) in [
                (startup(&APP), "client re-sent startup pkt"),
                (frontend::password(&initial), "client selected an invalid SASL authentication mechanism"),
            ] {
                let mut client = Client::tcp(fleet.port());
                client.send(&startup(&APP));
                assert_eq!(client.read().kind, b'R');
                client.send(&packet);
                assert_fatal(&mut client, "08P01", text);
            }
            // A typed message of another kind, before or in the login: closed without a word.
            for packets in [&[query("select 1")][..], &[startup(&APP), query("select 1")]] {
                let mut client = Client::tcp(fleet.port());
                for packet in packets {
                    client.send(packet);
                }
                if packets.len() > 1 {
                    assert_eq!(client.read().kind, b'R');
                }
                client.expect_end();
            }
            fleet.wait_for_log("closing because: bad packet");
        },
    );
}

#[test]
fn a_login_that_ends_in_a_shutdown() {
    let server = Postgres::start();
    fleets(
        &server,
        |builder| builder.setting("auth_type", "plain"),
        |fleet| {
            let mut stays = Client::tcp(fleet.port());
            stays.start(&APP, Some("app-password")).unwrap();
            let mut late = Client::tcp(fleet.port());
            late.send(&startup(&APP));
            assert_eq!(late.read().kind, b'R');
            fleet.signal(Signal::SIGTERM);
            wait_until("the listeners to close", SOON, || Client::try_tcp(fleet.port()).is_err());
            late.send(&frontend::password(b"app-password\0"));
            assert_fatal(&mut late, "57P01", "pooler is shutting down");
            assert_eq!(stays.value("select 1"), "1");
        },
    );
}

#[test]
fn a_database_that_is_removed() {
    let server = Postgres::start();
    let entry = format!("host=127.0.0.1 port={} dbname=app", server.port());
    fleets(
        &server,
        |builder| builder.database("leaving", &entry),
        |fleet| {
            let mut client = Client::login(fleet.port(), "app", "leaving");
            assert_eq!(client.value("select 1"), "1");
            fleet.remove_database("leaving");
            assert_eq!(fleet.console().query("reload").tags, ["RELOAD"]);
            assert_fatal(&mut client, "08P01", "database removed");
        },
    );
}

#[test]
fn queued_longer_than_query_timeout() {
    let server = Postgres::start();
    fleets(
        &server,
        |builder| builder.pool_size(1).setting("query_timeout", 1),
        |fleet| {
            let mut inside = fleet.client();
            inside.query("begin");
            let mut queued = fleet.client();
            queued.send(&query("select 1"));
            assert_fatal(&mut queued, "08P01", "query_timeout");
            assert_eq!(inside.query("commit").tags, ["COMMIT"]);
        },
    );
}

#[test]
fn a_server_that_cannot_be_reached_is_told_from_memory() {
    let mut server = Postgres::start();
    fleets(
        &server,
        |builder| builder.setting("server_login_retry", 60).setting("query_wait_timeout", 2),
        |fleet| {
            // Greeted while there was a server; then the database moves to where nobody listens.
            let mut clients: Vec<Client> = (0..3).map(|_| fleet.client()).collect();
            let nobody = Port::take();
            fleet.change_database("app", format!("host=127.0.0.1 port={}", nobody.number()));
            assert_eq!(fleet.console().query("reload").tags, ["RELOAD"]);
            // The first may find that out, and waits.
            clients[0].send(&query("select 1"));
            let fields = clients[0].refusal();
            assert!(["query_wait_timeout", CACHED].contains(&fields.text()), "{fields:?}");
            for client in &mut clients[1..] {
                client.send(&query("select 1"));
                assert_fatal(client, "08P01", CACHED);
            }
        },
    );
    server.stop();
}

const CACHED: &str = "server login has been failing, cached error: connect failed (server_login_retry)";

#[test]
fn credentials_that_do_not_fit_the_server() {
    let server = Postgres::start();
    let at = format!("host=127.0.0.1 port={} dbname=app", server.port());
    // It goes through SCRAM and signs with a key that does not come from the password.
    let forger = Impostor::start(|peer| {
        peer.send(&authentication(10, b"SCRAM-SHA-256\0\0"));
        let Some(first) = peer.read() else { return };
        let text = String::from_utf8_lossy(&first.body);
        let nonce = text.rsplit("r=").next().unwrap();
        peer.send(&authentication(11, format!("r={nonce}more,s=c2FsdHNhbHRzYWx0,i=4096").as_bytes()));
        peer.read();
        peer.send(&authentication(12, b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="));
        peer.listen();
    });
    // It asks for no password at all after having asked for one.
    let skipper = Impostor::start(|peer| {
        peer.send(&authentication(10, b"SCRAM-SHA-256\0\0"));
        peer.read();
        peer.welcome();
        peer.listen();
    });
    let md5 = format!("md5{}", "0".repeat(32));
    let verifier: String = {
        let row = server.admin().query_one("select rolpassword from pg_authid where rolname = 'scram_user'", &[]).unwrap();
        row.get(0)
    };
    fleets(
        &server,
        |builder| {
            let builder = builder
                .secret("md5_user", &verifier)
                .database("md5_for_scram", format!("{at} user=scram_user password={md5}"))
                .database("scram_for_md5", format!("{at} user=md5_user"));
            [("forger", &forger), ("skipper", &skipper)].into_iter().fold(builder, |builder, (name, impostor)| {
                builder.database(name, format!("host=127.0.0.1 port={} user=app password=secret", impostor.port()))
            })
        },
        |fleet| {
            for (database, text) in [
                ("md5_for_scram", "server login failed: wrong password type"),
                ("scram_for_md5", "server login failed: wrong password type"),
                ("forger", "server login failed: invalid server signature"),
                ("skipper", "server login failed: invalid server signature"),
            ] {
                println!("{database}");
                let mut client = Client::tcp(fleet.port());
                client.send(&startup(&[("user", "app"), ("database", database)]));
                assert_fatal(&mut client, "08P01", text);
            }
        },
    );
}

#[test]
fn servers_that_break_the_protocol() {
    let server = Postgres::start();
    for (answer, text) in [
        (message(b'?', b"what"), "unknown pkt"),
        (message(b'Z', b"too long"), "unknown pkt"),
        (vec![b'T', 0, 0, 0, 3], "bad pkt header"),
        (vec![b'T', 0xff, 0xff, 0xff, 0xff], "bad pkt header"),
        (message(b'S', b"no end"), "broken ParameterStatus packet"),
        (message(b'S', b"three\0texts\0here\0"), "broken ParameterStatus packet"),
    ] {
        println!("{answer:?}");
        let impostor = Impostor::start(move |peer| {
            peer.welcome();
            while let Some(asked) = peer.read() {
                if asked.kind == b'Q' {
                    peer.send(&answer);
                }
            }
        });
        fleets(
            &server,
            |builder| builder.database("broken", format!("host=127.0.0.1 port={}", impostor.port())),
            |fleet| {
                let mut client = Client::login(fleet.port(), "app", "broken");
                client.send(&query("select 1"));
                assert_fatal(&mut client, "08P01", text);
                assert_eq!(fleet.client().value("select 'others go on'"), "others go on");
            },
        );
    }
}

#[test]
fn statements_that_cannot_be() {
    let server = Postgres::start();
    fleets(
        &server,
        |builder| builder,
        |fleet| {
            for (messages, text) in [
                (vec![parse("a", "select 1"), parse("a", "select 2")], "prepared statement name is already in use"),
                (vec![bind("", "absent", &[])], "prepared statement did not exist"),
                (vec![describe(b'S', "absent")], "prepared statement did not exist"),
                (vec![message(b'P', b"")], "broken Parse packet"),
                (vec![message(b'P', b"name\0no end")], "broken Parse packet"),
                (vec![message(b'P', b"name\0select $1\0\xff\xff\0\0\0\x17")], "broken Parse packet"),
                (vec![message(b'B', b"no end")], "broken Bind packet"),
                (vec![message(b'D', b"Xkind\0")], "broken Describe packet"),
                (vec![message(b'D', b"Sname\0more")], "broken Describe packet"),
                (vec![message(b'C', b"")], "broken Close packet"),
            ] {
                let mut client = fleet.client();
                client.send(&messages.concat());
                assert_fatal(&mut client, "08P01", text);
            }
            // A name that is not in use may be closed.
            let mut client = fleet.client();
            client.send(&[close(b'S', "absent"), sync()].concat());
            assert_eq!(client.answer().order, "3Z");
        },
    );
}

#[test]
fn a_console_that_is_sent_nonsense() {
    let server = Postgres::start();
    fleets(
        &server,
        |builder| builder,
        |fleet| {
            for (bytes, text) in [
                (b"Q\0\0\0\x03".to_vec(), "bad packet"),
                (b"Q\xff\xff\xff\xff".to_vec(), "bad packet"),
                (b"Q\0\x10\0\0show version\0".to_vec(), "incomplete pkt"),
                (message(b'Q', b"show version"), "incomplete query"),
                (message(b'Q', b"show\0version\0"), "incomplete query"),
            ] {
                let mut console = fleet.console();
                console.send(&bytes);
                assert_fatal(&mut console, "08P01", text);
            }
            let ignored = fleet.console().query("set client_encoding = 'UTF8'");
            assert_eq!(ignored.tags, ["SET"]);
            let notice = &ignored.notices[0];
            assert_eq!((notice.severity(), notice.code(), notice.text()), ("NOTICE", "00000", "SET ignored"));
        },
    );
}

#[test]
fn a_notice_with_the_login() {
    let server = Postgres::start();
    fleets(
        &server,
        |builder| builder.setting("login_notify_message", "maintenance at noon"),
        |fleet| {
            for _ in 0..2 {
                let mut client = fleet.client();
                let [notice] = client.notices.as_slice() else { panic!("{:?}", client.notices) };
                assert_eq!((notice.severity(), notice.code(), notice.text()), ("NOTICE", "00000", "maintenance at noon"));
                assert_eq!(client.value("select 1"), "1");
            }
        },
    );
}
