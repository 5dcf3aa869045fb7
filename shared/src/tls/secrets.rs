//! From a handshake of rustls's to a session of ours.
//!
//! What rustls gives away when asked are keys and sequence numbers. TLS 1.3's next keys are made from the traffic secrets, which it only tells
//! its key log. So ours keeps them for the handshake that is being worked on, and they are believed only if they lead to the keys given.

use super::direction::{Direction, Version};
use super::session::{Role, Session};
use super::suite::{Cipher, Keys, TrafficSecret};
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets, KeyLog};
use std::cell::RefCell;

/// How many generations on a session may be when its handshake ends: a peer may have updated its keys in the same breath.
const GENERATIONS: usize = 32;

const CLIENT: &str = "CLIENT_TRAFFIC_SECRET_0";
const SERVER: &str = "SERVER_TRAFFIC_SECRET_0";

/// The traffic secrets of one handshake.
#[derive(Default)]
pub(super) struct Heard {
    client: Option<TrafficSecret>,
    server: Option<TrafficSecret>,
}

thread_local! {
    /// Of the handshake that rustls is working on: it calls its key log from within.
    static HEARD: RefCell<Heard> = RefCell::default();
}

impl Heard {
    /// Runs one step of rustls's and takes in what its key log is told meanwhile.
    pub(super) fn during<T>(&mut self, step: impl FnOnce() -> T) -> T {
        let result = step();
        HEARD.with_borrow_mut(|heard| {
            self.client = heard.client.take().or_else(|| self.client.take());
            self.server = heard.server.take().or_else(|| self.server.take());
        });
        result
    }
}

/// The key log of every configuration.
#[derive(Debug)]
pub(super) struct Listener;

impl KeyLog for Listener {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        let secret = Some(TrafficSecret(secret.to_vec()));
        HEARD.with_borrow_mut(|heard| match label {
            CLIENT => heard.client = secret,
            SERVER => heard.server = secret,
            _ => {}
        });
    }

    fn will_log(&self, label: &str) -> bool {
        label == CLIENT || label == SERVER
    }
}

/// The session that a handshake has led to. `None`: it cannot be taken over.
pub(super) fn session(role: Role, tls13: bool, extracted: ExtractedSecrets, heard: Heard) -> Option<Session> {
    let (ours, theirs) = match role {
        Role::Server => (heard.server, heard.client),
        Role::Client => (heard.client, heard.server),
    };
    let sending = direction(tls13, extracted.tx, ours)?;
    let receiving = direction(tls13, extracted.rx, theirs)?;
    Some(Session::new(role, sending, receiving))
}

fn direction(tls13: bool, (sequence, secrets): (u64, ConnectionTrafficSecrets), heard: Option<TrafficSecret>) -> Option<Direction> {
    let (cipher, key, iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Cipher::Aes128Gcm, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Cipher::Aes256Gcm, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (Cipher::Chacha20Poly1305, key, iv),
        _ => return None,
    };
    let keys = Keys { key: key.as_ref().to_vec(), iv: iv.as_ref().try_into().ok()? };
    let version = if tls13 { Version::Tls13(generation(heard?, cipher, &keys)?) } else { Version::Tls12 };
    Some(Direction::new(version, cipher, keys, sequence))
}

/// The generation of the secret that these keys were made from.
fn generation(mut secret: TrafficSecret, cipher: Cipher, keys: &Keys) -> Option<TrafficSecret> {
    for _ in 0..GENERATIONS {
        if secret.keys(cipher)? == *keys {
            return Some(secret);
        }
        secret = secret.next(cipher)?;
    }
    None
}
