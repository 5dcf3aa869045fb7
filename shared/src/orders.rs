//! Orders: what a console command has every worker do to a database or a client, and what of it outlasts the command.
//!
//! The supervisor numbers orders and sends each to every worker over its control socket (`crate::control`); a worker answers with the same number
//! when it has done it. What lasts is in [`Marks`]: supervisor and workers keep one each, change it by the same orders, and a worker that is
//! started later begins with the supervisor's.

use crate::control::PoolRow;
use crate::ids::ConnectionId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Which databases an order is about, by the names of their entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// All of them.
    All,
    /// One.
    Database(String),
}

impl Scope {
    /// Whether `database` is one of them.
    pub fn holds(&self, database: &str) -> bool {
        match self {
            Scope::All => true,
            Scope::Database(name) => name == database,
        }
    }
}

/// A pool by its database entry and its server-side user.
pub type PoolName = (String, String);

/// What a worker is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Queries wait and servers are closed as they fall free. Done when none is in use.
    Pause(Scope),
    /// Queries go on. What was paused as a whole and what was paused by name are resumed apart.
    Resume(Scope),
    /// Clients who log in to this database are turned away.
    Disable(String),
    /// They are not any more.
    Enable(String),
    /// Servers are closed as they fall free, idle ones at once; what the pools' clients are greeted with is forgotten.
    Reconnect(Scope),
    /// Done when no server that is to be closed is in use.
    WaitClose(Scope),
    /// These databases are paused, their clients and servers closed.
    Kill(Vec<String>),
    /// The client with this number is closed, if it is here.
    KillClient(ConnectionId),
    /// These pools are removed unless they are in use here.
    Forget(Vec<PoolName>),
    /// Clients who log in are turned away, those that are here leave between two transactions.
    Drain,
    /// They do not any more.
    Undrain,
}

/// How an order went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is done.
    Done,
    /// There is no such client here.
    NotFound,
    /// Pools were removed.
    Forgotten {
        /// What they had counted here.
        counted: Vec<PoolRow>,
        /// Those that are in use here and stay.
        kept: Vec<PoolName>,
    },
}

/// What orders leave behind: which databases are paused or disabled, whether clients leave, and how often servers were to be connected anew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// PAUSE without a database, or SIGUSR1.
    pub all_paused: bool,
    /// PAUSE and KILL of single databases.
    pub paused: BTreeSet<String>,
    /// DISABLE.
    pub disabled: BTreeSet<String>,
    /// DRAIN.
    pub draining: bool,
    /// The number of the last RECONNECT of all.
    all_reconnected: u32,
    /// The same of single databases.
    reconnected: BTreeMap<String, u32>,
}

impl Marks {
    /// Takes over what the order with this number leaves behind.
    pub fn obey(&mut self, number: u32, order: &Order) {
        match order {
            Order::Pause(Scope::All) => self.all_paused = true,
            Order::Resume(Scope::All) => self.all_paused = false,
            Order::Pause(Scope::Database(name)) => drop(self.paused.insert(name.clone())),
            Order::Resume(Scope::Database(name)) => drop(self.paused.remove(name)),
            Order::Disable(name) => drop(self.disabled.insert(name.clone())),
            Order::Enable(name) => drop(self.disabled.remove(name)),
            Order::Reconnect(Scope::All) => {
                self.all_reconnected = number;
                self.reconnected.clear();
            }
            Order::Reconnect(Scope::Database(name)) => drop(self.reconnected.insert(name.clone(), number)),
            Order::Kill(names) => self.paused.extend(names.iter().cloned()),
            Order::Drain => self.draining = true,
            Order::Undrain => self.draining = false,
            Order::WaitClose(_) | Order::KillClient(_) | Order::Forget(_) => {}
        }
    }

    /// Whether queries to `database` wait.
    pub fn is_paused(&self, database: &str) -> bool {
        self.all_paused || self.paused.contains(database)
    }

    /// The last RECONNECT that concerns `database`; 0: none.
    pub fn reconnected(&self, database: &str) -> u32 {
        self.reconnected.get(database).copied().unwrap_or(0).max(self.all_reconnected)
    }

    /// These entries are gone from the configuration, and what was said of them with them.
    pub fn forget<'a>(&mut self, databases: impl Iterator<Item = &'a String>) {
        for name in databases {
            self.paused.remove(name);
            self.disabled.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> Scope {
        Scope::Database("app".into())
    }

    #[test]
    fn one_database_and_all_are_paused_apart() {
        let mut marks = Marks::default();
        for (order, app_paused, other_paused) in [
            (Order::Pause(app()), true, false),
            (Order::Pause(Scope::All), true, true),
            (Order::Resume(Scope::All), true, false),
            (Order::Pause(Scope::All), true, true),
            (Order::Resume(app()), true, true),
            (Order::Resume(Scope::All), false, false),
            (Order::Kill(vec!["app".into(), "third".into()]), true, false),
            (Order::Resume(app()), false, false),
        ] {
            marks.obey(1, &order);
            assert_eq!((marks.is_paused("app"), marks.is_paused("other")), (app_paused, other_paused), "{order:?}");
        }
        marks.forget(["third".to_owned()].iter());
        assert_eq!(marks, Marks::default());
    }

    #[test]
    fn the_last_reconnect_counts() {
        let mut marks = Marks::default();
        assert_eq!(marks.reconnected("app"), 0);
        marks.obey(3, &Order::Reconnect(app()));
        assert_eq!((marks.reconnected("app"), marks.reconnected("other")), (3, 0));
        marks.obey(5, &Order::Reconnect(Scope::All));
        assert_eq!((marks.reconnected("app"), marks.reconnected("other")), (5, 5));
        marks.obey(6, &Order::Reconnect(app()));
        assert_eq!((marks.reconnected("app"), marks.reconnected("other")), (6, 5));
    }
}
