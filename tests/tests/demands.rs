//! What is demanded of servers before they are trusted: channel binding, and the methods that they may ask for.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::frontend::{message, startup, strings};
use end_to_end::impostor::{Impostor, Peer, authentication};
use end_to_end::tls::{Authority, TLS13};
use end_to_end::{Client, Fields, Fleet, Postgres, SOON, each_fleet, wait_until};
use nix::sys::signal::Signal;
use std::sync::{Arc, Mutex};

const PLAIN: &str = "SCRAM-SHA-256";
const PLUS: &str = "SCRAM-SHA-256-PLUS";
const SECRET: &str = "scram-password";

fn log_in(fleet: &Fleet, user: &str, database: &str, password: &str) -> Result<Client, Fields> {
    let mut client = Client::tcp(fleet.port());
    client.start(&[("user", user), ("database", database)], Some(password)).map(|()| client)
}

/// A client that gets no server is told why.
#[track_caller]
fn assert_distrusted(fleet: &Fleet, database: &str, why: &str) {
    let refused = log_in(fleet, "app", database, "").expect_err(database);
    assert_eq!((refused.code(), refused.text()), ("08P01", format!("server login failed: {why}").as_str()), "{database}");
}

/// However the password is known: in clear text, by a client's proof, by `auth_query` and a client's proof.
#[test]
fn servers_are_logged_in_to_with_binding() {
    let authority = Authority::new();
    for server in [Postgres::start_with(&authority.postgres("server")), Postgres::start_newest(&authority.postgres("server"))] {
        let verifier: String =
            server.admin().query_one("select rolpassword from pg_authid where rolname = 'scram_user'", &[]).unwrap().get(0);
        let at = format!("host=localhost port={} dbname=app", server.port());
        each_fleet(
            &server,
            |builder| {
                builder
                    .setting("auth_type", "scram-sha-256")
                    .server_tls(&authority, "verify-full")
                    .setting("server_channel_binding", "require")
                    .setting("server_require_auth", "scram-sha-256")
                    .secret("scram_user", &verifier)
                    .database("app", &at)
                    .database("clear", format!("{at} user=scram_user password={SECRET}"))
            },
            |fleet, _| {
                for (user, database, password) in [("app", "clear", "app-password"), ("scram_user", "app", SECRET)] {
                    let mut client = log_in(fleet, user, database, password).unwrap();
                    assert_eq!(client.value("select current_user"), "scram_user");
                    assert_eq!(client.value("select ssl from pg_stat_ssl where pid = pg_backend_pid()"), "t");
                }
            },
        );
        let fleet = Fleet::builder(&server)
            .setting("auth_type", "scram-sha-256")
            .server_tls(&authority, "require")
            .setting("server_channel_binding", "require")
            .setting("auth_user", "scram_user")
            .setting("auth_query", "select $1::text, (select secret from secrets where name = $1)")
            .database("app", &at)
            .secret("scram_user", SECRET);
        server
            .admin()
            .batch_execute(
                "set password_encryption = 'scram-sha-256'; create role looked_up login password 'found'; \
                 create table secrets as select rolname::text as name, rolpassword as secret from pg_authid where rolname = 'looked_up'; \
                 grant select on secrets to scram_user",
            )
            .unwrap();
        scram_for_all(&server);
        let fleet = fleet.start();
        let mut client = log_in(&fleet, "looked_up", "app", "found").unwrap();
        assert_eq!(client.value("select current_user"), "looked_up");
    }
}

/// From now on PostgreSQL asks everybody over TCP for SCRAM.
fn scram_for_all(server: &Postgres) {
    let mut admin = server.admin();
    let file: String = admin.query_one("show hba_file", &[]).unwrap().get(0);
    std::fs::write(file, "local all all trust\nhost all all all scram-sha-256\n").unwrap();
    admin.batch_execute("select pg_reload_conf()").unwrap();
}

#[test]
fn what_postgresql_may_ask_for() {
    let authority = Authority::new();
    let server = Postgres::start_with(&authority.postgres("server"));
    let at = format!("host=127.0.0.1 port={} dbname=app", server.port());
    let method =
        |demanded: &str, asked: &str| Some(format!("authentication method requirement \"{demanded}\" failed: server {asked}"));
    let cases = [
        ("user=scram_user password=scram-password channel_binding=require require_auth=scram-sha-256", None),
        ("user=scram_user password=scram-password channel_binding=disable", None),
        ("user=plain_user password=plain-password require_auth=password", None),
        ("user=plain_user password=plain-password require_auth=!md5,!none", None),
        ("user=app require_auth=none,scram-sha-256", None),
        (
            "user=plain_user password=plain-password require_auth=scram-sha-256",
            method("scram-sha-256", "requested a cleartext password"),
        ),
        ("user=plain_user password=plain-password require_auth=!password", method("!password", "requested a cleartext password")),
        ("user=md5_user password=md5-password require_auth=scram-sha-256", method("scram-sha-256", "requested a hashed password")),
        ("user=scram_user password=scram-password require_auth=md5", method("md5", "requested SASL authentication")),
        ("user=app require_auth=scram-sha-256", method("scram-sha-256", "did not complete authentication")),
        ("user=app require_auth=!none", method("!none", "did not complete authentication")),
        (
            "user=md5_user password=md5-password channel_binding=require",
            Some("channel binding required but not supported by server's authentication request".to_owned()),
        ),
        (
            "user=app channel_binding=require",
            Some("channel binding required, but server authenticated client without channel binding".to_owned()),
        ),
    ];
    let builder = Fleet::builder(&server).workers(1).server_tls(&authority, "require").setting("server_login_retry", 1);
    let named = |at: usize| format!("case_{at}");
    let builder = cases
        .iter()
        .enumerate()
        .fold(builder, |builder, (case, (entry, _))| builder.database(&named(case), format!("{at} {entry}")));
    let fleet = builder.start();
    for (case, (entry, refused)) in cases.iter().enumerate() {
        match refused {
            None => assert_eq!(log_in(&fleet, "app", &named(case), "").expect(entry).value("select 1"), "1"),
            Some(why) => assert_distrusted(&fleet, &named(case), why),
        }
    }
    // On the Unix socket there is no TLS to be bound to.
    let entry =
        format!("host={} port={} dbname=app user=app channel_binding=require", server.socket_dir().display(), server.port());
    let fleet = Fleet::builder(&server).database("app", entry).start();
    assert_distrusted(&fleet, "app", "channel binding required, but server authenticated client without channel binding");
}

/// What an impostor does.
#[derive(Clone, Copy)]
enum Step {
    /// Offers SCRAM, and reads the choice only.
    Offer,
    /// Goes through SCRAM with these mechanisms up to the client's proof.
    Scram(&'static [&'static str]),
    /// Sends a signature that is none.
    Sign,
    /// Asks for a password.
    Ask(u32),
    /// Lets the client in.
    Welcome,
}

/// What an impostor has been sent in answer to its requests.
type Heard = Arc<Mutex<Vec<Vec<u8>>>>;

fn sasl(mechanisms: &[&str]) -> Vec<u8> {
    authentication(10, &[strings(mechanisms), vec![0]].concat())
}

/// Goes through SCRAM up to the client's proof, which it cannot check.
fn take_proof(peer: &mut Peer, mechanisms: &[&str], heard: &Heard) {
    peer.send(&sasl(mechanisms));
    let Some(initial) = peer.read() else { return };
    heard.lock().unwrap().push(initial.body.clone());
    let text = String::from_utf8_lossy(&initial.body).into_owned();
    let nonce = text.rsplit("r=").next().unwrap_or_default();
    peer.send(&authentication(11, format!("r={nonce}abc,s=QUFBQUFBQUFBQUFBQUFBQQ==,i=4096").as_bytes()));
    heard.lock().unwrap().extend(peer.read().map(|message| message.body));
}

/// Whoever is no server of ours: none is believed, and where something is demanded none is told anything.
#[test]
fn servers_that_prove_nothing() {
    use Step::{Ask, Offer, Scram, Sign, Welcome};
    let (server, authority) = (Postgres::start(), Authority::new());
    let signature = "invalid server signature";
    let order = "failed to answer authreq";
    let cases: [(&'static [Step], bool, &str, &str, usize); 12] = [
        // Without any demand: a proof that has begun has to be ended, by both.
        (&[Scram(&[PLAIN]), Welcome], false, "", signature, 2),
        (&[Scram(&[PLAIN]), Sign, Welcome], false, "", signature, 2),
        (&[Scram(&[PLUS, PLAIN]), Welcome], true, "", signature, 2),
        (&[Offer, Welcome], false, "", signature, 0),
        (&[Sign, Welcome], false, "", order, 0),
        (&[Scram(&[PLAIN]), Ask(3)], false, "", order, 2),
        // By what is demanded.
        (&[Ask(3)], false, "require_auth=scram-sha-256", "requested a cleartext password", 0),
        (&[Ask(5)], false, "require_auth=scram-sha-256", "requested a hashed password", 0),
        (&[Welcome], true, "require_auth=scram-sha-256", "did not complete authentication", 0),
        (&[Ask(3)], true, "channel_binding=require", "not supported by server's authentication request", 0),
        (&[Welcome], true, "channel_binding=require", "authenticated client without channel binding", 0),
        (&[Scram(&[PLAIN])], true, "channel_binding=require", "server did not offer", 0),
    ];
    for (steps, inside, demanded, logged, answers) in cases {
        let heard = Heard::default();
        let listener = Arc::clone(&heard);
        let talk = move |peer: &mut Peer| {
            for step in steps {
                take(*step, peer, &listener);
            }
            peer.listen();
        };
        let impostor = if inside { Impostor::inside_tls(&authority, talk) } else { Impostor::start(talk) };
        let entry = format!("host=127.0.0.1 port={} dbname=app user=app password=secret {demanded}", impostor.port());
        let mode = if inside { "require" } else { "prefer" };
        let fleet = Fleet::builder(&server).workers(1).server_tls(&authority, mode).database("app", entry).start();
        let mut client = Client::tcp(fleet.port());
        client.send(&startup(&[("user", "app"), ("database", "app")]));
        let line = fleet.wait_for_log(logged);
        assert!(line.contains("WARNING"), "{line}");
        let heard = heard.lock().unwrap();
        assert_eq!(heard.len(), answers, "{demanded} {logged}");
        assert!(heard.iter().all(|body| !body.windows(6).any(|bytes| bytes == b"secret")), "{demanded} {logged}");
    }
}

fn take(step: Step, peer: &mut Peer, heard: &Heard) {
    match step {
        Step::Offer => {
            peer.send(&sasl(&[PLAIN]));
            peer.read();
        }
        Step::Scram(mechanisms) => take_proof(peer, mechanisms, heard),
        Step::Sign => peer.send(&authentication(12, b"v=AAAA")),
        Step::Ask(kind) => ask(peer, heard, kind),
        Step::Welcome => peer.welcome(),
    }
}

/// Asks for a password.
fn ask(peer: &mut Peer, heard: &Heard, kind: u32) {
    peer.send(&authentication(kind, if kind == 5 { b"salt" } else { b"" }));
    heard.lock().unwrap().extend(peer.read().map(|message| message.body));
}

/// A hash is not told to whoever asks for a password in clear text.
#[test]
fn hashes_and_verifiers_are_no_passwords() {
    let server = Postgres::start();
    let heard = Heard::default();
    let listener = Arc::clone(&heard);
    let impostor = Impostor::start(move |peer| ask(peer, &listener, 3));
    let at = format!("host=127.0.0.1 port={} dbname=app user=app", impostor.port());
    let fleet = Fleet::builder(&server).workers(1).database("app", format!("{at} password=md5{}", "0".repeat(32))).start();
    assert_distrusted(&fleet, "app", "wrong password type");
    assert!(heard.lock().unwrap().is_empty());
}

/// One with a certificate of its own passes everything on, between the fleet and PostgreSQL, which both speak TLS: the login is bound to another
/// certificate than PostgreSQL's, and it says so. One that keeps the binding from us is found out too.
#[test]
fn somebody_in_between() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = Postgres::start_with(&authority.postgres("server"));
    for (keeps_back, code, text) in
        [(false, "28000", "SCRAM channel binding check failed"), (true, "28000", "SCRAM channel binding negotiation error")]
    {
        let (port, config) = (server.port(), authority.client(&TLS13, None));
        let between = Impostor::inside_tls(&stranger, move |peer| {
            let mut real = Client::tls(port, &config);
            real.send(&startup(&[("user", "scram_user"), ("database", "app")]));
            while let Ok(Some(said)) = real.try_read() {
                let offer = said.kind == b'R' && said.body[3] == 10;
                let said = if offer && keeps_back { sasl(&[PLAIN]) } else { message(said.kind, &said.body) };
                peer.send(&said);
                if said[0] == b'R' && matches!(said[8], 10 | 11) {
                    let Some(answer) = peer.read() else { return };
                    real.send(&message(answer.kind, &answer.body));
                }
            }
        });
        let entry =
            |more: &str| format!("host=127.0.0.1 port={} dbname=app user=scram_user password={SECRET} {more}", between.port());
        let mut fleet = Fleet::builder(&server)
            .workers(1)
            .server_tls(&authority, "require")
            .setting("server_login_retry", 1)
            .database("app", entry(""))
            .start();
        let refused = log_in(&fleet, "app", "app", "").unwrap_err();
        assert_eq!((refused.code(), refused.text()), (code, text));
        // Without binding nobody notices, as with PgBouncer.
        fleet.change_database("app", entry("channel_binding=disable"));
        fleet.signal(Signal::SIGHUP);
        wait_until("a login without binding", SOON, || log_in(&fleet, "app", "app", "").is_ok());
    }
}
