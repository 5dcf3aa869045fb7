//! The fleet grows, or this worker's slot is to be no more.
//!
//! A worker that leaves takes no new client and hands those it has over to workers that stay ([`super::handover`]); it serves the rest until it can, or
//! they have left. Its idle servers it gives to workers that stay, instead of closing them: all at once, and later each one that has been idle for a
//! tick, since one that is in use again and again is better kept than passed to and fro. When nothing is left it exits.

use crate::worker::{Life, Listener, TICK, Worker};
use shared::control::ReportKind;
use shared::ids::Slot;
use shared::shm::WorkerState;
use std::os::fd::OwnedFd;
use std::time::Duration;

impl Worker {
    /// The fleet has more slots: how to reach their workers.
    pub(super) fn colleagues_join(&mut self, first: u8, fds: Vec<OwnedFd>) {
        let before = self.inboxes.len();
        for (slot, fd) in (usize::from(first)..).zip(fds) {
            self.reach(slot, fd);
        }
        self.have_joined(before);
    }

    /// Those of all slots, as another supervisor has them. One that was lost on the way is reached as before.
    pub(super) fn replace_inboxes(&mut self, fds: Vec<OwnedFd>) {
        let before = self.inboxes.len();
        for (slot, fd) in fds.into_iter().enumerate() {
            self.reach(slot, fd);
        }
        self.have_joined(before);
    }

    /// How to reach that slot's worker from now on. There may have been another way to it: a version that failed had as many slots, and their inboxes
    /// ended with it.
    fn reach(&mut self, slot: usize, fd: OwnedFd) {
        if let Err(error) = socket2::SockRef::from(&fd).set_nonblocking(true) {
            return log::error!(target: "process", "could not prepare the inbox of worker {slot}: {error}");
        }
        if let Some(inbox) = self.inboxes.get_mut(slot) {
            *inbox = fd;
        } else if slot == self.inboxes.len() {
            self.inboxes.push(fd);
        }
    }

    /// There were `before` slots.
    fn have_joined(&mut self, before: usize) {
        self.rewatch_unix(before);
        if before == 1 && self.inboxes.len() > 1 {
            self.publish_pools();
        }
    }

    /// This slot is to be no more.
    pub(super) fn leave(&mut self) {
        if self.life != Life::Serving {
            return;
        }
        self.life = Life::Leaving;
        self.shm.workers().set_state(self.me.slot, WorkerState::Draining);
        self.close_listeners(|listener| matches!(listener, Listener::Unix(_)));
        self.give_servers_away(Duration::ZERO);
    }

    /// It is to stay after all.
    pub(super) fn stay(&mut self) {
        if self.life == Life::Leaving {
            self.life = Life::Serving;
            self.shm.workers().set_state(self.me.slot, WorkerState::Serving);
        }
    }

    pub(crate) fn tick_leaving(&mut self) {
        if self.life == Life::Leaving {
            self.give_servers_away(TICK);
        }
    }

    /// Whether this worker, which leaves, has nothing left to wait for.
    pub(crate) fn has_left(&mut self) -> bool {
        if !self.is_empty() {
            return false;
        }
        // A message may have come for it meanwhile.
        self.inbox_readable();
        if self.is_empty() {
            self.report(0, ReportKind::Pools);
            self.life = Life::Left;
        }
        self.life == Life::Left
    }

    fn is_empty(&self) -> bool {
        self.clients.is_empty()
            && self.servers.is_empty()
            && self.carriers.is_empty()
            && self.lends.is_empty()
            && self.moves.is_empty()
            && self.listeners.iter().all(|listener| matches!(listener, Listener::Closed))
    }

    /// Lends what has been idle for so long to the workers that stay, the one with the fewest servers first.
    fn give_servers_away(&mut self, idle_for: Duration) {
        let mut heirs = self.heirs();
        for index in self.pools.indices() {
            // Each once: one that cannot be sent now stays.
            for _ in 0..self.pools.get(index).idle.len() {
                let Some((slot, servers)) = heirs.iter_mut().min_by_key(|(_, servers)| *servers) else { return };
                let Some(server) = self.take_idle_for(index, idle_for) else { break };
                *servers += 1;
                self.lend(server, *slot);
            }
        }
    }

    /// Workers that stay, and how many servers each has; of another build's, what each was sent.
    pub(super) fn heirs(&self) -> Vec<(Slot, u32)> {
        if self.strangers.are_coming() {
            return self.strangers.heirs(self.now);
        }
        let others = (0..self.inboxes.len() as u8).map(Slot).filter(|slot| *slot != self.me.slot && self.is_responsive(*slot));
        let rows = others.map(|slot| (slot, self.shm.workers().get(slot)));
        rows.filter(|(_, row)| row.state == WorkerState::Serving).map(|(slot, row)| (slot, row.servers)).collect()
    }
}
