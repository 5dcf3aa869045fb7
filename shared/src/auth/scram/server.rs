//! The server's side: a client proves that it knows the password behind a [`Verifier`].
//!
//! AuthenticationSASL names the mechanism; the SASLInitialResponse's data goes to `client_first` and the answer into
//! AuthenticationSASLContinue; the next SASLResponse goes to `client_final` and the answer into AuthenticationSASLFinal. An exchange
//! that has failed once stays failed. A mock verifier walks the same way and fails at the proof.

use super::keys::{Keys, hmac, xor};
use super::message::{self, Attributes};
use super::{NONCE_BYTES, ScramError, Verifier};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::mem;

/// One login of one client.
#[derive(Debug)]
pub struct ServerExchange {
    verifier: Verifier,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Our part of the nonce.
    First {
        nonce: String,
    },
    Final(Challenged),
    Over,
}

/// What client-final has to fit.
#[derive(Debug)]
struct Challenged {
    gs2: Gs2Flag,
    nonce: String,
    /// client-first-bare, comma, server-first.
    messages: Vec<u8>,
}

/// What the client says about channel binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gs2Flag {
    /// `n`: it cannot.
    Unsupported,
    /// `y`: it could, and believes that we cannot, which is so.
    NotOffered,
}

impl Gs2Flag {
    /// The `c=` of client-final: base64 of the gs2 header, `n,,` or `y,,`.
    fn channel_binding(self) -> &'static [u8] {
        match self {
            Self::Unsupported => b"biws",
            Self::NotOffered => b"eSws",
        }
    }
}

/// The client knows the password.
#[derive(Debug)]
pub struct Success {
    /// For AuthenticationSASLFinal.
    pub server_final: Vec<u8>,
    /// The client's key, recovered from its proof, and the verifier's server key: enough for [`super::ClientExchange::with_keys`]
    /// to log in where the same salt and iterations are stored.
    pub keys: Keys,
}

impl ServerExchange {
    /// Starts a login against `verifier`; `random` makes this side's nonce.
    pub fn start(verifier: Verifier, random: [u8; NONCE_BYTES]) -> Self {
        Self::with_nonce(verifier, STANDARD.encode(random))
    }

    fn with_nonce(verifier: Verifier, nonce: String) -> Self {
        Self { verifier, state: State::First { nonce } }
    }

    /// Takes client-first-message, gives server-first-message.
    pub fn client_first(&mut self, message: &[u8]) -> Result<Vec<u8>, ScramError> {
        let State::First { nonce: ours } = mem::replace(&mut self.state, State::Over) else { return Err(ScramError::OutOfOrder) };
        let (gs2, bare) = gs2_header(message)?;
        let mut attributes = Attributes::new("client-first-message", bare)?;
        attributes.expect(b'n', "user name")?;
        let theirs = message::nonce(attributes.expect(b'r', "nonce")?)?;
        attributes.skip_extensions()?;

        let nonce = format!("{theirs}{ours}");
        let answer = format!("r={nonce},s={},i={}", STANDARD.encode(&self.verifier.salt), self.verifier.iterations).into_bytes();
        self.state = State::Final(Challenged { gs2, nonce, messages: [bare, b",", &answer].concat() });
        Ok(answer)
    }

    /// Takes client-final-message; on success the client is who it says.
    pub fn client_final(&mut self, message: &[u8]) -> Result<Success, ScramError> {
        let State::Final(challenged) = mem::replace(&mut self.state, State::Over) else { return Err(ScramError::OutOfOrder) };
        let mut attributes = Attributes::new("client-final-message", message)?;
        let channel_binding = attributes.expect(b'c', "channel binding")?;
        let nonce = attributes.expect(b'r', "nonce")?;
        let proof = loop {
            if !attributes.more() {
                return Err(ScramError::Missing("proof"));
            }
            if let (b'p', value) = attributes.next_pair()? {
                break value;
            }
        };
        attributes.end()?;
        if channel_binding != challenged.gs2.channel_binding() {
            return Err(ScramError::ChannelBindingMismatch);
        }
        if nonce != challenged.nonce.as_bytes() {
            return Err(ScramError::Nonce);
        }
        // The proof stands last, so what precedes it is the message less `,p=` and the proof.
        let without_proof = &message[..message.len() - proof.len() - 3];
        let proof: [u8; 32] =
            STANDARD.decode(proof).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(ScramError::Invalid("proof"))?;

        let auth_message: [&[u8]; 3] = [&challenged.messages, b",", without_proof];
        let client_key = xor(&proof, &hmac(&self.verifier.stored_key, &auth_message));
        let keys = Keys { client_key, server_key: self.verifier.server_key };
        if !self.verifier.accepts(&keys.client_key) {
            return Err(ScramError::Proof);
        }
        let signature = hmac(&self.verifier.server_key, &auth_message);
        Ok(Success { server_final: format!("v={}", STANDARD.encode(signature)).into_bytes(), keys })
    }
}

/// Splits client-first-message into what its gs2 header says and the bare message.
fn gs2_header(message: &[u8]) -> Result<(Gs2Flag, &[u8]), ScramError> {
    let (flag, rest) = match message {
        [b'n', b',', rest @ ..] => (Gs2Flag::Unsupported, rest),
        [b'y', b',', rest @ ..] => (Gs2Flag::NotOffered, rest),
        [b'p', b'=', ..] => return Err(ScramError::ChannelBindingRequired),
        [] => return Err(ScramError::Missing("channel binding flag")),
        _ => return Err(ScramError::Invalid("channel binding flag")),
    };
    match rest {
        [b',', bare @ ..] => Ok((flag, bare)),
        [b'a', b'=', ..] => Err(ScramError::AuthorizationIdentity),
        _ => Err(ScramError::Invalid("gs2 header")),
    }
}
