//! What a client is greeted with: AuthenticationOk, the server's parameters with its own values among them, its cancel key.
//!
//! A client's startup values are told back as PostgreSQL spells them, and one that PostgreSQL refuses is refused, as on a connection of its
//! own. Which they are is learned from a server once for each value; a client with one that is not known yet waits for a server, has
//! it set there, and is greeted then. So does a client that is to know its server's process id.

use super::login::LoggedIn;
use super::{Client, ClientState, Ending, Link, Peer, Session};
use crate::params::Params;
use crate::pool::{Greeting, Pool, PoolIndex};
use crate::protocol::frontend::Frontend;
use crate::worker::{Source, Worker};
use shared::config::PoolMode;
use shared::control::{ConsoleSession, Replication, ToSupervisor};
use shared::ids::Owner;
use shared::wire::{encode, report};
use std::os::fd::AsFd;
use std::rc::Rc;

/// A greeting that waits for a server.
pub(crate) enum Owed {
    /// One of the pool's, to set the client's values on.
    Values {
        welcome: Rc<Greeting>,
        /// Startup values whose spelling is to be learned, by lower-case name.
        learn: Vec<(String, String)>,
        /// Only that server will do, and the client keeps it.
        keeps_server: bool,
    },
    /// One of the client's own, to be started with these parameters.
    Replication(Vec<(String, String)>),
    /// The first one of its pool, for a client that asked for these values. Only on the way to another worker: a client that waits for that is still in its login.
    Welcome(Vec<(String, String)>),
}

/// A client's startup values.
struct Wanted {
    params: Params,
    /// They alone; `None` when there are none.
    startup: Option<Params>,
    /// Those that are not known yet.
    learn: Vec<(String, String)>,
}

impl Worker {
    /// Makes a client whose login is complete but for its greeting ready to go to another worker.
    pub(crate) fn prepare_ungreeted(&mut self, index: usize) {
        let Some(LoggedIn { pool: Some(pool), who, seats, parameters, replication, .. }) = self.take_login(index) else { return };
        let client = &mut self.clients[index];
        let (id, owed) = (client.id, Some(Box::new(Owed::Welcome(parameters))));
        client.state = ClientState::Session(Session {
            pool,
            who,
            seats,
            key: [0; 8],
            params: self.interner.set(std::iter::empty()),
            startup: None,
            replication,
            front: Frontend::default(),
            link: Link::None,
            owed,
            reset: None,
            query_start: None,
            transaction_start: None,
        });
        let place = self.pools.get_mut(pool);
        place.clients += 1;
        place.to_greet.retain(|waiter| waiter.id != id);
        self.announce(pool);
    }

    /// Such a client has arrived, or is back: its login goes on.
    pub(crate) fn admit_ungreeted(&mut self, mut client: Client) {
        let ClientState::Session(session) = client.state else { return };
        let Session { pool, who, seats, replication, owed, .. } = session;
        let (Some(Owed::Welcome(parameters)), user) = (owed.map(|owed| *owed), Rc::clone(&who)) else { return };
        let login = LoggedIn { pool: Some(pool), who, seats, parameters, replication, options: None };
        client.state = ClientState::Login(Box::new(super::Login::complete(login)));
        let (id, accepted_at) = (client.id, client.connected_at);
        let Ok(index) = self.add_client(client) else { return };
        self.arm_login(index, id, accepted_at);
        if self.pools.get(pool).welcome.is_some() {
            self.greet(index);
        } else {
            self.await_welcome(index, pool, &user.user);
        }
    }

    /// Makes a client whose pool knows what its servers say a session, and greets it, at once or when it has a server.
    pub(crate) fn greet(&mut self, index: usize) {
        let Some(mut login) = self.clients[index].session().is_none().then(|| self.take_login(index)).flatten() else { return };
        let Some(pool_index) = login.pool else { return };
        let Some(welcome) = self.pools.get(pool_index).welcome.clone() else { return };
        if self.config.settings.application_name_add_host {
            add_host(&mut login.parameters, self.clients[index].peer, self.config.settings.listen_port);
        }
        let Wanted { params, startup, learn } = self.wanted(pool_index, &welcome, &login.parameters);
        let pool = self.pools.get_mut(pool_index);
        pool.clients += 1;
        let keeps_server = self.config.settings.report_backend_pid && pool.mode == PoolMode::Session;
        self.by_seat.insert(login.seats.client, index);
        let LoggedIn { who, seats, .. } = login;
        let mut session = Session {
            pool: pool_index,
            who,
            seats,
            key: [0; 8],
            params: params.clone(),
            startup,
            replication: Replication::None,
            front: Frontend::default(),
            link: Link::None,
            owed: None,
            reset: None,
            query_start: None,
            transaction_start: None,
        };
        session.front.has_startup_values = session.startup.is_some();
        session.set_params(params);
        self.clients[index].state = ClientState::Session(session);
        let may_wait = keeps_server || !self.pools.get(pool_index).paused && self.failing(pool_index).is_none();
        if !keeps_server && (learn.is_empty() || !may_wait) {
            return self.send_greeting(index, &welcome, None, &[]);
        }
        if let Some(session) = self.clients[index].session_mut() {
            session.owed = Some(Box::new(Owed::Values { welcome, learn, keeps_server }));
        }
        if let Some(server) = self.acquire(index)
            && self.servers[server].takes_queries()
        {
            self.forward_kept(index, server);
        }
    }

    /// A client that waited for its greeting has a server with its values.
    pub(super) fn greet_linked(&mut self, index: usize, server_index: usize) {
        let server = &mut self.servers[server_index];
        let Some(session) = self.clients[index].session_mut() else { return };
        let Some(Owed::Values { welcome, learn, keeps_server }) = session.owed.take().map(|owed| *owed) else { return };
        let pool = self.pools.get_mut(session.pool);
        for (name, value) in learn {
            let canonical = server.params.as_ref().and_then(|params| params.get(&name)).unwrap_or(&value).to_owned();
            pool.learn_value(name, value, canonical);
        }
        let notices = std::mem::take(&mut server.notices);
        let pid = keeps_server.then_some(server.backend_key.0);
        self.send_greeting(index, &welcome, pid, &notices);
        if !keeps_server && self.servers[server_index].client() == Some(index) {
            self.unlink(server_index, index);
            self.server_free(server_index);
        }
    }

    /// A client whose values could not be set anywhere yet is greeted all the same: in its own spelling.
    pub(crate) fn greet_unlearned(&mut self, index: usize) {
        let Some(session) = self.clients[index].session_mut() else { return };
        if let Some(Owed::Values { welcome, .. }) = session.owed.take().map(|owed| *owed) {
            session.link = Link::None;
            let pool = session.pool;
            self.pools.get_mut(pool).waiters.retain(|waiter| waiter.client != index);
            self.waiter_left(pool);
            self.send_greeting(index, &welcome, None, &[]);
        }
    }

    /// Whether it waits for its greeting and any server would do.
    pub(crate) fn may_be_greeted_unlearned(&self, index: usize) -> bool {
        let session = self.clients.get(index).and_then(Client::session);
        matches!(session.and_then(|s| s.owed.as_deref()), Some(Owed::Values { keeps_server: false, .. }))
    }

    /// Greets a session; with `pid`, the key it is given begins with that process id.
    pub(super) fn send_greeting(&mut self, index: usize, welcome: &Greeting, pid: Option<u32>, notices: &[u8]) {
        let random = u64::from_ne_bytes(super::auth::random());
        let Client { state: ClientState::Session(session), id, .. } = &mut self.clients[index] else { return };
        let settings = &self.config.settings;
        let clients = self.shm.clients();
        let seat = session.seats.client;
        let key = match pid {
            None => clients.new_key(self.me, seat, random, settings.peer_id as u16),
            Some(pid) => clients.new_key_of_process(self.me, seat, pid, random as u32),
        };
        let Some(key) = key else {
            return self.close_client(index, &Ending::violation("failed to prepare welcome message"));
        };
        session.key = key;
        let pool = self.pools.get_mut(session.pool);
        pool.stats.client_login_count += 1;
        let mode = session.mode(pool.mode);
        let tracking = if mode == PoolMode::Session { 0 } else { settings.max_prepared_statements };

        let mut out = Vec::with_capacity(640);
        encode::authentication_ok(&mut out);
        for (name, value) in &welcome.fixed {
            encode::parameter_status(&mut out, name, value);
        }
        for (name, value) in session.params.reported() {
            encode::parameter_status(&mut out, name, value);
        }
        encode::parameter_status(&mut out, "pgbouncer.version", "1.26.1");
        encode::parameter_status(&mut out, "pgbouncer.pool_mode", mode.word());
        encode::parameter_status(&mut out, "pgbouncer.max_prepared_statements", &tracking.to_string());
        encode::parameter_status(&mut out, "pgfleet.version", env!("CARGO_PKG_VERSION"));
        encode::backend_key_data(&mut out, key);
        out.append(&mut pool.notices);
        out.extend_from_slice(notices);
        if !settings.login_notify_message.is_empty() {
            report::notice(&mut out, &settings.login_notify_message);
        }
        encode::ready_for_query(&mut out, b'I');

        if let Some(timeout) = self.config.client_idle_timeout(&session.who.user) {
            self.idle_timers.arm(self.now + timeout, (index, *id));
        }
        let conn = &mut self.clients[index].conn;
        if conn.send(&out, &mut self.buffers).is_err() {
            return self.close_client(index, &Ending::Silent("failed to send welcome message"));
        }
        // It may have sent its first query with its last authentication message.
        if conn.readable || !conn.input.is_empty() {
            self.again.push(Source::Client(index));
        }
    }

    /// What a client's startup values come to on this pool's servers.
    fn wanted(&mut self, pool: PoolIndex, welcome: &Greeting, asked: &[(String, String)]) -> Wanted {
        let mut wanted = Wanted { params: welcome.tracked.clone(), startup: None, learn: Vec::new() };
        for (name, value) in asked {
            let name = name.to_ascii_lowercase();
            let reported = welcome.tracked.get(&name);
            let known = self.pools.get(pool).known_value(&name, value, reported);
            let value = known.as_deref().unwrap_or(value);
            let startup = wanted.startup.take().unwrap_or_else(|| self.interner.set(std::iter::empty()));
            if reported.is_some() {
                wanted.params = self.interner.with(&wanted.params, &name, value);
                wanted.startup = Some(self.interner.with(&startup, &name, value));
            } else {
                wanted.params = self.interner.ask(&wanted.params, &name, value);
                wanted.startup = Some(self.interner.ask(&startup, &name, value));
            }
            if known.is_none() {
                wanted.learn.push((name, value.to_owned()));
            }
        }
        wanted
    }

    /// Passes an authenticated console client to the supervisor.
    pub(super) fn hand_to_console(&mut self, index: usize, admin: bool, unread: &[u8]) {
        let Some(login) = self.take_login(index) else { return };
        let seat = login.seats.client;
        let random = u64::from_ne_bytes(super::auth::random());
        let key = self.shm.clients().new_key(self.me, seat, random, self.config.settings.peer_id as u16).unwrap_or_default();
        let client = &mut self.clients[index];
        let session = ConsoleSession {
            id: client.id,
            user: login.who.user.clone(),
            database: login.who.database.clone(),
            admin,
            seat,
            cancel_key: key,
            tls: client.conn.pack(),
            unread: unread.to_vec(),
            parameters: login.parameters,
            peer: client.peer.name(self.config.settings.listen_port),
            connected_at: client.connected_at.to_wall(),
        };
        // Not before it is sure to be sent on: the seat's owner is whoever has the socket.
        self.shm.clients().give(self.me, seat, Owner::SUPERVISOR);
        let _ = client.conn.deregister(self.poll.registry());
        if !self.control.send(&ToSupervisor::Console(session), &[client.conn.as_fd()]) {
            self.shm.clients().leave(Owner::SUPERVISOR, seat);
            log::warn!(target: "process", "a console login was refused: the supervisor is gone");
        }
        self.forget_client(index);
    }
}

/// application_name_add_host: the client's address behind its application_name, as PgBouncer writes it.
fn add_host(parameters: &mut Vec<(String, String)>, peer: Peer, listen_port: u16) {
    let address = match peer {
        Peer::Tcp(address) => address.to_string(),
        Peer::Unix { pid, .. } => {
            let host = nix::unistd::gethostname().unwrap_or_default();
            format!("unix({pid}@{}):{listen_port}", host.to_string_lossy())
        }
    };
    match parameters.iter_mut().find(|(name, _)| name.eq_ignore_ascii_case("application_name")) {
        Some((_, name)) => *name = format!("{name} - {address}"),
        None => parameters.push(("application_name".to_owned(), format!("app - {address}"))),
    }
}

impl Pool {
    /// How PostgreSQL spells a startup value, if that is known. `reported`: what the pool's servers report when nobody asks for anything.
    fn known_value(&self, name: &str, value: &str, reported: Option<&str>) -> Option<String> {
        if let Some(server) = reported {
            // Every text of printable characters is an application_name.
            if name == "application_name" && value.bytes().all(|b| matches!(b, b' '..=b'~')) {
                return Some(value.to_owned());
            }
            if server == value || !["application_name", "search_path"].contains(&name) && server.eq_ignore_ascii_case(value) {
                return Some(server.to_owned());
            }
        }
        self.known_values.get(&(name.to_owned(), value.to_owned())).cloned()
    }

    /// A server has taken a startup value.
    fn learn_value(&mut self, name: String, value: String, canonical: String) {
        const MOST: usize = 1024;
        if self.known_values.len() >= MOST {
            self.known_values.clear();
        }
        self.known_values.insert((name, value), canonical);
    }
}
