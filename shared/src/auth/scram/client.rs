//! The client's side: we prove to a server that we know a password, and it proves the same to us.
//!
//! `first` goes into SASLInitialResponse, AuthenticationSASLContinue to `server_first` whose answer is the SASLResponse, and
//! AuthenticationSASLFinal to `server_final`. A server is bounded too: nonce, salt and iterations are checked before any hashing. A caller that
//! wants to hash elsewhere, or has the keys already, calls `challenge` and `answer` in place of `server_first`.

use super::binding::Binding;
use super::keys::{Keys, hmac, stored_key, xor};
use super::message::{self, Attributes};
use super::{MAX_ITERATIONS, MAX_SALT, NONCE_BYTES, ScramError};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::fmt;
use std::mem;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// One login to one server.
#[derive(Debug)]
pub struct ClientExchange {
    credentials: Credentials,
    binding: Binding,
    nonce: String,
    /// client-first-message without its gs2 header.
    first_bare: String,
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

/// What a password is to be hashed with.
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
        Self::start(Credentials::Password(Zeroizing::new(password.to_vec())), "", STANDARD.encode(random))
    }

    /// A login with the keys that a client's own login has given; fails at the server unless it stores the same salt and iterations.
    pub fn with_keys(keys: Keys, random: [u8; NONCE_BYTES]) -> Self {
        Self::start(Credentials::Keys(keys), "", STANDARD.encode(random))
    }

    fn start(credentials: Credentials, user: &str, nonce: String) -> Self {
        let first_bare = format!("n={user},r={nonce}");
        Self { credentials, binding: Binding::Unable, nonce, first_bare, state: State::First }
    }

    /// The same, bound as `binding` says; it is not bound without.
    #[must_use]
    pub fn bound(self, binding: Binding) -> Self {
        Self { binding, ..self }
    }

    /// How it is bound, and so which mechanism SASLInitialResponse names.
    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    /// client-first-message. The user name is left empty: the server goes by the startup message's.
    pub fn first(&self) -> Vec<u8> {
        format!("{}{}", self.binding.gs2_header(), self.first_bare).into_bytes()
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
        let without_proof = format!("c={},r={nonce}", self.binding.attribute());
        let auth_message: [&[u8]; 5] = [self.first_bare.as_bytes(), b",", &server_first, b",", without_proof.as_bytes()];
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn exchange() -> ClientExchange {
        let password = Credentials::Password(Zeroizing::new(b"pencil".to_vec()));
        ClientExchange::start(password, "user", "rOprNGfwEbeRWgbNEkqO".to_owned())
    }

    #[test]
    fn rfc_7677_section_3() {
        let mut exchange = exchange();
        assert_eq!(exchange.first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let last = exchange.server_first(SERVER_FIRST.as_bytes()).unwrap();
        assert_eq!(
            String::from_utf8(last).unwrap(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        exchange.server_final(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap();
    }

    #[test]
    fn what_a_server_may_not_send_first() {
        let invalid = ScramError::Invalid;
        let cases = [
            (String::new(), ScramError::Missing("nonce")),
            (SERVER_FIRST.replace("r=rOpr", "r=rOps"), ScramError::Nonce),
            ("r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".to_owned(), ScramError::Nonce),
            (SERVER_FIRST.replace("%hv", &"x".repeat(600)), ScramError::TooLong("nonce")),
            (SERVER_FIRST.replace("%hv", "\u{e9}"), invalid("nonce")),
            (SERVER_FIRST.replace("s=W22ZaJ0SNY7soEsUEjb6gQ==", "s="), invalid("salt")),
            (SERVER_FIRST.replace("W22ZaJ0SNY7soEsUEjb6gQ==", &"QUFB".repeat(300)), ScramError::TooLong("salt")),
            (SERVER_FIRST.replace("i=4096", "i=0"), invalid("iteration count")),
            (SERVER_FIRST.replace("i=4096", "i=-1"), invalid("iteration count")),
            (SERVER_FIRST.replace("i=4096", "i="), invalid("iteration count")),
            (SERVER_FIRST.replace("i=4096", "i=99999999999999999999999"), invalid("iteration count")),
            (SERVER_FIRST.replace("i=4096", "i=1000001"), ScramError::Iterations(1_000_001)),
            (SERVER_FIRST.replace("i=4096", "i=4294967297"), ScramError::Iterations(4_294_967_297)),
            (SERVER_FIRST.replace(",i=4096", ""), ScramError::Missing("iteration count")),
            (SERVER_FIRST.replace("r=", "m=x,r="), ScramError::Extension),
            (format!("{SERVER_FIRST},"), ScramError::Missing("an attribute")),
            (format!("{SERVER_FIRST},x={}", "y".repeat(5000)), ScramError::TooLong("server-first-message")),
        ];
        for (message, error) in cases {
            let mut exchange = exchange();
            assert_eq!(exchange.server_first(message.as_bytes()), Err(error), "{message}");
            assert_eq!(
                exchange.server_first(SERVER_FIRST.as_bytes()),
                Err(ScramError::OutOfOrder),
                "a failed exchange stays failed"
            );
        }
    }

    #[test]
    fn what_a_server_may_not_send_last() {
        let wrong = format!("v={}", STANDARD.encode([7; 32]));
        let cases: [(&[u8], ScramError); 6] = [
            (wrong.as_bytes(), ScramError::ServerSignature),
            (b"v=", ScramError::ServerSignature),
            (b"v=!", ScramError::Invalid("server signature")),
            (b"e=other-error", ScramError::Server("other-error".to_owned())),
            (b"", ScramError::Missing("an attribute")),
            (b"x=1", ScramError::Missing("server signature")),
        ];
        for (message, error) in cases {
            let mut exchange = exchange();
            let challenge = exchange.challenge(SERVER_FIRST.as_bytes()).unwrap();
            assert_eq!(challenge.iterations, 4096);
            exchange.answer(&Keys { client_key: [1; 32], server_key: [2; 32] }).unwrap();
            assert_eq!(exchange.server_final(message), Err(error));
        }
    }

    #[test]
    fn steps_in_another_order_fail() {
        assert_eq!(exchange().server_final(b"v="), Err(ScramError::OutOfOrder));
        assert_eq!(exchange().answer(&Keys { client_key: [1; 32], server_key: [2; 32] }), Err(ScramError::OutOfOrder));
    }
}
