//! Our record layer against rustls's, and a session that moves while it talks.

#![allow(clippy::unwrap_used)]
use crate::tls::secrets::Listener;
use crate::tls::*;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection, SupportedCipherSuite,
    SupportedProtocolVersion,
};
use std::io::{Read, Write};
use std::sync::Arc;

struct Fixture {
    server: ServerConfig,
    client: ClientConfig,
}

fn suites() -> Vec<(SupportedCipherSuite, &'static SupportedProtocolVersion)> {
    let all = rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES.iter().copied();
    let version =
        |suite: SupportedCipherSuite| if suite.tls13().is_some() { &rustls::version::TLS13 } else { &rustls::version::TLS12 };
    all.map(|suite| (suite, version(suite))).collect()
}

fn fixture(suite: SupportedCipherSuite, version: &'static SupportedProtocolVersion) -> Fixture {
    let algorithm =
        if format!("{:?}", suite.suite()).contains("_RSA_") { &rcgen::PKCS_RSA_SHA256 } else { &rcgen::PKCS_ECDSA_P256_SHA256 };
    let signing_key = rcgen::KeyPair::generate_for(algorithm).unwrap();
    let cert = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&signing_key).unwrap();
    let certificate: CertificateDer<'static> = cert.der().clone();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider =
        Arc::new(rustls::crypto::CryptoProvider { cipher_suites: vec![suite], ..rustls::crypto::aws_lc_rs::default_provider() });
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (server.enable_secret_extraction, client.enable_secret_extraction) = (true, true);
    (server.key_log, client.key_log) = (Arc::new(Listener), Arc::new(Listener));
    Fixture { server, client }
}

/// The peer: rustls's own connection and what it has heard.
struct Peer(Connection, Vec<u8>);

impl Peer {
    fn sends(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.0.wants_write() {
            self.0.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    fn takes(&mut self, mut bytes: &[u8]) -> Result<(), rustls::Error> {
        while !bytes.is_empty() {
            self.0.read_tls(&mut bytes).unwrap();
            self.0.process_new_packets()?;
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = self.0.reader().read(&mut buffer) {
                self.1.extend_from_slice(&buffer[..n]);
            }
        }
        Ok(())
    }

    fn says(&mut self, plain: &[u8]) -> Vec<u8> {
        self.0.writer().write_all(plain).unwrap();
        self.sends()
    }

    fn heard(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.1)
    }
}

/// Both roles: our side of a handshake and rustls's.
fn pairs(fixture: &Fixture) -> Vec<(Box<Handshake>, Peer)> {
    let name = || ServerName::try_from("localhost").unwrap();
    let (server, client) = (Arc::new(fixture.server.clone()), Arc::new(fixture.client.clone()));
    vec![
        (
            Acceptor::of(fixture.server.clone()).accept().unwrap(),
            Peer(ClientConnection::new(Arc::clone(&client), name()).unwrap().into(), Vec::new()),
        ),
        (Handshake::connect(client, name()).unwrap(), Peer(ServerConnection::new(server).unwrap().into(), Vec::new())),
    ]
}

/// Shakes hands, our side in pieces of `piece` bytes.
fn shake(mut handshake: Box<Handshake>, peer: &mut Peer, piece: usize) -> Established {
    let mut from_peer = Vec::new();
    for _ in 0..10 {
        let mut out = Vec::new();
        from_peer.append(&mut peer.sends());
        let pieces: Vec<Vec<u8>> = from_peer.chunks(piece).map(<[u8]>::to_vec).chain([Vec::new()]).collect();
        from_peer.clear();
        let mut done: Option<Established> = None;
        let mut pending = Some(handshake);
        for bytes in pieces {
            match (&mut done, pending.take()) {
                (Some(established), _) => established.sealed.extend_from_slice(&bytes),
                (None, Some(handshake)) => match handshake.advance(&bytes, &mut out).unwrap() {
                    Progress::Pending(next) => pending = Some(next),
                    Progress::Done(established) => done = Some(*established),
                },
                (None, None) => unreachable!(),
            }
        }
        peer.takes(&out).unwrap();
        match (done, pending) {
            (Some(established), _) => return established,
            (None, Some(next)) => handshake = next,
            (None, None) => unreachable!(),
        }
    }
    panic!("the handshake does not end");
}

/// Another process takes the session over.
fn moved(session: &Session) -> Session {
    postcard::from_bytes(&postcard::to_stdvec(session).unwrap()).unwrap()
}

/// Reads what the peer has sent in pieces, with a move at each of them; gives the content.
fn hear(session: &mut Session, bytes: &[u8], piece: usize) -> (Vec<u8>, Option<End>) {
    let (mut plain, mut kept) = (Vec::new(), Vec::new());
    for bytes in bytes.chunks(piece) {
        kept.extend_from_slice(bytes);
        let opened = session.open(&mut kept);
        plain.extend_from_slice(&kept[..opened.plain]);
        kept.drain(..opened.rest);
        if opened.end.is_some() {
            return (plain, opened.end);
        }
        *session = moved(session);
    }
    assert!(kept.is_empty());
    (plain, None)
}

fn say(session: &mut Session, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    session.take_replies(&mut out);
    session.seal(plain, &mut out).unwrap();
    out
}

#[test]
fn every_suite_in_both_roles_with_moves_in_between() {
    for (suite, version) in suites() {
        let fixture = fixture(suite, version);
        for piece in [1, 7, 100_000] {
            for (handshake, mut peer) in pairs(&fixture) {
                let Established { mut session, agreed, sealed, .. } = shake(handshake, &mut peer, piece);
                assert!(agreed.cipher != "?" && agreed.group != "?", "{agreed:?}");
                hear(&mut session, &sealed, piece);
                for length in [0, 1, 5, 16_384, 16_385, 50_000] {
                    let content = vec![length as u8; length];
                    let bytes = peer.says(&content);
                    assert_eq!(hear(&mut session, &bytes, piece).0, content);
                    peer.takes(&say(&mut session, &content)).unwrap();
                    assert_eq!(peer.heard(), content);
                }
            }
        }
    }
}

#[test]
fn keys_are_updated_when_either_side_wants() {
    for (suite, version) in suites().into_iter().filter(|(suite, _)| suite.tls13().is_some()) {
        let fixture = fixture(suite, version);
        for (handshake, mut peer) in pairs(&fixture) {
            let Established { mut session, sealed, .. } = shake(handshake, &mut peer, 100_000);
            hear(&mut session, &sealed, 100_000);
            for round in 0..40 {
                peer.0.refresh_traffic_keys().unwrap();
                let bytes = peer.says(b"under new keys");
                assert_eq!(hear(&mut session, &bytes, 9).0, b"under new keys", "round {round}");
                peer.takes(&say(&mut session, b"under ours")).unwrap();
                assert_eq!(peer.heard(), b"under ours");
            }
        }
    }
}

#[test]
fn the_end_is_announced_on_both_sides() {
    for (suite, version) in suites() {
        for (handshake, mut peer) in pairs(&fixture(suite, version)) {
            let Established { mut session, sealed, .. } = shake(handshake, &mut peer, 100_000);
            hear(&mut session, &sealed, 100_000);
            peer.0.send_close_notify();
            let bytes = peer.says(b"");
            assert_eq!(hear(&mut session, &bytes, 3), (Vec::new(), Some(End::Closed)));
            let mut out = Vec::new();
            session.close(&mut out);
            session.close(&mut out);
            let mut rest = &out[..];
            peer.0.read_tls(&mut rest).unwrap();
            assert!(peer.0.process_new_packets().unwrap().peer_has_closed());
        }
    }
}

/// What a peer must not send, and the alert it gets for it.
#[test]
fn what_is_wrong_is_refused_with_its_alert() {
    let wrong = |change: &dyn Fn(&mut Vec<u8>), tls13: Alert, tls12: Alert| {
        for (suite, version) in suites() {
            for (handshake, mut peer) in pairs(&fixture(suite, version)) {
                let Established { mut session, sealed, .. } = shake(handshake, &mut peer, 100_000);
                hear(&mut session, &sealed, 100_000);
                let mut bytes = peer.says(b"content");
                change(&mut bytes);
                let alert = if suite.tls13().is_some() { tls13 } else { tls12 };
                assert_eq!(hear(&mut session, &bytes, 100_000), (Vec::new(), Some(End::Broken(alert))), "{suite:?}");
                let mut out = Vec::new();
                session.take_replies(&mut out);
                let error = peer.takes(&out).unwrap_err();
                assert!(matches!(error, rustls::Error::AlertReceived(_)), "{error}");
            }
        }
    };
    wrong(&|bytes| *bytes.last_mut().unwrap() ^= 1, Alert::BAD_RECORD_MAC, Alert::BAD_RECORD_MAC);
    wrong(&|bytes| bytes[3] = 0xff, Alert::RECORD_OVERFLOW, Alert::RECORD_OVERFLOW);
    wrong(&|bytes| bytes[1] = 2, Alert::PROTOCOL_VERSION, Alert::PROTOCOL_VERSION);
    wrong(&|bytes| bytes[0] = 20, Alert::UNEXPECTED_MESSAGE, Alert::BAD_RECORD_MAC);
    wrong(&|bytes| (bytes[3], bytes[4]) = (0, 3), Alert::BAD_RECORD_MAC, Alert::BAD_RECORD_MAC);
}

#[test]
fn an_idle_session_is_small() {
    for (suite, version) in suites() {
        for (handshake, mut peer) in pairs(&fixture(suite, version)) {
            let Established { session, .. } = shake(handshake, &mut peer, 100_000);
            let bytes = postcard::to_stdvec(&session).unwrap().len();
            assert!(bytes <= 220 && size_of::<Session>() <= 400, "{bytes} bytes, {} in memory", size_of::<Session>());
        }
    }
}
