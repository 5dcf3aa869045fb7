//! The cleartext method: the client sends the password itself and it is checked against whatever form is stored.

use super::{Secret, md5, scram};
use subtle::ConstantTimeEq;

/// Whether `password`, a client's PasswordMessage without its terminating zero, is the one stored for `user`. An empty password
/// never matches. A SCRAM verifier costs its iterations of hashing.
pub fn verify(secret: &Secret, user: &str, password: &[u8]) -> bool {
    if password.is_empty() {
        return false;
    }
    match secret {
        Secret::Plain(stored) => stored.as_bytes().ct_eq(password).into(),
        Secret::Md5(stored) => stored.as_bytes().ct_eq(md5::stored_hash(user, password).as_bytes()).into(),
        Secret::Scram(stored) => scram::Verifier::from_secret(stored).is_ok_and(|verifier| verifier.matches(password)),
    }
}
