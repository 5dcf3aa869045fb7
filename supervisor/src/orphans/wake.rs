//! Telling workers that a seat has fallen free.
//!
//! A client may wait in one pool for the seat of a limit that another pool shares (its database's, its user's), and only the pool's
//! own word says who waits. So every pool that could use the seat is looked at, and its longest waiter's worker is told; one told in vain
//! looks and goes back to sleep.

use shared::control::{ServerSeats, ToInbox, encode};
use shared::ids::{PoolId, Slot};
use shared::shm::Shm;
use shared::sys::seqpacket;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, PoisonError, RwLock};

/// The sending ends of all inboxes, by slot. They live as long as the fleet, and become more when it grows.
#[derive(Debug, Default)]
pub(crate) struct Inboxes(RwLock<Vec<Arc<OwnedFd>>>);

impl Inboxes {
    /// Adds the next slot's end, which must not block.
    pub(crate) fn add(&self, end: OwnedFd) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(end));
    }

    /// The ends.
    pub(crate) fn ends(&self) -> Vec<Arc<OwnedFd>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A message that does not arrive is made good by the worker's own slow tick.
    fn wake(&self, slot: Slot, pool: PoolId) {
        let ends = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let (Some(end), Ok(bytes)) = (ends.get(slot.index()), encode(&ToInbox::Wake { pool })) else { return };
        if let Err(error) = seqpacket::send(end.as_fd(), &bytes, &[]) {
            log::debug!("could not wake worker {slot}: {error}");
        }
    }
}

/// Wakes whoever waits for one of these seats, which are free now.
pub(super) fn wake_for(shm: &Shm, inboxes: &Inboxes, seats: &ServerSeats) {
    if shm.waiting_beside(Slot::SUPERVISOR, seats) == 0 {
        return;
    }
    let Some((database, user)) = shm.pool_names(seats.pool) else { return };
    wake_where(shm, inboxes, |pool| {
        pool == seats.pool
            || seats.host.is_some()
            || shm.pool_names(pool).is_some_and(|(other_database, other_user)| {
                (seats.database.is_some() && other_database == database) || (seats.user.is_some() && other_user == user)
            })
    });
}

/// Wakes the longest waiter of every pool: seats of a dead worker are free.
pub(crate) fn wake_waiters(shm: &Shm, inboxes: &Inboxes) {
    wake_where(shm, inboxes, |_| true);
}

fn wake_where(shm: &Shm, inboxes: &Inboxes, concerned: impl Fn(PoolId) -> bool) {
    for pool in shm.pools() {
        if let Some((slot, _)) = shm.pool_state(pool).longest_waiter(Slot::SUPERVISOR)
            && concerned(pool)
        {
            inboxes.wake(slot, pool);
        }
    }
}
