//! Keys that clients have proved to know, by the verifier that they fit: with them servers are logged in to that store the same verifier.
//!
//! A rotated password has another verifier, for which nothing is known until somebody has logged in with it. What one worker learns the supervisor tells the
//! others, and keeps for those that are started later.

use super::Secret;
use super::scram::{Keys, Verifier};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// How many are kept: far above the number of users that have a password.
const MOST: usize = 10_000;

/// By StoredKey.
#[derive(Default, Serialize, Deserialize)]
pub struct ClientKeys(BTreeMap<[u8; 32], Keys>);

impl ClientKeys {
    /// Keys that a client has proved to know. True: they were not known before.
    pub fn learn(&mut self, keys: Keys) -> bool {
        let stored = keys.stored_key();
        if self.0.contains_key(&stored) {
            return false;
        }
        if self.0.len() >= MOST {
            self.0.pop_first();
        }
        self.0.insert(stored, keys);
        true
    }

    /// The keys behind a stored SCRAM verifier.
    pub fn of(&self, secret: &Secret) -> Option<&Keys> {
        self.0.get(&stored_key(secret)?)
    }

    /// The secret is nobody's any more. True: its keys were known.
    pub fn forget(&mut self, secret: &Secret) -> bool {
        stored_key(secret).is_some_and(|stored| self.0.remove(&stored).is_some())
    }

    /// All there are.
    pub fn all(&self) -> impl Iterator<Item = &Keys> {
        self.0.values()
    }
}

impl fmt::Debug for ClientKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientKeys({})", self.0.len())
    }
}

fn stored_key(secret: &Secret) -> Option<[u8; 32]> {
    let Secret::Scram(text) = secret else { return None };
    Verifier::from_secret(text).ok().map(|verifier| verifier.stored_key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use base64::{Engine, engine::general_purpose::STANDARD};

    fn secret(keys: &Keys) -> Secret {
        let encode = |key: &[u8]| STANDARD.encode(key);
        Secret::parse(&format!("SCRAM-SHA-256$1:c2FsdA==${}:{}", encode(&keys.stored_key()), encode(&keys.server_key)))
    }

    fn keys(number: u32) -> Keys {
        Keys::derive(&number.to_be_bytes(), b"salt", 1)
    }

    #[test]
    fn keys_fit_their_own_verifier_only() {
        let mut all = ClientKeys::default();
        assert!(all.learn(keys(1)) && !all.learn(keys(1)) && all.learn(keys(2)));
        assert!(all.of(&secret(&keys(1))) == Some(&keys(1)));
        assert!(all.of(&secret(&keys(3))).is_none() && all.of(&Secret::parse("x")).is_none());
        assert!(all.forget(&secret(&keys(2))) && !all.forget(&secret(&keys(2))) && !all.forget(&Secret::parse("x")));
        assert!(all.of(&secret(&keys(2))).is_none());
        assert!(all.all().eq([&keys(1)]));
        assert_eq!(format!("{all:?}"), "ClientKeys(1)");
    }

    #[test]
    fn there_are_never_too_many() {
        let mut all = ClientKeys::default();
        for number in 0..MOST as u32 + 10 {
            all.learn(Keys { client_key: keys(number).client_key, server_key: [0; 32] });
        }
        assert_eq!(all.0.len(), MOST);
    }
}
