//! Telling workers that a seat has fallen free. One told in vain looks and goes back to sleep.

use shared::control::{ServerSeats, ToInbox, encode};
use shared::ids::{MAX_WORKERS, Slot};
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
    fn wake(&self, slot: Slot) {
        let ends = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let (Some(end), Ok(bytes)) = (ends.get(slot.index()), encode(&ToInbox::Wake)) else { return };
        if let Err(error) = seqpacket::send(end.as_fd(), &bytes, &[]) {
            log::debug!("could not wake worker {slot}: {error}");
        }
    }
}

/// Wakes whoever waits for one of these seats, which are free now.
pub(super) fn wake_for(shm: &Shm, inboxes: &Inboxes, seats: &ServerSeats) {
    wake_all(inboxes, shm.waiting_beside(Slot::SUPERVISOR, seats));
}

/// Wakes whoever waits at all: seats of a dead worker are free.
pub(crate) fn wake_waiters(shm: &Shm, inboxes: &Inboxes) {
    let pools = shm.pools().map(|pool| shm.pool_state(pool).waiting_others(Slot::SUPERVISOR));
    let limits = shm.limits().map(|limit| shm.limit_state(limit).waiting_others(Slot::SUPERVISOR));
    wake_all(inboxes, pools.chain(limits).fold(0, |all, some| all | some));
}

fn wake_all(inboxes: &Inboxes, slots: u64) {
    for slot in (0..MAX_WORKERS as u8).filter(|slot| slots & (1 << slot) != 0).map(Slot) {
        inboxes.wake(slot);
    }
}
