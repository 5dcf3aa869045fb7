//! Our two sides against each other: who is let in, who is refused, what is agreed on.

#![allow(clippy::unwrap_used)]
use super::certificates::{Authority, Identity, files, named, self_signed, settings};
use crate::config::Settings;
use crate::tls::{Acceptor, Agreed, Connector, ContextError, Files, Handshake, HandshakeError, Progress};

/// What came of a handshake on one side.
pub(super) type Outcome = Result<Agreed, HandshakeError>;

/// Shakes hands; gives what came of it at the client's and at the server's.
pub(super) fn meet(client: Box<Handshake>, server: Box<Handshake>) -> (Outcome, Outcome) {
    let (mut sides, mut ends) = ([Some(client), Some(server)], [None, None]);
    let mut wires = [Vec::new(), Vec::new()];
    for _ in 0..10 {
        for side in 0..2 {
            let Some(handshake) = sides[side].take() else { continue };
            let bytes = std::mem::take(&mut wires[side]);
            match handshake.advance(&bytes, &mut wires[1 - side]) {
                Ok(Progress::Pending(next)) => sides[side] = Some(next),
                Ok(Progress::Done(established)) => ends[side] = Some(Ok(established.agreed)),
                Err(error) => ends[side] = Some(Err(error)),
            }
        }
    }
    let [client, server] = ends.map(|end| end.unwrap_or(Err(HandshakeError::Closed)));
    (client, server)
}

fn acceptor(settings: &Settings, files: &Files) -> Acceptor {
    Acceptor::new(settings, files, None).unwrap().unwrap()
}

/// A server that shows `identity`, and a client by these settings that calls it `host`.
pub(super) fn call(identity: &Identity, authorities: &str, mode: &str, host: &str) -> Outcome {
    let settings = settings(&[("server_tls_sslmode", mode)]);
    let server = acceptor(&settings, &files(None, Some(identity))).accept().unwrap();
    let connector = Connector::new(&settings, &files(Some(authorities), None)).unwrap().unwrap();
    meet(connector.connect(host)?, server).0
}

/// What comes of it at the server when a client shows `identity`.
pub(super) fn meets_client(identity: &Identity, authorities: &str) -> Outcome {
    let settings = settings(&[("client_tls_sslmode", "verify-full")]);
    let server = acceptor(&settings, &files(Some(authorities), Some(&self_signed(&named("db", &[]))))).accept()?;
    let connector = Connector::new(&settings, &files(None, Some(identity))).unwrap().unwrap();
    meet(connector.connect("db")?, server).1
}

fn error(settings: &[(&str, &str)], files: &Files) -> String {
    let settings = super::certificates::settings(settings);
    let clients: Result<_, ContextError> = Acceptor::new(&settings, files, None);
    let error = clients.err().or_else(|| Connector::new(&settings, files).err()).unwrap();
    assert!(error.setting.contains("_tls"), "{error:?}");
    error.message
}

#[test]
fn both_sides_agree_and_know_each_other() {
    let authority = Authority::new("authority");
    let host = authority.issues(&named("", &["db.example.org"]));
    let user = authority.issues(&named("alice", &[]));
    let settings = settings(&[("client_tls_sslmode", "verify-full"), ("server_tls_sslmode", "verify-full")]);
    let acceptor = acceptor(&settings, &files(Some(&authority.certificate), Some(&host)));
    let connector = Connector::new(&settings, &files(Some(&authority.certificate), Some(&user))).unwrap().unwrap();
    let (client, server) = meet(connector.connect("db.example.org").unwrap(), acceptor.accept().unwrap());
    let (client, server) = (client.unwrap(), server.unwrap());
    assert_eq!((client.version, client.group, client.alpn.as_deref()), ("TLSv1.3", "prime256v1", Some(&b"postgresql"[..])));
    assert_eq!((server.cipher, &server.alpn), (client.cipher, &client.alpn));
    assert!(server.peer_names().unwrap().is_user("alice") && !server.peer_names().unwrap().is_user("bob"));
    assert_eq!(client.endpoint, server.endpoint);
    assert_eq!(server.endpoint.map(|hash| hash.len()), Some(32));
}

/// RFC 5929, 4.1: the hash is that of the certificate's signature, and one that has none binds nothing.
#[test]
fn a_login_is_bound_by_the_hash_of_the_signature() {
    for (algorithm, bytes) in
        [(&rcgen::PKCS_ECDSA_P256_SHA256, Some(32)), (&rcgen::PKCS_ECDSA_P384_SHA384, Some(48)), (&rcgen::PKCS_ED25519, None)]
    {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let certificate = named("db", &["db"]).self_signed(&key).unwrap();
        let identity = Identity { certificate: certificate.pem(), key: key.serialize_pem() };
        let settings = settings(&[]);
        let acceptor = acceptor(&settings, &files(None, Some(&identity)));
        let connector = Connector::new(&settings, &files(None, None)).unwrap().unwrap();
        let (client, server) = meet(connector.connect("db").unwrap(), acceptor.accept().unwrap());
        let (client, server) = (client.unwrap().endpoint, server.unwrap().endpoint);
        assert_eq!((client.as_deref().map(<[u8]>::len), &client), (bytes, &server));
        if bytes == Some(32) {
            let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate.der());
            assert_eq!(client.as_deref(), Some(hash.as_ref()));
        }
    }
}

#[test]
fn disabled_is_no_context() {
    let settings = settings(&[("client_tls_sslmode", "disable"), ("server_tls_sslmode", "disable")]);
    assert!(Acceptor::new(&settings, &Files::default(), None).unwrap().is_none());
    assert!(Connector::new(&settings, &Files::default()).unwrap().is_none());
}

#[test]
fn a_mode_verifies_what_it_says() {
    let authority = Authority::new("authority");
    let identity = authority.issues(&named("", &["db.example.org"]));
    let stranger = Authority::new("stranger").certificate;
    for (mode, of_stranger, of_other_name) in
        [("prefer", true, true), ("require", true, true), ("verify-ca", false, true), ("verify-full", false, false)]
    {
        assert!(call(&identity, &authority.certificate, mode, "db.example.org").is_ok(), "{mode}");
        assert_eq!(call(&identity, &stranger, mode, "db.example.org").is_ok(), of_stranger, "{mode}");
        assert_eq!(call(&identity, &authority.certificate, mode, "other.example.org").is_ok(), of_other_name, "{mode}");
    }
    let both = [stranger, authority.certificate.clone()].concat();
    assert!(call(&identity, &both, "verify-full", "db.example.org").is_ok());
    // What is no name can be called only where names do not matter.
    assert!(call(&identity, &authority.certificate, "verify-ca", "no name").is_ok());
    let refused = call(&identity, &authority.certificate, "verify-full", "no name");
    assert_eq!(refused.unwrap_err().to_string(), "\"no name\" is not a host name");
}

#[test]
fn clients_show_what_they_must_and_what_they_show_is_right() {
    let authority = Authority::new("authority");
    let host = authority.issues(&named("", &["db"]));
    let known = authority.issues(&named("alice", &[]));
    let unknown = self_signed(&named("alice", &[]));
    for (mode, without) in [("prefer", true), ("require", true), ("verify-ca", false), ("verify-full", false)] {
        let settings = settings(&[("client_tls_sslmode", mode)]);
        let acceptor = acceptor(&settings, &files(Some(&authority.certificate), Some(&host)));
        let with = |identity: Option<&Identity>| {
            let connector = Connector::new(&settings, &files(None, identity)).unwrap().unwrap();
            meet(connector.connect("db").unwrap(), acceptor.accept().unwrap()).1
        };
        assert_eq!(with(None).is_ok(), without, "{mode}");
        assert!(with(Some(&known)).is_ok(), "{mode}");
        assert!(with(Some(&unknown)).is_err(), "{mode}");
    }
}

#[test]
fn lists_that_select_nothing_are_refused_in_pgbouncers_words() {
    let identity = self_signed(&named("x", &[]));
    let files = files(None, Some(&identity));
    let refused = |name: &str, value: &str| error(&[(name, value)], &files);
    assert_eq!(refused("client_tls_ciphers", "all"), "invalid client_tls_ciphers: all");
    assert_eq!(refused("server_tls_ciphers", "DES"), "invalid server_tls_ciphers: DES");
    assert!(refused("client_tls_protocols", "tlsv9").starts_with("invalid client_tls_protocols: tlsv9"));
    assert!(refused("server_tls13_ciphers", "x").starts_with("invalid server_tls13_ciphers: x"));
    assert!(refused("client_tls_ecdhcurve", "x").starts_with("invalid client_tls_ecdhcurve: x"));
    let unnamed = error(&[("client_tls_key_file", "")], &files);
    assert_eq!(unnamed, "To allow TLS connections from clients, client_tls_key_file and client_tls_cert_file must be set.");
    let unsure = error(&[("client_tls_sslmode", "verify-full"), ("client_tls_ca_file", "")], &files);
    assert_eq!(unsure, "client_tls_sslmode requires client_tls_ca_file");
}

#[test]
fn files_that_do_not_fit_are_named() {
    let (one, other) = (self_signed(&named("x", &[])), self_signed(&named("x", &[])));
    let mixed = Identity { key: other.key.clone(), ..one.clone() };
    let message = error(&[], &files(None, Some(&mixed)));
    assert!(message.contains("key.pem") && message.contains("does not fit the certificate"), "{message}");
    let swapped = Identity { certificate: one.key.clone(), key: one.certificate.clone() };
    assert!(error(&[], &files(None, Some(&swapped))).ends_with("cert.pem: there is no certificate in it"));
    let no_key = Identity { key: one.certificate.clone(), ..one.clone() };
    assert!(error(&[], &files(None, Some(&no_key))).ends_with("key.pem: there is no private key in it"));
    let half = Identity { key: one.key[..one.key.len() / 2].to_owned(), ..one.clone() };
    let message = error(&[], &files(None, Some(&half)));
    assert!(message.ends_with("it ends in the middle") && !message.contains(&one.key[40..60]), "{message}");
    assert!(error(&[], &files(Some("junk"), Some(&one))).ends_with("ca.pem: there is no certificate in it"));
    assert!(!format!("{:?}", files(None, Some(&one))).contains("PRIVATE"));
}

#[test]
fn versions_and_suites_are_those_of_the_settings() {
    let identity = self_signed(&named("db", &[]));
    let meets = |client: &[(&str, &str)], server: &[(&str, &str)]| {
        let server = acceptor(&settings(server), &files(None, Some(&identity)));
        let connector = Connector::new(&settings(client), &files(None, None)).unwrap().unwrap();
        meet(connector.connect("db").unwrap(), server.accept().unwrap()).0
    };
    let two = [("client_tls_protocols", "tlsv1.2"), ("client_tls_ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256")];
    let agreed = meets(&[], &two).unwrap();
    assert_eq!((agreed.version, agreed.cipher), ("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256"));
    let suite = [("client_tls13_ciphers", "TLS_CHACHA20_POLY1305_SHA256"), ("client_tls_ecdhcurve", "X25519")];
    let agreed = meets(&[], &suite).unwrap();
    assert_eq!((agreed.cipher, agreed.group), ("TLS_CHACHA20_POLY1305_SHA256", "X25519"));
    assert!(meets(&[("server_tls_protocols", "tlsv1.3")], &two).is_err());
}

/// A peer that has proven nothing begins a message of 64 KiB and goes on with it in records of 1 KiB. Gives how much was taken, and why no more.
fn goes_on(mut handshake: Box<Handshake>, kind: u8) -> (usize, HandshakeError) {
    let mut record = [&[22, 3, 3, 4, 0, kind, 0, 255, 255], &[0; 1020][..]].concat();
    for records in 0.. {
        handshake = match handshake.advance(&record, &mut Vec::new()) {
            Ok(Progress::Pending(next)) => next,
            Ok(Progress::Done(_)) => panic!("a handshake with nobody"),
            Err(error) => return (records * record.len(), error),
        };
        record[5..].fill(0);
    }
    unreachable!()
}

#[test]
fn a_flight_without_end_is_not_waited_for() {
    let authority = Authority::new("authority");
    let host = authority.issues(&named("", &["db"]));
    let settings = settings(&[("client_tls_protocols", "tlsv1.2")]);
    let acceptor = acceptor(&settings, &files(Some(&authority.certificate), Some(&host)));
    let (taken, error) = goes_on(acceptor.accept().unwrap(), 1);
    assert!(error == HandshakeError::TooLong && (18_000..=20 * 1024).contains(&taken), "{taken} {error}");
    // It has begun as it should, and its certificates do not end.
    let mut hello = Vec::new();
    let connector = Connector::new(&settings, &files(None, None)).unwrap().unwrap();
    connector.connect("db").unwrap().advance(&[], &mut hello).unwrap();
    let Ok(Progress::Pending(greeted)) = acceptor.accept().unwrap().advance(&hello, &mut Vec::new()) else { panic!("greeted") };
    let (taken, error) = goes_on(greeted, 11);
    assert!(error == HandshakeError::TooLong && (62_000..=64 * 1024).contains(&taken), "{taken} {error}");
}
