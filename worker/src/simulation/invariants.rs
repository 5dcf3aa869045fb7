//! What must hold, after every step and at rest.

use super::Simulation;
use super::postgres::Who;
use shared::ids::{PoolId, Slot};

impl Simulation {
    /// PostgreSQL has a new backend: no limit is over.
    pub(super) fn backend_opened(&mut self, pid: u32) {
        let (database, user) = self.postgres.backends[&pid].who.clone().unwrap();
        self.note("backend begins", pid.into(), 0);
        let entry = self.config.database(&database).unwrap();
        let most = self.config.pool_size(&entry, &user) + self.config.reserve_pool_size(&entry, &user);
        let limits = [
            ("pool_size", most, self.postgres.count(|who| *who == (database.clone(), user.clone()))),
            ("max_db_connections", self.config.max_db_connections(&entry), self.postgres.count(|(d, _)| *d == database)),
            ("max_user_connections", self.config.max_user_connections(&user), self.postgres.count(|(_, u)| *u == user)),
            ("max_host_connections", self.config.settings.max_host_connections, self.postgres.backends.len()),
        ];
        for (name, limit, backends) in limits {
            assert!(limit == 0 || backends <= limit as usize, "{backends} backends of {database}/{user}, {name} is {limit}");
        }
    }

    /// After each step.
    pub(super) fn check_step(&mut self) {
        for pool in self.shm.pools() {
            let (seats, backends) = (self.shm.pool_seats(pool).in_use(), self.backends_of(pool));
            assert!(backends <= seats, "{backends} backends of {:?} hold {seats} seats", self.shm.pool_names(pool));
        }
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
        assert_eq!(self.in_transit, 0, "messages are on their way");
    }

    fn backends_of(&self, pool: PoolId) -> usize {
        let names: Option<Who> = self.shm.pool_names(pool);
        self.postgres.count(|who| names.as_ref() == Some(who))
    }

    /// Connections of this pool that any worker knows of.
    fn servers_of(&self, pool: PoolId) -> usize {
        let workers = self.places.iter().filter_map(|place| place.life.as_ref()).map(|life| &life.worker);
        workers.map(|worker| worker.servers.iter().filter(|(_, server)| server.seats.pool == pool).count()).sum()
    }
}
