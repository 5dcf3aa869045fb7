//! Where servers for waiting clients come from: idle ones of other workers first, then new connections, as far as there are seats.

use super::PoolIndex;
use crate::clock::Instant;
use crate::worker::Worker;
use shared::control::ToInbox;
use shared::ids::Slot;
use shared::shm::Full;
use std::time::Duration;

/// A worker whose heart has not beaten for this long hangs; it beats at least ten times a second.
const HEARTBEAT_AGE: Duration = Duration::from_secs(1);

impl Worker {
    /// Looks for servers for the clients that wait: other workers' idle ones first, then seats.
    pub(crate) fn pump(&mut self, index: PoolIndex) {
        if self.paused {
            return;
        }
        loop {
            let pool = self.pools.get(index);
            if pool.opening + pool.borrows.len() >= pool.demand() {
                return;
            }
            if self.has_colleagues()
                && let Some(slot) = self.lender(index)
            {
                let message = ToInbox::Borrow { pool: pool.id, from: self.me.slot };
                if self.send_inbox(slot, &message, &[]) {
                    let now = self.now;
                    self.pools.get_mut(index).borrows.push((slot, now));
                    continue;
                }
            }
            if self.retry_not_before(index).is_some() {
                return;
            }
            if !self.open_another(index) {
                self.pools.get_mut(index).exhausted = true;
                return;
            }
        }
    }

    /// A worker with an idle server of this pool that answers and has not been asked yet.
    fn lender(&self, index: PoolIndex) -> Option<Slot> {
        let pool = self.pools.get(index);
        let state = self.shm.pool_state(pool.id);
        // This one has the fence in it; it may name a worker that was asked already, or hangs.
        state.idle_elsewhere(self.me.slot)?;
        let mut others = (0..self.inboxes.len() as u8).map(Slot).filter(|slot| *slot != self.me.slot);
        others
            .find(|slot| state.idle(*slot) > 0 && !pool.borrows.iter().any(|(asked, _)| asked == slot) && self.is_responsive(*slot))
    }

    /// Whether a worker's heart has beaten of late: from one that hangs nothing is asked, and to it nothing is sent.
    pub(super) fn is_responsive(&self, slot: Slot) -> bool {
        let beat = Instant::from_micros(self.shm.workers().get(slot).heartbeat_us);
        self.now - beat < HEARTBEAT_AGE
    }

    /// Opens one more connection. False: no seat, or no address yet.
    fn open_another(&mut self, index: PoolIndex) -> bool {
        let pool = self.pools.get(index);
        let limits = pool.limits;
        match self.shm.take_server(self.me, pool.id, &limits) {
            Ok(seats) => {
                let Some(address) = self.next_address(index) else {
                    self.shm.leave_server(self.me, &seats);
                    return false;
                };
                self.unblock(index);
                self.open_server(index, seats, address)
            }
            Err(full) => {
                let limit = match full {
                    Full::Database => limits.database,
                    Full::User => limits.user,
                    Full::Host => limits.host,
                    Full::Pool | Full::Table => None,
                };
                let Some((limit, _)) = limit else { return false };
                if self.pools.get(index).blocked_on == Some(limit) {
                    self.make_room(index, limit);
                    return false;
                }
                self.unblock(index);
                self.pools.get_mut(index).blocked_on = Some(limit);
                self.shm.limit_state(limit).set_waiting(self.me.slot);
                // Said that it waits: look once more.
                self.open_another(index)
            }
        }
    }

    /// As `pump`, for every pool with a client waiting.
    pub(crate) fn pump_waiting(&mut self) {
        for index in self.pools.with_waiters.clone() {
            self.pools.get_mut(index).exhausted = false;
            self.pump(index);
        }
    }
}
