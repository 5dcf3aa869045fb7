//! Databases in which auth_query is to be asked and of which nobody knows yet whether they exist: only `*` stands for them, and a client that has
//! not proved anything has named them.
//!
//! The directory of pools forgets nothing, so strangers could fill it with names. Few such names get a place, until PostgreSQL has let
//! auth_user in: then it is a database like others.

use super::PoolIndex;
use crate::worker::Worker;
use shared::config::Database;
use std::sync::Arc;
use std::time::Duration;

/// How many of them there may be in the fleet, of so long a time.
const MOST: usize = 64;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How often the log says that there are no more.
const TELL_EVERY: Duration = Duration::from_secs(60);

impl Worker {
    /// The pool that serves `user` in a database that a client has named, made if there is none and there may be another.
    pub(crate) fn find_pool_to_ask(&mut self, entry: &Arc<Database>, user: &str) -> Option<PoolIndex> {
        if self.config.databases.contains_key(&entry.name) || self.has_place(&entry.name, user) {
            return self.find_pool_of(entry, user);
        }
        if self.unproven() >= MOST {
            self.tell_of_unproven(&entry.name);
            return None;
        }
        let index = self.find_pool_of(entry, user)?;
        self.shm.pool_state(self.pools.get(index).id).set_unproven_at(self.now.as_micros().max(1));
        Some(index)
    }

    fn has_place(&self, database: &str, user: &str) -> bool {
        self.pools.find(database, user).is_some()
            || self.shm.pools().filter_map(|pool| self.shm.pool_names(pool)).any(|(d, u)| d == database && u == user)
    }

    fn unproven(&self) -> usize {
        let since = self.now.as_micros().saturating_sub(DAY.as_micros() as u64);
        self.shm.pools().filter(|pool| self.shm.pool_state(*pool).unproven_at().is_some_and(|at| at >= since)).count()
    }

    fn tell_of_unproven(&mut self, database: &str) {
        if self.told_unproven.is_some_and(|told| self.now - told < TELL_EVERY) {
            return;
        }
        self.told_unproven = Some(self.now);
        log::error!(
            target: "process",
            "clients have named {MOST} databases within a day in which auth_query could not be asked: no user is looked up in another one that \
             only \"*\" stands for, such as \"{database}\"; set auth_dbname"
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use shared::config::Config;
    use shared::shm::Shm;

    fn worker() -> Worker {
        let mut config = Config { fallback: Some(Arc::new(Database::new("*".into()))), ..Config::default() };
        config.databases.insert("configured".into(), Arc::new(Database::new("configured".into())));
        Worker::alone(config)
    }

    fn ask(worker: &mut Worker, database: &str) -> Option<PoolIndex> {
        let entry = worker.config.database(database).unwrap();
        worker.find_pool_to_ask(&entry, "asker")
    }

    #[test]
    fn names_that_clients_make_up_get_few_places() {
        let mut worker = worker();
        let other = worker.shm.pool("of another worker", "asker").unwrap();
        let first = ask(&mut worker, "made up 0");
        for number in 1..Shm::POOLS {
            ask(&mut worker, &format!("made up {number}"));
        }
        assert_eq!(worker.shm.pools().count(), MOST + 1);
        assert!(worker.told_unproven.is_some());
        assert_eq!(ask(&mut worker, "made up 0"), first);
        assert!(ask(&mut worker, "configured").is_some() && ask(&mut worker, "of another worker").is_some());
        assert_eq!(worker.shm.pool_state(other).unproven_at(), None);
        let entry = worker.config.database("authenticated").unwrap();
        assert!(worker.find_pool(&entry, "u").is_some(), "whose user has proved to be one");
    }

    #[test]
    fn a_database_that_exists_makes_room_and_so_does_a_day() {
        let mut worker = worker();
        let places: Vec<PoolIndex> = (0..MOST).map(|number| ask(&mut worker, &number.to_string()).unwrap()).collect();
        assert_eq!(ask(&mut worker, "a"), None);
        worker.shm.pool_state(worker.pools.get(places[5]).id).set_unproven_at(0);
        assert!(ask(&mut worker, "a").is_some() && ask(&mut worker, "b").is_none());
        worker.now = worker.now + DAY + Duration::from_micros(1);
        assert!(ask(&mut worker, "b").is_some());
    }
}
