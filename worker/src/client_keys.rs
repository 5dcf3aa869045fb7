//! Keys that clients have proved to know, by the verifier that they fit: with them servers are logged in to that store the same verifier.
//!
//! A rotated password has another verifier, for which nothing is known until somebody has logged in with it. What one worker learns the supervisor tells the
//! others, and the successors of those that die.

use rustc_hash::FxHashMap;
use shared::auth::Secret;
use shared::auth::scram::{Keys, Verifier};

/// How many are kept: far above the number of users that have a password.
const MOST: usize = 10_000;

/// By StoredKey.
#[derive(Default)]
pub(crate) struct ClientKeys(FxHashMap<[u8; 32], Keys>);

impl ClientKeys {
    /// Keys that a client has proved to know. True: they were not known before.
    pub(crate) fn learn(&mut self, keys: Keys) -> bool {
        let stored = keys.stored_key();
        if self.0.contains_key(&stored) {
            return false;
        }
        if self.0.len() >= MOST
            && let Some(any) = self.0.keys().next().copied()
        {
            self.0.remove(&any);
        }
        self.0.insert(stored, keys);
        true
    }

    /// The keys behind a stored SCRAM verifier.
    pub(crate) fn of(&self, secret: &Secret) -> Option<&Keys> {
        self.0.get(&stored_key(secret)?)
    }

    /// They open nothing any more.
    pub(crate) fn forget(&mut self, secret: &Secret) {
        if let Some(stored) = stored_key(secret) {
            self.0.remove(&stored);
        }
    }

    /// Forgets all keys but those behind these secrets.
    pub(crate) fn keep<'a>(&mut self, secrets: impl Iterator<Item = &'a Secret>) {
        let kept = secrets.filter_map(|secret| Some(self.of(secret)?.clone())).collect::<Vec<_>>();
        self.0.clear();
        for keys in kept {
            self.learn(keys);
        }
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
        all.forget(&secret(&keys(2)));
        assert!(all.of(&secret(&keys(2))).is_none());
    }

    #[test]
    fn what_no_secret_fits_any_more_is_forgotten() {
        let mut all = ClientKeys::default();
        for number in 0..3 {
            all.learn(keys(number));
        }
        all.keep([secret(&keys(1)), Secret::parse("x")].iter());
        assert_eq!(all.0.len(), 1);
        assert!(all.of(&secret(&keys(1))).is_some());
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
