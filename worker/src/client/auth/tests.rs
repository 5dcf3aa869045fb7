//! What a client sees of its user before it has proved to be that user.
#![allow(clippy::unwrap_used)]

use super::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use shared::auth::scram::{ClientExchange, MECHANISM};
use shared::config::Config;

#[test]
fn lengths_in_an_initial_response_are_checked() {
    assert_eq!(initial_response(b"SCRAM-SHA-256\0\0\0\0\x03n,,"), Some((&b"SCRAM-SHA-256"[..], &b"n,,"[..])));
    assert_eq!(initial_response(b"SCRAM-SHA-256\0\xff\xff\xff\xff"), Some((&b"SCRAM-SHA-256"[..], &b""[..])));
    assert_eq!(initial_response(b"SCRAM-SHA-256\0\x7f\xff\xff\xffn,,"), None);
    assert_eq!(initial_response(b"SCRAM-SHA-256\0\0\0\0\x03n,,x"), None);
    assert_eq!(initial_response(b"SCRAM-SHA-256"), None);
}

/// Everything by which one login could be told from another.
#[derive(Default, PartialEq, Debug)]
struct Seen {
    /// Of each message: which request for authentication it is, and how long.
    messages: Vec<(u8, usize)>,
    mechanisms: Vec<u8>,
    salt_bytes: usize,
    iterations: u32,
    /// Rounds of hashing of the client's own password after its answer. One of ours was hashed ahead.
    hashed: u32,
    refused: (&'static str, String),
}

/// Iterations of stored verifiers, and of those that are made here.
const STORED: u32 = 20;
const MADE: u32 = 10;

fn secret(form: Form) -> Secret {
    match form {
        Form::Plain => Secret::parse("right"),
        Form::Md5 => Secret::parse("md50123456789abcdef0123456789abcdef"),
        Form::Scram(iterations) => {
            let salt = STANDARD.encode([7; 16]);
            let key = STANDARD.encode([8; 32]);
            Secret::parse(&format!("SCRAM-SHA-256${iterations}:{salt}${key}:{key}"))
        }
    }
}

/// Tries to log in with a wrong password.
fn log_in(method: &Method, account: &Account, typical: Form) -> Seen {
    let looks = Looks { iterations: MADE, typical, mock_secret: &[3; 32] };
    let (mut seen, mut out) = (Seen::default(), Vec::new());
    let ahead = account.secret.as_ref().and_then(|secret| question(&account.user, secret, MADE, looks.mock_secret));
    let ahead = ahead.map(|Question { password, challenge }| {
        (password.clone(), Keys::derive(password.expose().as_bytes(), &challenge.salt, challenge.iterations))
    });
    let known = |question: &Question| ahead.as_ref().filter(|(password, _)| *password == question.password).map(|(_, keys)| keys);
    let mut verdict = begin(method, account, &looks, None, known, &mut out);
    let mut exchange = ClientExchange::new(b"wrong", [1; NONCE_BYTES]);
    loop {
        let messages = std::mem::take(&mut out);
        if let [b'R', _, _, _, _, _, _, _, kind, body @ ..] = &messages[..] {
            seen.messages.push((*kind, body.len()));
        }
        let challenge = match verdict {
            Verdict::GoOn(challenge) => challenge,
            Verdict::HashGuess(mut derivation, stored) => {
                let keys = std::iter::repeat_with(|| derivation.run(1)).inspect(|_| seen.hashed += 1).flatten().next().unwrap();
                verdict = guessed(stored.as_deref(), &keys);
                continue;
            }
            Verdict::Refused(code, text) => {
                seen.refused = (code, text.to_owned());
                return seen;
            }
            Verdict::ScramFailed(error) => {
                seen.refused = scram_failure(&error);
                return seen;
            }
            _ => panic!("neither asked nor refused"),
        };
        let body = match &challenge {
            Challenge::ScramFirst(_) => {
                seen.mechanisms = messages[9..].to_vec();
                let first = exchange.first();
                [MECHANISM.as_bytes(), b"\0", &(first.len() as u32).to_be_bytes(), &first].concat()
            }
            Challenge::ScramFinal(_) => {
                let Hashed { salt, iterations } = exchange.challenge(&messages[9..]).unwrap();
                (seen.salt_bytes, seen.iterations) = (salt.len(), iterations);
                exchange.answer(&Keys::derive(b"wrong", &salt, iterations)).unwrap()
            }
            _ => b"wrong\0".to_vec(),
        };
        verdict = answer(account, &looks, challenge, &body, &mut out);
    }
}

#[test]
fn users_who_do_not_exist_look_and_take_as_long_as_others() {
    for form in [Form::Plain, Form::Md5, Form::Scram(STORED)] {
        let mut config = Config::default();
        config.secrets.insert("user".to_owned(), secret(form));
        let typical = Typical::new(&config).form();
        assert_eq!(typical, form);
        for method in [Method::Plain, Method::Md5, Method::ScramSha256] {
            let user = log_in(&method, &Account::of(&config, "user"), typical);
            assert_eq!(user.refused.0, sqlstate::INVALID_PASSWORD);
            let strangers = [Account::of(&config, "none"), Account::looked_up("none", None)];
            for stranger in strangers {
                assert_eq!(log_in(&method, &stranger, typical), user, "{form:?}, {method:?}");
            }
            let (asked, hashed) = match (&method, form) {
                (Method::Plain, Form::Scram(_)) => (3, STORED - 1),
                (Method::Plain, _) => (3, 0),
                (Method::Md5, Form::Plain | Form::Md5) => (5, 0),
                _ => (10, 0),
            };
            assert_eq!((user.messages[0].0, user.hashed), (asked, hashed), "{form:?}, {method:?}");
        }
    }
}
