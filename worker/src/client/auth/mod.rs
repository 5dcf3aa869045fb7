//! Proofs: which challenge a client gets, and whether its answer is right.
//!
//! [`rule`] says which method holds for a client, [`Account`] what is known of its user. Users who do not exist get the same challenges as
//! others, made to look like [`typical`] users, and fail at the end. Thousands of rounds of hashing are not done here but in [`crate::hashing`].

mod account;
mod cert;
mod elsewhere;
mod peer;
mod rule;
#[cfg(test)]
mod strangers;
mod typical;

use crate::hashing::Question;
use shared::auth::scram::{
    self, Challenge as Hashed, Derivation, Keys, MAX_ITERATIONS, NONCE_BYTES, ScramError, ServerExchange, Verifier,
};
use shared::auth::{Method, Password, Secret, md5, plain};
use shared::control::PasswordMethod;
use shared::wire::cursor::Cursor;
use shared::wire::encode;
use shared::wire::report::sqlstate;
use std::sync::Arc;

pub(crate) use account::Account;
pub(crate) use cert::check as check_certificate;
pub(crate) use elsewhere::{Asked, ask_for_checked};
pub(crate) use peer::SystemUsers;
pub(crate) use rule::method;
pub(crate) use typical::{Form, Typical};

/// What a client in login has been asked.
pub(crate) enum Challenge {
    Plain,
    Md5([u8; 4]),
    /// The password itself, for somebody else to check.
    Checked(PasswordMethod),
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
    Elsewhere,
    /// Somebody else is to be asked whether this is the password.
    Check(PasswordMethod, Password),
    /// This has to be hashed first; `begin` is next.
    Hash(Question),
    /// As is what the client says its password is; [`guessed`] is next.
    HashGuess(Box<Derivation>, Option<Box<Verifier>>),
    /// SQLSTATE and text.
    Refused(&'static str, &'static str),
    /// Its SCRAM messages are not those of one who knows the password, or not meant for us.
    ScramFailed(ScramError),
}

/// What decides how users look who have no secret, or one that is no SCRAM verifier.
pub(crate) struct Looks<'a> {
    /// Iterations of verifiers that are made here.
    pub(crate) iterations: u32,
    /// Like whom a user without a secret looks.
    pub(crate) typical: Form,
    pub(crate) mock_secret: &'a [u8; 32],
}

const NO_SCRAM: Verdict = Verdict::Refused(sqlstate::INVALID_PASSWORD, scram::CLIENT_FAILURE);
const NO_SUCH_PASSWORD: Verdict = Verdict::Refused(sqlstate::INVALID_PASSWORD, "password authentication failed");

/// The first message of an authentication, appended to `out`. `endpoint`: what SCRAM may be bound to; `known`: what has been hashed before.
pub(crate) fn begin<'a>(
    method: &Method,
    account: &Account,
    looks: &Looks<'_>,
    endpoint: Option<Arc<[u8]>>,
    known: impl FnOnce(&Question) -> Option<&'a Keys>,
    out: &mut Vec<u8>,
) -> Verdict {
    match method {
        Method::Trust if account.known => Verdict::Admitted,
        Method::Trust => Verdict::Refused(sqlstate::INVALID_PASSWORD, "\"trust\" authentication failed"),
        Method::Plain => {
            encode::authentication(out, 3, &[]);
            Verdict::GoOn(Challenge::Plain)
        }
        Method::Md5 if !account.looks_like_scram(looks) => {
            let salt = random();
            encode::authentication(out, 5, &salt);
            Verdict::GoOn(Challenge::Md5(salt))
        }
        Method::Md5 | Method::ScramSha256 => {
            let verifier = match account.verifier(looks) {
                Made::Stored(verifier) => verifier,
                Made::From(question, verifier) => match known(&question) {
                    Some(keys) => verifier(keys),
                    None => return Verdict::Hash(question),
                },
            };
            let exchange = ServerExchange::start(verifier, random::<NONCE_BYTES>(), endpoint);
            let offered: String = exchange.mechanisms().iter().flat_map(|mechanism| [*mechanism, "\0"]).collect();
            encode::authentication(out, 10, format!("{offered}\0").as_bytes());
            Verdict::GoOn(Challenge::ScramFirst(Box::new(exchange)))
        }
        _ => Verdict::Refused(sqlstate::PROTOCOL_VIOLATION, "bouncer config error"),
    }
}

/// Takes the body of a client's `p` message; what it is told goes to `out`.
pub(crate) fn answer(account: &Account, looks: &Looks<'_>, challenge: Challenge, body: &[u8], out: &mut Vec<u8>) -> Verdict {
    let Account { user, secret, .. } = account;
    let secret = secret.as_ref();
    match challenge {
        Challenge::Plain => match password(body) {
            Some(b"") => Verdict::Refused(sqlstate::INVALID_PASSWORD, "empty password returned by client"),
            Some(password) if secret.is_some_and(|s| plain::verify(s, user, password)) => Verdict::Admitted,
            Some(password) => match account.to_compare(looks) {
                Some(Hashed { salt, iterations }) => {
                    let stored = account.stored_verifier().map(Box::new);
                    Verdict::HashGuess(Box::new(Derivation::new(password, &salt, iterations)), stored)
                }
                None => NO_SUCH_PASSWORD,
            },
            None => NO_SUCH_PASSWORD,
        },
        Challenge::Md5(salt) => match password(body) {
            Some(b"") => Verdict::Refused(sqlstate::INVALID_PASSWORD, "empty password returned by client"),
            Some(response) if secret.is_some_and(|s| md5::verify(s, user, salt, response)) => Verdict::Admitted,
            _ => NO_SUCH_PASSWORD,
        },
        Challenge::Checked(method) => match password(body) {
            Some(b"") => Verdict::Refused(sqlstate::INVALID_PASSWORD, "empty password returned by client"),
            Some(password) => Verdict::Check(method, Password::new(password)),
            None => Verdict::Refused(sqlstate::INVALID_PASSWORD, elsewhere::failure(&method)),
        },
        Challenge::ScramFirst(mut exchange) => {
            let Some((mechanism, message)) = initial_response(body) else { return NO_SCRAM };
            let server_first = match exchange.client_first(mechanism, message) {
                Ok(server_first) => server_first,
                Err(error) => return Verdict::ScramFailed(error),
            };
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
            Err(error) => Verdict::ScramFailed(error),
        },
    }
}

/// What a client says its password is has been hashed.
pub(crate) fn guessed(stored: Option<&Verifier>, keys: &Keys) -> Verdict {
    if stored.is_some_and(|verifier| verifier.is_of(keys)) { Verdict::AdmittedWithKeys(keys.clone()) } else { NO_SUCH_PASSWORD }
}

/// What a client is told whose SCRAM has failed: SQLSTATE and text. Where channel binding is the matter, PostgreSQL's; what else is wrong is
/// nobody's business.
pub(crate) fn scram_failure(error: &ScramError) -> (&'static str, String) {
    let code = match error {
        ScramError::Mechanism | ScramError::BindingFlag | ScramError::BindingType(_) | ScramError::BindingAttribute => {
            sqlstate::PROTOCOL_VIOLATION
        }
        ScramError::BindingNegotiation | ScramError::BindingMismatch => sqlstate::INVALID_AUTHORIZATION,
        _ => return (sqlstate::INVALID_PASSWORD, scram::CLIENT_FAILURE.to_owned()),
    };
    (code, error.to_string())
}

/// Where a verifier comes from.
enum Made {
    Stored(Verifier),
    /// From the keys of this password.
    From(Question, Box<dyn FnOnce(&Keys) -> Verifier>),
}

impl Account {
    /// The stored verifier, unless it takes more hashing than anybody should be able to ask for.
    fn stored_verifier(&self) -> Option<Verifier> {
        let Some(Secret::Scram(text)) = &self.secret else { return None };
        Verifier::from_secret(text).ok().filter(|verifier| verifier.iterations <= MAX_ITERATIONS)
    }

    fn looks_like_scram(&self, looks: &Looks<'_>) -> bool {
        match &self.secret {
            Some(secret) => matches!(secret, Secret::Scram(_)),
            None => matches!(looks.typical, Form::Scram(_)),
        }
    }

    /// What a client's SCRAM proof is held against; where there is nothing, no proof fits.
    fn verifier(&self, looks: &Looks<'_>) -> Made {
        if let Some(verifier) = self.stored_verifier() {
            return Made::Stored(verifier);
        }
        let Some(question) =
            self.secret.as_ref().and_then(|secret| question(&self.user, secret, looks.iterations, looks.mock_secret))
        else {
            let iterations = if let Form::Scram(iterations) = looks.typical { iterations } else { looks.iterations };
            return Made::Stored(Verifier::mock(&self.user, looks.mock_secret, iterations));
        };
        let Hashed { salt, iterations } = question.challenge.clone();
        Made::From(question, Box::new(move |keys| Verifier::from_keys(keys, &salt, iterations)))
    }

    /// What a clear-text password that does not fit yet is to be hashed with: as the stored verifier says, or as others' do.
    fn to_compare(&self, looks: &Looks<'_>) -> Option<Hashed> {
        let (salt, iterations) = match (self.stored_verifier(), looks.typical) {
            (Some(verifier), _) => (verifier.salt.clone(), verifier.iterations),
            (None, Form::Scram(iterations)) => (Verifier::salt(&self.user, looks.mock_secret), iterations),
            (None, Form::Plain | Form::Md5) => return None,
        };
        Some(Hashed { salt, iterations })
    }
}

/// What is hashed of a password that is stored as it is. `None`: it is not, or none is right.
pub(crate) fn question(user: &str, secret: &Secret, iterations: u32, mock_secret: &[u8; 32]) -> Option<Question> {
    let Secret::Plain(password) = secret else { return None };
    let challenge = Hashed { salt: Verifier::salt(user, mock_secret), iterations };
    (!password.is_empty()).then(|| Question { password: secret.clone(), challenge })
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
mod tests;
