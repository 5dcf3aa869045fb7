//! Pools that nobody uses are removed after pool_idle_timeout, databases that `*` stands for after autodb_idle_timeout.
//!
//! No worker can tell by itself that a pool is idle: all of them report what they have, and when there has been neither a client nor a server
//! in any of them for long enough, all are ordered to forget the pool. One that has it in use again by then keeps it. What a removed pool had counted
//! stays in the fleet's totals.

use super::Fleet;
use super::event::{Moment, Rules};
use super::orders::Until;
use log::Level;
use serde::{Deserialize, Serialize};
use shared::control::{PoolRow, ReportRows};
use shared::ids::Slot;
use shared::orders::{Order, PoolName};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How many pools one message names: it has to fit into a datagram.
const NAMES: usize = 500;

/// Since when each idle pool has been idle, as far as was seen.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Idle {
    since: BTreeMap<PoolName, Since>,
    leaving: BTreeSet<PoolName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Since {
    at: Moment,
    /// What it had counted by then: one that was used between two reports has counted more.
    uses: u64,
}

/// Pools on their way out, each with the time that it has been idle; with all of a database's pools, the database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Leaving {
    pools: BTreeMap<PoolName, Duration>,
    databases: BTreeSet<String>,
    /// Those that a worker has in use again.
    kept: BTreeSet<PoolName>,
}

impl Leaving {
    pub(super) fn names(&self) -> Vec<PoolName> {
        self.pools.keys().cloned().collect()
    }

    pub(super) fn keep(&mut self, pools: &[PoolName]) {
        self.kept.extend(pools.iter().cloned());
    }
}

impl Idle {
    /// Takes in what all workers have reported.
    fn look(&mut self, now: Moment, rows: &[(Slot, ReportRows)], retired: &BTreeMap<PoolName, PoolRow>) {
        let mut seen: BTreeMap<PoolName, (bool, u64)> = BTreeMap::new();
        for row in rows.iter().flat_map(|(_, rows)| &rows.pools).chain(retired.values()) {
            let (in_use, uses) = seen.entry((row.database.clone(), row.user.clone())).or_default();
            *in_use |= row.has_connections();
            *uses += row.client_login_count + row.server_assignment_count;
        }
        self.since.retain(|name, _| seen.contains_key(name));
        for (name, (in_use, uses)) in seen {
            if in_use {
                self.since.remove(&name);
            } else if self.since.get(&name).is_none_or(|since| since.uses != uses) {
                self.since.insert(name, Since { at: now, uses });
            }
        }
    }

    /// Which pools have been idle for too long. `marked`: databases that somebody has paused or disabled, which stay.
    fn due(&self, now: Moment, rules: &Rules, marked: impl Fn(&str) -> bool, all: &BTreeSet<PoolName>) -> Leaving {
        let mut leaving = Leaving::default();
        let age = |name: &PoolName| self.since.get(name).map(|since| now.saturating_sub(since.at));
        let over = |name: &PoolName, limit: Duration| age(name).is_some_and(|age| age >= limit);
        let mut databases: BTreeMap<&str, bool> = BTreeMap::new();
        for name in all {
            let gone = rules.autodb_idle_timeout.is_some_and(|limit| over(name, limit));
            *databases.entry(&name.0).or_insert(true) &= gone;
        }
        for name in all.difference(&self.leaving) {
            let automatic = !rules.entries.contains_key(&name.0);
            let with_database = automatic && databases.get(name.0.as_str()) == Some(&true) && !marked(&name.0);
            let alone = !rules.keeps(&name.0) && rules.pool_idle_timeout.is_some_and(|limit| over(name, limit));
            if with_database {
                leaving.databases.insert(name.0.clone());
            }
            if (with_database || alone)
                && let Some(age) = age(name)
            {
                leaving.pools.insert(name.clone(), age);
            }
        }
        leaving
    }
}

impl Rules {
    /// Whether pools of this database are to have servers whether they are used or not.
    fn keeps(&self, database: &str) -> bool {
        self.entries.get(database).copied().unwrap_or(self.fallback_keeps)
    }

    /// How soon a pool may have to be removed.
    pub(super) fn shortest_idle(&self) -> Option<Duration> {
        self.pool_idle_timeout.into_iter().chain(self.autodb_idle_timeout).min()
    }
}

impl Fleet {
    /// All workers have reported their pools: those that have been idle for too long are to go.
    pub(super) fn look_for_idle_pools(&mut self, rows: &[(Slot, ReportRows)]) {
        self.idle.look(self.now, rows, self.reports.retired());
        let all = rows.iter().flat_map(|(_, rows)| &rows.pools).chain(self.reports.retired().values());
        let all = all.map(|row| (row.database.clone(), row.user.clone())).collect();
        let marks = &self.marks;
        let marked = |database: &str| marks.paused.contains(database) || marks.disabled.contains(database);
        let leaving = self.idle.due(self.now, &self.rules, marked, &all);
        self.idle.leaving.extend(leaving.pools.keys().cloned());
        let names = leaving.names();
        for part in names.chunks(NAMES) {
            let of_part = |name: &PoolName| part.contains(name);
            let part_of = Leaving {
                pools: leaving.pools.iter().filter(|(name, _)| of_part(name)).map(|(name, age)| (name.clone(), *age)).collect(),
                databases: leaving
                    .databases
                    .iter()
                    .filter(|name| part.iter().any(|(database, _)| database == *name))
                    .cloned()
                    .collect(),
                kept: BTreeSet::new(),
            };
            self.order(Order::Forget(part.to_vec()), Until::Forgotten(part_of), None);
        }
    }

    /// Every worker has forgotten these pools, or keeps them.
    pub(super) fn forgotten(&mut self, leaving: &Leaving) {
        for (name, age) in &leaving.pools {
            self.idle.leaving.remove(name);
            self.idle.since.remove(name);
            if leaving.kept.contains(name) {
                continue;
            }
            let (database, user) = name;
            self.reports.forget(name, !self.rules.entries.contains_key(database));
            self.welcomes.remove(name);
            if !leaving.databases.contains(database) {
                let age = age.as_secs();
                self.log(
                    Level::Info,
                    format!("cleaning up idle pool for user {user} on db {database} because: pool idle timeout (age= {age}s)"),
                );
            }
        }
        for database in &leaving.databases {
            if !leaving.kept.iter().any(|(kept, _)| kept == database) {
                self.log(
                    Level::Warn,
                    format!("dropping database '{database}' as it does not exist anymore or inactive auto-database"),
                );
            }
        }
    }
}
