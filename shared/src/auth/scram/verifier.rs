//! What a server stores instead of a password, and what stands in for it when there is no such user.

use super::keys::{Keys, hmac, stored_key};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::fmt;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A SCRAM verifier: from a stored secret, from a plaintext password, or a mock.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Verifier {
    /// Rounds of hashing.
    pub iterations: u32,
    /// The salt, decoded.
    pub salt: Vec<u8>,
    /// SHA-256 of the client key.
    pub stored_key: [u8; 32],
    /// Signs the server's last message.
    pub server_key: [u8; 32],
    /// No proof satisfies it.
    mock: bool,
}

/// The text is not a SCRAM secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a SCRAM-SHA-256 secret: invalid {0}")]
pub struct NotAVerifier(&'static str);

impl Verifier {
    /// Reads `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`, as in `pg_authid.rolpassword`.
    pub fn from_secret(secret: &str) -> Result<Self, NotAVerifier> {
        let rest = secret.strip_prefix("SCRAM-SHA-256$").ok_or(NotAVerifier("scheme"))?;
        let (parameters, keys) = rest.split_once('$').ok_or(NotAVerifier("form"))?;
        let (iterations, salt) = parameters.split_once(':').ok_or(NotAVerifier("form"))?;
        let (stored, server) = keys.split_once(':').ok_or(NotAVerifier("form"))?;
        if iterations.is_empty() || !iterations.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NotAVerifier("iteration count"));
        }
        let iterations: u32 = iterations.parse().map_err(|_| NotAVerifier("iteration count"))?;
        if iterations == 0 {
            return Err(NotAVerifier("iteration count"));
        }
        let salt = STANDARD.decode(salt).map_err(|_| NotAVerifier("salt"))?;
        if salt.is_empty() {
            return Err(NotAVerifier("salt"));
        }
        let key = |text: &str, field| -> Result<[u8; 32], NotAVerifier> {
            STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(NotAVerifier(field))
        };
        Ok(Self { iterations, salt, stored_key: key(stored, "StoredKey")?, server_key: key(server, "ServerKey")?, mock: false })
    }

    /// The verifier of a plaintext password. Expensive as [`Keys::derive`]; keep it.
    pub fn derive(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        Self::from_keys(&Keys::derive(password, salt, iterations), salt, iterations)
    }

    /// The verifier of keys derived before with this salt and these iterations.
    pub fn from_keys(keys: &Keys, salt: &[u8], iterations: u32) -> Self {
        Self { iterations, salt: salt.to_vec(), stored_key: stored_key(&keys.client_key), server_key: keys.server_key, mock: false }
    }

    /// Stands in for a user that does not exist: the same user gets the same salt from every process that shares `mock_secret`, and
    /// no proof satisfies it.
    pub fn mock(user: &str, mock_secret: &[u8], iterations: u32) -> Self {
        let derived = |label: &[u8]| hmac(mock_secret, &[label, user.as_bytes()]);
        Self {
            iterations: iterations.max(1),
            salt: Self::salt(user, mock_secret),
            stored_key: derived(b"stored key\0"),
            server_key: derived(b"server key\0"),
            mock: true,
        }
    }

    /// The `mock_secret` of a machine with this id, which machine-id(5) wants to be seen by nobody else: nothing that is made of the one tells the other.
    pub fn mock_secret_of(machine_id: &str) -> [u8; 32] {
        hmac(machine_id.as_bytes(), &[b"pgfleet: users who do not exist"])
    }

    /// Whether `keys`, derived with its salt and iterations, are those of the password it was made of. Never for a mock.
    pub fn is_of(&self, keys: &Keys) -> bool {
        bool::from(keys.server_key.ct_eq(&self.server_key)) && !self.mock
    }

    /// The salt of this user's verifier where none is stored: as long as PostgreSQL's own, and the same from every process that shares
    /// `mock_secret`, or two logins would show that it was made here.
    pub fn salt(user: &str, mock_secret: &[u8]) -> Vec<u8> {
        hmac(mock_secret, &[user.as_bytes()])[..16].to_vec()
    }

    /// Whether `client_key` is the one behind the stored key. Never for a mock.
    pub(super) fn accepts(&self, client_key: &[u8; 32]) -> bool {
        bool::from(stored_key(client_key).ct_eq(&self.stored_key)) && !self.mock
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// `pg_authid.rolpassword` of PostgreSQL 15 after `create role … password`.
    const PENCIL: &str = "SCRAM-SHA-256$4096:41/Sog2kzEuvIARoRIe6PQ==$\
                          VnFWjnJ0xPAWnn9cKPHerv0nPTo4YLmALScj4TLzuxU=:8HCBXMz324/nSwvWgTI0+DitVNxC3WLOlGv3IrIaVr0=";
    /// The same of the password `I`, soft hyphen, `X`.
    const SOFT_HYPHEN: &str = "SCRAM-SHA-256$4096:VnAnhjuREzLt4REhH6L3wA==$\
                               EwQAwGp8GhJWaDRzd5Q34VEP/+DNsU17WvVWcYq1g/U=:npKpb2H9IkUSeBkDhk8wdo1XP7d9uoACnzwdDsV5unc=";

    #[test]
    fn postgresql_stores_what_we_derive() {
        let stored = Verifier::from_secret(PENCIL).unwrap();
        assert_eq!(Verifier::derive(b"pencil", &stored.salt, stored.iterations), stored);
        let matches = |stored: &Verifier, password: &[u8]| stored.is_of(&Keys::derive(password, &stored.salt, stored.iterations));
        assert!(matches(&stored, b"pencil") && !matches(&stored, b"Pencil") && !matches(&stored, b""));
        let soft_hyphen = Verifier::from_secret(SOFT_HYPHEN).unwrap();
        assert!(matches(&soft_hyphen, "I\u{ad}X".as_bytes()) && matches(&soft_hyphen, b"IX"));
    }

    #[test]
    fn what_is_no_verifier() {
        for broken in [
            "",
            "SCRAM-SHA-256$",
            "SCRAM-SHA-256$4096:AAAA",
            "SCRAM-SHA-256$4096:AAAA$AAAA:AAAA",
            &PENCIL.replace("4096", ""),
            &PENCIL.replace("4096", "0"),
            &PENCIL.replace("4096", "+1"),
            &PENCIL.replace("4096", "99999999999"),
            &PENCIL.replace("41/Sog2kzEuvIARoRIe6PQ==", ""),
            &PENCIL.replace("PQ==", "P!=="),
            &PENCIL.replace("SHA-256", "SHA-1"),
            &format!("{PENCIL}="),
        ] {
            assert!(Verifier::from_secret(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_mock_is_steady_per_user_and_matches_nothing() {
        let mock = |user| Verifier::mock(user, &[7; 32], 4096);
        assert_eq!(mock("a"), mock("a"));
        assert_ne!(mock("a").salt, mock("b").salt);
        assert_ne!(mock("a").salt, Verifier::mock("a", &[8; 32], 4096).salt);
        assert_eq!(mock("a").salt.len(), 16, "as long as PostgreSQL's own");
        assert!(!mock("a").is_of(&Keys { client_key: [0; 32], server_key: mock("a").server_key }));
    }

    #[test]
    fn a_mock_is_refused_even_with_its_own_keys() {
        let keys = Keys::derive(b"x", b"salt", 1);
        let mut verifier = Verifier::from_keys(&keys, b"salt", 1);
        assert!(verifier.accepts(&keys.client_key));
        verifier.mock = true;
        assert!(!verifier.accepts(&keys.client_key) && !verifier.is_of(&keys));
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", Verifier::mock("a", &[7; 32], 4096)), "Verifier { iterations: 4096, .. }");
    }
}
