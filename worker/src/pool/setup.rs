//! Pools come into being when a client needs one, and follow the configuration.

use super::hosts::Hosts;
use super::{Pool, PoolIndex, Stats};
use crate::server::ServerState;
use crate::worker::Worker;
use rustc_hash::FxHashMap;
use shared::config::Database;
use shared::ids::{LimitId, SeatIndex};
use shared::shm::{Limit, ServerLimits};
use std::collections::VecDeque;
use std::sync::Arc;

impl Worker {
    /// The pool that serves `login_user` in `entry`, made if there is none. `None`: shared memory has no room for another.
    pub(crate) fn find_pool(&mut self, entry: &Arc<Database>, login_user: &str) -> Option<PoolIndex> {
        let user = entry.user.as_deref().unwrap_or(login_user);
        if let Some(index) = self.pools.find(&entry.name, user) {
            return Some(index);
        }
        if !self.config.databases.contains_key(&entry.name) && !self.is_known(&entry.name) {
            log::info!("registered new auto-database: {}", entry.name);
        }
        let id = self.shm.pool(&entry.name, user)?;
        let index = self.pools.add(Pool {
            id,
            entry: Arc::clone(entry),
            user: user.to_owned(),
            mode: self.config.pool_mode(entry, user),
            limits: self.server_limits(entry, user),
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

    fn server_limits(&self, entry: &Database, user: &str) -> ServerLimits {
        let limit = |most: u32, what: Limit<'_>| (most > 0).then(|| Some((self.shm.limit(what)?, most as usize))).flatten();
        let host = format!("{}:{}", entry.host.as_deref().unwrap_or(&self.config.settings.unix_socket_dir), entry.port);
        ServerLimits {
            pool: self.config.pool_size(entry, user) as usize,
            database: limit(self.config.max_db_connections(entry), Limit::Database(&entry.name)),
            user: limit(self.config.max_user_connections(user), Limit::User(user)),
            host: limit(self.config.settings.max_host_connections, Limit::Host(&host)),
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
            let Some(entry) = self.config.database(&name).filter(|_| !dropped.contains(&name)) else {
                self.drop_pool_clients(index, &crate::client::Ending::violation("database removed"));
                let pool = self.pools.get_mut(index);
                pool.welcome = None;
                pool.reconnect_generation = self.config.generation;
                pool.gone = true;
                continue;
            };
            let auto = !self.config.databases.contains_key(&name);
            let back = std::mem::take(&mut self.pools.get_mut(index).gone);
            let reconnect = back || reconnect.contains(&name) || (auto && reconnect.iter().any(|n| n == "*"));
            let mode = self.config.pool_mode(&entry, &user);
            let limits = self.server_limits(&entry, &user);
            let (reserve, least) = (self.reserve(&entry, &user), self.least(&entry, &user));
            let pool = self.pools.get_mut(index);
            pool.mode = mode;
            pool.limits = limits;
            (pool.reserve, pool.least) = (reserve, least);
            pool.exhausted = false;
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
        let clients: Vec<usize> = waiting.chain(sessions).collect();
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

/// Whether a seat is one that the limit, as it is now, has no longer.
fn is_beyond(seat: Option<(LimitId, SeatIndex)>, limit: Option<(LimitId, usize)>) -> bool {
    matches!((seat, limit), (Some((_, seat)), Some((_, most))) if seat.0 as usize >= most)
}
