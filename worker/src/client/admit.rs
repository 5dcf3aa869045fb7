//! What a startup message asks for, and whether there is room for it: the checks before a client is asked who it is.
//!
//! Their order is PgBouncer's: parameters, user name, max_client_conn, protocol negotiation, database, limits of database and user.

use super::auth::{self, Account, Verdict};
use super::login::Request;
use super::{ClientSeats, ClientState, Ending, Identity, Peer};
use crate::lookup::{Found, Refusal};
use crate::pool::NO_ROOM;
use crate::worker::Worker;
use shared::auth::Method;
use shared::auth::hba::{Asked, Origin};
use shared::config::{CONSOLE_DATABASES, Database, MAX_USER_NAME};
use shared::control::Replication;
use shared::ids::{LimitId, SeatIndex};
use shared::shm::Limit;
use shared::wire::encode;
use shared::wire::report::sqlstate;
use shared::wire::startup::Startup;
use std::rc::Rc;

impl Worker {
    pub(super) fn startup(&mut self, index: usize, startup: Startup) {
        if let Err(ending) = self.check_encryption(index).and_then(|()| self.admit(index, startup)) {
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
        let super::parameters::Asked { parameters, replication, options, .. } = asked;
        login.request = Some(Request {
            who: Rc::clone(&who),
            entry: entry.clone(),
            console,
            account: None,
            method: None,
            asked: None,
            parameters,
            replication,
            options,
        });
        if who.user.len() > MAX_USER_NAME {
            if settings.log_connections {
                let prefix = self.clients[index].prefix(settings.listen_port);
                log::info!("{prefix} login failed: db={} user={}", who.database, who.user);
            }
            return Err(Ending::violation("username too long"));
        }
        self.take_limit_seats(index, entry.as_deref(), &who)?;

        let own_console = console && CONSOLE_DATABASES.contains(&who.user.as_str());
        let lookup = match self.method_for(index) {
            method if !own_console => self.lookup_for(method.as_ref(), entry.as_ref(), console, &who.user),
            _ => Ok(None),
        };
        match lookup {
            Ok(None) => self.authenticate(index, Account::of(&config, &who.user)),
            Ok(Some(lookup)) => self.begin_looking_up(index, lookup),
            Err(Refusal::Disabled(name)) => Err(Ending::violation(format!("authentication database \"{name}\" is disabled"))),
            Err(Refusal::Config(text)) => {
                if let Some(text) = text {
                    log::error!("{} {text}", self.clients[index].prefix(settings.listen_port));
                }
                Err(Ending::violation("bouncer config error"))
            }
        }
    }

    /// auth_query has answered: the name that it gives is the user's from now on.
    pub(super) fn user_known(&mut self, index: usize, found: Option<Found>) -> Result<(), Ending> {
        let ClientState::Login(login) = &mut self.clients[index].state else { return Ok(()) };
        let Some(request) = &mut login.request else { return Ok(()) };
        let is_known = found.is_some();
        if let Some(found) = &found
            && let Some(form) = found.secret.as_ref().and_then(auth::Form::of)
        {
            self.typical.answered(&found.name, form);
        }
        let account = Account::looked_up(&request.who.user, found);
        if account.user != request.who.user {
            request.who = self.pools.identity(request.who.database.clone(), account.user.clone());
        }
        let (who, entry) = (Rc::clone(&request.who), request.entry.clone());
        if is_known {
            self.take_user_seat(index, entry.as_deref(), &who)?;
        } else {
            let prefix = self.clients[index].prefix(self.config.settings.listen_port);
            log::info!("{prefix} no such user: {}", who.user);
            if self.config.settings.log_connections {
                log::info!("{prefix} login failed: db={}", who.database);
            }
        }
        self.authenticate(index, account)
    }

    /// The client's user is known as well as it will be: it is asked for its proof.
    fn authenticate(&mut self, index: usize, account: Account) -> Result<(), Ending> {
        let config = Rc::clone(&self.config);
        let settings = &config.settings;
        let ClientState::Login(login) = &self.clients[index].state else { return Ok(()) };
        let peer = self.clients[index].peer;
        let Some(request) = &login.request else { return Ok(()) };
        let (who, console, replication) = (Rc::clone(&request.who), request.console, request.replication);
        if settings.log_connections {
            let prefix = self.clients[index].prefix(settings.listen_port);
            let replication = super::replication::word(replication);
            let label = self.clients[index].conn.tls_label();
            let tls = if label.is_empty() { "no" } else { label };
            log::info!("{prefix} login attempt: db={} user={} tls={tls} replication={replication}", who.database, who.user);
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
        let method = self.method_for(index);
        if let ClientState::Login(login) = &mut self.clients[index].state
            && let Some(request) = &mut login.request
        {
            request.account = Some(account);
            request.method = method;
        }
        self.begin_proof(index)
    }

    /// How the client is to prove who it is. `None`: no rule is meant for it.
    fn method_for(&self, index: usize) -> Option<Method> {
        let ClientState::Login(login) = &self.clients[index].state else { return None };
        let request = login.request.as_ref()?;
        let from = match self.clients[index].peer {
            Peer::Tcp(address) => Origin::Tcp { address: address.ip(), tls: self.clients[index].conn.is_secured() },
            Peer::Unix { .. } => Origin::Unix,
        };
        let physical_replication = request.replication == Replication::Physical;
        let asked = Asked { database: &request.who.database, user: &request.who.user, physical_replication, from };
        auth::method(&self.config, &asked)
    }

    /// auth_type=any: the client becomes the user that its entry forces.
    pub(super) fn any_verdict(&mut self, index: usize) -> Verdict {
        let ClientState::Login(login) = &mut self.clients[index].state else { return Verdict::Admitted };
        let Some(request) = &mut login.request else { return Verdict::Admitted };
        // The console has no entry; and that there is none is said later.
        let Some(entry) = &request.entry else { return Verdict::Admitted };
        if let Some(forced) = &entry.user {
            request.who = self.pools.identity(request.who.database.clone(), forced.clone());
            return Verdict::Admitted;
        }
        let prefix = self.clients[index].prefix(self.config.settings.listen_port);
        log::error!("{prefix} auth_type=any requires forced user");
        Verdict::Refused(sqlstate::PROTOCOL_VIOLATION, "bouncer config error")
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
        self.take_user_seat(index, Some(entry), who)
    }

    /// A seat of max_user_client_connections, unless the client has it.
    fn take_user_seat(&mut self, index: usize, entry: Option<&Database>, who: &Identity) -> Result<(), Ending> {
        if entry.is_none() || self.login_seats(index).is_none_or(|seats| seats.user.is_some()) {
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
    pub(super) fn take_database_seat(&mut self, index: usize, entry: &Database, who: &Identity) -> Result<(), Ending> {
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
