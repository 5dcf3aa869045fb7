//! Where servers for waiting clients come from: idle ones that must be checked, idle ones of other workers, then new connections, as far as there are seats.

use super::{Pool, PoolIndex};
use crate::client::replication::Dedication;
use crate::server::{Attempt, ServerState};
use crate::worker::Worker;
use shared::address::Address;
use shared::control::{Resolved, ToInbox, ToSupervisor};
use shared::ids::{Owner, Slot};
use shared::shm::{Full, ServerLimits};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// The reason when a name has no address.
const LOOKUP_FAILED: &str = "server DNS lookup failed";

/// The reason when a server is at an address that its name has no longer.
const OBSOLETE: &str = "obsolete connection";

/// An answer to Borrow that has not come by then never will.
pub(crate) const BORROW_PATIENCE: Duration = Duration::from_millis(500);

impl Worker {
    /// Looks for servers for the clients that wait: idle ones that were no use unchecked, other workers' idle ones, then seats.
    pub(crate) fn pump(&mut self, index: PoolIndex) {
        if self.pools.get(index).paused || self.retry_not_before(index).is_some() {
            // A seat would be of no use: nobody is to make way for it.
            self.unblock(index);
        }
        if self.pools.get(index).paused {
            return;
        }
        self.pump_candidates(index);
        self.give_up_borrows(index);
        while self.pools.get(index).unmet_demand() > 0 {
            if self.check_idle(index) {
                continue;
            }
            let pool = self.pools.get(index);
            if self.has_colleagues()
                && self.may_grow()
                && let Some(slot) = self.lender(index)
            {
                let message = ToInbox::Borrow { pool: pool.id, from: self.me.slot };
                if self.send_inbox(slot, &message, &[]) {
                    let now = self.now;
                    let asked = Owner { slot, incarnation: self.shm.workers().get(slot).incarnation };
                    self.pools.get_mut(index).borrows.push((asked, now));
                    continue;
                }
            }
            if self.retry_not_before(index).is_some() {
                return;
            }
            if !self.open_for(index, None) {
                self.pools.get_mut(index).exhausted = true;
                return;
            }
        }
        if self.pools.get(index).waiting_candidates().next().is_none() {
            self.unblock(index);
        }
    }

    /// Forgets questions that will not be answered: the worker that was asked has died or hangs, or the message was lost.
    pub(super) fn give_up_borrows(&mut self, index: PoolIndex) {
        let mut borrows = std::mem::take(&mut self.pools.get_mut(index).borrows);
        borrows.retain(|(asked, since)| {
            self.now - *since < BORROW_PATIENCE
                && self.shm.workers().get(asked.slot).incarnation == asked.incarnation
                && self.is_responsive(asked.slot)
        });
        self.pools.get_mut(index).borrows = borrows;
    }

    /// A worker that answers and has an idle server of this pool, though no fewer than it has been asked for: one that was lent and has not arrived
    /// yet is not idle any more, but the question is still open.
    fn lender(&self, index: PoolIndex) -> Option<Slot> {
        let pool = self.pools.get(index);
        let state = self.shm.pool_state(pool.id);
        // This one has the fence in it; it may name a worker that was asked for all it has, or hangs.
        state.idle_elsewhere(self.me.slot)?;
        let mut others = (0..self.inboxes.len() as u8).map(Slot).filter(|slot| *slot != self.me.slot);
        let asked = |slot: Slot| pool.borrows.iter().filter(|(asked, _)| asked.slot == slot).count();
        others.find(|slot| {
            let idle = state.idle(*slot) as usize;
            idle > 0 && idle >= asked(*slot) && self.is_responsive(*slot)
        })
    }

    /// Whether a worker's heart has beaten of late: from one that hangs nothing is asked, and to it nothing is sent.
    pub(crate) fn is_responsive(&self, slot: Slot) -> bool {
        self.shm.workers().get(slot).is_responsive(self.now.as_micros())
    }

    /// How many of a pool's servers are being closed.
    pub(super) fn making_way(&self, index: PoolIndex) -> usize {
        self.servers.iter().filter(|(_, s)| s.pool == index && matches!(s.state, ServerState::Closing)).count()
    }

    /// Opens one more connection, perhaps for one client alone. False: no seat, or no address yet.
    pub(crate) fn open_for(&mut self, index: PoolIndex, dedication: Option<Box<Dedication>>) -> bool {
        if !self.may_grow() {
            return false;
        }
        let pool = self.pools.get(index);
        if pool.blocked_on.is_some_and(|limit| self.pools.full.contains(&limit)) {
            return false;
        }
        let (id, limits) = (pool.id, pool.limits);
        let with_reserve = ServerLimits { pool: limits.pool + pool.reserve, ..limits };
        let mut taken = self.shm.take_server(self.me, id, &limits);
        let late = if taken == Err(Full::Pool) && dedication.is_none() { self.late_waiter(index) } else { None };
        if late.is_some() {
            taken = self.shm.take_server(self.me, id, &with_reserve);
        }
        match taken {
            Ok(seats) => {
                if let Some(slot) = self.older_elsewhere(index) {
                    return self.yield_seats(index, &seats, slot);
                }
                let pool = self.pools.get_mut(index);
                pool.yielding = None;
                pool.asked_for_room = pool.asked_for_room.saturating_sub(1);
                self.unblock(index);
                let Some((address, socket)) = self.connect_somewhere(index) else {
                    self.shm.leave_server(self.me, &seats);
                    return false;
                };
                if let Some(client) = late {
                    let prefix = self.clients[client].prefix(self.config.settings.listen_port);
                    log::warn!("{prefix} taking connection from reserve_pool");
                }
                self.open_server(index, seats, address, socket, dedication)
            }
            Err(Full::Pool) if dedication.is_some() => {
                if let Some(&victim) = self.pools.get(index).idle.front()
                    && self.making_way(index) <= self.pools.get(index).waiting_candidates().count()
                {
                    self.close_server(victim, "evicted for pool_size");
                }
                false
            }
            Err(full) => {
                let limit = match full {
                    Full::Database => limits.database,
                    Full::User => limits.user,
                    Full::Host => limits.host,
                    Full::Pool | Full::Table => None,
                };
                let Some((limit, _)) = limit else {
                    // It could use no seat of a limit that was in its way before.
                    self.unblock(index);
                    return false;
                };
                if self.pools.get(index).blocked_on == Some(limit) {
                    self.make_room(index, limit);
                    return false;
                }
                self.block(index, limit);
                // Said that it waits: look once more.
                self.open_for(index, dedication)
            }
        }
    }

    /// Begins a connection to the next address, or where that fails at once, to the one after it.
    pub(super) fn connect_somewhere(&mut self, index: PoolIndex) -> Option<(Address, OwnedFd)> {
        loop {
            let address = self.next_address(index)?;
            let attempt = self.begin_connect(index, &address);
            if let Ok(socket) = attempt {
                return Some((address, socket));
            }
            if attempt.is_err_and(|why| why == Attempt::NotNow) || self.retry_not_before(index).is_some() {
                return None;
            }
        }
    }

    /// The address of this pool's next connection. `None`: a name is being looked up, or leads nowhere.
    fn next_address(&mut self, index: PoolIndex) -> Option<Address> {
        let (now, retry) = (self.now, self.login_retry());
        let Pool { id, hosts, .. } = self.pools.get_mut(index);
        for host in hosts.questions(now) {
            self.control.send(&ToSupervisor::Resolve { host }, &[]);
        }
        // The order is the fleet's: two workers that each went by their own would meet at the same host.
        let state = self.shm.pool_state(*id);
        let mut turn = state.host_turn();
        let address = hosts.pick(&mut turn, now, retry);
        state.set_host_turn(turn);
        if address.is_none() && hosts.is_down(now, retry) {
            self.pool_down(index, LOOKUP_FAILED);
        }
        address
    }

    /// The supervisor says what a host name means.
    pub(crate) fn resolved(&mut self, resolved: &Resolved) {
        let Resolved { host, addresses, lifetime } = resolved;
        let (now, retry) = (self.now, self.login_retry());
        for index in self.pools.indices() {
            let pool = self.pools.get_mut(index);
            if !pool.hosts.resolved(host, addresses, now + *lifetime) {
                continue;
            }
            if addresses.is_err() && pool.hosts.is_down(now, retry) {
                log::warn!(target: "process", "{}/{} {LOOKUP_FAILED}: {host}", pool.entry.name, pool.user);
                self.pool_down(index, LOOKUP_FAILED);
            }
            self.close_obsolete(index);
            self.pools.get_mut(index).exhausted = false;
            self.pump(index);
        }
    }

    /// Closes servers at addresses that the pool's name has no longer: idle ones now, the others when they are free.
    fn close_obsolete(&mut self, index: PoolIndex) {
        let hosts = &self.pools.get(index).hosts;
        let mut idle = Vec::new();
        for (at, server) in self.servers.iter_mut().filter(|(_, s)| s.pool == index && hosts.is_obsolete(&s.address)) {
            server.close_reason = Some(OBSOLETE);
            if matches!(server.state, ServerState::Idle) {
                idle.push(at);
            }
        }
        for server in idle {
            self.close_server(server, OBSOLETE);
        }
    }

    /// The client for whom the next connection would be, if it has waited long enough for the reserve.
    fn late_waiter(&self, index: PoolIndex) -> Option<usize> {
        let pool = self.pools.get(index);
        if pool.reserve == 0 {
            return None;
        }
        let mut waiting = pool.waiters.iter().chain(&pool.to_greet).filter(|waiter| self.still_waits(waiter));
        let next = waiting.nth(pool.opening + pool.borrows.len())?;
        (self.now - next.since >= self.config.settings.reserve_pool_timeout).then_some(next.client)
    }
}
