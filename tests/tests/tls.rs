//! TLS with clients and with servers.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::tls::{Authority, TLS12, TLS13};
use end_to_end::{Client, Fleet, Postgres, SOON, driver, each_fleet, frontend, place, program, wait_until};
use std::io::{Read, Write};

const LOGIN: &[(&str, &str)] = &[("user", "app"), ("database", "app")];

fn is_running(server: &mut postgres::Client, text: &str) -> bool {
    let sql =
        "select count(*) from pg_stat_activity where state = 'active' and pid <> pg_backend_pid() and query like '%' || $1 || '%'";
    server.query_one(sql, &[&text]).unwrap().get::<_, i64>(0) > 0
}

#[test]
fn clients_in_every_mode_by_both_versions() {
    let server = Postgres::start();
    for authority in [Authority::new(), Authority::rsa()] {
        clients_by_both_versions(&server, &authority);
    }
}

fn clients_by_both_versions(server: &Postgres, authority: &Authority) {
    each_fleet(
        server,
        |builder| builder.client_tls(authority, "require"),
        |fleet, _| {
            for (version, name) in [(&TLS12, "TLSv1.2/ECDHE-"), (&TLS13, "TLSv1.3/TLS_")] {
                let config = authority.client(version, None);
                for connect in [Client::tls, Client::direct_tls] {
                    let mut client = connect(fleet.port(), &config);
                    client.start(LOGIN, None).unwrap();
                    assert_eq!(client.value("select 1"), "1");
                    assert_eq!(client.value("select length(repeat('x', 3000000))"), "3000000");
                    assert_eq!(client.value("select repeat('x', 3000000)").len(), 3_000_000);
                    fleet.wait_for_log(&format!("@127.0.0.1:{} login attempt: db=app user=app tls={name}", client.local_port()));
                    let shown = fleet_console(fleet, authority).query("show clients");
                    assert!(shown.lookup("port", &client.local_port().to_string(), "tls").starts_with(name));
                }
            }
        },
    );
}

fn fleet_console(fleet: &Fleet, authority: &Authority) -> Client {
    let mut console = Client::tls(fleet.port(), &authority.client(&TLS13, None));
    console.start(&[("user", "admin"), ("database", "pgbouncer")], None).unwrap();
    console
}

#[test]
fn what_is_refused_around_encryption() {
    let (server, authority) = (Postgres::start(), Authority::new());
    let fleet = Fleet::builder(&server).client_tls(&authority, "require").start();
    let config = authority.client(&TLS13, None);
    let request = frontend::untyped(frontend::SSL_REQUEST, b"");
    let mut plain = Client::tcp(fleet.port());
    let refused = plain.start(LOGIN, None).unwrap_err();
    assert_eq!((refused.code(), refused.text()), ("08P01", "SSL required"));
    // CVE-2021-3935.
    let mut early = Client::tcp(fleet.port());
    early.send(&[request.clone(), frontend::startup(LOGIN)].concat());
    assert_eq!(early.refusal().text(), "received unencrypted data after SSL request");
    let mut twice = Client::tls(fleet.port(), &config);
    twice.send(&request);
    twice.expect_end();
    fleet.wait_for_log("closing because: SSL req inside SSL");
    let mut other = Client::tls(fleet.port(), &config);
    other.send(&frontend::untyped(frontend::GSSENC_REQUEST, b""));
    assert_eq!(other.read_byte(), b'N');
    other.start(LOGIN, None).unwrap();
    let mut local = Client::unix(fleet.folder(), fleet.port());
    local.send(&request);
    assert_eq!(local.read_byte(), b'N', "never on a Unix socket");
    local.start(LOGIN, None).unwrap();
    let mut garbage = Client::tcp(fleet.port());
    garbage.send(&request);
    assert_eq!(garbage.read_byte(), b'S');
    garbage.send(b"this is no ClientHello");
    fleet.wait_for_log("TLS handshake failed: ");
    let mut wrong = (*config).clone();
    wrong.alpn_protocols = vec![b"h2".to_vec()];
    let error = Client::tcp(fleet.port()).encrypt(&wrong.into()).unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
}

#[test]
fn a_handshake_that_is_not_finished_ends_with_client_login_timeout() {
    let (server, authority) = (Postgres::start(), Authority::new());
    let fleet = Fleet::builder(&server).client_tls(&authority, "allow").setting("client_login_timeout", 1).start();
    let mut client = Client::tcp(fleet.port());
    client.send(&[0x16, 3, 1, 2, 0, 1]);
    fleet.wait_for_log("closing because: client_login_timeout");
    while client.try_read().is_ok_and(|message| message.is_some()) {}
}

#[test]
fn libpq_in_all_its_ways() {
    let (server, authority) = (Postgres::start(), Authority::new());
    let root = authority.file("ca.crt").display().to_string();
    let url = |fleet: &Fleet, tls: &str, version: &str| {
        let versions = format!("ssl_min_protocol_version={version} ssl_max_protocol_version={version}");
        format!("host=localhost hostaddr=127.0.0.1 port={} user=app dbname=app {tls} {versions}", fleet.port())
    };
    let full = format!("sslmode=verify-full sslrootcert={root}");
    each_fleet(
        &server,
        |builder| builder.client_tls(&authority, "require"),
        |fleet, _| {
            for version in ["TLSv1.2", "TLSv1.3"] {
                let url = url(fleet, &full, version);
                assert_eq!(program::psql(&url, "select 'through psql'"), Ok("through psql".to_owned()));
            }
            driver::run("tls.py", fleet.port(), &[&format!("{} sslnegotiation=direct", url(fleet, &full, "TLSv1.3"))]);
        },
    );
    let fleet = Fleet::builder(&server).workers(2).client_tls(&authority, "require").start();
    for tls in ["sslmode=require", &full] {
        for version in ["TLSv1.2", "TLSv1.3"] {
            let url = url(&fleet, tls, version);
            assert_eq!(program::psql(&url, "select 'through psql'"), Ok("through psql".to_owned()));
            for negotiation in ["postgres", "direct"] {
                driver::run("tls.py", fleet.port(), &[&format!("{url} sslnegotiation={negotiation}")]);
            }
        }
    }
}

#[test]
fn records_byte_by_byte_and_new_keys() {
    let (server, authority) = (Postgres::start(), Authority::new());
    let fleet = Fleet::builder(&server).client_tls(&authority, "require").start();
    let mut client = Client::tls(fleet.port(), &authority.client(&TLS13, None));
    client.start(LOGIN, None).unwrap();
    let query = frontend::query(&format!("select length('{}')", "x".repeat(16_350)));
    for round in 0..3 {
        let (session, socket) = client.tls_parts();
        session.refresh_traffic_keys().unwrap();
        session.writer().write_all(&query).unwrap();
        let mut records = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut records).unwrap();
        }
        if round == 0 {
            for byte in &records {
                socket.write_all(&[*byte]).unwrap();
            }
        } else {
            socket.write_all(&records).unwrap();
        }
        assert_eq!(client.answer().value(), "16350");
    }
}

#[test]
fn a_query_is_cancelled_in_the_clear_and_inside_tls() {
    let authority = Authority::new();
    let server = Postgres::start_with(&authority.postgres("server"));
    each_fleet(
        &server,
        |builder| builder.client_tls(&authority, "require").server_tls(&authority, "require"),
        |fleet, _| {
            let mut admin = server.admin();
            let config = authority.client(&TLS13, None);
            let mut client = Client::tls(fleet.port(), &config);
            client.start(LOGIN, None).unwrap();
            for inside in [true, false, true] {
                client.send(&frontend::query("select pg_sleep(60)"));
                wait_until("the query to run", SOON, || is_running(&mut admin, "pg_sleep(60)"));
                let mut request = if inside { Client::direct_tls(fleet.port(), &config) } else { Client::tcp(fleet.port()) };
                request.send(&frontend::cancel(&client.key));
                assert_eq!(client.answer().error().code(), "57014");
                assert_eq!(client.value("select 'still here'"), "still here");
            }
            assert_eq!(fleet.logged("cancel_wait_timeout"), 0);
        },
    );
}

/// What becomes of a connection to a server.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    Clear,
    Inside,
    /// The log says why.
    Refused(&'static str),
}

use Outcome::{Clear, Inside, Refused};

const NO_TLS: Outcome = Refused("server refused SSL");
const STRANGER: Outcome = Refused("invalid peer certificate");

/// A new client's server connection comes to that.
#[track_caller]
fn assert_server_side(server: &Postgres, authority: &Authority, mode: &str, outcome: Outcome) {
    let builder = Fleet::builder(server).server_tls(authority, mode);
    let (inside, refused) = match outcome {
        Clear => (false, None),
        Inside => (true, None),
        Refused(why) => (false, Some(why)),
    };
    let builder = if refused.is_some() { builder.setting("query_wait_timeout", 2) } else { builder };
    let fleet = builder.start();
    let mut client = Client::tcp(fleet.port());
    let started = client.start(LOGIN, None);
    if let Some(why) = refused {
        assert!(started.is_err(), "{mode}");
        fleet.wait_for_log(why);
        return;
    }
    assert!(started.is_ok(), "{mode}: {started:?}");
    let seen = client.value("select ssl from pg_stat_ssl where pid = pg_backend_pid()") == "t";
    let shown = fleet.console().query("show servers").column("tls").iter().any(|tls| tls.starts_with("TLSv1.3/"));
    assert_eq!((seen, shown), (inside, inside), "{mode}");
}

#[test]
fn servers_with_and_without_tls_in_every_mode() {
    let authority = Authority::new();
    let clear = Postgres::start();
    let inside = Postgres::start_with(&authority.postgres("server"));
    let strangers = Authority::new();
    let stranger = Postgres::start_with(&strangers.postgres("server"));
    for (mode, of_clear, of_inside, of_stranger) in [
        ("disable", Clear, Clear, Clear),
        ("allow", Clear, Inside, Inside),
        ("prefer", Clear, Inside, Inside),
        ("require", NO_TLS, Inside, Inside),
        ("verify-ca", NO_TLS, Inside, STRANGER),
        ("verify-full", NO_TLS, Inside, STRANGER),
    ] {
        assert_server_side(&clear, &authority, mode, of_clear);
        assert_server_side(&inside, &authority, mode, of_inside);
        assert_server_side(&stranger, &authority, mode, of_stranger);
    }
}

#[test]
fn a_server_of_another_name() {
    let authority = Authority::new();
    authority.sign("elsewhere", &["db.example"]);
    let server = Postgres::start_with(&authority.postgres("elsewhere"));
    assert_server_side(&server, &authority, "verify-ca", Inside);
    assert_server_side(&server, &authority, "verify-full", Refused("not valid for name"));
}

#[test]
fn direct_tls_with_a_server() {
    let authority = Authority::new();
    let server = Postgres::start_newest(&authority.postgres("server"));
    let entry = format!("host=localhost port={} dbname=app sslnegotiation=direct", server.port());
    let fleet = Fleet::builder(&server).server_tls(&authority, "verify-full").database("app", entry).start();
    let mut client = fleet.client();
    assert_eq!(client.value("select ssl from pg_stat_ssl where pid = pg_backend_pid()"), "t");
    let mut admin = server.admin();
    client.send(&frontend::query("select pg_sleep(60)"));
    wait_until("the query to run", SOON, || is_running(&mut admin, "pg_sleep(60)"));
    client.cancel(fleet.port());
    assert_eq!(client.answer().error().code(), "57014");
}

#[test]
fn servers_inside_tls_travel_between_workers() {
    for (version, authority) in [("TLSv1.2", Authority::rsa()), ("TLSv1.3", Authority::new())] {
        let settings = format!(
            "{}ssl_min_protocol_version = '{version}'\nssl_max_protocol_version = '{version}'\n",
            authority.postgres("server")
        );
        let server = Postgres::start_with(&settings);
        let builder = Fleet::builder(&server).workers(2).pool_size(1).setting("accept_balance", 0);
        let fleet = builder.server_tls(&authority, "verify-full").start();
        let mut clients = place(&fleet, &[1, 1], || fleet.client());
        let backend = clients[0].value("select pg_backend_pid()");
        for round in 0..200 {
            for client in &mut clients {
                let answer = client.value(&format!("select pg_backend_pid() || '/{round}/' || repeat('x', 40000)"));
                assert!(answer.starts_with(&format!("{backend}/{round}/")) && answer.len() > 40_000);
            }
        }
        assert_eq!(fleet.logged("TLS error"), 0);
    }
}

/// What a server sends before TLS is not what is at the other end of it (CVE-2021-23222); one that does not know what it is asked is none.
#[test]
fn servers_that_answer_otherwise() {
    let (server, authority) = (Postgres::start(), Authority::new());
    for (answer, logged) in
        [(&b"Sx"[..], "received unencrypted data after SSL response"), (b"E", "bad sslreq answer"), (b"N", "server refused SSL")]
    {
        let port = impostor_of_tls(answer);
        let entry = format!("host=127.0.0.1 port={port}");
        let fleet = Fleet::builder(&server).server_tls(&authority, "require").database("app", entry).start();
        let mut client = Client::tcp(fleet.port());
        client.send(&frontend::startup(LOGIN));
        fleet.wait_for_log(logged);
    }
}

/// Listens and answers each connection's first packet with these bytes.
fn impostor_of_tls(answer: &'static [u8]) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut packet = [0; 8];
            if stream.read_exact(&mut packet).is_ok() {
                let _ = stream.write_all(answer);
                let _ = stream.read(&mut packet);
            }
        }
    });
    port
}

#[test]
fn the_console_inside_tls() {
    let (server, authority) = (Postgres::start(), Authority::new());
    let fleet = Fleet::builder(&server).client_tls(&authority, "require").start();
    for version in [&TLS12, &TLS13] {
        let mut console = Client::tls(fleet.port(), &authority.client(version, None));
        console.start(&[("user", "admin"), ("database", "pgbouncer")], None).unwrap();
        for _ in 0..3 {
            assert!(console.query("show config").rows.len() > 50);
        }
        let own = console.query("show clients").lookup("database", "pgbouncer", "tls");
        assert!(own.starts_with("TLSv1."), "{own}");
        console.send(&frontend::terminate());
        console.expect_end();
    }
}
