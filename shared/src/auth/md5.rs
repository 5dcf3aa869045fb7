//! PostgreSQL's md5 method (chapter "Frontend/Backend Protocol", AuthenticationMD5Password): the answer is
//! `md5(md5(password ‖ user) ‖ salt)` in hex after the letters `md5`. The inner hash is also what is stored.

use super::Secret;
use ::md5::{Digest, Md5};
use std::fmt::Write;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The length of a stored hash and of an answer: `md5` and 32 hex digits.
const LENGTH: usize = 35;

/// The PasswordMessage, without its terminating zero, that answers a server's `salt`. `secret` is the password, or the stored
/// `md5…` hash of it, told apart as [`Secret::parse`] does.
pub fn response(user: &str, secret: &str, salt: [u8; 4]) -> String {
    match Secret::parse(secret) {
        Secret::Md5(ref stored) => answer(stored, salt),
        _ => answer(&stored_hash(user, secret.as_bytes()), salt),
    }
}

/// Whether `response`, a client's PasswordMessage without its terminating zero, answers `salt` for this user and secret. An empty
/// password and a SCRAM verifier never match.
pub fn verify(secret: &Secret, user: &str, salt: [u8; 4], response: &[u8]) -> bool {
    let expected = match secret {
        Secret::Md5(stored) => answer(stored, salt),
        Secret::Plain(password) if !password.is_empty() => answer(&stored_hash(user, password.as_bytes()), salt),
        Secret::Plain(_) | Secret::Scram(_) => return false,
    };
    expected.as_bytes().ct_eq(response).into()
}

/// What PostgreSQL stores for this user and password.
pub(super) fn stored_hash(user: &str, password: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(hex_of(&[password, user.as_bytes()]))
}

fn answer(stored: &str, salt: [u8; 4]) -> String {
    hex_of(&[stored.strip_prefix("md5").unwrap_or(stored).as_bytes(), &salt])
}

fn hex_of(parts: &[&[u8]]) -> String {
    let mut hash = Md5::new();
    for part in parts {
        hash.update(part);
    }
    let mut text = String::with_capacity(LENGTH);
    text.push_str("md5");
    for byte in hash.finalize() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
