//! What must hold: no limit is ever over, no seat is lost, everything comes to rest.
//!
//! Who waits for how long, beside what and behind whom, is in [`super::waits`].

use super::Simulation;
use super::postgres::Who;
use crate::pool::Pool;
use crate::worker::Worker;
use shared::config::Config;
use shared::ids::{PoolId, Slot};
use shared::shm::Limit;
use std::fmt::Write;

const LIMITS: [&str; 4] = ["pool_size", "max_db_connections", "max_user_connections", "max_host_connections"];

/// The most messages between workers when no client is left: answers to what was asked before.
const LAST_WORDS: u64 = 12;

impl Simulation {
    /// PostgreSQL has a new backend: no limit is over, and it was needed.
    pub(super) fn backend_opened(&mut self, pid: u32) {
        let (database, user) = self.postgres.backends[&pid].who.clone().unwrap();
        self.note("backend begins", pid.into(), 0);
        let backends = [
            self.postgres.count(|who| *who == (database.clone(), user.clone())),
            self.postgres.count(|(d, _)| *d == database),
            self.postgres.count(|(_, u)| *u == user),
            self.postgres.backends.len(),
        ];
        // While a new configuration is being put in force, some workers have it and some do not yet, or not when their turn began.
        let configs = self.workers().map(|worker| &*worker.config).chain([&self.config]).chain(self.waits.config.as_deref());
        let most = configs.map(|config| limits(config, &database, &user));
        let most = most.reduce(|one, other| std::array::from_fn(|i| one[i].max(other[i]))).unwrap();
        for (name, (backends, most)) in LIMITS.into_iter().zip(backends.into_iter().zip(most)) {
            assert!(backends <= most, "{backends} backends of {database}/{user}, {name} is {most}\n{}", self.picture());
        }
        if self.plan.is_undisturbed() {
            self.check_that_none_was_idle(&database, &user);
        }
    }

    /// No connection is opened while another worker has an idle one that it could have been asked for.
    fn check_that_none_was_idle(&self, database: &str, user: &str) {
        let (Some(id), Some(opener)) = (self.shm.pool(database, user), self.turning) else { return };
        let Some(worker) = self.worker(opener) else { return };
        // An answer may lie in its inbox that it had not read yet.
        let asked = self.asked_before_turn(id).max(pool_of(worker, id).map_or(0, |pool| pool.borrows.len()));
        let others = self.workers().filter(|worker| worker.me.slot != opener);
        let idle: usize = others.map(|worker| pool_of(worker, id).map_or(0, |pool| pool.idle.len())).sum();
        // Unless min_pool_size wants one more.
        let least = self.workers().filter_map(|worker| pool_of(worker, id)).map(|pool| pool.least).max().unwrap_or(0);
        let wanted = idle <= asked || self.shm.pool_seats(id).in_use() <= least;
        assert!(wanted, "worker {opener} opens a connection of {database}/{user} beside an idle one\n{}", self.picture());
    }

    /// After each step.
    pub(super) fn check_step(&mut self) {
        for pool in self.shm.pools() {
            let (seats, backends) = (self.shm.pool_seats(pool).in_use(), self.backends_of(pool));
            assert!(
                backends <= seats,
                "{backends} backends of {:?} hold {seats} seats\n{}",
                self.shm.pool_names(pool),
                self.picture()
            );
        }
        self.look_at_waiters();
    }

    /// When the load is long over.
    pub(super) fn check_rest(&mut self) {
        for pool in self.shm.pools() {
            let names = self.shm.pool_names(pool);
            let seats = self.shm.pool_seats(pool).in_use();
            assert_eq!(seats, self.backends_of(pool), "seats and backends of {names:?}");
            assert_eq!(seats, self.servers_of(pool), "seats and servers of {names:?}");
            assert_eq!(self.shm.pool_state(pool).waiting_others(Slot::SUPERVISOR), 0, "somebody waits in {names:?}");
        }
        for limit in self.shm.limits() {
            assert_eq!(self.shm.limit_state(limit).waiting_others(Slot::SUPERVISOR), 0, "somebody waits for a limit");
        }
        for (database, user) in self.names() {
            self.check_minimum(&database, &user);
        }
        self.check_shared_seats();
        assert!(self.upgrade.is_over(), "workers of the old build are left");
        assert_eq!(self.shm.clients().in_use(), 0, "seats of clients");
        assert_eq!(self.in_transit, 0, "messages are on their way");
        let sent = self.mail_sent - self.mail_at_end;
        assert!(sent <= LAST_WORDS, "{sent} messages were sent when nobody wanted anything any more");
        for worker in self.workers() {
            for pool in worker.pools.indices().into_iter().map(|index| worker.pools.get(index)) {
                assert_eq!((pool.opening, pool.waiting, pool.borrows.len()), (0, 0, 0), "worker {}", worker.me.slot);
                assert!(!worker.lends.has_one_of(pool.id), "worker {} has lent", worker.me.slot);
            }
        }
    }

    /// min_pool_size is what is left: exactly that many where the entry has a user of its own, and no more anywhere.
    fn check_minimum(&self, database: &str, user: &str) {
        let Some(entry) = self.config.databases.get(database) else { return };
        let least = self.config.min_pool_size(entry).min(self.config.pool_size(entry, user)) as usize;
        let backends = self.postgres.count(|who| (who.0.as_str(), who.1.as_str()) == (database, user));
        assert!(backends <= least, "{backends} backends of {database}/{user} are left, min_pool_size is {least}");
        let settings = &self.config.settings;
        let shared = settings.max_db_connections + settings.max_user_connections + settings.max_host_connections > 0;
        if entry.user.is_some() && !shared {
            assert_eq!(backends, least, "backends of {database}/{user}, which min_pool_size keeps");
        }
    }

    /// Every seat of a limit is a backend's.
    fn check_shared_seats(&self) {
        let seats = |limit: Limit<'_>, most: u32| {
            let in_use = self.shm.limit(limit).map_or(0, |id| self.shm.seats(id).in_use());
            (most > 0).then_some(in_use)
        };
        for (database, user) in self.names() {
            let entry = self.config.database(&database).unwrap();
            if let Some(seats) = seats(Limit::Database(&database), self.config.max_db_connections(&entry)) {
                assert_eq!(seats, self.postgres.count(|(d, _)| *d == database), "seats of {database}");
            }
            if let Some(seats) = seats(Limit::User(&user), self.config.max_user_connections(&user)) {
                assert_eq!(seats, self.postgres.count(|(_, u)| *u == user), "seats of {user}");
            }
        }
        let host = format!("{}:5432", self.postgres.directory);
        if let Some(seats) = seats(Limit::Host(&host), self.config.settings.max_host_connections) {
            assert_eq!(seats, self.postgres.backends.len(), "seats of the host");
        }
    }

    /// Who has what, for people.
    pub(super) fn picture(&self) -> String {
        let mut text = String::new();
        for worker in self.workers() {
            let _ = writeln!(text, "worker {}", worker.me.slot);
            for pool in worker.pools.indices().into_iter().map(|index| worker.pools.get(index)) {
                let Pool { id, entry, user, idle, waiting, opening, borrows, blocked_on, .. } = pool;
                let oldest = self.shm.pool_state(*id).oldest(worker.me.slot);
                let _ = writeln!(
                    text,
                    "  pool {} {}/{user}: idle {}, waiting {waiting} since {oldest:?}, opening {opening}, asked {borrows:?}, blocked on {blocked_on:?}",
                    id.0,
                    entry.name,
                    idle.len()
                );
            }
        }
        text
    }

    fn names(&self) -> Vec<Who> {
        self.shm.pools().filter_map(|pool| self.shm.pool_names(pool)).collect()
    }

    pub(super) fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.places.iter().filter_map(|place| place.life.as_ref()).map(|life| &*life.worker)
    }

    pub(super) fn worker(&self, slot: Slot) -> Option<&Worker> {
        self.places[slot.index()].life.as_ref().map(|life| &*life.worker)
    }

    fn backends_of(&self, pool: PoolId) -> usize {
        let names: Option<Who> = self.shm.pool_names(pool);
        self.postgres.count(|who| names.as_ref() == Some(who))
    }

    /// Connections of this pool that any worker knows of.
    fn servers_of(&self, pool: PoolId) -> usize {
        self.workers().map(|worker| worker.servers.iter().filter(|(_, server)| server.seats.pool == pool).count()).sum()
    }
}

pub(super) fn pool_of(worker: &Worker, id: PoolId) -> Option<&Pool> {
    worker.pools.by_id(id).map(|index| worker.pools.get(index))
}

/// The most connections that a configuration allows, in the order of `LIMITS`.
fn limits(config: &Config, database: &str, user: &str) -> [usize; 4] {
    let entry = config.database(database).unwrap();
    let limits = [
        config.pool_size(&entry, user) + config.reserve_pool_size(&entry, user),
        config.max_db_connections(&entry),
        config.max_user_connections(user),
        config.settings.max_host_connections,
    ];
    limits.map(|limit| if limit == 0 { usize::MAX } else { limit as usize })
}
