//! Clients' certificates: auth_type=cert, rules that ask for one, and rules for connections inside TLS and in the clear.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::tls::{Authority, TLS12, TLS13};
use end_to_end::{Builder, Client, Fields, Fleet, Postgres, each_worker_count};

/// An authority that has signed for people and things.
fn authority() -> Authority {
    let authority = Authority::new();
    authority.sign("app", &[]);
    authority.sign("robot", &["other", "*.apps.example"]);
    authority
}

fn asks_for_certificates(builder: Builder, authority: &Authority, mode: &str) -> Builder {
    builder.client_tls(authority, mode).setting("client_tls_ca_file", authority.file("ca.crt").display())
}

/// Logs in inside TLS, showing this certificate.
fn log_in(fleet: &Fleet, authority: &Authority, shown: Option<&str>, user: &str, database: &str) -> Result<Client, Fields> {
    let mut client = Client::tls(fleet.port(), &authority.client(&TLS13, shown));
    client.start(&[("user", user), ("database", database)], None).map(|()| client)
}

#[track_caller]
fn assert_refused(result: Result<Client, Fields>, text: &str) {
    let fields = result.expect_err("the login should be refused");
    assert_eq!((fields.severity(), fields.code(), fields.text()), ("FATAL", "28000", text));
}

const FAILED: &str = "certificate authentication failed";

#[test]
fn a_certificate_is_the_login() {
    let (server, authority) = (Postgres::start(), authority());
    let build = |builder: Builder| asks_for_certificates(builder, &authority, "verify-full").setting("auth_type", "cert");
    each_worker_count(&server, build, |fleet| {
        let log_in = |shown, user| log_in(fleet, &authority, Some(shown), user, "app");
        for _ in 0..3 {
            assert_eq!(log_in("app", "app").unwrap().value("select current_user"), "app", "the common name");
            assert_eq!(log_in("robot", "other").unwrap().value("select current_user"), "other", "an alternative name");
        }
        // As in PgBouncer, the common name counts beside alternative ones, and `*` stands for a label. PostgreSQL does not know these two.
        for user in ["robot", "one.apps.example"] {
            assert_refused(log_in("robot", user), &format!("role \"{user}\" does not exist"));
        }
        for user in ["other", "admin", "apps.example", "a.b.apps.example"] {
            assert_refused(log_in("app", user), FAILED);
        }
        fleet.wait_for_log("TLS certificate name mismatch");
        // On the Unix socket there are no certificates.
        let mut local = Client::unix(fleet.folder(), fleet.port());
        assert_refused(local.start(&[("user", "app"), ("database", "app")], None).map(|()| local), FAILED);
        fleet.wait_for_log("TLS connection required");
    });
}

/// Users that only PostgreSQL knows; who is unknown there too is nobody, whatever the certificate says.
#[test]
fn users_of_auth_query() {
    let (server, authority) = (Postgres::start(), authority());
    authority.sign("scram_user", &[]);
    let entry = format!("host=127.0.0.1 port={} dbname=app user=app", server.port());
    let build = |builder: Builder| {
        let builder = asks_for_certificates(builder, &authority, "verify-full").database("app", &entry);
        builder
            .setting("auth_type", "cert")
            .setting("auth_user", "app")
            .setting("auth_query", "select rolname, null from pg_roles where rolname = $1")
    };
    each_worker_count(&server, build, |fleet| {
        for _ in 0..3 {
            let mut client = log_in(fleet, &authority, Some("scram_user"), "scram_user", "app").unwrap();
            assert_eq!(client.value("select current_user"), "app", "whom the entry forces");
            assert_refused(log_in(fleet, &authority, Some("robot"), "robot", "app"), FAILED);
        }
        fleet.wait_for_log("no such user: robot");
    });
}

#[test]
fn without_a_certificate_of_the_authority_there_is_no_session() {
    let (server, authority) = (Postgres::start(), authority());
    let fleet = asks_for_certificates(Fleet::builder(&server), &authority, "verify-full").setting("auth_type", "cert").start();
    let stranger = Authority::new();
    stranger.sign("app", &[]);
    let config = |shown| {
        let mut config = (*authority.client(&TLS12, None)).clone();
        if shown {
            config.client_auth_cert_resolver = stranger.client(&TLS12, Some("app")).client_auth_cert_resolver.clone();
        }
        config.into()
    };
    for (shown, alert) in [(false, "CertificateRequired"), (true, "DecryptError")] {
        let error = Client::tcp(fleet.port()).encrypt(&config(shown)).unwrap_err();
        assert!(error.to_string().contains(alert), "{error}");
    }
    let mut clear = Client::tcp(fleet.port());
    let refused = clear.start(&[("user", "app"), ("database", "app")], None).unwrap_err();
    assert_eq!((refused.code(), refused.text()), ("08P01", "SSL required"));
}

#[test]
fn the_console_by_certificate() {
    let (server, authority) = (Postgres::start(), authority());
    authority.sign("admin", &[]);
    authority.sign("stats", &[]);
    let fleet = asks_for_certificates(Fleet::builder(&server), &authority, "verify-full").setting("auth_type", "cert").start();
    let mut app = log_in(&fleet, &authority, Some("app"), "app", "app").unwrap();
    let backend = app.value("select pg_backend_pid()");
    let mut console = log_in(&fleet, &authority, Some("admin"), "admin", "pgbouncer").unwrap();
    let clients = console.query("show clients");
    for database in ["app", "pgbouncer"] {
        assert!(clients.lookup("database", database, "tls").starts_with("TLSv1.3/TLS_"), "{clients:?}");
    }
    assert_eq!(console.query("show servers").lookup("remote_pid", &backend, "tls"), "", "the server's connection is in the clear");
    assert!(console.query("reload").errors.is_empty());
    let mut stats = log_in(&fleet, &authority, Some("stats"), "stats", "pgfleet").unwrap();
    assert!(!stats.query("reload").errors.is_empty());
    assert_refused(log_in(&fleet, &authority, Some("stats"), "admin", "pgbouncer"), FAILED);
}

/// A certificate of which a rule has use; who has none is asked for something else.
#[test]
fn rules_tell_connections_inside_tls_from_others() {
    let (server, authority) = (Postgres::start(), authority());
    let rules = "\
        hostssl   app    app   all scram-sha-256\n\
        hostnossl app    app   all md5\n\
        hostssl   app    other all reject\n\
        host      app    other all trust\n\
        hostnossl app    admin all trust\n\
        hostssl   mapped all   all cert map=people\n\
        host      named  all   all cert\n";
    let ident = "people robot app\npeople app all\n";
    let build = |builder: Builder| {
        let entry = format!("host=127.0.0.1 port={} dbname=app", server.port());
        asks_for_certificates(builder, &authority, "allow")
            .setting("auth_type", "hba")
            .setting("auth_hba_file", "hba.conf")
            .setting("auth_ident_file", "ident.conf")
            .file("hba.conf", rules)
            .file("ident.conf", ident)
            .database("mapped", &entry)
            .database("named", &entry)
    };
    each_worker_count(&server, build, |fleet| {
        let inside = |user, database, shown| log_in(fleet, &authority, shown, user, database);
        let clear = |user, database| {
            let mut client = Client::tcp(fleet.port());
            client.start(&[("user", user), ("database", database)], None).map(|()| client)
        };
        for (mut client, texts) in [
            (Client::tls(fleet.port(), &authority.client(&TLS13, None)), "SASL authentication failed"),
            (Client::tcp(fleet.port()), "password authentication failed"),
        ] {
            let refused = client.start(&[("user", "app"), ("database", "app")], Some("wrong")).unwrap_err();
            assert_eq!(refused.text(), texts);
        }
        assert_refused(inside("other", "app", None), "login rejected");
        assert_eq!(clear("other", "app").unwrap().value("select 1"), "1");
        assert_refused(inside("admin", "app", None), "no authentication method is found");
        assert_refused(clear("app", "mapped"), "no authentication method is found");
        assert_refused(clear("app", "named"), FAILED);
        assert_refused(inside("app", "named", None), FAILED);
        fleet.wait_for_log("TLS client certificate required");
        assert_refused(inside("app", "named", Some("robot")), FAILED);
        assert_eq!(inside("app", "named", Some("app")).unwrap().value("select current_user"), "app");
        assert_eq!(inside("app", "mapped", Some("robot")).unwrap().value("select current_user"), "app");
        assert_eq!(inside("other", "mapped", Some("app")).unwrap().value("select current_user"), "other");
        assert_refused(inside("other", "mapped", Some("robot")), FAILED);
        fleet.wait_for_log("ident map: people does not have a match");
    });
}
