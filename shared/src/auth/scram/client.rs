//! The client's side: we prove to a server that we know a password, and it proves the same to us.
//!
//! `first` goes into SASLInitialResponse, AuthenticationSASLContinue to `server_first` whose answer is the SASLResponse, and
//! AuthenticationSASLFinal to `server_final`. A server is bounded too: nonce, salt and iterations are checked before any hashing. A caller that
//! wants to hash elsewhere, or has the keys already, calls `challenge` and `answer` in place of `server_first`.

use super::keys::{Keys, hmac, stored_key, xor};
use super::message::{self, Attributes};
use super::{MAX_ITERATIONS, MAX_SALT, NONCE_BYTES, ScramError};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::fmt;
use std::mem;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The gs2 header: no channel binding, no authorization identity.
const GS2_HEADER: &str = "n,,";

/// One login to one server.
#[derive(Debug)]
pub struct ClientExchange {
    credentials: Credentials,
    nonce: String,
    state: State,
}

enum Credentials {
    Password(Zeroizing<Vec<u8>>),
    Keys(Keys),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password(…)",
            Self::Keys(_) => "Keys(…)",
        })
    }
}

#[derive(Debug)]
enum State {
    First,
    Challenged { nonce: String, server_first: Vec<u8> },
    Final { signature: [u8; 32] },
    Over,
}

/// What a server wants the password hashed with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Challenge {
    /// The salt, decoded.
    pub salt: Vec<u8>,
    /// Rounds of hashing, at most [`MAX_ITERATIONS`].
    pub iterations: u32,
}

impl ClientExchange {
    /// A login with a password; `random` makes this side's nonce.
    pub fn new(password: &[u8], random: [u8; NONCE_BYTES]) -> Self {
        Self::with_nonce(Credentials::Password(Zeroizing::new(password.to_vec())), STANDARD.encode(random))
    }

    /// A login with the keys that a client's own login has given; fails at the server unless it stores the same salt and iterations.
    pub fn with_keys(keys: Keys, random: [u8; NONCE_BYTES]) -> Self {
        Self::with_nonce(Credentials::Keys(keys), STANDARD.encode(random))
    }

    fn with_nonce(credentials: Credentials, nonce: String) -> Self {
        Self { credentials, nonce, state: State::First }
    }

    /// client-first-message. The user name is left empty: the server goes by the startup message's.
    pub fn first(&self) -> Vec<u8> {
        format!("{GS2_HEADER}{}", self.first_bare()).into_bytes()
    }

    fn first_bare(&self) -> String {
        format!("n=,r={}", self.nonce)
    }

    /// Takes server-first-message, gives client-final-message. With a password this hashes as often as the server says.
    pub fn server_first(&mut self, message: &[u8]) -> Result<Vec<u8>, ScramError> {
        let challenge = self.challenge(message)?;
        let keys = match &self.credentials {
            Credentials::Password(password) => Keys::derive(password, &challenge.salt, challenge.iterations),
            Credentials::Keys(keys) => keys.clone(),
        };
        self.answer(&keys)
    }

    /// Takes server-first-message without hashing; `answer` is next.
    pub fn challenge(&mut self, message: &[u8]) -> Result<Challenge, ScramError> {
        let State::First = mem::replace(&mut self.state, State::Over) else { return Err(ScramError::OutOfOrder) };
        let mut attributes = Attributes::new("server-first-message", message)?;
        let nonce = message::nonce(attributes.expect(b'r', "nonce")?)?;
        // The server has to add something of its own, lest it replay an old exchange.
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err(ScramError::Nonce);
        }
        let salt = attributes.expect(b's', "salt")?;
        if salt.len() > MAX_SALT {
            return Err(ScramError::TooLong("salt"));
        }
        let salt = STANDARD.decode(salt).map_err(|_| ScramError::Invalid("salt"))?;
        if salt.is_empty() {
            return Err(ScramError::Invalid("salt"));
        }
        let iterations = iterations(attributes.expect(b'i', "iteration count")?)?;
        attributes.skip_extensions()?;
        self.state = State::Challenged { nonce: nonce.to_owned(), server_first: message.to_vec() };
        Ok(Challenge { salt, iterations })
    }

    /// client-final-message, from the keys of the challenge's salt and iterations.
    pub fn answer(&mut self, keys: &Keys) -> Result<Vec<u8>, ScramError> {
        let State::Challenged { nonce, server_first } = mem::replace(&mut self.state, State::Over) else {
            return Err(ScramError::OutOfOrder);
        };
        let without_proof = format!("c={},r={nonce}", STANDARD.encode(GS2_HEADER));
        let first_bare = self.first_bare();
        let auth_message: [&[u8]; 5] = [first_bare.as_bytes(), b",", &server_first, b",", without_proof.as_bytes()];
        let proof = xor(&keys.client_key, &hmac(&stored_key(&keys.client_key), &auth_message));
        self.state = State::Final { signature: hmac(&keys.server_key, &auth_message) };
        Ok(format!("{without_proof},p={}", STANDARD.encode(proof)).into_bytes())
    }

    /// Takes server-final-message; unless it is `Ok` the server does not know the password, whatever it says afterwards.
    pub fn server_final(&mut self, message: &[u8]) -> Result<(), ScramError> {
        let State::Final { signature } = mem::replace(&mut self.state, State::Over) else { return Err(ScramError::OutOfOrder) };
        let mut attributes = Attributes::new("server-final-message", message)?;
        let theirs = match attributes.next_pair()? {
            (b'v', value) => STANDARD.decode(value).map_err(|_| ScramError::Invalid("server signature"))?,
            (b'e', value) => return Err(ScramError::Server(String::from_utf8_lossy(value).into_owned())),
            _ => return Err(ScramError::Missing("server signature")),
        };
        attributes.skip_extensions()?;
        if theirs.as_slice().ct_eq(&signature).into() { Ok(()) } else { Err(ScramError::ServerSignature) }
    }
}

/// A decimal from 1 to [`MAX_ITERATIONS`].
fn iterations(value: &[u8]) -> Result<u32, ScramError> {
    let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let count: u64 = digits.and_then(|text| text.parse().ok()).ok_or(ScramError::Invalid("iteration count"))?;
    match u32::try_from(count) {
        Ok(0) => Err(ScramError::Invalid("iteration count")),
        Ok(count) if count <= MAX_ITERATIONS => Ok(count),
        _ => Err(ScramError::Iterations(count)),
    }
}
