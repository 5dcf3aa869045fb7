//! Channel binding: SCRAM-SHA-256-PLUS with clients, who are then sure that nobody is in between.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::frontend::{password, sasl_initial, startup};
use end_to_end::tls::{Authority, TLS12, TLS13};
use end_to_end::{Client, Fields, Fleet, Postgres, SOON, driver, each_fleet, program::psql, wait_until};
use nix::sys::signal::Signal;

const PLAIN: &str = "SCRAM-SHA-256";
const PLUS: &str = "SCRAM-SHA-256-PLUS";
const PASSWORD: &str = "scram-password";
const LOGIN: &[(&str, &str)] = &[("user", "scram_user"), ("database", "app")];
const BOUND: &str = "p=tls-server-end-point,,";

fn verifier(server: &Postgres) -> String {
    server.admin().query_one("select rolpassword from pg_authid where rolname = 'scram_user'", &[]).unwrap().get(0)
}

/// The verifier is stored: the client's proof opens the server.
fn builder(server: &Postgres, authority: &Authority) -> end_to_end::Builder {
    let builder = Fleet::builder(server).setting("auth_type", "scram-sha-256").setting("server_login_retry", 1);
    builder.client_tls(authority, "allow").secret("scram_user", &verifier(server))
}

fn url(fleet: &Fleet, rest: &str) -> String {
    format!("host=localhost hostaddr=127.0.0.1 port={} dbname=app sslmode=require {rest}", fleet.port())
}

#[test]
fn whoever_knows_the_password_binds_the_login() {
    let (server, authority) = (Postgres::start(), Authority::new());
    let stored = verifier(&server);
    each_fleet(
        &server,
        |builder| {
            let builder = builder.setting("auth_type", "scram-sha-256").client_tls(&authority, "allow");
            builder.secret("scram_user", &stored)
        },
        |fleet, _| {
            for (version, connect) in [
                (&TLS12, Client::tls as fn(_, &_) -> _),
                (&TLS13, Client::tls),
                (&TLS12, Client::direct_tls),
                (&TLS13, Client::direct_tls),
            ] {
                let config = authority.client(version, None);
                for (user, secret) in [("scram_user", PASSWORD), ("app", "app-password")] {
                    let mut client = connect(fleet.port(), &config);
                    client.start(&[("user", user), ("database", "app")], Some(secret)).unwrap();
                    assert_eq!(client.value("select current_user"), user);
                    for (user, wrong) in [(user, "wrong"), ("stranger", secret)] {
                        let mut client = connect(fleet.port(), &config);
                        let refused = client.start(&[("user", user), ("database", "app")], Some(wrong)).unwrap_err();
                        assert_eq!((refused.code(), refused.text()), ("28P01", "SASL authentication failed"));
                    }
                }
            }
            // In the clear there is nothing to bind to, and nothing is offered.
            Client::tcp(fleet.port()).start(LOGIN, Some(PASSWORD)).unwrap();
        },
    );
}

#[test]
fn libpq_that_demands_it() {
    let (server, authority) = (Postgres::start(), Authority::new());
    let fleet = builder(&server, &authority).workers(2).start();
    for (user, secret) in [("scram_user", PASSWORD), ("app", "app-password")] {
        for binding in ["require", "prefer", "disable"] {
            let url = url(&fleet, &format!("user={user} password={secret} channel_binding={binding}"));
            assert_eq!(psql(&url, "select current_user").as_deref(), Ok(user), "{binding}");
            for negotiation in ["postgres", "direct"] {
                driver::run(
                    "tls.py",
                    fleet.port(),
                    &[&format!("{url} sslnegotiation={negotiation} require_auth={}", "scram-sha-256")],
                );
            }
        }
        let wrong = url(&fleet, &format!("user={user} password=wrong channel_binding=require"));
        assert!(psql(&wrong, "select 1").unwrap_err().contains("SASL authentication failed"));
    }
}

/// Where the login comes to after the client's first message, and its last with this `c=`.
fn attempt(client: &mut Client, mechanism: &str, header: &str, attribute: Option<&[u8]>) -> Fields {
    client.send(&startup(LOGIN));
    assert_eq!(client.read().body, [b"\0\0\0\x0a", PLUS.as_bytes(), b"\0", PLAIN.as_bytes(), b"\0\0"].concat());
    client.send(&sasl_initial(mechanism, format!("{header}n=,r=0123456789abcdef").as_bytes()));
    if let Some(attribute) = attribute {
        let message = client.read();
        let challenge = String::from_utf8(message.body[4..].to_vec()).unwrap();
        let nonce = challenge.split(',').next().unwrap();
        let proof = base64(&[7; 32]);
        client.send(&password(format!("c={},{nonce},p={proof}", base64(attribute)).as_bytes()));
    }
    let message = client.read();
    assert_eq!(message.kind, b'E', "{mechanism} {header} {attribute:?}");
    message.fields()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let sextets = |group: &[u8]| {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        let digit = |at: usize| if at <= group.len() { char::from(DIGITS[(bits >> (18 - 6 * at) & 63) as usize]) } else { '=' };
        [0, 1, 2, 3].map(digit)
    };
    bytes.chunks(3).flat_map(sextets).collect()
}

/// Each trick of somebody in between, tried on PostgreSQL too: it is told the same by both.
#[test]
fn somebody_in_between() {
    let authority = Authority::new();
    let server = Postgres::start_with(&authority.postgres("server"));
    let fleet = builder(&server, &authority).workers(1).start();
    let config = authority.client(&TLS13, None);
    let bound = |data: &[u8]| [BOUND.as_bytes(), data].concat();
    let right = bound(&Client::tls(fleet.port(), &config).endpoint().unwrap());
    let (foreign, short, empty, long) = (bound(&[9; 32]), &right[..right.len() - 1], bound(b""), [&right[..], &[0]].concat());
    for (mechanism, header, attribute, code, text) in [
        (PLAIN, "y,,", None, "28000", "SCRAM channel binding negotiation error"),
        (PLAIN, BOUND, None, "08P01", "malformed SCRAM message"),
        (PLUS, "n,,", None, "08P01", "malformed SCRAM message"),
        (PLUS, "y,,", None, "08P01", "malformed SCRAM message"),
        (PLUS, "p=tls-unique,,", None, "08P01", "unsupported SCRAM channel-binding type \"tls-unique\""),
        (PLUS, BOUND, Some(&foreign[..]), "28000", "SCRAM channel binding check failed"),
        (PLUS, BOUND, Some(short), "28000", "SCRAM channel binding check failed"),
        (PLUS, BOUND, Some(&long), "28000", "SCRAM channel binding check failed"),
        (PLUS, BOUND, Some(&empty), "28000", "SCRAM channel binding check failed"),
        (PLUS, BOUND, Some(b"n,,"), "28000", "SCRAM channel binding check failed"),
        (PLAIN, "n,,", Some(b"y,,"), "08P01", "unexpected SCRAM channel-binding attribute in client-final-message"),
        (PLAIN, "n,,", Some(&right), "08P01", "unexpected SCRAM channel-binding attribute in client-final-message"),
        ("SCRAM-SHA-1", "n,,", None, "08P01", "client selected an invalid SASL authentication mechanism"),
    ] {
        for port in [server.port(), fleet.port()] {
            let fields = attempt(&mut Client::tls(port, &config), mechanism, header, attribute);
            assert_eq!((fields.severity(), fields.code(), fields.text()), ("FATAL", code, text), "{mechanism} {header}");
        }
    }
    // With the right binding it is the proof that fails.
    let fields = attempt(&mut Client::tls(fleet.port(), &config), PLUS, BOUND, Some(&right));
    assert_eq!((fields.code(), fields.text()), ("28P01", "SASL authentication failed"));
}

#[test]
fn a_certificate_that_binds_nothing() {
    let (server, authority) = (Postgres::start(), Authority::ed25519());
    let fleet = builder(&server, &authority).start();
    let mut client = Client::tls(fleet.port(), &authority.client(&TLS13, None));
    assert_eq!(client.endpoint(), None);
    client.start(LOGIN, Some(PASSWORD)).unwrap();
    let user = format!("user=scram_user password={PASSWORD}");
    assert_eq!(psql(&url(&fleet, &user), "select current_user").as_deref(), Ok("scram_user"), "which says that it could have");
    let demanded = psql(&url(&fleet, &format!("{user} channel_binding=require")), "select 1").unwrap_err();
    assert!(demanded.contains("channel binding is required"), "{demanded}");
}

/// What a login is bound to is the certificate that its client was shown.
#[test]
fn a_certificate_that_is_replaced_in_the_middle_of_a_login() {
    let (server, authority) = (Postgres::start(), Authority::new());
    let fleet = builder(&server, &authority).workers(2).start();
    let config = authority.client(&TLS13, None);
    let before: Vec<Client> = (0..4).map(|_| Client::tls(fleet.port(), &config)).collect();
    let shown = before[0].endpoint();
    authority.sign("server", &["localhost"]);
    fleet.signal(Signal::SIGHUP);
    let mut in_force = 0;
    wait_until("the other certificate", SOON, || {
        in_force = if Client::tls(fleet.port(), &config).endpoint() == shown { 0 } else { in_force + 1 };
        in_force > 8
    });
    for mut client in before {
        assert_eq!(client.endpoint(), shown);
        client.start(LOGIN, Some(PASSWORD)).unwrap();
    }
    let mut client = Client::tls(fleet.port(), &config);
    assert_ne!(client.endpoint(), shown);
    client.start(LOGIN, Some(PASSWORD)).unwrap();
}
