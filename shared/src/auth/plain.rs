//! The cleartext method: the client sends the password itself and it is checked against whatever form is stored.

use super::{Secret, md5};
use subtle::ConstantTimeEq;

/// Whether `password`, a client's PasswordMessage without its terminating zero, is the one stored for `user`. An empty password
/// never matches, nor does any a SCRAM verifier: whether it does takes hashing ([`super::scram::Verifier::is_of`]).
pub fn verify(secret: &Secret, user: &str, password: &[u8]) -> bool {
    if password.is_empty() {
        return false;
    }
    match secret {
        Secret::Plain(stored) => stored.as_bytes().ct_eq(password).into(),
        Secret::Md5(stored) => stored.as_bytes().ct_eq(md5::stored_hash(user, password).as_bytes()).into(),
        Secret::Scram(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stored_form_takes_its_password_only() {
        let md5 = "md521f3163f8f86fa10bdefbfbd502a8f06";
        for (stored, password) in [("secret", "secret"), (md5, "secret")] {
            let secret = Secret::parse(stored);
            assert!(verify(&secret, "bob", password.as_bytes()), "{secret:?}");
            assert!(!verify(&secret, "bob", b"Secret"), "{secret:?}");
            assert!(!verify(&secret, "bob", b""), "{secret:?}");
        }
        // What is stored does not open the door itself.
        assert!(!verify(&Secret::parse(md5), "bob", md5.as_bytes()));
        assert!(!verify(&Secret::parse(md5), "eve", b"secret"), "md5 is salted with the user's name");
    }

    #[test]
    fn an_empty_stored_password_never_matches() {
        assert!(!verify(&Secret::Plain(String::new()), "bob", b""));
    }
}
