//! A client until it is greeted: first packet, proof of who it is, the wait for a server's greeting.
//!
//! What it asks for is looked at by [`super::admit`]; whether the database exists is said only to who has proved to be a user.

use super::auth::{self, Account, Asked, Challenge, Looks, Verdict};
use super::encryption::Handshaking;
use super::{Client, ClientSeats, ClientState, Ending, Identity};
use crate::clock::Instant;
use crate::hashing::{Asker, Question, Subject};
use crate::lookup::{Found, Lookup};
use crate::pool::{NO_ROOM, PoolIndex};
use crate::worker::{Life, Source, Worker};
use shared::auth::Method;
use shared::auth::scram::{Keys, Verifier};
use shared::config::{AuthType, Database};
use shared::control::Replication;
use shared::ids::ConnectionId;
use shared::tls::Agreed;
use shared::wire::header::{self, HEADER_BYTES, Header, Peek};
use shared::wire::report::sqlstate;
use shared::wire::startup::{self, FirstPacket, StartupError};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The longest password message, in bytes (PgBouncer takes passwords of up to 65,535 bytes).
const LONGEST_PASSWORD: u32 = 66 * 1024;

/// A client in login.
pub(crate) struct Login {
    pub(super) stage: Stage,
    /// What TLS was agreed on.
    pub(super) encryption: Option<Box<Agreed>>,
    pub(super) request: Option<Request>,
    pub(super) seats: Option<ClientSeats>,
}

pub(super) enum Stage {
    /// Its proxy has not said yet for whom it connects.
    Proxied {
        anything: bool,
    },
    /// Nothing but requests for encryption has come.
    First {
        anything: bool,
    },
    /// TLS is being agreed on.
    Handshake(Handshaking),
    Password(Challenge),
    /// auth_query is to say who its user is.
    LookingUp(Box<LookingUp>),
    /// A password is being hashed.
    Hashing(Hashed),
    /// Its proof is looked at elsewhere, or what is known of its user is.
    Elsewhere,
    /// Authenticated; its pool has had no server yet whose parameters it could be greeted with.
    Welcome(PoolIndex),
    /// Authenticated for the console: as an admin, or to look on.
    Console {
        admin: bool,
    },
    Over,
}

/// A question to auth_query.
pub(super) struct LookingUp {
    query: String,
    /// The pool in whose queue it stands, and since when; `None` when it has a server.
    waits: Option<(PoolIndex, Instant)>,
}

/// What is done with the keys of a password.
pub(super) enum Hashed {
    /// The proof begins: they are one of ours.
    Begin(Question),
    /// They are held against the stored verifier.
    Compare(Option<Box<Verifier>>),
}

/// What the startup message asked for.
pub(super) struct Request {
    pub(super) who: Rc<Identity>,
    /// The entry; `None` when there is none, which is said only after authentication.
    pub(super) entry: Option<Arc<Database>>,
    pub(super) console: bool,
    /// What is known of the user, when that has been found out.
    pub(super) account: Option<Account>,
    /// How it is to prove who it is. `None`: no rule is meant for it.
    pub(super) method: Option<Method>,
    /// The password that is being checked elsewhere.
    pub(super) asked: Option<Asked>,
    /// Values of parameters that follow the client.
    pub(super) parameters: Vec<(String, String)>,
    pub(super) replication: Replication,
    /// A replication client's.
    pub(super) options: Option<String>,
}

impl Login {
    /// `proxied`: it begins with a PROXY header.
    pub(crate) fn new(proxied: bool) -> Self {
        let anything = false;
        let stage = if proxied { Stage::Proxied { anything } } else { Stage::First { anything } };
        Self { stage, encryption: None, request: None, seats: None }
    }

    /// One that is complete but for its greeting.
    pub(super) fn complete(login: LoggedIn) -> Self {
        let LoggedIn { pool, who, seats, parameters, replication, options } = login;
        let (entry, account, method, asked) = (None, None, None, None);
        let request = Request { who, entry, console: false, account, method, asked, parameters, replication, options };
        let stage = pool.map_or(Stage::Over, Stage::Welcome);
        Self { stage, encryption: None, request: Some(request), seats: Some(seats) }
    }

    /// Complete, and its pool has had no server yet.
    pub(crate) fn awaits_welcome(&self) -> bool {
        matches!(self.stage, Stage::Welcome(_))
    }

    pub(crate) fn is_untouched(&self) -> bool {
        matches!(self.stage, Stage::Proxied { anything: false } | Stage::First { anything: false })
    }

    /// For the console, and if so whether as an admin.
    pub(crate) fn for_console(&self) -> Option<bool> {
        match self.stage {
            Stage::Console { admin } => Some(admin),
            _ => None,
        }
    }

    /// It waits for a server: for the greeting that it brings, or for auth_query's answer.
    pub(crate) fn awaits_server(&self) -> bool {
        self.waits_in().is_some() || matches!(self.stage, Stage::Welcome(_))
    }

    /// The pool in whose queue it stands, for auth_query.
    pub(crate) fn waits_in(&self) -> Option<PoolIndex> {
        match &self.stage {
            Stage::LookingUp(looking) => looking.waits.map(|(pool, _)| pool),
            _ => None,
        }
    }

    pub(super) fn looked_up(&self) -> Option<(&str, &str)> {
        let Stage::LookingUp(looking) = &self.stage else { return None };
        self.request.as_ref().map(|request| (looking.query.as_str(), request.who.user.as_str()))
    }

    /// What it has sent waits for the end of the turn.
    pub(crate) fn awaits_handshake(&self) -> bool {
        matches!(&self.stage, Stage::Handshake(handshaking) if handshaking.is_queued())
    }

    /// Its proxy has said who it is: the next is the client's own first packet.
    pub(super) fn introduced(&mut self) {
        if matches!(self.stage, Stage::Proxied { .. }) {
            self.stage = Stage::First { anything: false };
        }
    }

    /// What is known of its user.
    pub(super) fn account(&self) -> Option<&Account> {
        self.request.as_ref()?.account.as_ref()
    }

    /// It is not its turn to say anything.
    pub(super) fn is_parked(&self) -> bool {
        matches!(self.stage, Stage::LookingUp(_) | Stage::Hashing(_) | Stage::Elsewhere | Stage::Welcome(_))
    }

    pub(crate) fn names(&self) -> (Option<&str>, Option<&str>) {
        let who = self.request.as_ref().map(|r| &r.who);
        let known = self.request.as_ref().is_some_and(|r| r.entry.is_some() || r.console);
        (who.filter(|_| known).map(|w| w.database.as_str()), who.map(|w| w.user.as_str()))
    }
}

impl Worker {
    /// Deals with what a client in login has sent; gives how much of it is done with.
    pub(super) fn login_input(&mut self, index: usize, data: &[u8]) -> usize {
        let mut at = 0;
        while let Some(client) = self.clients.get_mut(index)
            && let ClientState::Login(login) = &mut client.state
            && at < data.len()
        {
            let taken = match &mut login.stage {
                Stage::Proxied { anything } => {
                    *anything = true;
                    self.proxy_header(index, &data[at..])
                }
                Stage::First { anything } => {
                    *anything = true;
                    if self.begins_with_tls(index, &data[at..]) {
                        continue;
                    }
                    self.first_packet(index, &data[at..])
                }
                Stage::Handshake(_) => {
                    self.handshake_input(index);
                    None
                }
                Stage::Password(_) => self.password_packet(index, &data[at..]),
                // It is not its turn: what it sends waits until it has been greeted.
                Stage::LookingUp(_)
                | Stage::Hashing(_)
                | Stage::Elsewhere
                | Stage::Welcome(_)
                | Stage::Console { .. }
                | Stage::Over => None,
            };
            match taken {
                Some(bytes) => at += bytes,
                None => break,
            }
        }
        at
    }

    /// `None`: more is needed, or the client is closed.
    fn first_packet(&mut self, index: usize, data: &[u8]) -> Option<usize> {
        let (packet, length) = match startup::first_packet(data) {
            Ok(packet) => packet?,
            Err(StartupError::OtherMessage) => {
                self.close_client(index, &Ending::Silent("bad packet"));
                return None;
            }
            Err(error) => {
                self.close_client(index, &Ending::violation(error.to_string()));
                return None;
            }
        };
        match packet {
            FirstPacket::SslRequest => {
                self.encryption_asked_for(index, data.len() > length);
            }
            FirstPacket::GssEncRequest => {
                self.refuse_encryption(index, data.len() > length, "received unencrypted data after GSSAPI encryption request");
            }
            FirstPacket::BadCancel => self.close_client(index, &Ending::Silent("bad cancel request")),
            FirstPacket::Cancel(key) => self.cancel_requested(index, key),
            FirstPacket::Startup(startup) => self.startup(index, startup),
        }
        Some(length)
    }

    fn password_packet(&mut self, index: usize, data: &[u8]) -> Option<usize> {
        let ending = match header::peek(data, LONGEST_PASSWORD) {
            Peek::NeedMore if data.first() == Some(&0) => Ending::violation("client re-sent startup pkt"),
            Peek::NeedMore => return None,
            Peek::Header(Header { tag: b'p', total }) => {
                let body = data.get(HEADER_BYTES..total)?;
                if let Err(ending) = self.password(index, body) {
                    self.close_client(index, &ending);
                }
                return Some(total);
            }
            _ if data.first() == Some(&0) => Ending::violation("client re-sent startup pkt"),
            Peek::Bad => Ending::violation(format!("bad packet header: '{}'", header::hex_prefix(data))),
            Peek::Header(_) => Ending::Silent("bad packet"),
        };
        self.close_client(index, &ending);
        None
    }

    fn password(&mut self, index: usize, body: &[u8]) -> Result<(), Ending> {
        let ClientState::Login(login) = &mut self.clients[index].state else { return Ok(()) };
        let Some(account) = login.request.as_ref().and_then(|request| request.account.as_ref()) else { return Ok(()) };
        let Stage::Password(challenge) = std::mem::replace(&mut login.stage, Stage::Over) else { return Ok(()) };
        let mut out = Vec::new();
        let looks = Looks {
            iterations: self.config.settings.scram_iterations,
            typical: self.typical.form(),
            mock_secret: &self.mock_secret,
        };
        let verdict = auth::answer(account, &looks, challenge, body, &mut out);
        self.act_on(index, verdict, &out)
    }

    /// The first message of the client's authentication, now or when what it takes has been hashed.
    pub(super) fn begin_proof(&mut self, index: usize) -> Result<(), Ending> {
        let ClientState::Login(login) = &self.clients[index].state else { return Ok(()) };
        let Some(Request { account: Some(account), method, entry, .. }) = &login.request else { return Ok(()) };
        let looks = Looks {
            iterations: self.config.settings.scram_iterations,
            typical: self.typical.form(),
            mock_secret: &self.mock_secret,
        };
        let mut out = Vec::new();
        let verdict = match method {
            None => Verdict::Refused(sqlstate::INVALID_AUTHORIZATION, "no authentication method is found"),
            Some(Method::Reject) => Verdict::Refused(sqlstate::INVALID_AUTHORIZATION, "login rejected"),
            Some(Method::Any) => self.any_verdict(index),
            Some(Method::Peer { map }) => {
                let map = map.clone();
                self.peer_verdict(index, map)
            }
            Some(method @ (Method::Ldap { .. } | Method::Pam)) => {
                auth::ask_for_checked(method, &self.config.settings, entry.as_deref(), &mut out)
            }
            Some(Method::Cert { map }) => {
                let encryption = login.encryption.as_deref();
                match auth::check_certificate(encryption, map.as_deref(), &self.config.access, account) {
                    Ok(()) => Verdict::Admitted,
                    Err(why) => {
                        let prefix = self.clients[index].prefix(self.config.settings.listen_port);
                        log::info!("{prefix} {why}");
                        Verdict::Refused(sqlstate::INVALID_AUTHORIZATION, "certificate authentication failed")
                    }
                }
            }
            Some(method) => {
                let endpoint = login.encryption.as_ref().and_then(|agreed| agreed.endpoint.clone());
                auth::begin(method, account, &looks, endpoint, |question| self.hashing.known_to_client(question), &mut out)
            }
        };
        self.act_on(index, verdict, &out)
    }

    pub(super) fn act_on(&mut self, index: usize, verdict: Verdict, out: &[u8]) -> Result<(), Ending> {
        self.send_login(index, out);
        match verdict {
            Verdict::Refused(code, text) => Err(Ending::Fatal(code, text.to_owned())),
            Verdict::ScramFailed(error) => {
                let (code, text) = auth::scram_failure(&error);
                Err(Ending::Fatal(code, text))
            }
            Verdict::Admitted => self.authenticated(index, false),
            Verdict::AdmittedWithKeys(keys) => {
                self.learn_keys(keys);
                self.authenticated(index, false)
            }
            Verdict::GoOn(challenge) => {
                if let ClientState::Login(login) = &mut self.clients[index].state {
                    login.stage = Stage::Password(challenge);
                }
                Ok(())
            }
            Verdict::Hash(question) => {
                let Client { id, state: ClientState::Login(login), .. } = &mut self.clients[index] else { return Ok(()) };
                self.hashing.ask(&question, Asker::Client(index, *id));
                login.stage = Stage::Hashing(Hashed::Begin(question));
                Ok(())
            }
            Verdict::HashGuess(derivation, stored) => {
                let Client { id, state: ClientState::Login(login), .. } = &mut self.clients[index] else { return Ok(()) };
                self.hashing.ask_guess(*id, *derivation, Asker::Client(index, *id));
                login.stage = Stage::Hashing(Hashed::Compare(stored));
                Ok(())
            }
            Verdict::Elsewhere => {
                if let ClientState::Login(login) = &mut self.clients[index].state {
                    login.stage = Stage::Elsewhere;
                }
                Ok(())
            }
            Verdict::Check(method, password) => {
                if let ClientState::Login(login) = &mut self.clients[index].state {
                    login.stage = Stage::Elsewhere;
                }
                self.have_checked(index, method, password)
            }
        }
    }

    /// What was asked elsewhere about the proof of the client in login `id` has been answered; whoever has gone meanwhile is not there any more.
    /// `out` is what it is told besides.
    pub(crate) fn login_answered(&mut self, index: usize, id: ConnectionId, verdict: Verdict, out: &[u8]) {
        let Some(client) = self.clients.get_mut(index).filter(|client| client.id == id) else { return };
        let ClientState::Login(login) = &mut client.state else { return };
        if !matches!(login.stage, Stage::Elsewhere) {
            return;
        }
        if let Err(ending) = self.act_on(index, verdict, out) {
            return self.close_client(index, &ending);
        }
        self.resume_login(index);
    }

    /// The client waits to hear from auth_query who its user is.
    pub(super) fn begin_looking_up(&mut self, index: usize, lookup: Lookup) -> Result<(), Ending> {
        let (database, auth_user) = (&lookup.database, &lookup.auth_user);
        let pool =
            if lookup.of_client { self.find_pool_to_ask(database, auth_user) } else { self.find_pool_of(database, auth_user) };
        let pool = pool.ok_or_else(|| Ending::violation(NO_ROOM))?;
        if let ClientState::Login(login) = &mut self.clients[index].state {
            login.stage = Stage::LookingUp(Box::new(LookingUp { query: lookup.query, waits: None }));
        }
        self.look_up(index, pool)
    }

    /// The login stands in the pool's queue from now on. Its user's name, for timeouts.
    pub(crate) fn login_waits(&mut self, index: usize, pool: PoolIndex) -> Option<Rc<Identity>> {
        let ClientState::Login(login) = &mut self.clients[index].state else { return None };
        let Stage::LookingUp(looking) = &mut login.stage else { return None };
        looking.waits = Some((pool, self.now));
        login.request.as_ref().map(|request| Rc::clone(&request.who))
    }

    /// The login has a server. How long it has waited.
    pub(crate) fn login_served(&mut self, index: usize) -> Duration {
        match &mut self.clients[index].state {
            ClientState::Login(login) => match &mut login.stage {
                Stage::LookingUp(looking) => looking.waits.take().map_or(Duration::ZERO, |(_, since)| self.now - since),
                _ => Duration::ZERO,
            },
            _ => Duration::ZERO,
        }
    }

    /// auth_query has said who the user of client `id` is (`None`: nobody), or nothing that makes sense.
    pub(crate) fn user_looked_up(&mut self, index: usize, id: ConnectionId, outcome: Result<Option<Found>, ()>) {
        let Some(client) = self.clients.get_mut(index).filter(|client| client.id == id) else { return };
        let ClientState::Login(login) = &mut client.state else { return };
        if !matches!(login.stage, Stage::LookingUp(_)) {
            return;
        }
        login.stage = Stage::Over;
        let next = match outcome {
            Ok(found) => self.user_known(index, found),
            Err(()) => Err(Ending::violation("bouncer config error")),
        };
        match next {
            Ok(()) => self.resume_login(index),
            Err(ending) => self.close_client(index, &ending),
        }
    }

    /// What the login of client `id` has asked for has been hashed.
    pub(crate) fn client_hashed(&mut self, index: usize, id: ConnectionId, keys: &Keys) {
        let Some(client) = self.clients.get_mut(index).filter(|client| client.id == id) else { return };
        let ClientState::Login(login) = &mut client.state else { return };
        let next = match std::mem::replace(&mut login.stage, Stage::Over) {
            Stage::Hashing(Hashed::Begin(_)) => self.begin_proof(index),
            Stage::Hashing(Hashed::Compare(stored)) => self.act_on(index, auth::guessed(stored.as_deref(), keys), &[]),
            other => {
                login.stage = other;
                return;
            }
        };
        match next {
            Ok(()) => self.resume_login(index),
            Err(ending) => self.close_client(index, &ending),
        }
    }

    /// It may be its turn again: what it has sent meanwhile is looked at, and the console gets its clients.
    pub(super) fn resume_login(&mut self, index: usize) {
        if matches!(self.clients[index].state, ClientState::Login(_)) {
            let kept = std::mem::take(&mut self.clients[index].conn.input);
            self.client_input(index, &kept);
            self.buffers.give(kept);
        }
        if self.clients.get(index).is_some_and(|client| client.conn.readable || !client.conn.input.is_empty()) {
            self.again.push(Source::Client(index));
        }
    }

    pub(super) fn send_login(&mut self, index: usize, bytes: &[u8]) {
        // A broken socket is noticed by the next read.
        let _ = self.clients[index].conn.send(bytes, &mut self.buffers);
    }

    /// The client is who it says: to the console, or into its pool.
    pub(super) fn authenticated(&mut self, index: usize, own_user: bool) -> Result<(), Ending> {
        let ClientState::Login(login) = &mut self.clients[index].state else { return Ok(()) };
        login.stage = Stage::Over;
        let Some(request) = &login.request else { return Ok(()) };
        let (who, replication) = (Rc::clone(&request.who), request.replication);
        if request.console {
            let settings = &self.config.settings;
            let admin = own_user || settings.admin_users.has(&who.user);
            let anybody = settings.auth_type == AuthType::Any;
            if !admin && !anybody && !settings.stats_users.has(&who.user) {
                return Err(Ending::violation("not allowed"));
            }
            if let ClientState::Login(login) = &mut self.clients[index].state {
                login.stage = Stage::Console { admin };
            }
            return Ok(());
        }
        let Some(entry) = request.entry.clone() else {
            if self.config.settings.log_connections {
                let prefix = self.clients[index].prefix(self.config.settings.listen_port);
                log::info!("{prefix} login failed: db={} user={}", who.database, who.user);
            }
            return Err(Ending::Fatal(sqlstate::INVALID_CATALOG_NAME, format!("no such database: {}", who.database)));
        };
        if matches!(self.life, Life::Stopping(_)) || self.marks.draining {
            return Err(Ending::Fatal(sqlstate::ADMIN_SHUTDOWN, "pooler is shutting down".to_owned()));
        }
        if self.marks.disabled.contains(&who.database) {
            return Err(Ending::violation(format!("database \"{}\" is disabled", who.database)));
        }
        let Some(pool) = self.find_pool(&entry, &who.user) else {
            return Err(Ending::violation(NO_ROOM));
        };
        if let ClientState::Login(login) = &self.clients[index].state
            && let Some(account) = login.request.as_ref().and_then(|request| request.account.as_ref())
            && account.looked_up
            && entry.user.is_none()
        {
            let secret = account.secret.clone();
            self.learn_secret(pool, secret.as_ref());
        }
        self.take_database_seat(index, &entry, &who)?;
        let ClientState::Login(login) = &mut self.clients[index].state else { return Ok(()) };
        login.stage = Stage::Welcome(pool);
        if replication != Replication::None {
            self.begin_replication(index);
        } else if self.pools.get(pool).welcome.is_some() {
            self.greet(index);
        } else {
            self.await_welcome(index, pool, &who.user);
        }
        Ok(())
    }

    /// Takes apart a login that is complete.
    pub(super) fn take_login(&mut self, index: usize) -> Option<LoggedIn> {
        let ClientState::Login(login) = &mut self.clients.get_mut(index)?.state else { return None };
        let request = login.request.take()?;
        let pool = match login.stage {
            Stage::Welcome(pool) => Some(pool),
            _ => None,
        };
        login.stage = Stage::Over;
        let Request { who, parameters, replication, options, .. } = request;
        Some(LoggedIn { pool, who, seats: login.seats.take()?, parameters, replication, options })
    }

    /// A client has gone before it was greeted.
    pub(super) fn login_ended(&mut self, index: usize, id: ConnectionId, login: &Login) {
        if let Some(pool) = login.waits_in() {
            self.waiter_left(pool);
        }
        match &login.stage {
            Stage::Hashing(Hashed::Begin(question)) => {
                self.hashing.forget(&Subject::Ours(question.clone()), Asker::Client(index, id));
            }
            Stage::Hashing(Hashed::Compare(_)) => self.hashing.forget(&Subject::Guess(id), Asker::Client(index, id)),
            _ => {}
        }
        if let Some(seats) = &login.seats {
            self.leave_client_seats(seats);
        }
    }
}

/// A login that is complete.
pub(super) struct LoggedIn {
    /// Its pool; `None` for the console.
    pub(super) pool: Option<crate::pool::PoolIndex>,
    pub(super) who: Rc<Identity>,
    pub(super) seats: ClientSeats,
    pub(super) parameters: Vec<(String, String)>,
    pub(super) replication: Replication,
    /// A replication client's.
    pub(super) options: Option<String>,
}
