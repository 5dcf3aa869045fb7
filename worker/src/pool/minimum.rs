//! min_pool_size: connections that are kept open although nobody waits for one.
//!
//! The number is the fleet's. Whoever opens one takes a seat of a pool as large as the minimum, so that no two workers open one too many; whoever
//! closes one that has been idle too long leaves as many ([`shared::shm::Shm::begin_leave`]).

use super::PoolIndex;
use crate::worker::{Life, TICK, Worker};
use shared::ids::Slot;
use shared::shm::ServerLimits;

impl Worker {
    /// Entries with a user of their own have their connections before the first client comes, so their pools must be there.
    pub(crate) fn find_pools_to_fill(&mut self) {
        let config = std::rc::Rc::clone(&self.config);
        for entry in config.databases.values().filter(|entry| config.min_pool_size(entry) > 0) {
            if let Some(user) = &entry.user {
                self.find_pool(entry, user);
            }
        }
    }

    /// Opens one connection that the pool lacks, if it is this worker's turn.
    pub(super) fn top_up(&mut self, index: PoolIndex) {
        let pool = self.pools.get(index);
        let in_use = pool.clients > 0 || !pool.to_greet.is_empty() || pool.entry.user.is_some();
        if pool.least == 0 || !in_use || pool.gone || pool.paused || self.life != Life::Serving || !self.may_grow() {
            return;
        }
        let limits = ServerLimits { pool: pool.least, ..pool.limits };
        let id = pool.id;
        if self.shm.pool_seats(id).in_use() >= limits.pool
            || self.retry_not_before(index).is_some()
            || !self.shm.pool_state(id).claim_top_up(self.now.as_micros(), TICK.as_micros() as u64)
        {
            return;
        }
        // A seat that somebody waits for is not taken,
        let shared = [limits.database, limits.user, limits.host];
        if shared.into_iter().flatten().any(|(limit, _)| self.shm.limit_state(limit).waiting_others(Slot::SUPERVISOR) != 0) {
            return;
        }
        // and where there is none, nothing is closed for it.
        let Ok(seats) = self.shm.take_server(self.me, id, &limits) else { return };
        match self.connect_somewhere(index) {
            Some((address, socket)) => {
                self.open_server(index, seats, address, socket, None);
            }
            None => {
                self.shm.leave_server(self.me, &seats);
            }
        }
    }
}
