//! Who waits, for how long, beside what, and who is served before whom.
//!
//! After every step each waiting client is looked at. What a worker that hangs costs its own clients is not held against the others.

use super::Simulation;
use super::invariants::pool_of;
use super::scenario::{Plan, Trouble};
use crate::clock::Instant;
use crate::fleet::lend::PATIENCE;
use crate::pool::policy::ROOM_SLACK;
use crate::pool::share::YIELD_PATIENCE;
use crate::pool::supply::BORROW_PATIENCE;
use crate::pool::{Pool, PoolIndex};
use crate::worker::{TICK, Worker};
use shared::config::{Config, PoolMode};
use shared::ids::{ConnectionId, LimitId, PoolId, Slot};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// From when a worker hangs until the others know it (`WorkerRow::is_responsive`).
const HEARTBEAT_AGE: Duration = Duration::from_millis(300);

/// While the fleet moves, nobody lends, and its new workers have not started yet.
const UPGRADE: Duration = Duration::from_secs(2);

/// So many messages in a row are not lost.
const LOSSES: u32 = 10;

/// What is remembered from step to step.
pub(super) struct Waits {
    bounds: Bounds,
    clients: BTreeMap<ConnectionId, Wait>,
    /// How many servers the worker whose turn it is had asked others for when it began, by pool.
    asked: Vec<(PoolId, usize)>,
    /// The configuration that it went by then.
    pub(super) config: Option<Rc<Config>>,
}

/// The most that a plan allows.
#[derive(Debug)]
struct Bounds {
    /// From when a client asks until it has a server.
    wait: Duration,
    /// Beside an idle server of its pool, anywhere in the fleet.
    beside_idle: Duration,
    /// Beside a free seat for a connection that nobody opens.
    beside_seat: Duration,
    /// A client of the same pool is served that has waited so much less. `None`: there is no order.
    overtaken: Option<Duration>,
    /// A client of another pool is served on a server whose seat it waits for.
    overtaken_across: Option<Duration>,
}

/// A client in a pool's queue.
struct Wait {
    since: Instant,
    pool: PoolId,
    slot: Slot,
    /// The limit that is in its pool's way, and those that the pool counts in.
    blocked_on: Option<LimitId>,
    limits: [Option<LimitId>; 3],
    /// Since when a server of its pool has been idle somewhere, all the while.
    beside_idle: Option<Instant>,
    /// Since when there has been a free seat, all the while, and fewer connections being opened than clients wait.
    beside_seat: Option<Instant>,
}

impl Bounds {
    fn of(plan: &Plan) -> Self {
        let (us, settings) = (Duration::from_micros, &plan.config.settings);
        // Another worker is asked, and its answer read.
        let round = us(2 * (plan.turn_delay.end + plan.mail_delay.end));
        // Whatever has been missed is seen at a tick.
        let seen = TICK + round;
        let is_lossy = !plan.is_reliable();
        let hangs = plan.troubles.iter().filter_map(|(_, trouble)| match trouble {
            Trouble::Hang(_, time) => Some(*time),
            _ => None,
        });
        let hang: Duration = hangs.sum();
        let deaths = plan.troubles.iter().filter(|(_, trouble)| matches!(trouble, Trouble::Death(..))).count() as u32;
        let asked_in_vain = match (is_lossy, hang.is_zero(), deaths) {
            (false, true, 0) => Duration::ZERO,
            // Asked again and again until its heartbeat is old.
            (false, false, _) => HEARTBEAT_AGE + BORROW_PATIENCE + seen,
            (false, true, _) => BORROW_PATIENCE + seen,
            (true, ..) => LOSSES * seen + BORROW_PATIENCE,
        };
        let in_order = !is_lossy && hang.is_zero();
        // A connection is closed for one to another pool.
        let turnover = us(plan.linger.end + plan.login_time.end) + seen;
        let pools = plan.pools() as u32;
        // A lent connection is lost with its receiver, or a place is kept for a connection that has no socket.
        let faults = deaths * (PATIENCE + seen) + hang + if is_lossy { LOSSES * (PATIENCE + seen) } else { Duration::ZERO };
        let outage = if plan.ends_sessions { Duration::from_secs(2) } else { Duration::ZERO };
        let shares = settings.max_db_connections + settings.max_user_connections + settings.max_host_connections > 0;
        let upgraded = plan.troubles.iter().any(|(_, trouble)| matches!(trouble, Trouble::Upgrade));
        let (in_order, faults) = if upgraded { (false, faults + UPGRADE) } else { (in_order, faults) };
        // Where nothing is missed, and every seat is of use to whoever finds it, nothing waits for a tick.
        let is_simple = plan.is_undisturbed() && !shares;
        let (soon, left) = if is_simple { (TICK / 2 + round, Duration::ZERO) } else { (seen, YIELD_PATIENCE) };
        Self {
            wait: plan.clients.len() as u32 * (plan.hold() + turnover) + faults + asked_in_vain + outage,
            beside_idle: soon + asked_in_vain,
            // It may be left to somebody elsewhere who does not take it.
            beside_seat: left + soon + asked_in_vain,
            overtaken: in_order.then_some(settings.fairness_slack),
            overtaken_across: (plan.is_undisturbed() && settings.pool_mode == PoolMode::Transaction)
                .then_some(pools * (ROOM_SLACK + turnover)),
        }
    }
}

impl Waits {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { bounds: Bounds::of(plan), clients: BTreeMap::new(), asked: Vec::new(), config: None }
    }
}

impl Simulation {
    /// A worker's turn begins.
    pub(super) fn before_turn(&mut self, slot: Slot) {
        let Some(worker) = self.worker(slot) else { return };
        let pools = worker.pools.indices().into_iter().map(|index| worker.pools.get(index));
        let asked = pools.map(|pool| (pool.id, pool.borrows.len())).collect();
        let config = Some(Rc::clone(&worker.config));
        (self.waits.asked, self.waits.config) = (asked, config);
    }

    /// How many servers of this pool the worker whose turn it was had asked others for before.
    pub(super) fn asked_before_turn(&self, id: PoolId) -> usize {
        self.waits.asked.iter().find(|(pool, _)| *pool == id).map_or(0, |(_, asked)| *asked)
    }

    /// Looks at every client that waits.
    pub(super) fn look_at_waiters(&mut self) {
        let mut found: BTreeMap<ConnectionId, Wait> = BTreeMap::new();
        for worker in self.workers() {
            for index in &worker.pools.with_waiters {
                self.look_at_queue(worker, *index, &mut found);
            }
        }
        let before = std::mem::replace(&mut self.waits.clients, found);
        for (id, served) in before.iter().filter(|(id, _)| !self.waits.clients.contains_key(id)) {
            if self.is_served(served.slot, *id) {
                self.check_order(served);
            }
        }
        self.check_waits();
    }

    fn look_at_queue(&self, worker: &Worker, index: PoolIndex, found: &mut BTreeMap<ConnectionId, Wait>) {
        let now = self.schedule.now;
        let pool = worker.pools.get(index);
        let is_well = self.is_well(worker);
        let lenders = self.workers().filter(|other| self.is_well(other));
        let idle = lenders.filter_map(|other| pool_of(other, pool.id)).any(|pool| !pool.idle.is_empty());
        let seat = pool.waiting > pool.opening && self.has_free_seat(worker, index);
        let limits = [pool.limits.database, pool.limits.user, pool.limits.host].map(|limit| limit.map(|(id, _)| id));
        for waiter in pool.waiters.iter().filter(|waiter| worker.still_waits(waiter)) {
            let old = self.waits.clients.get(&waiter.id);
            let since = |holds: bool, old: Option<Instant>| (holds && is_well).then(|| old.unwrap_or(now));
            let wait = Wait {
                since: if is_well { old.map_or(waiter.since, |old| old.since) } else { now },
                pool: pool.id,
                slot: worker.me.slot,
                blocked_on: pool.blocked_on,
                limits,
                beside_idle: since(idle, old.and_then(|old| old.beside_idle)),
                beside_seat: since(seat, old.and_then(|old| old.beside_seat)),
            };
            found.insert(waiter.id, wait);
        }
    }

    fn is_served(&self, slot: Slot, id: ConnectionId) -> bool {
        let client =
            self.worker(slot).and_then(|worker| worker.clients.iter().map(|(_, client)| client).find(|client| client.id == id));
        client.and_then(|client| client.session()?.server()).is_some()
    }

    /// Nobody waits for too long, or beside what it could have.
    fn check_waits(&self) {
        let (now, bounds) = (self.schedule.now, &self.waits.bounds);
        for (id, wait) in &self.waits.clients {
            let check = |what: &str, since: Option<Instant>, most: Duration| {
                let time = since.map_or(Duration::ZERO, |since| now - since);
                assert!(time <= most, "{id} of worker {} {what} {time:?}, {most:?} at most\n{}", wait.slot, self.picture());
            };
            check("waits", Some(wait.since), bounds.wait);
            check("waits beside an idle server", wait.beside_idle, bounds.beside_idle);
            check("waits beside a free seat", wait.beside_seat, bounds.beside_seat);
        }
    }

    /// Nobody has waited too much longer than one who is served.
    fn check_order(&self, served: &Wait) {
        let check = |what: &str, most: Option<Duration>, rivals: &dyn Fn(&Wait) -> bool| {
            let longest = self.waits.clients.values().filter(|other| rivals(other)).map(|other| other.since).min();
            let (Some(longest), Some(most)) = (longest, most) else { return };
            let (by, slot) = (served.since - longest, served.slot);
            assert!(
                by <= most,
                "a client of worker {slot} goes before {what} that has waited {by:?} longer, {most:?} at most\n{}",
                self.picture()
            );
        };
        check("one of its pool", self.waits.bounds.overtaken, &|other| other.pool == served.pool);
        check("one of another pool", self.waits.bounds.overtaken_across, &|other| {
            other.pool != served.pool && other.blocked_on.is_some_and(|limit| served.limits.contains(&Some(limit)))
        });
    }

    /// Whether a connection could be opened for this pool.
    fn has_free_seat(&self, worker: &Worker, index: PoolIndex) -> bool {
        let Pool { id, limits, .. } = worker.pools.get(index);
        let is_free = |limit: Option<(LimitId, usize)>| limit.is_none_or(|(id, most)| self.shm.seats(id).in_use() < most);
        self.shm.pool_seats(*id).in_use() < limits.pool
            && [limits.database, limits.user, limits.host].into_iter().all(is_free)
            && worker.retry_not_before(index).is_none()
    }

    /// It does not hang.
    fn is_well(&self, worker: &Worker) -> bool {
        // Nor does it leave all to others.
        let lives = self.places[worker.me.slot.index()].life.as_ref().is_some_and(|life| life.hung_until.is_none());
        lives && !worker.strangers.are_coming()
    }
}
