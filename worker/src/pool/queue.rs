//! Clients that wait for a server: in their pool's queue, or for the greeting that the pool's first server brings.
//!
//! Entries of clients that have gone stay until they come to the front. What the other workers need to know, that clients wait here and since
//! when, is published at every change.

use super::{PoolIndex, Waiter};
use crate::client::{Ending, Link};
use crate::clock::Instant;
use crate::worker::Worker;
use shared::ids::ConnectionId;
use shared::wire::report;
use std::time::Duration;

/// How long a client waits for a server that is to say how it spells the client's startup values.
const GREETING_PATIENCE: Duration = Duration::from_millis(500);

impl Worker {
    pub(super) fn enqueue(&mut self, client: usize, index: PoolIndex) {
        let now = self.now;
        let id = self.clients[client].id;
        let Some(session) = self.clients[client].session_mut() else { return };
        session.link = Link::Waiting(now);
        let timeout = self.config.query_wait_timeout(&self.pools.get(index).entry, &session.who.user);
        self.join_queue(client, id, index, timeout);
    }

    /// A login waits for auth_query as a client would.
    pub(crate) fn enqueue_login(&mut self, client: usize, index: PoolIndex) {
        let id = self.clients[client].id;
        let Some(who) = self.login_waits(client, index) else { return };
        let timeout = self.config.query_wait_timeout(&self.pools.get(index).entry, &who.user);
        self.join_queue(client, id, index, timeout);
    }

    /// A client that has waited elsewhere since then takes its place.
    pub(crate) fn enqueue_moved(&mut self, client: usize, index: PoolIndex, since: Instant, notified: bool) {
        let id = self.clients[client].id;
        let Some(session) = self.clients[client].session_mut() else { return };
        session.link = Link::Waiting(since);
        let timeout = self.config.query_wait_timeout(&self.pools.get(index).entry, &session.who.user);
        self.join_queue_at(index, Waiter { client, id, since, deadline: timeout.map(|t| since + t), notified });
    }

    fn join_queue(&mut self, client: usize, id: ConnectionId, index: PoolIndex, timeout: Option<Duration>) {
        let now = self.now;
        self.join_queue_at(index, Waiter { client, id, since: now, deadline: timeout.map(|t| now + t), notified: false });
    }

    fn join_queue_at(&mut self, index: PoolIndex, waiter: Waiter) {
        let pool = self.pools.get_mut(index);
        let behind = pool.waiters.iter().rev().take_while(|other| other.since > waiter.since).count();
        pool.waiters.insert(pool.waiters.len() - behind, waiter);
        pool.waiting += 1;
        self.announce(index);
        let pool = self.pools.get(index);
        if !pool.exhausted || !pool.idle.is_empty() {
            self.pump(index);
        }
    }

    /// A client waits for the pool's greeting: its first server brings it.
    pub(crate) fn await_welcome(&mut self, client: usize, index: PoolIndex, login_user: &str) {
        let (id, now) = (self.clients[client].id, self.now);
        let pool = self.pools.get_mut(index);
        let timeout = self.config.query_wait_timeout(&pool.entry, login_user);
        pool.to_greet.push(Waiter { client, id, since: now, deadline: timeout.map(|t| now + t), notified: false });
        self.announce(index);
        self.pump(index);
    }

    /// Keeps the list of pools with waiters, and tells the other workers whether clients wait here, and since when.
    pub(crate) fn announce(&mut self, index: PoolIndex) {
        let pool = self.pools.get_mut(index);
        let listed = pool.demand() > 0 || !pool.candidates.is_empty();
        if std::mem::replace(&mut pool.listed, listed) != listed {
            if listed {
                self.pools.with_waiters.push(index);
            } else {
                // Whoever frees something tells those who wait, and nobody does any more.
                pool.exhausted = false;
                self.pools.with_waiters.retain(|&other| other != index);
                self.unblock(index);
            }
        }
        if let Some(limit) = self.pools.get(index).blocked_on {
            self.publish_block(limit);
        }
        if !self.has_colleagues() {
            return;
        }
        let oldest = self.longest_wait(index);
        let pool = self.pools.get_mut(index);
        let waiting = pool.demand() > 0 || pool.waiting_candidates().next().is_some();
        let changed = std::mem::replace(&mut pool.announced, waiting) != waiting;
        let (state, slot) = (self.shm.pool_state(pool.id), self.me.slot);
        state.set_oldest(slot, oldest.map_or(0, Instant::as_micros));
        if changed && waiting {
            state.set_waiting(slot);
        } else if changed {
            state.clear_waiting(slot);
        }
    }

    /// The first colleague comes: what a lone worker keeps to itself is said now, and then looked at once more.
    pub(crate) fn publish_pools(&mut self) {
        for index in self.pools.indices() {
            self.announce(index);
            let pool = self.pools.get(index);
            self.shm.pool_state(pool.id).set_idle(self.me.slot, pool.idle.len() as u32);
        }
        self.pump_waiting();
    }

    /// Since when the longest waiter waits, those for the greeting and for a connection of their own included.
    pub(super) fn longest_wait(&mut self, index: PoolIndex) -> Option<Instant> {
        let for_server = self.longest_waiter(index);
        let pool = self.pools.get(index);
        let others = pool.to_greet.first().into_iter().chain(pool.waiting_candidates());
        for_server.into_iter().chain(others.map(|waiter| waiter.since)).min()
    }

    /// Since when the longest waiter waits; waiters that have gone are taken off the front.
    pub(super) fn longest_waiter(&mut self, index: PoolIndex) -> Option<Instant> {
        let clients = &self.clients;
        let pool = self.pools.get_mut(index);
        while let Some(waiter) = pool.waiters.front() {
            if clients.get(waiter.client).is_some_and(|c| c.id == waiter.id && c.is_waiting()) {
                return Some(waiter.since);
            }
            pool.waiters.pop_front();
        }
        None
    }

    /// Whether the client still is where its entry in a queue says.
    pub(crate) fn still_waits(&self, waiter: &Waiter) -> bool {
        self.clients.get(waiter.client).is_some_and(|c| c.id == waiter.id && c.is_waiting())
    }

    /// A waiting client has gone.
    pub(crate) fn waiter_left(&mut self, index: PoolIndex) {
        let pool = self.pools.get_mut(index);
        pool.waiting -= 1;
        if pool.waiting == 0 {
            self.queue_emptied(index);
        }
        self.announce(index);
    }

    pub(crate) fn queue_emptied(&mut self, index: PoolIndex) {
        let pool = self.pools.get_mut(index);
        pool.exhausted = false;
        pool.waiters.clear();
    }

    /// A pool that nothing refers to is gone, and nobody waits in it.
    pub(crate) fn forget_pool(&mut self, index: PoolIndex) {
        self.unblock(index);
        self.announce(index);
        self.pools.remove(index);
    }

    /// Gives up on answers that never came, and on waits that have lasted too long; looks again at what may have been missed.
    pub(crate) fn tick_pools(&mut self) {
        let now = self.now;
        for index in self.pools.indices() {
            self.give_up_borrows(index);
            let pool = self.pools.get_mut(index);
            pool.asked_for_room = 0;
            let clients = &self.clients;
            pool.to_greet.retain(|w| clients.get(w.client).is_some_and(|c| c.id == w.id && c.is_waiting()));
            self.announce(index);
            if !self.pools.get(index).listed {
                if self.has_colleagues() {
                    self.help_others(index);
                }
                continue;
            }
            let pool = self.pools.get(index);
            let expired: Vec<usize> = pool
                .waiters
                .iter()
                .chain(&pool.to_greet)
                .filter(|w| w.deadline.is_some_and(|deadline| deadline <= now) && self.still_waits(w))
                .chain(pool.candidates.iter().map(|c| &c.waiter).filter(|w| w.deadline.is_some_and(|deadline| deadline <= now)))
                .map(|w| w.client)
                .collect();
            for client in expired {
                self.close_client(client, &Ending::violation("query_wait_timeout"));
            }
            self.greet_impatient(index);
            self.expire_query_timeout(index);
            self.notify_waiters(index);
        }
        self.pump_waiting();
        // Nobody waits for these: they take what is left.
        for index in self.pools.indices() {
            self.top_up(index);
        }
    }

    /// What this worker has of a pool that nobody here wants is lent, or closed, for those who wait elsewhere.
    fn help_others(&mut self, index: PoolIndex) {
        if !self.pools.get(index).idle.is_empty()
            && let Some((slot, _)) = self.waiting_elsewhere(index)
        {
            self.lend_idle(index, slot);
        }
        self.make_room_for_others(index);
    }

    /// A full pool must not hold up logins for the sake of their values' spelling.
    fn greet_impatient(&mut self, index: PoolIndex) {
        let now = self.now;
        let waiters = self.pools.get(index).waiters.iter();
        let late = waiters.take_while(|w| now - w.since > GREETING_PATIENCE);
        let late: Vec<usize> =
            late.filter(|w| self.still_waits(w) && self.may_be_greeted_unlearned(w.client)).map(|w| w.client).collect();
        for client in late {
            self.greet_unlearned(client);
        }
    }

    /// query_wait_notify: a client that has waited for longer is told why it gets no answer.
    fn notify_waiters(&mut self, index: PoolIndex) {
        let (patience, now) = (self.config.settings.query_wait_notify, self.now);
        if patience.is_zero() {
            return;
        }
        let Self { pools, clients, buffers, .. } = self;
        let waiters = pools.get_mut(index).waiters.iter_mut();
        for waiter in waiters.take_while(|w| now - w.since > patience).filter(|w| !w.notified) {
            waiter.notified = true;
            if let Some(client) = clients.get_mut(waiter.client).filter(|c| c.id == waiter.id && c.is_waiting() && c.is_greeted()) {
                let mut notice = Vec::new();
                report::notice(&mut notice, "No server connection available in postgres backend, client being queued");
                // A socket that is broken is found out when it is read.
                let _ = client.conn.send(&notice, buffers);
            }
        }
    }

    /// query_timeout holds for the time in the queue too.
    fn expire_query_timeout(&mut self, index: PoolIndex) {
        let pool = self.pools.get(index);
        let Some(timeout) = self.config.query_timeout(&pool.user) else { return };
        let now = self.now;
        let late: Vec<usize> =
            pool.waiters.iter().filter(|w| now - w.since > timeout && self.still_waits(w)).map(|w| w.client).collect();
        for client in late {
            self.close_client(client, &Ending::violation("query_timeout"));
        }
    }
}
