//! The server's side: a client proves that it knows the password behind a [`Verifier`].
//!
//! AuthenticationSASL names the mechanisms; the SASLInitialResponse's choice and data go to `client_first` and the answer into
//! AuthenticationSASLContinue; the next SASLResponse goes to `client_final` and the answer into AuthenticationSASLFinal. An exchange
//! that has failed once stays failed. A mock verifier walks the same way and fails at the proof.

use super::binding::{self, Binding};
use super::keys::{Keys, hmac, xor};
use super::message::{self, Attributes};
use super::{MECHANISM, MECHANISM_PLUS, NONCE_BYTES, ScramError, Verifier};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::mem;
use std::sync::Arc;

/// One login of one client.
#[derive(Debug)]
pub struct ServerExchange {
    verifier: Verifier,
    endpoint: Option<Arc<[u8]>>,
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
    binding: Binding,
    nonce: String,
    /// client-first-bare, comma, server-first.
    messages: Vec<u8>,
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
    /// Starts a login against `verifier`; `random` makes this side's nonce. `endpoint`: what the login may be bound to, inside TLS.
    pub fn start(verifier: Verifier, random: [u8; NONCE_BYTES], endpoint: Option<Arc<[u8]>>) -> Self {
        Self::with_nonce(verifier, STANDARD.encode(random), endpoint)
    }

    fn with_nonce(verifier: Verifier, nonce: String, endpoint: Option<Arc<[u8]>>) -> Self {
        Self { verifier, endpoint, state: State::First { nonce } }
    }

    /// What the client may choose from, the best first.
    pub fn mechanisms(&self) -> &'static [&'static str] {
        if self.endpoint.is_some() { &[MECHANISM_PLUS, MECHANISM] } else { &[MECHANISM] }
    }

    /// Takes the mechanism that the client has chosen and its client-first-message, gives server-first-message.
    pub fn client_first(&mut self, mechanism: &[u8], message: &[u8]) -> Result<Vec<u8>, ScramError> {
        let State::First { nonce: ours } = mem::replace(&mut self.state, State::Over) else { return Err(ScramError::OutOfOrder) };
        let (binding, bare) = binding::gs2_header(self.endpoint.as_ref(), mechanism, message)?;
        let mut attributes = Attributes::new("client-first-message", bare)?;
        attributes.expect(b'n', "user name")?;
        let theirs = message::nonce(attributes.expect(b'r', "nonce")?)?;
        attributes.skip_extensions()?;

        let nonce = format!("{theirs}{ours}");
        let answer = format!("r={nonce},s={},i={}", STANDARD.encode(&self.verifier.salt), self.verifier.iterations).into_bytes();
        self.state = State::Final(Challenged { binding, nonce, messages: [bare, b",", &answer].concat() });
        Ok(answer)
    }

    /// Takes client-final-message; on success the client is who it says.
    pub fn client_final(&mut self, message: &[u8]) -> Result<Success, ScramError> {
        let State::Final(challenged) = mem::replace(&mut self.state, State::Over) else { return Err(ScramError::OutOfOrder) };
        let mut attributes = Attributes::new("client-final-message", message)?;
        let attribute = attributes.expect(b'c', "channel binding")?;
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
        if attribute != challenged.binding.attribute().as_bytes() {
            let bound = challenged.binding.is_bound();
            return Err(if bound { ScramError::BindingMismatch } else { ScramError::BindingAttribute });
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::ClientExchange;
    use super::*;

    const PLAIN: &[u8] = MECHANISM.as_bytes();
    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const FINAL: &str =
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn rfc_verifier() -> Verifier {
        Verifier::derive(b"pencil", &STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(), 4096)
    }

    fn rfc_exchange(verifier: &Verifier) -> ServerExchange {
        ServerExchange::with_nonce(verifier.clone(), "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned(), None)
    }

    #[test]
    fn rfc_7677_section_3() {
        let mut exchange = rfc_exchange(&rfc_verifier());
        let answer = exchange.client_first(PLAIN, FIRST.as_bytes()).unwrap();
        assert_eq!(
            String::from_utf8(answer).unwrap(),
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let success = exchange.client_final(FINAL.as_bytes()).unwrap();
        assert_eq!(success.server_final, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(exchange.client_final(FINAL.as_bytes()).unwrap_err(), ScramError::OutOfOrder, "a proof counts once");
    }

    /// Runs both sides against each other.
    fn login(client: ClientExchange, verifier: Verifier) -> Result<Keys, ScramError> {
        login_inside(None, client, verifier)
    }

    fn login_inside(endpoint: Option<Arc<[u8]>>, mut client: ClientExchange, verifier: Verifier) -> Result<Keys, ScramError> {
        let mut server = ServerExchange::start(verifier, [0x5a; NONCE_BYTES], endpoint);
        assert_eq!(server.mechanisms().contains(&MECHANISM_PLUS), server.endpoint.is_some());
        let challenge = server.client_first(client.binding().mechanism().as_bytes(), &client.first())?;
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
            (b"p=tls-server-end-point,,n=,r=a", ScramError::BindingFlag),
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
            let mut exchange = ServerExchange::start(Verifier::mock("x", &[1; 32], 1), [1; NONCE_BYTES], None);
            assert_eq!(exchange.client_first(PLAIN, message).unwrap_err(), error, "{}", message.escape_ascii());
            assert_eq!(
                exchange.client_first(PLAIN, FIRST.as_bytes()).unwrap_err(),
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
            (FINAL.replace("c=biws", "c=eSws"), ScramError::BindingAttribute),
            (FINAL.replace("c=biws", "c="), ScramError::BindingAttribute),
            (FINAL.replace("%hv", "%hw"), ScramError::Nonce),
            (FINAL.replace(",p=dHzb", ",p=dHzc"), ScramError::Proof),
            (FINAL.replace(",p=", ",x=more,p="), ScramError::Proof),
        ];
        for verifier in [rfc_verifier(), Verifier::mock("x", &[1; 32], 4096)] {
            for (message, error) in &cases {
                let mut exchange = rfc_exchange(&verifier);
                exchange.client_first(PLAIN, FIRST.as_bytes()).unwrap();
                assert_eq!(exchange.client_final(message.as_bytes()).unwrap_err(), *error, "{message}");
            }
        }
    }

    #[test]
    fn flag_y_is_accepted_and_has_to_be_repeated() {
        let mut exchange = rfc_exchange(&rfc_verifier());
        exchange.client_first(PLAIN, FIRST.replacen('n', "y", 1).as_bytes()).unwrap();
        assert_eq!(exchange.client_final(FINAL.as_bytes()).unwrap_err(), ScramError::BindingAttribute);
        let mut exchange = rfc_exchange(&rfc_verifier());
        exchange.client_first(PLAIN, FIRST.replacen('n', "y", 1).as_bytes()).unwrap();
        // The gs2 header is part of what is signed, so this proof no longer fits.
        assert_eq!(exchange.client_final(FINAL.replace("biws", "eSws").as_bytes()).unwrap_err(), ScramError::Proof);
    }

    #[test]
    fn a_login_is_good_in_the_session_that_it_is_bound_to() {
        let session = |hash: &[u8]| Arc::<[u8]>::from(hash);
        let log_in = |endpoint: Option<&[u8]>, binding| {
            let client = ClientExchange::new(b"secret", [1; NONCE_BYTES]).bound(binding);
            login_inside(endpoint.map(session), client, Verifier::derive(b"secret", b"salt", 10)).map(|_| ())
        };
        let ours = &[7; 32][..];
        assert_eq!(log_in(Some(ours), Binding::EndPoint(session(ours))), Ok(()));
        assert_eq!(log_in(Some(ours), Binding::Unable), Ok(()));
        assert_eq!(log_in(Some(ours), Binding::NotOffered), Err(ScramError::BindingNegotiation));
        assert_eq!(log_in(None, Binding::NotOffered), Ok(()));
        assert_eq!(log_in(None, Binding::EndPoint(session(ours))), Err(ScramError::Mechanism));
        for other in [&[8; 32][..], &[7; 31], &[7; 33], &[7; 64], b""] {
            assert_eq!(log_in(Some(ours), Binding::EndPoint(session(other))), Err(ScramError::BindingMismatch));
        }
        let keys = login(ClientExchange::new(b"secret", [1; NONCE_BYTES]), Verifier::derive(b"secret", b"salt", 10)).unwrap();
        let passed_on = ClientExchange::with_keys(keys, [2; NONCE_BYTES]).bound(Binding::EndPoint(session(ours)));
        login_inside(Some(session(ours)), passed_on, Verifier::derive(b"secret", b"salt", 10)).unwrap();
    }

    /// Somebody in between who passes messages on and mends the binding: the proof is over what the client has sent.
    #[test]
    fn a_binding_that_is_mended_on_the_way_breaks_the_proof() {
        let (shown, ours): (Arc<[u8]>, Arc<[u8]>) = (Arc::from([1; 32]), Arc::from([2; 32]));
        let unbound = |client: &ClientExchange| client.first()[b"p=tls-server-end-point,,".len()..].to_vec();
        for (mechanism, header, attribute) in [
            (MECHANISM_PLUS, "p=tls-server-end-point,,", Binding::EndPoint(ours.clone()).attribute()),
            (MECHANISM, "n,,", "biws".into()),
        ] {
            let mut client = ClientExchange::new(b"secret", [1; NONCE_BYTES]).bound(Binding::EndPoint(shown.clone()));
            let mut server = ServerExchange::start(Verifier::derive(b"secret", b"salt", 10), [3; NONCE_BYTES], Some(ours.clone()));
            let first = [header.as_bytes(), &unbound(&client)].concat();
            let challenge = server.client_first(mechanism.as_bytes(), &first).unwrap();
            let last = String::from_utf8(client.server_first(&challenge).unwrap()).unwrap();
            let (_, rest) = last.split_once(',').unwrap();
            assert_eq!(server.client_final(format!("c={attribute},{rest}").as_bytes()).unwrap_err(), ScramError::Proof);
        }
    }

    #[test]
    fn no_byte_of_a_bound_login_may_change() {
        let endpoint: Arc<[u8]> = Arc::from([0xa5; 32]);
        let verifier = Verifier::derive(b"secret", b"salt", 1);
        let start = || ServerExchange::start(verifier.clone(), [3; NONCE_BYTES], Some(endpoint.clone()));
        let mut client = ClientExchange::new(b"secret", [1; NONCE_BYTES]).bound(Binding::EndPoint(endpoint.clone()));
        let first = client.first();
        let last = client.server_first(&start().client_first(MECHANISM_PLUS.as_bytes(), &first).unwrap()).unwrap();
        for at in 0..last.len() {
            for bit in 0..8 {
                let mut changed = last.clone();
                changed[at] ^= 1 << bit;
                let mut server = start();
                server.client_first(MECHANISM_PLUS.as_bytes(), &first).unwrap();
                assert!(server.client_final(&changed).is_err(), "byte {at}, bit {bit}");
            }
        }
        let mut server = start();
        server.client_first(MECHANISM_PLUS.as_bytes(), &first).unwrap();
        server.client_final(&last).unwrap();
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
            let _ = exchange.client_first(PLAIN, &mutate(FIRST));
            let mut exchange = rfc_exchange(&verifier);
            exchange.client_first(PLAIN, FIRST.as_bytes()).unwrap();
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
