//! Proving to PostgreSQL who we are, and having it prove the same: each of its requests is judged by what is demanded of servers
//! ([`shared::auth::demands`]), and only then answered.

use super::ServerState;
use super::login::{Failure, Login};
use crate::client::auth::random;
use crate::hashing::{Asker, Question, Subject};
use crate::worker::Worker;
use shared::auth::demands::{Channel, Demands, Distrust, Proven, ServerMethod};
use shared::auth::scram::{ClientExchange, Keys, NONCE_BYTES, ScramError};
use shared::auth::{Secret, md5};
use shared::ids::ConnectionId;
use shared::wire::backend::{self, Authentication};
use shared::wire::encode;
use zeroize::Zeroizing;

/// How far it is.
#[derive(Default)]
pub(super) enum Proof {
    /// Nothing was asked for.
    #[default]
    None,
    /// The server has a password, in clear text or hashed.
    Password,
    Scram(ClientExchange),
    /// By SCRAM both know that the other knows the password.
    Mutual {
        bound: bool,
    },
}

impl Failure {
    fn unanswered() -> Self {
        Self::Ours("failed to answer authreq".to_owned())
    }

    fn wrong_type() -> Self {
        Self::Credentials("server login failed: wrong password type".to_owned())
    }

    /// A server that skips its own proof, or fails at it, may be someone else.
    fn no_proof() -> Self {
        Self::Credentials("server login failed: invalid server signature".to_owned())
    }
}

impl From<Distrust> for Failure {
    fn from(distrust: Distrust) -> Self {
        Self::Credentials(format!("server login failed: {distrust}"))
    }
}

impl From<ScramError> for Failure {
    fn from(error: ScramError) -> Self {
        Self::Credentials(format!("server login failed: {error}"))
    }
}

/// Whether a server that is this far may ask for this, or be believed that it has seen enough.
fn judge(request: &Authentication<'_>, proof: &Proof, demands: &Demands<'_>) -> Result<(), Failure> {
    match (request, proof) {
        (Authentication::Cleartext, Proof::None) => demands.permit(ServerMethod::Password)?,
        (Authentication::Md5(_), Proof::None) => demands.permit(ServerMethod::Md5)?,
        (Authentication::Sasl(_), Proof::None) => demands.permit(ServerMethod::ScramSha256)?,
        (Authentication::SaslContinue(_) | Authentication::SaslFinal(_), Proof::Scram(_)) => {}
        (Authentication::Ok, Proof::None) => demands.believe(Proven::Nothing)?,
        (Authentication::Ok, Proof::Password) => demands.believe(Proven::Password)?,
        (Authentication::Ok, Proof::Mutual { bound }) => demands.believe(Proven::Mutual { bound: *bound })?,
        (Authentication::Ok, Proof::Scram(_)) => return Err(Failure::no_proof()),
        _ => return Err(Failure::unanswered()),
    }
    Ok(())
}

impl Login {
    fn channel(&self) -> Channel {
        self.agreed.as_ref().map_or(Channel::Clear, |agreed| Channel::Tls(agreed.endpoint.clone()))
    }
}

impl Worker {
    /// Deals with an Authentication… message.
    pub(super) fn answer_server(&mut self, index: usize, body: &[u8]) -> Result<(), Failure> {
        let request = backend::authentication(body).map_err(|_| Failure::unanswered())?;
        let server = &self.servers[index];
        let ServerState::Login(login) = &server.state else { return Ok(()) };
        judge(&request, &login.proof, &self.config.demands(&self.pools.get(server.pool).entry))?;
        let mut out = Zeroizing::new(Vec::new());
        match request {
            Authentication::Ok => {
                if let ServerState::Login(login) = &mut self.servers[index].state {
                    login.authenticated = true;
                }
            }
            Authentication::Cleartext | Authentication::Md5(_) => self.give_password(index, &request, &mut out)?,
            Authentication::Sasl(mechanisms) => self.begin_scram(index, &mechanisms, &mut out)?,
            Authentication::SaslContinue(message) => self.go_on_with_scram(index, message, &mut out)?,
            Authentication::SaslFinal(message) => self.end_scram(index, message)?,
            Authentication::Unsupported(_) => return Err(Failure::unanswered()),
        }
        let server = &mut self.servers[index];
        server.conn.send(&out, &mut self.buffers).map_err(|_| Failure::unanswered())
    }

    /// What is known of the password of the user that the server is logged in to as.
    fn secret_for(&self, index: usize) -> Option<Secret> {
        let pool = self.pools.get(self.servers[index].pool);
        let typed = if pool.entry.user.is_some() { None } else { self.typed_secret(&pool.entry.name, &pool.user) };
        // The entry's password is that of the user whom it forces: auth_user has a pool of its own there.
        let own = pool.entry.password.as_ref().filter(|_| pool.entry.user.as_ref().is_none_or(|forced| *forced == pool.user));
        own.cloned().or(typed).or_else(|| self.config.secrets.get(&pool.user).or(pool.secret.as_ref()).cloned())
    }

    fn set_proof(&mut self, index: usize, proof: Proof) {
        if let ServerState::Login(login) = &mut self.servers[index].state {
            login.proof = proof;
        }
    }

    fn give_password(&mut self, index: usize, request: &Authentication<'_>, out: &mut Vec<u8>) -> Result<(), Failure> {
        let secret = self.secret_for(index);
        let text = secret.as_ref().map_or("", |secret| secret.expose());
        let answer = match (request, &secret) {
            (Authentication::Md5(salt), None | Some(Secret::Plain(_) | Secret::Md5(_))) => {
                &*md5::response(&self.pools.get(self.servers[index].pool).user, text, *salt)
            }
            (Authentication::Cleartext, None | Some(Secret::Plain(_))) => text,
            // A hash is no password, and as good as one to who is not meant to have it.
            _ => return Err(Failure::wrong_type()),
        };
        let answer = Zeroizing::new([answer.as_bytes(), b"\0"].concat());
        encode::password(out, &answer);
        self.set_proof(index, Proof::Password);
        Ok(())
    }

    fn begin_scram(&mut self, index: usize, mechanisms: &[&[u8]], out: &mut Vec<u8>) -> Result<(), Failure> {
        let secret = self.secret_for(index);
        let server = &self.servers[index];
        let entry = &self.pools.get(server.pool).entry;
        let ServerState::Login(login) = &server.state else { return Ok(()) };
        let binding = self.config.demands(entry).binding(mechanisms, login.channel())?;
        let exchange = match (&secret, secret.as_ref().and_then(|secret| self.client_keys.of(secret))) {
            (Some(Secret::Plain(password)), _) => ClientExchange::new(password.as_bytes(), random::<NONCE_BYTES>()),
            // Never for a forced user: the keys are those of a client's own login.
            (Some(Secret::Scram(_)), Some(keys)) if entry.user.is_none() => {
                ClientExchange::with_keys(keys.clone(), random::<NONCE_BYTES>())
            }
            _ => return Err(Failure::wrong_type()),
        };
        let exchange = exchange.bound(binding);
        let first = exchange.first();
        let mut initial = Vec::new();
        encode::cstr(&mut initial, exchange.binding().mechanism().as_bytes());
        initial.extend_from_slice(&(first.len() as u32).to_be_bytes());
        initial.extend_from_slice(&first);
        encode::password(out, &initial);
        self.set_proof(index, Proof::Scram(exchange));
        Ok(())
    }

    fn go_on_with_scram(&mut self, index: usize, message: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
        let secret = self.secret_for(index);
        let server = &mut self.servers[index];
        let id = server.id;
        let ServerState::Login(login) = &mut server.state else { return Ok(()) };
        let Proof::Scram(exchange) = &mut login.proof else { return Err(Failure::unanswered()) };
        let challenge = exchange.challenge(message)?;
        let keys = match secret {
            // Hashing takes a millisecond or more: once for each password and salt, not for each connection.
            Some(password @ Secret::Plain(_)) => {
                let question = Question { password, challenge };
                let Some(keys) = self.hashing.known_to_server(&question) else {
                    self.hashing.ask(&question, Asker::Server(index, id));
                    login.hashing = Some(question);
                    return Ok(());
                };
                Some(keys)
            }
            Some(verifier) => self.client_keys.of(&verifier),
            None => None,
        };
        encode::password(out, &exchange.answer(keys.ok_or_else(Failure::wrong_type)?)?);
        Ok(())
    }

    fn end_scram(&mut self, index: usize, message: &[u8]) -> Result<(), Failure> {
        let ServerState::Login(login) = &mut self.servers[index].state else { return Ok(()) };
        let Proof::Scram(exchange) = &mut login.proof else { return Err(Failure::unanswered()) };
        exchange.server_final(message).map_err(|_| Failure::no_proof())?;
        login.proof = Proof::Mutual { bound: exchange.binding().is_bound() };
        Ok(())
    }

    /// The password for server `id` has been hashed.
    pub(crate) fn server_hashed(&mut self, index: usize, id: ConnectionId, keys: &Keys) {
        let Some(server) = self.servers.get_mut(index).filter(|server| server.id == id) else { return };
        let ServerState::Login(login) = &mut server.state else { return };
        login.hashing = None;
        let Proof::Scram(exchange) = &mut login.proof else { return };
        let answered = exchange.answer(keys).map_err(Failure::from).and_then(|answer| {
            let mut out = Vec::new();
            encode::password(&mut out, &answer);
            server.conn.send(&out, &mut self.buffers).map_err(|_| Failure::unanswered())
        });
        if let Err(failure) = answered {
            self.server_login_failed(index, failure);
        }
    }

    /// A connection ends in login: what it has asked for need not be hashed.
    pub(super) fn server_login_ended(&mut self, index: usize) {
        let server = &mut self.servers[index];
        if let ServerState::Login(login) = &mut server.state
            && let Some(question) = login.hashing.take()
        {
            self.hashing.forget(&Subject::Ours(question), Asker::Server(index, server.id));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use shared::config::Config;

    /// Each request at each stage: in `fits`, those that are answered or believed.
    #[test]
    fn requests_come_in_their_order_and_once() {
        let config = Config::default();
        let database = shared::config::Database::new("app".to_owned());
        let stages = || {
            [Proof::None, Proof::Password, Proof::Scram(ClientExchange::new(b"", [0; NONCE_BYTES])), Proof::Mutual { bound: false }]
        };
        for (request, fits) in [
            (Authentication::Ok, [true, true, false, true]),
            (Authentication::Cleartext, [true, false, false, false]),
            (Authentication::Md5([0; 4]), [true, false, false, false]),
            (Authentication::Sasl(Vec::new()), [true, false, false, false]),
            (Authentication::SaslContinue(b""), [false, false, true, false]),
            (Authentication::SaslFinal(b""), [false, false, true, false]),
            (Authentication::Unsupported(7), [false; 4]),
        ] {
            let judged = stages().map(|stage| judge(&request, &stage, &config.demands(&database)).is_ok());
            assert_eq!(judged, fits, "{request:?}");
        }
    }
}
