//! Proofs: which challenge a client gets, and whether its answer is right.
//!
//! [`rule`] says which method holds for a client, [`Account`] what is known of its user. Users who do not exist get the same challenges as
//! others, and fail at the end. Hashing a clear-text secret for SCRAM is done once for each user and configuration.

mod account;
mod rule;

use rustc_hash::FxHashMap;
use shared::auth::scram::{self, Keys, NONCE_BYTES, ServerExchange, Verifier};
use shared::auth::{Method, Secret, md5, plain};
use shared::config::Config;
use shared::wire::cursor::Cursor;
use shared::wire::encode;
use shared::wire::report::sqlstate;

pub(crate) use account::Account;
pub(crate) use rule::method;

/// What a client in login has been asked.
pub(crate) enum Challenge {
    Plain,
    Md5([u8; 4]),
    /// Which SASL mechanism, and its first message.
    ScramFirst(Box<ServerExchange>),
    ScramFinal(Box<ServerExchange>),
}

/// What becomes of a client's answer.
pub(crate) enum Verdict {
    Admitted,
    /// And this is what the client proved to know.
    AdmittedWithKeys(Keys),
    /// Sent and waiting for another answer.
    GoOn(Challenge),
    /// Somebody else has been asked; [`crate::worker::Worker::login_answered`] goes on.
    #[allow(dead_code)] // no method needs it yet
    Elsewhere,
    /// SQLSTATE and text.
    Refused(&'static str, &'static str),
}

/// Verifiers made from clear-text secrets, by user; emptied when the configuration changes.
pub(crate) type VerifierCache = FxHashMap<String, Verifier>;

const NO_SUCH_PASSWORD: Verdict = Verdict::Refused(sqlstate::INVALID_PASSWORD, "password authentication failed");

/// The first message of an authentication, appended to `out`.
pub(crate) fn begin(
    method: &Method,
    account: &Account,
    config: &Config,
    cache: &mut VerifierCache,
    mock_secret: &[u8; 32],
    out: &mut Vec<u8>,
) -> Verdict {
    match method {
        Method::Trust if account.known => Verdict::Admitted,
        Method::Trust => Verdict::Refused(sqlstate::INVALID_PASSWORD, "\"trust\" authentication failed"),
        Method::Plain => {
            encode::authentication(out, 3, &[]);
            Verdict::GoOn(Challenge::Plain)
        }
        Method::Md5 if !matches!(account.secret, Some(Secret::Scram(_))) => {
            let salt = random();
            encode::authentication(out, 5, &salt);
            Verdict::GoOn(Challenge::Md5(salt))
        }
        Method::Md5 | Method::ScramSha256 => {
            let exchange = ServerExchange::start(verifier(account, config, cache, mock_secret), random::<NONCE_BYTES>());
            encode::authentication(out, 10, format!("{}\0\0", scram::MECHANISM).as_bytes());
            Verdict::GoOn(Challenge::ScramFirst(Box::new(exchange)))
        }
        _ => Verdict::Refused(sqlstate::PROTOCOL_VIOLATION, "bouncer config error"),
    }
}

/// Takes the body of a client's `p` message; what it is told goes to `out`.
pub(crate) fn answer(account: &Account, challenge: Challenge, body: &[u8], out: &mut Vec<u8>) -> Verdict {
    let Account { user, secret, .. } = account;
    let secret = secret.as_ref();
    match challenge {
        Challenge::Plain => match password(body) {
            Some(b"") => Verdict::Refused(sqlstate::INVALID_PASSWORD, "empty password returned by client"),
            Some(password) if secret.is_some_and(|s| plain::verify(s, user, password)) => Verdict::Admitted,
            _ => NO_SUCH_PASSWORD,
        },
        Challenge::Md5(salt) => match password(body) {
            Some(b"") => Verdict::Refused(sqlstate::INVALID_PASSWORD, "empty password returned by client"),
            Some(response) if secret.is_some_and(|s| md5::verify(s, user, salt, response)) => Verdict::Admitted,
            _ => NO_SUCH_PASSWORD,
        },
        Challenge::ScramFirst(mut exchange) => {
            let Some((mechanism, message)) = initial_response(body) else { return scram_failed() };
            if mechanism != scram::MECHANISM.as_bytes() {
                return Verdict::Refused(sqlstate::PROTOCOL_VIOLATION, "client selected an invalid SASL authentication mechanism");
            }
            let Ok(server_first) = exchange.client_first(message) else { return scram_failed() };
            encode::authentication(out, 11, &server_first);
            Verdict::GoOn(Challenge::ScramFinal(exchange))
        }
        Challenge::ScramFinal(mut exchange) => match exchange.client_final(body) {
            Ok(success) => {
                encode::authentication(out, 12, &success.server_final);
                // Keys of a stored verifier open the server that stores the same one; those of a verifier made here open nothing.
                match secret {
                    Some(Secret::Scram(_)) => Verdict::AdmittedWithKeys(success.keys),
                    _ => Verdict::Admitted,
                }
            }
            Err(_) => scram_failed(),
        },
    }
}

fn scram_failed() -> Verdict {
    Verdict::Refused(sqlstate::INVALID_PASSWORD, scram::CLIENT_FAILURE)
}

fn verifier(account: &Account, config: &Config, cache: &mut VerifierCache, mock_secret: &[u8; 32]) -> Verifier {
    let Account { user, secret, .. } = account;
    let iterations = config.settings.scram_iterations;
    let mock = || Verifier::mock(user, mock_secret, iterations);
    match secret.as_ref() {
        Some(Secret::Scram(text)) => Verifier::from_secret(text).unwrap_or_else(|_| mock()),
        Some(Secret::Plain(password)) if !password.is_empty() => {
            let derive = || Verifier::derive(password.as_bytes(), &random::<16>(), iterations);
            cache.entry(user.to_owned()).or_insert_with(derive).clone()
        }
        _ => mock(),
    }
}

/// A PasswordMessage: one string.
fn password(body: &[u8]) -> Option<&[u8]> {
    let mut c = Cursor::new(body);
    let password = c.cstr("password").ok()?;
    c.end("end of password").ok()?;
    Some(password)
}

/// A SASLInitialResponse: mechanism, and data whose length is -1 for none.
fn initial_response(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut c = Cursor::new(body);
    let mechanism = c.cstr("mechanism").ok()?;
    let length = c.u32("length of initial response").ok()?;
    let data = if length == u32::MAX { &[][..] } else { c.bytes(length as usize, "initial response").ok()? };
    c.end("end of initial response").ok()?;
    Some((mechanism, data))
}

/// Random bytes from the kernel. Without them nobody may log in.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if let Err(error) = getrandom::fill(&mut bytes) {
        shared::fatal!("no random numbers from the kernel: {error}");
        std::process::abort();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_in_an_initial_response_are_checked() {
        assert_eq!(initial_response(b"SCRAM-SHA-256\0\0\0\0\x03n,,"), Some((&b"SCRAM-SHA-256"[..], &b"n,,"[..])));
        assert_eq!(initial_response(b"SCRAM-SHA-256\0\xff\xff\xff\xff"), Some((&b"SCRAM-SHA-256"[..], &b""[..])));
        assert_eq!(initial_response(b"SCRAM-SHA-256\0\x7f\xff\xff\xffn,,"), None);
        assert_eq!(initial_response(b"SCRAM-SHA-256\0\0\0\0\x03n,,x"), None);
        assert_eq!(initial_response(b"SCRAM-SHA-256"), None);
    }
}
