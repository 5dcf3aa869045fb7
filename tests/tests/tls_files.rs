//! The files of the TLS settings while the fleet runs: replaced, by themselves or by a reload; and sets that do not fit, in whose place the last
//! good one stays.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::tls::{Authority, TLS13};
use end_to_end::{Client, Fleet, Postgres, SOON, frontend, wait_until};
use nix::sys::signal::Signal;

const KEPT: &str = "TLS configuration could not be reloaded, keeping old configuration";
const IN_FORCE: &str = "files of the TLS settings have changed, what they hold now is in force";
const LOGIN: &[(&str, &str)] = &[("user", "app"), ("database", "app")];

/// Whether clients are shown the certificate of this file, at whichever worker.
fn is_shown(fleet: &Fleet, authority: &Authority, name: &str) -> bool {
    let config = authority.client(&TLS13, None);
    (0..8).all(|_| Client::tls(fleet.port(), &config).peer_certificate() == authority.certificate(name))
}

fn copy(authority: &Authority, from: &str, to: &str) {
    std::fs::copy(authority.file(from), authority.file(to)).unwrap();
}

#[test]
fn what_is_replaced_is_in_force_by_itself_and_half_a_pair_is_not() {
    let (server, authority) = (Postgres::start(), Authority::new());
    let fleet = Fleet::builder(&server).workers(2).client_tls(&authority, "require").start();
    assert!(is_shown(&fleet, &authority, "server.crt"));
    let mut before = Client::tls(fleet.port(), &authority.client(&TLS13, None));
    before.start(LOGIN, None).unwrap();
    authority.sign("next", &["localhost"]);
    copy(&authority, "server.crt", "before.crt");
    copy(&authority, "next.crt", "server.crt");
    fleet.wait_for_log(KEPT);
    fleet.wait_for_log("does not fit the certificate of client_tls_cert_file");
    assert!(is_shown(&fleet, &authority, "before.crt"));
    copy(&authority, "next.key", "server.key");
    fleet.wait_for_log(IN_FORCE);
    assert!(is_shown(&fleet, &authority, "next.crt"));
    assert_eq!(before.value("select 1"), "1", "sessions go on");
    assert_eq!(fleet.logged(KEPT), 1, "once is enough");
}

#[test]
fn a_reload_takes_all_of_them_or_nothing() {
    let (server, authority) = (Postgres::start(), Authority::new());
    authority.sign("next", &["localhost"]);
    let mut fleet = Fleet::builder(&server).workers(2).client_tls(&authority, "require").start();
    fleet.change("client_tls_cert_file", authority.file("next.crt").display());
    fleet.change("max_client_conn", 77);
    fleet.signal(Signal::SIGHUP);
    fleet.wait_for_log(KEPT);
    fleet.wait_for_log("RELOAD failed");
    assert!(is_shown(&fleet, &authority, "server.crt"));
    let mut console = Client::tls(fleet.port(), &authority.client(&TLS13, None));
    console.start(&[("user", "admin"), ("database", "pgbouncer")], None).unwrap();
    assert_eq!(console.query("show config").lookup("key", "max_client_conn", "value"), "1000");
    fleet.change("client_tls_key_file", authority.file("none.key").display());
    assert_eq!(console.query("reload").error().code(), "F0000");
    fleet.change("client_tls_key_file", authority.file("next.key").display());
    assert!(console.query("reload").errors.is_empty());
    assert!(is_shown(&fleet, &authority, "next.crt"));
    // By SET too: what does not fit is not in force, and not shown.
    assert!(!console.query(&format!("set client_tls_key_file = '{}'", authority.file("server.key").display())).errors.is_empty());
    fleet.wait_for_log("TLS settings could not be applied, still using old configuration");
    let shown = console.query("show config").lookup("key", "client_tls_key_file", "value");
    assert_eq!(shown, authority.file("next.key").display().to_string());
    assert!(is_shown(&fleet, &authority, "next.crt"));
}

/// Servers that were verified by authorities which count no longer are connected to anew.
#[test]
fn other_authorities_for_servers() {
    let authority = Authority::new();
    let server = Postgres::start_with(&authority.postgres("server"));
    let fleet = Fleet::builder(&server).workers(2).server_tls(&authority, "verify-full").setting("query_wait_timeout", 4).start();
    let mut client = fleet.client();
    let backend = client.value("select pg_backend_pid()");
    copy(&authority, "ca.crt", "before.crt");
    let stranger = Authority::new();
    std::fs::copy(stranger.file("ca.crt"), authority.file("ca.crt")).unwrap();
    fleet.wait_for_log(IN_FORCE);
    wait_until("the connection to be closed", SOON, || {
        let mut admin = server.admin();
        admin.query_one("select count(*) from pg_stat_activity where pid = $1::text::int", &[&backend]).unwrap().get::<_, i64>(0)
            == 0
    });
    client.send(&frontend::query("select 'of a server that is a stranger now'"));
    assert_eq!(client.read().kind, b'E');
    fleet.wait_for_log("TLS handshake failed: invalid peer certificate");
}

#[test]
fn tls_is_switched_on_and_off_under_its_clients() {
    let (server, authority) = (Postgres::start(), Authority::new());
    let mut fleet = Fleet::builder(&server).workers(2).start();
    let config = authority.client(&TLS13, None);
    let mut clear = fleet.client();
    let mut console = fleet.console();
    let offered = |fleet: &Fleet| {
        let mut client = Client::tcp(fleet.port());
        client.send(&frontend::untyped(frontend::SSL_REQUEST, b""));
        client.read_byte() == b'S'
    };
    assert!(!offered(&fleet));
    fleet.change("client_tls_sslmode", "require");
    fleet.change("client_tls_cert_file", authority.file("server.crt").display());
    fleet.change("client_tls_key_file", authority.file("server.key").display());
    assert!(console.query("reload").errors.is_empty());
    assert!(offered(&fleet));
    let mut inside = Client::tls(fleet.port(), &config);
    inside.start(LOGIN, None).unwrap();
    let refused = Client::tcp(fleet.port()).start(LOGIN, None).unwrap_err();
    assert_eq!(refused.text(), "SSL required");
    fleet.change("client_tls_sslmode", "disable");
    assert!(console.query("reload").errors.is_empty());
    assert!(!offered(&fleet));
    for client in [&mut clear, &mut inside, &mut fleet.client()] {
        assert_eq!(client.value("select 'goes on'"), "goes on");
    }
}
