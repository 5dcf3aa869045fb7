//! The hashing: what a password becomes (RFC 5802 section 3).

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// ClientKey and ServerKey: enough to log in wherever the password is stored with the same salt and iterations, so as secret as
/// the password itself.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Keys {
    /// Proves the password to a server.
    pub client_key: [u8; 32],
    /// Lets a server prove that it knows the password.
    pub server_key: [u8; 32],
}

impl Keys {
    /// Derives the keys of a password at once: `iterations` rounds of HMAC-SHA-256, about a millisecond for PostgreSQL's 4096.
    pub fn derive(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let mut derivation = Derivation::new(password, salt, iterations);
        loop {
            if let Some(keys) = derivation.run(u32::MAX) {
                return keys;
            }
        }
    }

    /// What a verifier stores of them.
    pub fn stored_key(&self) -> [u8; 32] {
        stored_key(&self.client_key)
    }

    fn of(salted: &[u8; 32]) -> Self {
        Self { client_key: hmac(salted, &[b"Client Key"]), server_key: hmac(salted, &[b"Server Key"]) }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

/// A derivation of keys that can be done a part at a time: PBKDF2 (RFC 8018 section 5.2) for one block of HMAC-SHA-256.
pub struct Derivation {
    /// Keyed with the password.
    mac: Hmac<Sha256>,
    /// U of the last round, and the exclusive or of all so far.
    last: Zeroizing<[u8; 32]>,
    sum: Zeroizing<[u8; 32]>,
    remaining: u32,
}

impl Derivation {
    /// Begins with the first round. The password is prepared with SASLprep; one that cannot be (not UTF-8, prohibited characters) counts as its
    /// raw bytes, as in PostgreSQL.
    pub fn new(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let mut prepared = prepare(password);
        let mac = keyed(&prepared);
        if let Cow::Owned(copy) = &mut prepared {
            copy.zeroize();
        }
        let mut first = mac.clone();
        first.update(salt);
        first.update(&1_u32.to_be_bytes());
        let first: [u8; 32] = first.finalize().into_bytes().into();
        Self { mac, last: Zeroizing::new(first), sum: Zeroizing::new(first), remaining: iterations.max(1) - 1 }
    }

    /// Does at most so many more rounds; the keys when there is none left.
    pub fn run(&mut self, most: u32) -> Option<Keys> {
        for _ in 0..most.min(self.remaining) {
            let mut round = self.mac.clone();
            round.update(self.last.as_slice());
            *self.last = round.finalize().into_bytes().into();
            for (sum, last) in self.sum.iter_mut().zip(self.last.iter()) {
                *sum ^= last;
            }
        }
        self.remaining -= most.min(self.remaining);
        (self.remaining == 0).then(|| Keys::of(&self.sum))
    }
}

impl fmt::Debug for Derivation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Derivation").field("remaining", &self.remaining).finish_non_exhaustive()
    }
}

/// SASLprep, or the bytes themselves where it does not apply or would leave nothing.
fn prepare(password: &[u8]) -> Cow<'_, [u8]> {
    match std::str::from_utf8(password).map(stringprep::saslprep) {
        Ok(Ok(Cow::Owned(text))) if !text.is_empty() => Cow::Owned(text.into_bytes()),
        _ => Cow::Borrowed(password),
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    let Ok(mac) = Hmac::new_from_slice(key) else { unreachable!("HMAC takes a key of any length") };
    mac
}

/// HMAC-SHA-256 of the parts, one after the other.
pub(super) fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = keyed(key);
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// StoredKey, from ClientKey.
pub(super) fn stored_key(client_key: &[u8; 32]) -> [u8; 32] {
    Sha256::digest(client_key).into()
}

/// Exclusive or: a proof from a key and a signature, and the key from the proof.
pub(super) fn xor(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    std::array::from_fn(|i| left[i] ^ right[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_parts_it_comes_to_the_same() {
        for iterations in [0, 1, 2, 3, 100, 101] {
            for most in [1, 2, 7, 100, u32::MAX] {
                let mut derivation = Derivation::new(b"pencil", b"salt", iterations);
                let mut turns = 1;
                let keys = loop {
                    match derivation.run(most) {
                        Some(keys) => break keys,
                        None => turns += 1,
                    }
                };
                assert!(keys == Keys::derive(b"pencil", b"salt", iterations));
                assert_eq!(turns, iterations.saturating_sub(1).div_ceil(most).max(1), "{iterations} iterations, {most} at a time");
            }
        }
    }
}
