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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stored_form_takes_its_password_only() {
        let scram = "SCRAM-SHA-256$4096:41/Sog2kzEuvIARoRIe6PQ==$\
                     VnFWjnJ0xPAWnn9cKPHerv0nPTo4YLmALScj4TLzuxU=:8HCBXMz324/nSwvWgTI0+DitVNxC3WLOlGv3IrIaVr0=";
        let md5 = "md521f3163f8f86fa10bdefbfbd502a8f06";
        for (stored, password) in [("secret", "secret"), (md5, "secret"), (scram, "pencil")] {
            let secret = Secret::parse(stored);
            assert!(verify(&secret, "bob", password.as_bytes()), "{secret:?}");
            assert!(!verify(&secret, "bob", b"Secret"), "{secret:?}");
            assert!(!verify(&secret, "bob", b""), "{secret:?}");
        }
        // What is stored does not open the door itself.
        assert!(!verify(&Secret::parse(md5), "bob", md5.as_bytes()));
        assert!(!verify(&Secret::parse(scram), "bob", scram.as_bytes()));
        assert!(!verify(&Secret::parse(md5), "eve", b"secret"), "md5 is salted with the user's name");
    }

    #[test]
    fn an_empty_stored_password_never_matches() {
        assert!(!verify(&Secret::Plain(String::new()), "bob", b""));
    }
}
