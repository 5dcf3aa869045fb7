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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::ClientExchange;
    use super::*;

    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const FINAL: &str =
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn rfc_verifier() -> Verifier {
        Verifier::derive(b"pencil", &STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(), 4096)
    }

    fn rfc_exchange(verifier: &Verifier) -> ServerExchange {
        ServerExchange::with_nonce(verifier.clone(), "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned())
    }

    #[test]
    fn rfc_7677_section_3() {
        let mut exchange = rfc_exchange(&rfc_verifier());
        let answer = exchange.client_first(FIRST.as_bytes()).unwrap();
        assert_eq!(
            String::from_utf8(answer).unwrap(),
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let success = exchange.client_final(FINAL.as_bytes()).unwrap();
        assert_eq!(success.server_final, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(exchange.client_final(FINAL.as_bytes()).unwrap_err(), ScramError::OutOfOrder, "a proof counts once");
    }

    /// Runs both sides against each other.
    fn login(mut client: ClientExchange, verifier: Verifier) -> Result<Keys, ScramError> {
        let mut server = ServerExchange::start(verifier, [0x5a; NONCE_BYTES]);
        let challenge = server.client_first(&client.first())?;
        let success = server.client_final(&client.server_first(&challenge)?)?;
        client.server_final(&success.server_final)?;
        Ok(success.keys)
    }

    #[test]
    fn a_client_of_ours_at_a_server_of_ours() {
        // Soft hyphen goes, no-break space becomes a space: both sides prepare alike. The last is not UTF-8 and stays as it is.
        for (typed, stored) in
            [(&b"secret"[..], &b"secret"[..]), ("I\u{ad}X\u{a0}y".as_bytes(), b"IX y"), (b"\xff\xfe", b"\xff\xfe")]
        {
            let verifier = Verifier::derive(stored, b"0123456789abcdef", 100);
            login(ClientExchange::new(typed, [1; NONCE_BYTES]), verifier).unwrap();
        }
    }

    #[test]
    fn keys_of_one_login_log_in_elsewhere() {
        let verifier = Verifier::derive(b"secret", b"salt", 10);
        let keys = login(ClientExchange::new(b"secret", [1; NONCE_BYTES]), verifier.clone()).unwrap();
        login(ClientExchange::with_keys(keys.clone(), [2; NONCE_BYTES]), verifier).unwrap();
        let other_salt = Verifier::derive(b"secret", b"pepper", 10);
        assert_eq!(login(ClientExchange::with_keys(keys, [2; NONCE_BYTES]), other_salt).unwrap_err(), ScramError::Proof);
    }

    #[test]
    fn a_wrong_password_and_an_unknown_user_fail_at_the_proof() {
        let client = || ClientExchange::new(b"secret", [1; NONCE_BYTES]);
        assert_eq!(login(client(), Verifier::derive(b"Secret", b"salt", 10)).unwrap_err(), ScramError::Proof);
        assert_eq!(login(client(), Verifier::mock("nobody", &[3; 32], 10)).unwrap_err(), ScramError::Proof);
    }

    #[test]
    fn what_a_client_may_not_send_first() {
        let long = format!("{FIRST}{}", "x".repeat(600));
        let longer = format!("{FIRST},x={}", "y".repeat(5000));
        let cases: [(&[u8], ScramError); 18] = [
            (b"", ScramError::Missing("channel binding flag")),
            (b"x,,n=,r=a", ScramError::Invalid("channel binding flag")),
            (b"n", ScramError::Invalid("channel binding flag")),
            (b"n,", ScramError::Invalid("gs2 header")),
            (b"n,,", ScramError::Missing("user name")),
            (b"p=tls-server-end-point,,n=,r=a", ScramError::ChannelBindingRequired),
            (b"n,a=bob,n=,r=a", ScramError::AuthorizationIdentity),
            (b"n,,m=x,n=,r=a", ScramError::Extension),
            (b"n,,r=a", ScramError::Missing("user name")),
            (b"n,,n=", ScramError::Missing("nonce")),
            (b"n,,n=,", ScramError::Missing("nonce")),
            (b"n,,n=,r=", ScramError::Invalid("nonce")),
            (b"n,,n=,r=a b", ScramError::Invalid("nonce")),
            (b"n,,n=,r=a\x7f", ScramError::Invalid("nonce")),
            (b"n,,n=\0,r=a", ScramError::Invalid("client-first-message")),
            (b"n,,n=,r=a,1=x", ScramError::Invalid("attribute name")),
            (long.as_bytes(), ScramError::TooLong("nonce")),
            (longer.as_bytes(), ScramError::TooLong("client-first-message")),
        ];
        for (message, error) in cases {
            let mut exchange = ServerExchange::start(Verifier::mock("x", &[1; 32], 1), [1; NONCE_BYTES]);
            assert_eq!(exchange.client_first(message).unwrap_err(), error, "{}", message.escape_ascii());
            assert_eq!(
                exchange.client_first(FIRST.as_bytes()).unwrap_err(),
                ScramError::OutOfOrder,
                "a failed exchange stays failed"
            );
        }
    }

    #[test]
    fn what_a_client_may_not_send_last() {
        let nonce = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let cases = [
            (String::new(), ScramError::Missing("channel binding")),
            // CVE-2026-19888: without a nonce, for a known user and for an unknown one.
            ("c=biws".to_owned(), ScramError::Missing("nonce")),
            ("c=biws,p=QUFB".to_owned(), ScramError::Missing("nonce")),
            ("c=biws,".to_owned(), ScramError::Missing("nonce")),
            (format!("c=biws,{nonce}"), ScramError::Missing("proof")),
            (format!("c=biws,{nonce},"), ScramError::Missing("an attribute")),
            (format!("c=biws,{nonce},p="), ScramError::Invalid("proof")),
            (format!("c=biws,{nonce},p=QUFB"), ScramError::Invalid("proof")),
            (format!("{FINAL},x=y"), ScramError::Trailing("client-final-message")),
            (FINAL.replace("c=biws", "c=eSws"), ScramError::ChannelBindingMismatch),
            (FINAL.replace("c=biws", "c="), ScramError::ChannelBindingMismatch),
            (FINAL.replace("%hv", "%hw"), ScramError::Nonce),
            (FINAL.replace(",p=dHzb", ",p=dHzc"), ScramError::Proof),
            (FINAL.replace(",p=", ",x=more,p="), ScramError::Proof),
        ];
        for verifier in [rfc_verifier(), Verifier::mock("x", &[1; 32], 4096)] {
            for (message, error) in &cases {
                let mut exchange = rfc_exchange(&verifier);
                exchange.client_first(FIRST.as_bytes()).unwrap();
                assert_eq!(exchange.client_final(message.as_bytes()).unwrap_err(), *error, "{message}");
            }
        }
    }

    #[test]
    fn flag_y_is_accepted_and_has_to_be_repeated() {
        let mut exchange = rfc_exchange(&rfc_verifier());
        exchange.client_first(FIRST.replacen('n', "y", 1).as_bytes()).unwrap();
        assert_eq!(exchange.client_final(FINAL.as_bytes()).unwrap_err(), ScramError::ChannelBindingMismatch);
        let mut exchange = rfc_exchange(&rfc_verifier());
        exchange.client_first(FIRST.replacen('n', "y", 1).as_bytes()).unwrap();
        // The gs2 header is part of what is signed, so this proof no longer fits.
        assert_eq!(exchange.client_final(FINAL.replace("biws", "eSws").as_bytes()).unwrap_err(), ScramError::Proof);
    }

    #[test]
    fn final_before_first_fails() {
        assert_eq!(rfc_exchange(&rfc_verifier()).client_final(FINAL.as_bytes()).unwrap_err(), ScramError::OutOfOrder);
    }

    /// Mutated messages, both directions: errors, never a panic, and never a login.
    #[test]
    fn mutations_never_log_in() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % below as u64).unwrap()
        };
        let verifier = rfc_verifier();
        for round in 0..20_000 {
            let mut mutate = |message: &str| {
                let mut bytes = message.as_bytes().to_vec();
                for _ in 0..=random(3) {
                    let at = random(bytes.len().max(1));
                    match random(5) {
                        0 => bytes.truncate(at),
                        1 if !bytes.is_empty() => bytes[at] = random(256) as u8,
                        2 => bytes.insert(at.min(bytes.len()), b",=\0pmn"[random(6)]),
                        3 if !bytes.is_empty() => drop(bytes.remove(at)),
                        _ => bytes.extend_from_within(at.min(bytes.len())..),
                    }
                }
                bytes
            };
            let mut exchange = rfc_exchange(&verifier);
            let _ = exchange.client_first(&mutate(FIRST));
            let mut exchange = rfc_exchange(&verifier);
            exchange.client_first(FIRST.as_bytes()).unwrap();
            let last = mutate(FINAL);
            if last != FINAL.as_bytes() {
                assert!(exchange.client_final(&last).is_err(), "round {round}: {}", last.escape_ascii());
            }
            let mut client = ClientExchange::new(b"", [9; NONCE_BYTES]);
            let nonce = STANDARD.encode([9; NONCE_BYTES]);
            let _ = client.challenge(&mutate(&format!("r={nonce}abc,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")));
        }
    }
}
