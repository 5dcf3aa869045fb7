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
    /// Derives the keys of a password: `iterations` rounds of HMAC-SHA-256, about a millisecond for PostgreSQL's 4096. The password
    /// is prepared with SASLprep; one that cannot be (not UTF-8, prohibited characters) counts as its raw bytes, as in PostgreSQL.
    pub fn derive(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let mut prepared = prepare(password);
        let salted: Zeroizing<[u8; 32]> =
            Zeroizing::new(pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(&prepared, salt, iterations.max(1)));
        if let Cow::Owned(copy) = &mut prepared {
            copy.zeroize();
        }
        Self { client_key: hmac(salted.as_slice(), &[b"Client Key"]), server_key: hmac(salted.as_slice(), &[b"Server Key"]) }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

/// SASLprep, or the bytes themselves where it does not apply or would leave nothing.
fn prepare(password: &[u8]) -> Cow<'_, [u8]> {
    match std::str::from_utf8(password).map(stringprep::saslprep) {
        Ok(Ok(Cow::Owned(text))) if !text.is_empty() => Cow::Owned(text.into_bytes()),
        _ => Cow::Borrowed(password),
    }
}

/// HMAC-SHA-256 of the parts, one after the other.
pub(super) fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { unreachable!("HMAC takes a key of any length") };
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
