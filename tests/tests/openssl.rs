//! TLS with OpenSSL's own client and server: sessions resumed, what is agreed on and what is refused, keys that change, certificates of
//! every kind.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::openssl::{self, Running};
use end_to_end::tls::Authority;
use end_to_end::{Client, Fleet, Port, Postgres, SOON, frontend, process, wait_until};
use nix::sys::signal::Signal;
use std::path::Path;

/// What a client prints of its handshake.
fn handshake(fleet: &Fleet, options: &[&str]) -> String {
    openssl::printed(&mut openssl::client(fleet.port(), options))
}

#[track_caller]
fn assert_says(text: &str, wanted: &str) {
    assert!(text.contains(wanted), "{wanted:?} is not in:\n{text}");
}

#[test]
fn every_worker_resumes_a_session() {
    let (server, authority) = (Postgres::start(), Authority::new());
    let fleet = Fleet::builder(&server).workers(2).client_tls(&authority, "require").start();
    let versions = ["-tls1_2", "-tls1_3"];
    let file = |version| authority.file(version).display().to_string();
    for version in versions {
        let _first = Running::start(&mut openssl::client(fleet.port(), &[version, "-sess_out", &file(version)]));
        let has_ticket = || std::fs::read_to_string(file(version)).is_ok_and(|text| text.contains("END SSL SESSION"));
        wait_until("a ticket", SOON, has_ticket);
    }
    // A worker that knew nothing of it would be met by half of them.
    let resume = || {
        for version in versions {
            for _ in 0..8 {
                assert_says(&handshake(&fleet, &[version, "-sess_in", &file(version)]), "\nReused, TLS");
            }
        }
    };
    resume();
    let before = fleet.all_workers();
    for &pid in &before {
        process::signal(pid, Signal::SIGKILL);
    }
    wait_until("successors", SOON, || {
        let workers = fleet.workers();
        workers.len() == 2 && workers.iter().all(|pid| !before.contains(pid))
    });
    resume();
}

#[test]
fn versions_suites_and_curves_as_they_are_set() {
    let (server, authority) = (Postgres::start(), Authority::new());
    let builder = || Fleet::builder(&server).client_tls(&authority, "require");
    let fleet = builder().setting("client_tls_protocols", "tlsv1.3").start();
    assert_says(&handshake(&fleet, &["-tls1_2"]), "alert protocol version");
    let text = handshake(&fleet, &["-alpn", "h2,postgresql"]);
    assert_says(&text, "ALPN protocol: postgresql");
    assert_says(&text, "TLSv1.3, Cipher is TLS_AES_256_GCM_SHA384");
    let fleet = builder()
        .setting("client_tls_ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305")
        .setting("client_tls13_ciphers", "TLS_CHACHA20_POLY1305_SHA256")
        .setting("client_tls_ecdhcurve", "secp384r1")
        .start();
    let text = handshake(&fleet, &["-tls1_2"]);
    assert_says(&text, "TLSv1.2, Cipher is ECDHE-ECDSA-AES256-GCM-SHA384");
    assert_says(&text, "secp384r1");
    assert_says(&handshake(&fleet, &["-tls1_3"]), "TLSv1.3, Cipher is TLS_CHACHA20_POLY1305_SHA256");
    for others in [["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], ["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"]]
    {
        assert_says(&handshake(&fleet, &others), "handshake failure");
    }
    assert_says(&handshake(&fleet, &["-groups", "X25519"]), "handshake failure");
}

#[test]
fn a_clients_queries_go_on_under_new_keys() {
    let (server, authority) = (Postgres::start(), Authority::new());
    let fleet = Fleet::builder(&server).client_tls(&authority, "require").start();
    let mut client = Running::start(&mut openssl::client(fleet.port(), &["-tls1_3"]));
    client.hear("Verify return code");
    client.say(&frontend::startup(&[("user", "app"), ("database", "app")]));
    client.hear("Z\0\0\0\x05I");
    // `k` announces new keys, `K` wants the fleet's too.
    for (round, command) in ["k", "K", "k", "K"].into_iter().enumerate() {
        client.say(format!("{command}\n").as_bytes());
        client.hear("KEYUPDATE");
        client.say(&frontend::extended(&format!("select 'answer ' || {round}"), &[]));
        client.hear(format!("answer {round}"));
    }
}

/// A server's side of a fleet whose entry `app` leads to it.
struct Behind {
    server: Running,
    fleet: Fleet,
}

/// A fleet before OpenSSL's server, which shows this certificate; the fleet goes by `authority`.
fn behind(
    unused: &Postgres,
    certificate: [&Path; 2],
    authority: &Path,
    mode: &str,
    settings: &[(&str, &str)],
    options: &[&str],
) -> Behind {
    let port = Port::take();
    let [certificate, key] = certificate.map(|path| path.display().to_string());
    let files = ["-cert", &certificate, "-key", &key];
    let server = Running::start(&mut openssl::server(port.number(), &[&files, options].concat()));
    server.hear("ACCEPT");
    let entry = format!("host=localhost port={} sslnegotiation=direct", port.number());
    let builder = Fleet::builder(unused).database("app", entry);
    let builder = builder.setting("server_tls_sslmode", mode).setting("server_tls_ca_file", authority.display());
    let fleet = settings.iter().fold(builder, |builder, (name, value)| builder.setting(name, value)).start();
    Behind { server, fleet }
}

impl Behind {
    /// A client that is being greeted: the handshake with the server was successful.
    fn log_in(&mut self) -> Client {
        let mut client = Client::tcp(self.fleet.port());
        client.send(&frontend::startup(&[("user", "app"), ("database", "app")]));
        self.server.hear("user\0app\0");
        let notice = frontend::message(b'N', b"SNOTICE\0C00000\0Mhello\0\0");
        let version = frontend::message(b'S', &frontend::strings(&["server_version", "15.0"]));
        let key = frontend::message(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]);
        // An R in front would be a command to it.
        let greeting = [notice, frontend::message(b'R', &[0; 4]), version, key, frontend::message(b'Z', b"I")].concat();
        self.server.say(&greeting);
        client.authenticate("app", None).unwrap();
        client
    }

    /// A query and its answer.
    fn query(&mut self, client: &mut Client, text: &str) {
        client.send(&frontend::query(&format!("select '{text}'")));
        self.server.hear(format!("select '{text}'"));
        let column = [&[0, 1][..], b"x\0", &[0; 6], &[0, 0, 0, 25, 255, 255, 255, 255, 255, 255, 0, 0]].concat();
        let value = [&[0, 1][..], &(text.len() as u32).to_be_bytes(), text.as_bytes()].concat();
        let messages = [(b'T', &column[..]), (b'D', &value), (b'C', b"SELECT 1\0"), (b'Z', b"I")];
        self.server.say(&messages.map(|(kind, body)| frontend::message(kind, body)).concat());
        assert_eq!(client.answer().value(), text);
    }

    fn refuses(&mut self, reason: &str) {
        let mut client = Client::tcp(self.fleet.port());
        client.send(&frontend::startup(&[("user", "app"), ("database", "app")]));
        self.fleet.wait_for_log(reason);
    }
}

#[test]
fn servers_certificates_that_openssl_would_take() {
    let (unused, authority) = (Postgres::start(), Authority::new());
    authority.sign("localhost", &[]);
    authority.sign("elsewhere", &[]);
    authority.sign_itself("self", &["localhost"]);
    let file = |name: &str| authority.file(name);
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/src/tls/tests/v1");
    let (ca, own) = (file("ca.crt"), file("self.crt"));
    let common = [&*file("localhost.crt"), &*file("localhost.key")];
    let elsewhere = [&*file("elsewhere.crt"), &*file("elsewhere.key")];
    let itself = [&*own, &*file("self.key")];
    let version_1 = [&*old.join("leaf.pem"), &*old.join("leaf.key")];
    for (name, shown, authority, mode) in [
        ("a common name alone", common, &ca, "verify-full"),
        ("its own authority", itself, &own, "verify-full"),
        ("version 1", version_1, &old.join("ca.pem"), "verify-ca"),
        ("nothing that is looked at", itself, &ca, "require"),
    ] {
        println!("{name}");
        let mut behind = behind(&unused, shown, authority, mode, &[], &[]);
        let mut client = behind.log_in();
        behind.query(&mut client, "first");
    }
    for (name, shown, authority, mode, reason) in [
        ("another common name", elsewhere, &ca, "verify-full", "not valid for name"),
        ("version 1, another name", version_1, &old.join("ca.pem"), "verify-full", "not valid for name"),
        ("a stranger", itself, &ca, "verify-ca", "invalid peer certificate: UnknownIssuer"),
    ] {
        println!("{name}");
        behind(&unused, shown, authority, mode, &[], &[]).refuses(reason);
    }
}

#[test]
fn a_servers_keys_change_and_its_tickets_are_passed_over() {
    let (unused, authority) = (Postgres::start(), Authority::new());
    let files = [&*authority.file("server.crt"), &*authority.file("server.key")];
    let mut behind = behind(&unused, files, &authority.file("ca.crt"), "verify-full", &[], &["-num_tickets", "5"]);
    let mut client = behind.log_in();
    for (round, command) in ["k", "K", "k", "K"].into_iter().enumerate() {
        behind.server.say(format!("{command}\n").as_bytes());
        behind.server.hear("SSL_do_handshake -> 1");
        behind.query(&mut client, &format!("round {round}"));
    }
}

#[test]
fn suites_with_servers() {
    let (unused, authority) = (Postgres::start(), Authority::new());
    let files = [&*authority.file("server.crt"), &*authority.file("server.key")];
    let ca = authority.file("ca.crt");
    let settings = [("server_tls_ciphers", "ECDHE-ECDSA-CHACHA20-POLY1305"), ("server_tls13_ciphers", "TLS_AES_128_GCM_SHA256")];
    for (options, label) in
        [(&["-tls1_2"][..], "TLSv1.2/ECDHE-ECDSA-CHACHA20-POLY1305/ECDH="), (&["-tls1_3"], "TLSv1.3/TLS_AES_128_GCM_SHA256/ECDH=")]
    {
        let mut behind = behind(&unused, files, &ca, "require", &settings, options);
        let _client = behind.log_in();
        let shown = behind.fleet.console().query("show servers").lookup("database", "app", "tls");
        assert!(shown.starts_with(label), "{shown}");
        behind.fleet.wait_for_log(&format!("SSL established: {label}"));
    }
    for options in [&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"][..], &["-ciphersuites", "TLS_AES_256_GCM_SHA384"]] {
        behind(&unused, files, &ca, "require", &settings, options)
            .refuses("TLS handshake failed: received fatal alert: HandshakeFailure");
    }
    behind(&unused, files, &ca, "require", &[("server_tls_protocols", "tlsv1.3")], &["-tls1_2"]).refuses("ProtocolVersion");
}
