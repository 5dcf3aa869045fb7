//! Pools as one worker sees them: its idle servers, its waiting clients, what it has asked other workers for.
//!
//! A pool is one database entry and one server-side user. The seats, and which workers have clients waiting or servers idle, are in shared
//! memory; [`assign`], [`queue`], [`supply`] and [`release`] bring servers and clients together, [`policy`] holds the decision alone.

mod assign;
mod check;
mod evict;
pub(crate) mod hosts;
mod minimum;
pub(crate) mod policy;
mod queue;
mod release;
mod setup;
pub(crate) mod share;
pub(crate) mod supply;
mod unproven;

pub(crate) use setup::NO_ROOM;

use crate::client::Identity;
use crate::client::replication::Candidate;
use crate::clock::Instant;
use crate::params::Params;
use hosts::Hosts;
use rustc_hash::{FxHashMap, FxHashSet};
use shared::auth::Secret;
use shared::config::{Database, PoolMode};
use shared::control::MemoryRow;
use shared::ids::{ConnectionId, LimitId, Owner, PoolId, Slot};
use shared::shm::ServerLimits;
use slab::Slab;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

/// A pool's place among this worker's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct PoolIndex(u32);

/// One pool.
#[allow(clippy::struct_excessive_bools)] // independent facts, not one state
pub(crate) struct Pool {
    pub(crate) id: PoolId,
    pub(crate) entry: Arc<Database>,
    /// The user that its servers log in as.
    pub(crate) user: String,
    pub(crate) mode: PoolMode,
    pub(crate) limits: ServerLimits,
    /// How many more than the pool's limit there may be when a client has waited for reserve_pool_timeout.
    pub(crate) reserve: usize,
    /// How many connections are kept open while the pool is in use: min_pool_size, not above the pool's limit.
    pub(crate) least: usize,
    /// Grows when its connections must be opened anew.
    pub(crate) epoch: u64,
    /// The configuration that made it grow last.
    pub(crate) reconnect_generation: u64,
    pub(crate) hosts: Hosts,
    /// Queries wait: it is paused by name, or the whole fleet is.
    pub(crate) paused: bool,
    /// Its entry is no longer in the configuration.
    pub(crate) gone: bool,

    /// Idle servers, the one used last at the back.
    pub(crate) idle: VecDeque<usize>,
    /// Waiting clients, the longest at the front; some have gone.
    pub(crate) waiters: VecDeque<Waiter>,
    /// How many of them still wait.
    pub(crate) waiting: usize,
    /// Replication clients that wait for a server of their own.
    pub(crate) candidates: Vec<Candidate>,
    /// Clients that are logged in but not greeted.
    pub(crate) to_greet: Vec<Waiter>,
    /// Connections being opened, and idle ones being checked: each will serve a client that waits.
    pub(crate) opening: usize,
    /// Workers that were asked for a server, and when.
    pub(crate) borrows: Vec<(Owner, Instant)>,
    /// Nothing was to be had when last looked, and whoever frees something will say so.
    pub(crate) exhausted: bool,
    /// It is one of `Pools::with_waiters`.
    listed: bool,
    /// The other workers know that clients here wait for a server.
    announced: bool,
    /// The limit above the pool's own that is in the way.
    pub(crate) blocked_on: Option<LimitId>,
    /// How many servers other workers were asked to close for it since the last tick.
    asked_for_room: usize,
    /// Since when a seat of such a limit has been left to another worker's client that has waited longer.
    yielding: Option<Instant>,

    /// What clients are greeted with, since the first server logged in.
    pub(crate) welcome: Option<Rc<Greeting>>,
    /// What PostgreSQL said unasked while that server's connection started, for the first client that is greeted.
    pub(crate) notices: Vec<u8>,
    /// How PostgreSQL spells the startup values that clients have asked for, by lower-case name and value.
    pub(crate) known_values: FxHashMap<(String, String), String>,
    pub(crate) failure: Option<(Instant, String)>,
    /// What auth_query has said of its user last: its servers log in with it.
    pub(crate) secret: Option<Secret>,
    /// Logged-in clients.
    pub(crate) clients: usize,
    pub(crate) stats: Stats,
}

/// A client in a pool's queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiter {
    pub(crate) client: usize,
    pub(crate) id: ConnectionId,
    pub(crate) since: Instant,
    /// When query_wait_timeout ends the wait.
    pub(crate) deadline: Option<Instant>,
    /// query_wait_notify has told it.
    pub(crate) notified: bool,
}

/// The parameters of a pool's first server.
pub(crate) struct Greeting {
    /// Those that no client can change.
    pub(crate) fixed: Vec<(String, String)>,
    pub(crate) tracked: Params,
}

impl Greeting {
    /// All of them.
    pub(crate) fn parameters(&self) -> Vec<(String, String)> {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        self.fixed.iter().cloned().chain(self.tracked.reported().map(owned)).collect()
    }
}

/// SHOW STATS' counters.
#[derive(Default, Clone, Copy)]
pub(crate) struct Stats {
    pub(crate) server_assignment_count: u64,
    pub(crate) xact_count: u64,
    pub(crate) query_count: u64,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) xact_time_us: u64,
    pub(crate) query_time_us: u64,
    pub(crate) wait_time_us: u64,
    pub(crate) client_parse_count: u64,
    pub(crate) server_parse_count: u64,
    pub(crate) bind_count: u64,
    pub(crate) client_login_count: u64,
}

impl Pool {
    /// A connection could not be made.
    pub(crate) fn failed(&mut self, now: Instant, text: String) {
        self.failure = Some((now, text));
    }

    /// A worker has answered one question for a server, or given one unasked: the answer to that will find nobody waiting.
    pub(crate) fn borrow_answered(&mut self, by: Slot) {
        if let Some(first) = self.borrows.iter().position(|(asked, _)| asked.slot == by) {
            self.borrows.remove(first);
        }
    }

    /// Clients that any connection of the pool would be of use to.
    fn demand(&self) -> usize {
        self.waiting + usize::from(self.welcome.is_none() && !self.to_greet.is_empty())
    }

    /// Of the demand, what is neither being opened nor asked for.
    fn unmet_demand(&self) -> usize {
        let for_one_client = self.candidates.iter().filter(|candidate| candidate.opening).count();
        self.demand().saturating_sub(self.opening.saturating_sub(for_one_client) + self.borrows.len())
    }

    /// Replication clients whose connection is not being opened yet.
    fn waiting_candidates(&self) -> impl Iterator<Item = &Waiter> {
        self.candidates.iter().filter(|candidate| !candidate.opening).map(|candidate| &candidate.waiter)
    }
}

/// All pools of this worker.
#[derive(Default)]
pub(crate) struct Pools {
    all: Slab<Pool>,
    by_name: FxHashMap<(String, String), PoolIndex>,
    by_id: FxHashMap<PoolId, PoolIndex>,
    identities: FxHashSet<Rc<Identity>>,
    /// Pools with a client waiting, for a server or for the greeting.
    pub(crate) with_waiters: Vec<PoolIndex>,
    /// Limits found full in the present round of `pump_waiting`.
    full: Vec<LimitId>,
    /// What other workers have learned, of pools that this one does not have yet.
    pub(crate) welcomes: FxHashMap<(String, String), Vec<(String, String)>>,
}

impl Pools {
    #[inline]
    pub(crate) fn get(&self, index: PoolIndex) -> &Pool {
        &self.all[index.0 as usize]
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: PoolIndex) -> &mut Pool {
        &mut self.all[index.0 as usize]
    }

    /// Places of all pools, for loops that change them.
    pub(crate) fn indices(&self) -> Vec<PoolIndex> {
        self.all.iter().map(|(index, _)| PoolIndex(index as u32)).collect()
    }

    /// What auth_query has said of the pools' users.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.all.iter().filter_map(|(_, pool)| pool.secret.as_ref())
    }

    pub(crate) fn find(&self, database: &str, user: &str) -> Option<PoolIndex> {
        self.by_name.get(&(database.to_owned(), user.to_owned())).copied()
    }

    pub(crate) fn by_id(&self, id: PoolId) -> Option<PoolIndex> {
        self.by_id.get(&id).copied()
    }

    fn add(&mut self, pool: Pool) -> PoolIndex {
        let (name, id) = ((pool.entry.name.clone(), pool.user.clone()), pool.id);
        let index = PoolIndex(self.all.insert(pool) as u32);
        self.by_name.insert(name, index);
        self.by_id.insert(id, index);
        index
    }

    /// Takes a pool out that nothing refers to.
    fn remove(&mut self, index: PoolIndex) {
        let pool = self.all.remove(index.0 as usize);
        let name = (pool.entry.name.clone(), pool.user);
        self.by_name.remove(&name);
        self.by_id.remove(&pool.id);
        self.welcomes.remove(&name);
    }

    /// For SHOW MEM.
    pub(crate) fn memory(&self) -> MemoryRow {
        crate::memory::places("pool_cache", &self.all)
    }

    /// One object for equal pairs of names.
    pub(crate) fn identity(&mut self, database: String, user: String) -> Rc<Identity> {
        let identity = Identity { database, user };
        if let Some(known) = self.identities.get(&identity) {
            return Rc::clone(known);
        }
        if self.identities.len() >= 4096 {
            self.identities.retain(|identity| Rc::strong_count(identity) > 1);
        }
        let identity = Rc::new(identity);
        self.identities.insert(Rc::clone(&identity));
        identity
    }
}
