//! Handshakes between two ends of ours, with somebody in between who changes what they send.

use super::cut;
use crate::tls::Acceptor;
use crate::tls::handshake::{Established, Handshake, Progress};
use crate::tls::secrets::Listener;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::sync::{Arc, LazyLock};

/// By version: TLS 1.2, TLS 1.3.
static CONFIGS: LazyLock<[(Acceptor, Arc<ClientConfig>); 2]> = LazyLock::new(|| {
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let roots = Arc::new(roots);
    [&rustls::version::TLS12, &rustls::version::TLS13].map(|version| {
        let provider = Arc::new(default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&[version]).unwrap();
        let mut server = server.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key.clone_key()).unwrap();
        let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        let mut client = client.with_root_certificates(Arc::clone(&roots)).with_no_client_auth();
        (server.enable_secret_extraction, client.enable_secret_extraction) = (true, true);
        (server.key_log, client.key_log) = (Arc::new(Listener), Arc::new(Listener));
        (Acceptor::of(server), Arc::new(client))
    })
});

/// How far one end is.
enum Side {
    Shaking(Box<Handshake>),
    Done(Box<Established>),
    Failed,
}

/// The input: a byte that says which version is spoken and who is there, and bytes. If both are there, these are changes, three for each flight: where,
/// as two bytes, and what the byte there is XORed with. If one of them is there, it is sent them all, at once and in pieces.
pub fn handshake(data: &[u8]) {
    let Some((&how, bytes)) = data.split_first() else { return };
    let (server, client) = &CONFIGS[usize::from(how & 1)];
    let server = || Side::Shaking(server.accept().unwrap());
    let client = || {
        let mut client = Side::Shaking(Handshake::connect(Arc::clone(client), ServerName::try_from("localhost").unwrap()).unwrap());
        let first = client.step(std::iter::once(&[][..]));
        (client, first)
    };
    match how >> 1 & 3 {
        0 => alone(server, bytes),
        1 => alone(|| client().0, bytes),
        _ => {
            let (client, first) = client();
            between(client, server(), first, bytes);
        }
    }
}

/// However bytes are cut, they are refused or not.
fn alone(side: impl Fn() -> Side, bytes: &[u8]) {
    let (mut whole, mut pieces) = (side(), side());
    let (said, said_to_pieces) = (whole.step(std::iter::once(bytes)), pieces.step(cut(bytes)));
    assert_eq!(whole.name(), pieces.name(), "how a handshake goes depends on how its bytes are cut");
    assert_eq!(said.is_empty(), said_to_pieces.is_empty());
    assert_ne!(whole.name(), "done", "a handshake with nobody");
}

/// Both ends, as far as they get.
fn between(mut client: Side, mut server: Side, mut flight: Vec<u8>, mut changes: &[u8]) {
    let mut honest = true;
    let mut to_server = true;
    while !flight.is_empty() {
        if let [high, low, change, rest @ ..] = changes {
            let at = usize::from(u16::from_be_bytes([*high, *low])) % flight.len();
            flight[at] ^= change;
            honest &= *change == 0;
            changes = rest;
        }
        let side = if to_server { &mut server } else { &mut client };
        flight = side.step(cut(&flight));
        to_server = !to_server;
    }
    match (client, server) {
        (Side::Done(mut client), Side::Done(mut server)) if honest => {
            talk(&mut client, &mut server);
            talk(&mut server, &mut client);
        }
        (client, server) => assert!(!honest, "client {}, server {}", client.name(), server.name()),
    }
}

/// What one says the other hears.
fn talk(from: &mut Established, to: &mut Established) {
    let mut wire = std::mem::take(&mut to.sealed);
    from.session.seal(b"content", &mut wire).unwrap();
    let opened = to.session.open(&mut wire);
    assert_eq!((&wire[..opened.plain], opened.end), (&b"content"[..], None));
}

impl Side {
    /// Takes what the other end has sent; gives what it is to be sent.
    fn step<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in pieces {
            *self = match std::mem::replace(self, Side::Failed) {
                Side::Shaking(handshake) => match handshake.advance(piece, &mut out) {
                    Ok(Progress::Pending(handshake)) => Side::Shaking(handshake),
                    Ok(Progress::Done(established)) => Side::Done(established),
                    Err(_) => Side::Failed,
                },
                Side::Done(mut established) => {
                    established.sealed.extend_from_slice(piece);
                    Side::Done(established)
                }
                Side::Failed => Side::Failed,
            };
        }
        out
    }

    fn name(&self) -> &'static str {
        match self {
            Side::Shaking(_) => "shaking hands",
            Side::Done(_) => "done",
            Side::Failed => "failed",
        }
    }
}
