//! Pools come into being when a client needs one, and follow the configuration.

use super::hosts::Hosts;
use super::{Pool, PoolIndex, Stats};
use crate::server::ServerState;
use crate::worker::Worker;
use rustc_hash::FxHashMap;
use shared::config::{Config, Database};
use shared::ids::{LimitId, PoolId, SeatIndex};
use shared::shm::{Limit, ServerLimits, Shm};
use std::collections::VecDeque;
use std::sync::Arc;

/// What clients are told whose pool cannot be made.
pub(crate) const NO_ROOM: &str = "no memory for pool";

impl Worker {
    /// The pool that serves `login_user` in `entry`, made if there is none. `None`: shared memory has no room for it or one of its limits.
    pub(crate) fn find_pool(&mut self, entry: &Arc<Database>, login_user: &str) -> Option<PoolIndex> {
        self.find_pool_of(entry, entry.user.as_deref().unwrap_or(login_user))
    }

    /// The pool whose servers log in as `user`, whomever the entry forces.
    pub(crate) fn find_pool_of(&mut self, entry: &Arc<Database>, user: &str) -> Option<PoolIndex> {
        if let Some(index) = self.pools.find(&entry.name, user) {
            return (!self.pools.get(index).gone).then_some(index);
        }
        let auto = !self.config.databases.contains_key(&entry.name);
        let is_new = auto && !self.is_known(&entry.name);
        let limits = self.server_limits(entry, user);
        let Some((limits, id)) = limits.and_then(|limits| Some((limits, self.pool_id(entry, user, auto)?))) else {
            self.no_room(&entry.name, user);
            return None;
        };
        if is_new {
            log::info!("registered new auto-database: {}", entry.name);
        }
        let index = self.pools.add(Pool {
            id,
            entry: Arc::clone(entry),
            user: user.to_owned(),
            mode: self.config.pool_mode(entry, user),
            limits,
            reserve: self.reserve(entry, user),
            least: self.least(entry, user),
            epoch: 0,
            reconnect_generation: 0,
            paused: self.marks.is_paused(&entry.name),
            gone: false,
            hosts: Hosts::new(entry, &self.config.settings.unix_socket_dir),
            idle: VecDeque::new(),
            waiters: VecDeque::new(),
            waiting: 0,
            candidates: Vec::new(),
            to_greet: Vec::new(),
            opening: 0,
            borrows: Vec::new(),
            exhausted: false,
            listed: false,
            announced: false,
            blocked_on: None,
            asked_for_room: 0,
            yielding: None,
            welcome: None,
            notices: Vec::new(),
            known_values: FxHashMap::default(),
            failure: None,
            secret: None,
            clients: 0,
            stats: Stats::default(),
        });
        if let Some(parameters) = self.pools.welcomes.remove(&(entry.name.clone(), user.to_owned())) {
            self.learn_welcome(index, &parameters);
        }
        Some(index)
    }

    /// Whether the fleet has had a pool of this database.
    fn is_known(&self, database: &str) -> bool {
        self.shm.pools().filter_map(|pool| self.shm.pool_names(pool)).any(|(known, _)| known == database)
    }

    /// A pool's place in the directory. Names that clients think of under `*` leave some for configured entries, and with the two limits that each
    /// may have they leave some of those too.
    fn pool_id(&self, entry: &Database, user: &str, auto: bool) -> Option<PoolId> {
        let refused = auto
            && self.shm.pools().count() >= Shm::POOLS / 4 * 3
            && !self.shm.pools().filter_map(|pool| self.shm.pool_names(pool)).any(|(d, u)| d == entry.name && u == user);
        if refused { None } else { self.shm.pool(&entry.name, user) }
    }

    /// What the pool's connections count in. `None`: a limit that is set has no place in the directory, and must not pass for none.
    fn server_limits(&self, entry: &Database, user: &str) -> Option<ServerLimits> {
        let config = &self.config;
        let limit = |most: u32, what: Limit<'_>| match most {
            0 => Some(None),
            most => Some(Some((self.shm.limit(what)?, most as usize))),
        };
        Some(ServerLimits {
            pool: config.pool_size(entry, user) as usize,
            database: limit(config.max_db_connections(entry), Limit::Database(&entry.name))?,
            user: limit(config.max_user_connections(user), Limit::User(user))?,
            host: limit(config.settings.max_host_connections, Limit::Host(&host_name(config, entry)))?,
        })
    }

    /// Says so once: clients would fill the log.
    pub(crate) fn no_room(&mut self, database: &str, user: &str) {
        if !std::mem::replace(&mut self.told_no_room, true) {
            log::error!(
                target: "process",
                "shared memory has no room for another pool or limit: clients of database \"{database}\" and user \"{user}\", and others \
                 that need one, are refused until pgfleet is restarted; names that clients make up under \"*\" stay there as long as it runs"
            );
        }
    }

    /// The limits of configured entries, users and peers get their places before clients can take them for others.
    pub(crate) fn enter_limits(&self) {
        let config = &self.config;
        let enter = |most: u32, what: Limit<'_>| most == 0 || self.shm.limit(what).is_some();
        let mut room = true;
        for entry in config.databases.values() {
            room &= enter(config.max_db_connections(entry), Limit::Database(&entry.name));
            room &= enter(config.max_db_client_connections(entry), Limit::DatabaseClients(&entry.name));
        }
        for entry in config.databases.values().chain(&config.fallback) {
            room &= enter(config.settings.max_host_connections, Limit::Host(&host_name(config, entry)));
            if let Some(user) = &entry.user {
                room &= enter(config.max_user_connections(user), Limit::User(user));
            }
        }
        for (id, peer) in &config.peers {
            room &= enter(peer.pool_size.unwrap_or(config.settings.default_pool_size), Limit::Peer(&id.to_string()));
        }
        for user in config.users.keys() {
            room &= enter(config.max_user_connections(user), Limit::User(user));
            room &= enter(config.max_user_client_connections(user), Limit::UserClients(user));
        }
        if !room {
            log::error!(
                target: "process",
                "shared memory has no room for all limits of the configuration: clients that one without a place concerns are refused; \
                 restart pgfleet, or limit fewer databases and users"
            );
        }
    }

    fn reserve(&self, entry: &Database, user: &str) -> usize {
        let unused = self.config.pool_size(entry, user) == 0 || self.config.settings.reserve_pool_timeout.is_zero();
        if unused { 0 } else { self.config.reserve_pool_size(entry, user) as usize }
    }

    /// Without a limit to the pool there is no minimum either, as in PgBouncer.
    fn least(&self, entry: &Database, user: &str) -> usize {
        self.config.min_pool_size(entry).min(self.config.pool_size(entry, user)) as usize
    }

    /// The configuration has changed: every pool takes over what it says now. Servers of an entry that leads elsewhere are closed when free,
    /// clients of an entry that is gone at once.
    pub(crate) fn reconfigure_pools(&mut self, reconnect: &[String], dropped: &[String]) {
        for index in self.pools.indices() {
            let (name, user) = (self.pools.get(index).entry.name.clone(), self.pools.get(index).user.clone());
            let entry = self.config.database(&name).filter(|_| !dropped.contains(&name)).ok_or("database removed");
            let limited = entry.and_then(|entry| {
                let limits = self.server_limits(&entry, &user);
                limits.map(|limits| (entry, limits)).ok_or(NO_ROOM)
            });
            let (entry, limits) = match limited {
                Ok(limited) => limited,
                Err(why) => {
                    self.drop_pool_clients(index, &crate::client::Ending::violation(why));
                    let pool = self.pools.get_mut(index);
                    pool.welcome = None;
                    pool.reconnect_generation = self.config.generation;
                    pool.gone = true;
                    if why == NO_ROOM {
                        self.no_room(&name, &user);
                    }
                    continue;
                }
            };
            let auto = !self.config.databases.contains_key(&name);
            let back = std::mem::take(&mut self.pools.get_mut(index).gone);
            let reconnect = back || reconnect.contains(&name) || (auto && reconnect.iter().any(|n| n == "*"));
            let mode = self.config.pool_mode(&entry, &user);
            let (reserve, least) = (self.reserve(&entry, &user), self.least(&entry, &user));
            let pool = self.pools.get_mut(index);
            pool.mode = mode;
            pool.limits = limits;
            (pool.reserve, pool.least) = (reserve, least);
            pool.exhausted = false;
            // What PostgreSQL has refused it may take now: a password may be another.
            self.shm.pool_state(pool.id).set_login_failed_at(0);
            if reconnect {
                pool.hosts = Hosts::new(&entry, &self.config.settings.unix_socket_dir);
                pool.epoch += 1;
                pool.reconnect_generation = self.config.generation;
                pool.welcome = None;
                pool.known_values.clear();
                self.retire_servers(index, "database configuration changed", "database configuration changed");
            }
            self.pools.get_mut(index).entry = entry;
            self.join_limits(index);
            self.close_surplus(index);
            self.pump(index);
        }
        self.find_pools_to_fill();
    }

    /// Servers that were there before one of the pool's limits count in it too.
    fn join_limits(&mut self, index: PoolIndex) {
        let limits = self.pools.get(index).limits;
        for (_, server) in self.servers.iter_mut().filter(|(_, s)| s.pool == index && !matches!(s.state, ServerState::Dead)) {
            server.seats = self.shm.join_limits(self.me, &server.seats, &limits);
        }
    }

    /// Closes this pool's servers: idle ones now, the others when they are free, each for its reason.
    pub(crate) fn retire_servers(&mut self, pool: PoolIndex, now: &'static str, later: &'static str) {
        for (_, server) in self.servers.iter_mut().filter(|(_, s)| s.pool == pool) {
            server.close_reason = Some(later);
        }
        for server in std::mem::take(&mut self.pools.get_mut(pool).idle) {
            self.close_server(server, now);
        }
        self.shm.pool_state(self.pools.get(pool).id).set_idle(self.me.slot, 0);
        // A replication connection is never free.
        let dedicated = self.servers.iter().filter(|(_, s)| s.pool == pool && s.dedication.is_some());
        let dedicated: Vec<_> = dedicated.filter_map(|(index, s)| Some((index, s.client()?))).collect();
        for (server, client) in dedicated {
            self.close_with_client(server, client);
        }
    }

    /// Closes this pool's clients, and its servers.
    pub(crate) fn drop_pool_clients(&mut self, pool: PoolIndex, ending: &crate::client::Ending) {
        let waiting = self.pools.get(pool).to_greet.iter().filter(|w| self.still_waits(w)).map(|w| w.client);
        let sessions = self.clients.iter().filter(|(_, c)| c.session().is_some_and(|s| s.pool == pool)).map(|(index, _)| index);
        let logins = self.clients.iter().filter(|(_, c)| c.waits_in() == Some(pool)).map(|(index, _)| index);
        let clients: Vec<usize> = waiting.chain(sessions).chain(logins).collect();
        for client in clients {
            self.close_client(client, ending);
        }
        self.retire_servers(pool, "database removed", "database removed");
    }

    /// Closes idle servers whose seats are beyond a limit that has been lowered.
    fn close_surplus(&mut self, index: PoolIndex) {
        let surplus: Vec<usize> = self.pools.get(index).idle.iter().copied().filter(|&s| self.is_surplus(s)).collect();
        for server in surplus {
            self.close_server(server, "too many servers in the pool");
        }
    }

    /// Whether one of a server's seats is beyond the limit as it is now.
    #[inline]
    pub(crate) fn is_surplus(&self, server: usize) -> bool {
        let server = &self.servers[server];
        let pool = self.pools.get(server.pool);
        let (seats, limits) = (&server.seats, &pool.limits);
        (limits.pool > 0 && seats.seat.0 as usize >= limits.pool + pool.reserve)
            || is_beyond(seats.database, limits.database)
            || is_beyond(seats.user, limits.user)
            || is_beyond(seats.host, limits.host)
    }
}

/// Under which name an entry's host counts in max_host_connections.
fn host_name(config: &Config, entry: &Database) -> String {
    format!("{}:{}", entry.host.as_deref().unwrap_or(&config.settings.unix_socket_dir), entry.port)
}

/// Whether a seat is one that the limit, as it is now, has no longer.
fn is_beyond(seat: Option<(LimitId, SeatIndex)>, limit: Option<(LimitId, usize)>) -> bool {
    matches!((seat, limit), (Some((_, seat)), Some((_, most))) if seat.0 as usize >= most)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// `limited` and `free` are entries, anything else is derived from `*`; everything has room for its limits but what is asked for later.
    fn crowded() -> Worker {
        let mut config = Config::default();
        let entry = |name: &str, most| Arc::new(Database { max_db_connections: most, ..Database::new(name.into()) });
        config.databases.insert("limited".into(), entry("limited", Some(1)));
        config.databases.insert("free".into(), entry("free", None));
        config.fallback = Some(entry("*", Some(1)));
        let worker = Worker::alone(config);
        worker.enter_limits();
        while worker.shm.limit(Limit::User(&worker.shm.limits().count().to_string())).is_some() {}
        worker
    }

    fn find(worker: &mut Worker, database: &str) -> Option<PoolIndex> {
        let entry = worker.config.database(database).unwrap();
        worker.find_pool(&entry, "u")
    }

    #[test]
    fn a_limit_without_a_place_is_not_no_limit() {
        let mut worker = crowded();
        assert_eq!(find(&mut worker, "made up"), None);
        assert!(worker.told_no_room);
        let limited = find(&mut worker, "limited").unwrap();
        assert!(matches!(worker.pools.get(limited).limits.database, Some((_, 1))));
        assert!(find(&mut worker, "free").is_some());
    }

    #[test]
    fn a_pool_whose_new_limit_has_no_place_serves_nobody() {
        let mut worker = crowded();
        let free = find(&mut worker, "free").unwrap();
        let mut config = Config::clone(&worker.config);
        config.settings.max_user_connections = 5;
        let before = std::mem::replace(&mut worker.config, std::rc::Rc::new(config));
        worker.reconfigure_pools(&[], &[]);
        assert!(worker.pools.get(free).gone && find(&mut worker, "free").is_none());
        worker.config = before;
        worker.reconfigure_pools(&[], &[]);
        assert_eq!(find(&mut worker, "free"), Some(free));
    }

    #[test]
    fn made_up_names_leave_pools_to_configured_entries() {
        let mut worker = Worker::alone(Config { fallback: Some(Arc::new(Database::new("*".into()))), ..Config::default() });
        worker.shm.pool("made up by another worker's client", "u").unwrap();
        while worker.shm.pools().count() < Shm::POOLS / 4 * 3 {
            worker.shm.pool("d", &worker.shm.pools().count().to_string()).unwrap();
        }
        assert_eq!(find(&mut worker, "made up"), None);
        assert!(find(&mut worker, "made up by another worker's client").is_some());
        let mut config = Config::clone(&worker.config);
        config.databases.insert("configured".into(), Arc::new(Database::new("configured".into())));
        worker.config = std::rc::Rc::new(config);
        assert!(find(&mut worker, "configured").is_some());
    }
}
