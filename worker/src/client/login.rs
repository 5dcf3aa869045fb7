//! A client until it is greeted: first packet, who it is and what it may have, password, the wait for a server's greeting.
//!
//! The order of checks is PgBouncer's: parameters, user name, max_client_conn, protocol negotiation, database, limits of database and
//! user, authentication, and only then whether the database exists.

use super::auth::{self, Challenge, Verdict};
use super::{ClientSeats, ClientState, Ending, Identity, Peer};
use crate::pool::NO_ROOM;
use crate::worker::{Life, Worker};
use shared::config::{CONSOLE_DATABASES, Database, MAX_USER_NAME};
use shared::control::Replication;
use shared::ids::{LimitId, SeatIndex};
use shared::shm::Limit;
use shared::wire::encode;
use shared::wire::header::{self, HEADER_BYTES, Header, Peek};
use shared::wire::report::sqlstate;
use shared::wire::startup::{self, FirstPacket, Startup, StartupError};
use std::rc::Rc;
use std::sync::Arc;

/// The longest password message, in bytes (PgBouncer takes passwords of up to 65,535 bytes).
const LONGEST_PASSWORD: u32 = 66 * 1024;

/// A client in login.
pub(crate) struct Login {
    peer: Peer,
    stage: Stage,
    request: Option<Request>,
    seats: Option<ClientSeats>,
}

enum Stage {
    /// Nothing but requests for encryption has come.
    First {
        anything: bool,
    },
    Password(Challenge),
    /// Authenticated; its pool has had no server yet whose parameters it could be greeted with.
    Welcome(crate::pool::PoolIndex),
    /// Authenticated for the console: as an admin, or to look on.
    Console {
        admin: bool,
    },
    Over,
}

/// What the startup message asked for.
struct Request {
    who: Rc<Identity>,
    /// The entry; `None` when there is none, which is said only after authentication.
    entry: Option<Arc<Database>>,
    console: bool,
    /// Values of parameters that follow the client.
    parameters: Vec<(String, String)>,
    replication: Replication,
    /// A replication client's.
    options: Option<String>,
}

impl Login {
    pub(crate) fn new(peer: Peer) -> Self {
        Self { peer, stage: Stage::First { anything: false }, request: None, seats: None }
    }

    pub(crate) fn is_untouched(&self) -> bool {
        matches!(self.stage, Stage::First { anything: false })
    }

    /// For the console, and if so whether as an admin.
    pub(crate) fn for_console(&self) -> Option<bool> {
        match self.stage {
            Stage::Console { admin } => Some(admin),
            _ => None,
        }
    }

    pub(crate) fn awaits_welcome(&self) -> bool {
        matches!(self.stage, Stage::Welcome(_))
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
                Stage::First { anything } => {
                    *anything = true;
                    self.first_packet(index, &data[at..])
                }
                Stage::Password(_) => self.password_packet(index, &data[at..]),
                // It is not its turn: what it sends waits until it has been greeted.
                Stage::Welcome(_) | Stage::Console { .. } | Stage::Over => None,
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
                self.refuse_encryption(index, data.len() > length, "received unencrypted data after SSL request");
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

    /// Answers `N`. Bytes that came in the same breath were meant to be encrypted and may be an attacker's (CVE-2021-3935).
    fn refuse_encryption(&mut self, index: usize, more: bool, text: &str) {
        if more {
            return self.close_client(index, &Ending::violation(text));
        }
        if self.clients[index].conn.send(b"N", &mut self.buffers).is_err() {
            self.close_client(index, &Ending::Silent("failed to nak SSL"));
        }
    }

    fn startup(&mut self, index: usize, startup: Startup) {
        if let Err(ending) = self.admit(index, startup) {
            self.close_client(index, &ending);
        }
    }

    /// Everything up to the first authentication message.
    fn admit(&mut self, index: usize, startup: Startup) -> Result<(), Ending> {
        let config = Rc::clone(&self.config);
        let settings = &config.settings;
        let asked = super::parameters::read_parameters(startup.parameters, settings).inspect_err(|error| {
            let prefix = self.clients[index].prefix(settings.listen_port);
            log::warn!("{prefix} {}", error.detail());
        })?;
        let user = asked.user.filter(|u| !u.is_empty()).ok_or_else(|| Ending::violation("no username supplied"))?;
        let database = asked.database.filter(|d| !d.is_empty()).unwrap_or_else(|| user.clone());
        let console = CONSOLE_DATABASES.contains(&database.as_str());

        let seat = self.take_client_seat(console)?;
        if startup.minor > 0 || !asked.unknown_options.is_empty() {
            let mut out = Vec::new();
            encode::negotiate_protocol_version(&mut out, &asked.unknown_options);
            self.send_login(index, &out);
        }
        let entry = if console { None } else { config.database(&database) };
        let who = self.pools.identity(database, user);
        let ClientState::Login(login) = &mut self.clients[index].state else { return Ok(()) };
        login.seats = Some(ClientSeats { client: seat, database: None, user: None });
        let peer = login.peer;
        let super::parameters::Asked { parameters, replication, options, .. } = asked;
        login.request = Some(Request { who: Rc::clone(&who), entry: entry.clone(), console, parameters, replication, options });
        if who.user.len() > MAX_USER_NAME {
            return Err(Ending::violation("username too long"));
        }
        self.take_limit_seats(index, entry.as_deref(), &who)?;

        if settings.log_connections {
            let prefix = self.clients[index].prefix(settings.listen_port);
            let replication = super::replication::word(replication);
            log::info!("{prefix} login attempt: db={} user={} tls=no replication={replication}", who.database, who.user);
        }
        if let Peer::Unix { uid, .. } = peer
            && console
            && CONSOLE_DATABASES.contains(&who.user.as_str())
            && uid == nix::unistd::getuid().as_raw()
        {
            let prefix = self.clients[index].prefix(settings.listen_port);
            log::info!("{prefix} pgbouncer access from unix socket");
            return self.authenticated(index, true);
        }
        let mut out = Vec::new();
        let verdict = auth::begin(&config, &mut self.verifiers, &self.mock_secret, &who.user, &mut out);
        self.act_on(index, verdict, &out)
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
        let Some(request) = &login.request else { return Ok(()) };
        let Stage::Password(challenge) = std::mem::replace(&mut login.stage, Stage::Over) else { return Ok(()) };
        let who = Rc::clone(&request.who);
        let mut out = Vec::new();
        let verdict = auth::answer(&self.config, &who.user, challenge, body, &mut out);
        self.act_on(index, verdict, &out)
    }

    fn act_on(&mut self, index: usize, verdict: Verdict, out: &[u8]) -> Result<(), Ending> {
        self.send_login(index, out);
        match verdict {
            Verdict::Refused(code, text) => Err(Ending::Fatal(code, text.to_owned())),
            Verdict::Admitted => self.authenticated(index, false),
            Verdict::AdmittedWithKeys(keys) => {
                if let ClientState::Login(login) = &self.clients[index].state
                    && let Some(request) = &login.request
                {
                    self.scram_keys.insert(request.who.user.clone(), keys);
                }
                self.authenticated(index, false)
            }
            Verdict::GoOn(challenge) => {
                if let ClientState::Login(login) = &mut self.clients[index].state {
                    login.stage = Stage::Password(challenge);
                }
                Ok(())
            }
        }
    }

    fn send_login(&mut self, index: usize, bytes: &[u8]) {
        // A broken socket is noticed by the next read.
        let _ = self.clients[index].conn.send(bytes, &mut self.buffers);
    }

    /// The client is who it says: to the console, or into its pool.
    fn authenticated(&mut self, index: usize, own_user: bool) -> Result<(), Ending> {
        let ClientState::Login(login) = &mut self.clients[index].state else { return Ok(()) };
        login.stage = Stage::Over;
        let Some(request) = &login.request else { return Ok(()) };
        let (who, replication) = (Rc::clone(&request.who), request.replication);
        if request.console {
            let settings = &self.config.settings;
            let admin = own_user || settings.admin_users.has(&who.user);
            if !admin && !settings.stats_users.has(&who.user) {
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
        if matches!(self.life, Life::Stopping(_)) {
            return Err(Ending::Fatal(sqlstate::ADMIN_SHUTDOWN, "pooler is shutting down".to_owned()));
        }
        if self.marks.disabled.contains(&who.database) {
            return Err(Ending::violation(format!("database \"{}\" is disabled", who.database)));
        }
        let Some(pool) = self.find_pool(&entry, &who.user) else {
            return Err(Ending::violation(NO_ROOM));
        };
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
    pub(super) fn login_ended(&mut self, login: &Login) {
        if let Some(seats) = &login.seats {
            self.leave_client_seats(seats);
        }
    }

    /// A seat of max_client_conn. The console's clients count, but are never turned away.
    fn take_client_seat(&self, console: bool) -> Result<SeatIndex, Ending> {
        let limit = self.config.settings.max_client_conn as usize;
        let clients = self.shm.clients();
        let seat = if limit == 0 { None } else { clients.take(self.me, limit) };
        seat.or_else(|| if console { clients.take(self.me, 0) } else { None }).ok_or_else(|| {
            Ending::Fatal(sqlstate::TOO_MANY_CONNECTIONS, "no more connections allowed (max_client_conn)".to_owned())
        })
    }

    /// Seats of max_db_client_connections and max_user_client_connections, where these are set. Names that clients make up would fill the
    /// directory of limits: a user's must be known, a database that only `*` stands for is counted after authentication.
    fn take_limit_seats(&mut self, index: usize, entry: Option<&Database>, who: &Identity) -> Result<(), Ending> {
        let Some(entry) = entry else { return Ok(()) };
        if self.config.databases.contains_key(&who.database) {
            self.take_database_seat(index, entry, who)?;
        }
        if !self.config.secrets.contains_key(&who.user) && !self.config.users.contains_key(&who.user) {
            return Ok(());
        }
        let most = self.config.max_user_client_connections(&who.user);
        let seat = self.take_limit_seat(Limit::UserClients(&who.user), most, "max_user_client_connections", who)?;
        if let Some(seats) = self.login_seats(index) {
            seats.user = seat;
        }
        Ok(())
    }

    /// A seat of max_db_client_connections, unless the client has it.
    fn take_database_seat(&mut self, index: usize, entry: &Database, who: &Identity) -> Result<(), Ending> {
        if self.login_seats(index).is_none_or(|seats| seats.database.is_some()) {
            return Ok(());
        }
        let most = self.config.max_db_client_connections(entry);
        let seat = self.take_limit_seat(Limit::DatabaseClients(&who.database), most, "max_db_client_connections", who)?;
        if let Some(seats) = self.login_seats(index) {
            seats.database = seat;
        }
        Ok(())
    }

    fn take_limit_seat(
        &mut self,
        what: Limit<'_>,
        most: u32,
        name: &str,
        who: &Identity,
    ) -> Result<Option<(LimitId, SeatIndex)>, Ending> {
        if most == 0 {
            return Ok(None);
        }
        let Some(limit) = self.shm.limit(what) else {
            self.no_room(&who.database, &who.user);
            return Err(Ending::violation(NO_ROOM));
        };
        let seat = self.shm.seats(limit).take(self.me, most as usize);
        seat.map(|seat| Some((limit, seat)))
            .ok_or_else(|| Ending::Fatal(sqlstate::TOO_MANY_CONNECTIONS, format!("client connections exceeded ({name})")))
    }

    /// What a client in login has; given back when it ends ([`Worker::login_ended`]).
    fn login_seats(&mut self, index: usize) -> Option<&mut ClientSeats> {
        match &mut self.clients[index].state {
            ClientState::Login(login) => login.seats.as_mut(),
            _ => None,
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
