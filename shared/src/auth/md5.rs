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

#[cfg(test)]
mod tests {
    use super::*;

    /// `pg_authid.rolpassword` of PostgreSQL 15 after `create role bob password 'secret'` with password_encryption = md5.
    const STORED: &str = "md521f3163f8f86fa10bdefbfbd502a8f06";
    const SALT: [u8; 4] = [0x01, 0x02, 0xfe, 0xff];
    /// md5(the 32 digits ‖ salt), by Python's hashlib.
    const ANSWER: &str = "md53dd9000be62fda5a723b52f0c6ac9797";

    #[test]
    fn the_answer_is_the_same_from_password_and_hash() {
        assert_eq!(stored_hash("bob", b"secret").as_str(), STORED);
        assert_eq!(response("bob", "secret", SALT), ANSWER);
        assert_eq!(response("bob", STORED, SALT), ANSWER);
    }

    #[test]
    fn verifies_against_either_form() {
        for secret in [Secret::Plain("secret".to_owned()), Secret::Md5(STORED.to_owned())] {
            assert!(verify(&secret, "bob", SALT, ANSWER.as_bytes()));
            assert!(!verify(&secret, "bob", [0; 4], ANSWER.as_bytes()), "another salt");
            assert!(!verify(&secret, "bob", SALT, STORED.as_bytes()), "the stored hash itself");
            for hostile in [&b""[..], b"md5", &ANSWER.as_bytes()[..34], &[ANSWER.as_bytes(), b"0"].concat(), &[0xff; 4000]] {
                assert!(!verify(&secret, "bob", SALT, hostile));
            }
        }
        assert!(!verify(&Secret::Plain("secret".to_owned()), "eve", SALT, ANSWER.as_bytes()), "another user");
    }

    #[test]
    fn empty_passwords_and_verifiers_never_match() {
        let empty = response("bob", "", SALT);
        assert!(!verify(&Secret::Plain(String::new()), "bob", SALT, empty.as_bytes()));
        let scram = "SCRAM-SHA-256$1:AAAA$x:y".to_owned();
        let as_password = response("bob", &scram, SALT);
        assert!(!verify(&Secret::Scram(scram), "bob", SALT, as_password.as_bytes()));
    }
}
