//! Logging in to PostgreSQL.

use super::ServerState;
use super::encryption::Securing;
use super::proof::Proof;
use crate::hashing::Question;
use crate::params::is_tracked;
use crate::pool::Greeting;
use crate::worker::Worker;
use shared::config::PoolMode;
use shared::control::{ToSupervisor, Welcome};
use shared::tls::Agreed;
use shared::wire::backend::{self, Fields};
use shared::wire::encode;
use shared::wire::header::{self, HEADER_BYTES, Header, Peek};
use shared::wire::report::sqlstate;

/// The longest message PostgreSQL sends during a login, in bytes; far above any that it does.
const LONGEST_MESSAGE: u32 = 1024 * 1024;

/// What is known so far.
#[derive(Default)]
pub(crate) struct Login {
    pub(super) stage: Stage,
    /// What TLS was agreed on.
    pub(super) agreed: Option<Box<Agreed>>,
    pub(super) proof: Proof,
    /// Its password is being hashed.
    pub(super) hashing: Option<Question>,
    pub(super) authenticated: bool,
    parameters: Vec<(String, String)>,
}

#[derive(Default)]
pub(super) enum Stage {
    Securing(Securing),
    /// The startup message was sent, or is about to be.
    #[default]
    Startup,
}

impl Login {
    pub(super) fn is_securing(&self) -> bool {
        matches!(self.stage, Stage::Securing(_))
    }

    pub(super) fn awaits_handshake(&self) -> bool {
        matches!(self.stage, Stage::Securing(Securing::Handshake { queued: true, .. }))
    }
}

/// Why a login failed.
pub(super) enum Failure {
    /// PostgreSQL said so: SQLSTATE and message.
    Server { severity: String, code: String, message: String },
    /// The reason, for the log.
    Ours(String),
    /// We cannot prove who we are, or the server cannot: waiting clients are told.
    Credentials(String),
}

impl Worker {
    /// The connection is made.
    pub(super) fn begin_server_login(&mut self, index: usize) {
        let server = &mut self.servers[index];
        server.state = ServerState::Login(Box::default());
        server.since = self.now;
        if self.config.settings.log_connections {
            let from = socket2::SockRef::from(&server.conn).local_addr().ok().and_then(|a| a.as_socket());
            let from = from.map_or_else(String::new, |a| format!(" (from {a})"));
            log::info!("{} new connection to server{from}", self.server_prefix(index));
        }
        if !self.begin_server_tls(index) {
            self.send_startup(index);
        }
    }

    /// The startup message goes out.
    pub(super) fn send_startup(&mut self, index: usize) {
        let server = &mut self.servers[index];
        let ServerState::Login(login) = &mut server.state else { return };
        login.stage = Stage::Startup;
        let pool = self.pools.get(server.pool);
        let entry = &pool.entry;
        let mut parameters = vec![("database", entry.server_database())];
        for (name, value) in [
            ("client_encoding", &entry.client_encoding),
            ("datestyle", &entry.datestyle),
            ("timezone", &entry.timezone),
            ("application_name", &entry.application_name),
        ] {
            parameters.extend(value.as_deref().map(|value| (name, value)));
        }
        if let Some(dedication) = &server.dedication {
            parameters.extend(dedication.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        }
        parameters.push(("user", &pool.user));
        let mut out = Vec::new();
        encode::startup(&mut out, parameters.into_iter());
        let server = &mut self.servers[index];
        if server.conn.send(&out, &mut self.buffers).is_err() {
            self.server_failed(index, "startup pkt failed");
        }
    }

    /// Deals with what a server in login has sent; gives how much of it is done with.
    pub(super) fn server_login_input(&mut self, index: usize, data: &[u8]) -> usize {
        if self.servers[index].is_securing() {
            return self.securing_input(index, data);
        }
        let mut at = 0;
        while let ServerState::Login(_) = self.servers[index].state {
            let (tag, body, total) = match header::peek(&data[at..], LONGEST_MESSAGE) {
                Peek::NeedMore => break,
                Peek::Bad => {
                    self.server_failed(index, "bad pkt header");
                    break;
                }
                Peek::Header(Header { tag, total }) => match data[at..].get(HEADER_BYTES..total) {
                    Some(body) => (tag, body, total),
                    None => break,
                },
            };
            at += total;
            if let Err(failure) = self.server_login_message(index, tag, body) {
                self.server_login_failed(index, failure);
                break;
            }
        }
        at
    }

    fn server_login_message(&mut self, index: usize, tag: u8, body: &[u8]) -> Result<(), Failure> {
        let ServerState::Login(login) = &self.servers[index].state else { return Ok(()) };
        let (authenticated, preparing) = (login.authenticated, self.servers[index].preparing);
        match tag {
            b'E' if preparing => self.connect_query_failed(index, body),
            b'Z' if preparing => return self.connect_query_ended(index, body),
            // Whatever connect_query returns is nobody's.
            b'T' | b'D' | b'C' | b'I' | b'H' | b'd' | b'c' | b'A' if preparing => {}
            b'S' | b'K' | b'Z' if !authenticated => return Err(Failure::Ours("unknown pkt from server".to_owned())),
            b'R' if !authenticated => return self.answer_server(index, body),
            b'E' => {
                let Fields { severity, code, message, .. } = backend::fields(body).unwrap_or_default();
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                return Err(Failure::Server { severity: text(severity), code: text(code), message: text(message) });
            }
            b'N' => self.keep_notice(index, body),
            b'S' => {
                let (name, value) =
                    backend::parameter_status(body).map_err(|_| Failure::Ours("broken ParameterStatus packet".to_owned()))?;
                if let ServerState::Login(login) = &mut self.servers[index].state {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let (name, value) = (text(name), text(value));
                    match login.parameters.iter_mut().find(|(known, _)| *known == name) {
                        Some((_, known)) => *known = value,
                        None => login.parameters.push((name, value)),
                    }
                }
            }
            b'K' => {
                let key = backend::backend_key_data(body).map_err(|_| Failure::Ours("bad cancel key".to_owned()))?;
                let server = &mut self.servers[index];
                server.backend_key = key;
                self.shm.set_backend(&server.seats, key.0, key.1);
            }
            b'Z' => return self.server_logged_in(index),
            _ => return Err(Failure::Ours("unknown pkt from server".to_owned())),
        }
        Ok(())
    }

    /// In session mode whoever the connection is opened for hears what PostgreSQL says meanwhile.
    fn keep_notice(&mut self, index: usize, body: &[u8]) {
        const MOST: usize = 16 * 1024;
        let server = &mut self.servers[index];
        if self.pools.get(server.pool).mode == PoolMode::Session && server.notices.len() + body.len() < MOST {
            encode::message(&mut server.notices, b'N', |notice| notice.extend_from_slice(body));
        }
    }

    /// The first ReadyForQuery: before the connection serves anybody, connect_query is run on it.
    fn server_logged_in(&mut self, index: usize) -> Result<(), Failure> {
        let server = &self.servers[index];
        // A physical replication connection runs no SQL.
        let query = self.pools.get(server.pool).entry.connect_query.clone().filter(|_| server.dedication.is_none());
        if let Some(query) = query.filter(|query| !query.is_empty()) {
            return self.prepare_server(index, &query);
        }
        self.server_ready(index);
        Ok(())
    }

    fn prepare_server(&mut self, index: usize, sql: &str) -> Result<(), Failure> {
        let server = &mut self.servers[index];
        server.preparing = true;
        // Should this process die, the supervisor cancels it.
        self.shm.set_busy(&server.seats, true);
        let mut message = Vec::new();
        encode::query(&mut message, sql);
        server.conn.send(&message, &mut self.buffers).map_err(|_| Failure::Ours("exec_on_connect query failed".to_owned()))
    }

    fn connect_query_failed(&self, index: usize, body: &[u8]) {
        let Fields { severity, message, .. } = backend::fields(body).unwrap_or_default();
        let (severity, message) = (String::from_utf8_lossy(severity), String::from_utf8_lossy(message));
        log::error!("{} S: error while executing exec_on_query: {severity}: {message}", self.server_prefix(index));
    }

    /// Whether connect_query has failed or not, the connection serves from now on. A transaction that it has left open is nobody's: whoever
    /// came first would find himself in it.
    fn connect_query_ended(&mut self, index: usize, body: &[u8]) -> Result<(), Failure> {
        if body == b"I" {
            self.server_ready(index);
            return Ok(());
        }
        log::warn!("{} connect_query has left a transaction open: it is rolled back", self.server_prefix(index));
        self.prepare_server(index, "ROLLBACK")
    }

    /// ReadyForQuery: the connection belongs to its pool from now on.
    fn server_ready(&mut self, index: usize) {
        let server = &mut self.servers[index];
        let ServerState::Login(login) = std::mem::replace(&mut server.state, ServerState::Idle) else { return };
        server.preparing = false;
        let pool_index = server.pool;
        let pairs = || login.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        server.params = Some(self.interner.set(pairs().filter(|(name, _)| is_tracked(name))));
        server.since = self.now;
        let pool = self.pools.get_mut(pool_index);
        pool.failure = None;
        pool.hosts.succeeded(&server.address);
        let shared = self.shm.pool_state(pool.id);
        shared.set_login_failed_at(0);
        shared.set_unproven_at(0);
        if server.dedication.is_some() {
            pool.opening = pool.opening.saturating_sub(1);
            return self.dedicated_ready(index, &login.parameters);
        }
        if pool.welcome.is_none() {
            let welcome =
                Welcome { database: pool.entry.name.clone(), user: pool.user.clone(), parameters: login.parameters.clone() };
            self.control.send(&ToSupervisor::Welcome(welcome), &[]);
            // In session mode it was opened for whoever waits to be greeted.
            pool.notices.clone_from(&server.notices);
            self.learn_welcome(pool_index, &login.parameters);
            self.pools.get_mut(pool_index).notices = Vec::new();
        }
        // Counted up to here, it keeps those who were greeted just now from opening another.
        let pool = self.pools.get_mut(pool_index);
        pool.opening = pool.opening.saturating_sub(1);
        self.server_free(index);
    }

    /// Now it is known what this pool's clients are greeted with.
    pub(crate) fn learn_welcome(&mut self, pool_index: crate::pool::PoolIndex, parameters: &[(String, String)]) {
        let pairs = || parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let tracked = self.interner.set(pairs().filter(|(name, _)| is_tracked(name)));
        let fixed = parameters.iter().filter(|(name, _)| !is_tracked(name)).cloned().collect();
        let pool = self.pools.get_mut(pool_index);
        pool.welcome = Some(std::rc::Rc::new(Greeting { fixed, tracked }));
        for waiter in std::mem::take(&mut pool.to_greet) {
            if self.clients.get(waiter.client).is_some_and(|c| c.id == waiter.id) {
                self.greet(waiter.client);
            }
        }
        self.announce(pool_index);
    }

    pub(super) fn server_login_failed(&mut self, index: usize, failure: Failure) {
        if self.servers[index].dedication.is_some() {
            let text = match failure {
                Failure::Ours(text) | Failure::Credentials(text) => text,
                Failure::Server { severity, message, .. } => format!("server login failed: {severity} {message}"),
            };
            log::warn!("{} {text}", self.server_prefix(index));
            return self.dedicated_refused(index);
        }
        let pool_index = self.servers[index].pool;
        match failure {
            Failure::Ours(text) => {
                log::warn!("{} {text}", self.server_prefix(index));
                self.server_failed(index, "login failed");
            }
            Failure::Credentials(text) => {
                log::warn!("{} {text}", self.server_prefix(index));
                if !self.fleet_has_servers(pool_index) {
                    self.fail_waiters(pool_index, sqlstate::PROTOCOL_VIOLATION, &text);
                }
                self.server_failed(index, "login failed");
            }
            Failure::Server { severity, code, message } => {
                log::warn!("{} server login failed: {severity} {message}", self.server_prefix(index));
                if code == sqlstate::INVALID_PASSWORD {
                    self.forget_secret(pool_index);
                }
                let request = code.starts_with("28") || code == "3D000";
                let text = format!("{severity} {message}");
                let has_servers = self.fleet_has_servers(pool_index);
                // A wrong database or password may be mended at any moment, and is wrong on every host; a server that is down or
                // starting is not asked again at once.
                let elsewhere = if request {
                    if has_servers {
                        self.pool_down(pool_index, &text);
                    }
                    false
                } else {
                    let address = self.servers[index].address.clone();
                    !self.connect_failed(pool_index, &address, &text)
                };
                // Nobody is left for whom another connection would be opened.
                if code != "57P03" && !has_servers && !elsewhere {
                    self.fail_waiters(pool_index, &code, &message);
                }
                self.server_gone(index, "login failed");
                if elsewhere {
                    self.pools.get_mut(pool_index).exhausted = false;
                    self.pump(pool_index);
                }
            }
        }
    }
}
