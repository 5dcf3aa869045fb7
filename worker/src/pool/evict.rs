//! Room under a limit that several pools share: an idle server of one makes way for a client of another.
//!
//! Who is turned away by max_db_connections or max_user_connections says so in that limit's waiting word. A worker with an idle server
//! that counts there closes it: at once for a client of its own, at its next tick for another worker's.

use super::{Pool, PoolIndex};
use crate::server::ServerState;
use crate::worker::Worker;
use shared::control::ServerSeats;
use shared::ids::LimitId;

impl Worker {
    /// Closes idle servers of other pools that hold seats of `limit`, as many as this pool has clients waiting.
    pub(super) fn make_room(&mut self, index: PoolIndex, limit: LimitId) {
        let pool = self.pools.get(index);
        let wanted = pool.demand().saturating_sub(pool.opening + pool.borrows.len());
        let leaving = self.servers.iter().filter(|(_, s)| matches!(s.state, ServerState::Closing) && counts_in(&s.seats, limit));
        for _ in leaving.count()..wanted {
            let idle = self.servers.iter().filter(|(_, s)| {
                matches!(s.state, ServerState::Idle) && counts_in(&s.seats, limit) && self.pools.get(s.pool).waiting == 0
            });
            let Some(victim) = idle.min_by_key(|(_, s)| s.since).map(|(victim, _)| victim) else { return };
            let reason = evicted_for(&self.servers[victim].seats, limit);
            self.close_server(victim, reason);
        }
    }

    /// Whether an idle server holds a seat that a client of another pool here waits for.
    pub(super) fn is_in_the_way(&self, seats: &ServerSeats) -> bool {
        self.pools.with_waiters.iter().any(|&index| self.pools.get(index).blocked_on.is_some_and(|limit| counts_in(seats, limit)))
    }

    /// Makes room for clients of other workers: one idle server of this pool for each limit that somebody waits for.
    pub(super) fn make_room_elsewhere(&mut self, index: PoolIndex) {
        let Pool { limits, idle, .. } = self.pools.get(index);
        for (limit, most) in limits.database.into_iter().chain(limits.user).chain(limits.host) {
            let is_full = || self.shm.seats(limit).in_use() >= most;
            if self.shm.limit_state(limit).waiting_others(self.me.slot) == 0 || !is_full() {
                continue;
            }
            if let Some(&victim) = idle.iter().find(|&&server| counts_in(&self.servers[server].seats, limit)) {
                let reason = evicted_for(&self.servers[victim].seats, limit);
                return self.close_server(victim, reason);
            }
        }
    }
}

fn counts_in(seats: &ServerSeats, limit: LimitId) -> bool {
    [seats.database, seats.user, seats.host].into_iter().flatten().any(|(id, _)| id == limit)
}

/// PgBouncer's reason for the log.
fn evicted_for(seats: &ServerSeats, limit: LimitId) -> &'static str {
    let is = |seat: Option<(LimitId, _)>| seat.is_some_and(|(id, _): (_, shared::ids::SeatIndex)| id == limit);
    if is(seats.database) {
        "evicted for max_db_connections"
    } else if is(seats.user) {
        "evicted for max_user_connections"
    } else {
        "evicted for max_host_connections"
    }
}
