//! Clients that go to another worker before a byte of theirs is read, so that all workers have about as many.
//!
//! The kernel spreads TCP clients by a hash, and clients of the Unix socket go to whoever is awake first. Whoever accepts one while it has
//! more than its share passes the socket on, with the time of its accept; the receiver serves it as if it had accepted it itself.

use crate::client::accept::{ACCEPT_RESERVE, Arrival};
use crate::worker::{Life, Worker};
use shared::balance::{self, Candidate};
use shared::control::ToInbox;
use shared::ids::Slot;
use std::os::fd::AsFd;

/// How often a worker looks again when another sends a client to the same place at the same moment.
const TRIES: usize = 4;

impl Worker {
    /// Passes a client on if another worker should serve it; one that leaves passes on all it can. False: it is this worker's.
    pub(crate) fn hand_over(&mut self, arrival: &Arrival) -> bool {
        if !self.has_colleagues() || !self.config.settings.accept_balance || matches!(self.life, Life::Stopping(_)) {
            return false;
        }
        let Some(to) = self.claim_better_place() else { return false };
        let message = ToInbox::Client { accepted_at: arrival.accepted_at.as_micros(), address: arrival.address };
        let sent = self.send_inbox(to, &message, &[arrival.fd.as_fd()]);
        if sent {
            self.shm.workers().count_hand_over(self.me.slot);
        } else {
            self.shm.workers().arrived(to);
        }
        sent
    }

    /// The worker that should have one more client, which is counted there already.
    fn claim_better_place(&self) -> Option<Slot> {
        let table = self.shm.workers();
        for _ in 0..TRIES {
            let better = if self.life == Life::Leaving {
                balance::emptiest(self.others())?
            } else {
                let mine = self.client_count() + table.get(self.me.slot).arriving;
                balance::better_place(mine, self.others())?
            };
            if table.announce(&better) {
                return Some(better.slot);
            }
        }
        None
    }

    /// The other workers that may be given clients, the next slot first: not all look at the same one first.
    fn others(&self) -> impl Iterator<Item = Candidate> {
        let (slots, me, now) = (self.inboxes.len(), self.me.slot.index(), self.now.as_micros());
        let others = (1..slots).map(move |step| Slot(((me + step) % slots) as u8));
        others.filter_map(move |slot| self.shm.workers().candidate(slot, now))
    }

    /// A client that another worker has accepted is there.
    pub(super) fn client_handed_over(&mut self, arrival: Arrival) {
        self.welcome_socket(arrival);
        self.shm.workers().arrived(self.me.slot);
    }

    /// Tells the others how many clients there are here, also in the middle of a turn: many may come in one.
    pub(crate) fn tell_clients(&self) {
        let full = !self.has_spare_descriptors(ACCEPT_RESERVE);
        self.shm.workers().set_clients(self.me.slot, self.client_count(), full);
    }
}
