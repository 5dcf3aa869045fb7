//! What becomes of a dead worker's seats.
//!
//! PostgreSQL goes on with a dead worker's query, so the seat of a server connection is not free when its worker dies: it becomes
//! draining, the supervisor's, until the backend is gone. The order keeps others from being misled: first the dead worker's waiting bits and idle cells go (nobody
//! gives it anything or asks it), then its clients' seats are freed, then its servers' seats are found.

use super::Shm;
use super::atomic::Ordering;
use super::seat::SeatState;
use super::server::{clear, info, references, server_seats};
use super::table::Words;
use super::worker::WorkerState;
use crate::control::ServerSeats;
use crate::ids::{LimitId, Owner, PoolId, SeatIndex, Slot};
use std::collections::HashSet;

/// A server connection whose worker died: its backend may live on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orphan {
    /// Its seats, now draining.
    pub seats: ServerSeats,
    /// The backend's process and cancel secret. `None`: the worker died before it knew them, and a connection may still be opening.
    pub backend: Option<(u32, u32)>,
    /// Whether a query may be running.
    pub busy: bool,
}

impl Shm {
    /// Clears up after a worker that is known to be dead (its process has been reaped). Afterwards wake those who wait: seats were freed.
    ///
    /// Its connections on their way to another worker are orphans too, unless the receiver accepts them first; those on
    /// their way to it stay their senders', to be taken back with `cancel_lend`. Call it before the slot's next worker is entered in the worker
    /// table: once another incarnation is, the slot's cells are that one's and stay.
    pub fn bury(&self, dead: Owner) -> Vec<Orphan> {
        let row = self.workers().get(dead.slot);
        if row.state == WorkerState::Vacant || row.incarnation == dead.incarnation {
            self.forget(dead.slot);
        }
        self.free_clients(dead);
        let orphans = self.drain_servers(dead);
        self.free_unreferenced(dead);
        orphans
    }

    /// Clears up after a supervisor that is known to be dead: frees what its console's clients had, and what it was about to free. The draining
    /// connections stay, and are [`Self::orphans`].
    pub fn bury_supervisor(&self) {
        self.free_clients(Owner::SUPERVISOR);
        self.free_unreferenced(Owner::SUPERVISOR);
    }

    /// Every draining connection: for a supervisor that was started anew.
    pub fn orphans(&self) -> Vec<Orphan> {
        self.servers().filter_map(|(pool, seat)| self.orphan(pool, seat)).collect()
    }

    /// The orphan's backend is gone: its seats are free. `false`, and nothing happens, when it was none.
    pub fn free_orphan(&self, seats: &ServerSeats) -> bool {
        let Some((word, cell)) = self.server_seat(seats.pool, seats.seat) else { return false };
        if word.read().state() != SeatState::Draining {
            return false;
        }
        self.free_references(cell);
        clear(cell);
        word.follow_free();
        true
    }

    fn forget(&self, slot: Slot) {
        for pool in self.pools() {
            self.pool_state(pool).forget(slot);
        }
        for limit in self.limits() {
            self.limit_state(limit).forget(slot);
        }
    }

    fn free_clients(&self, dead: Owner) {
        let top = self.region().client_cursor.top.load(Ordering::Acquire) as usize;
        for seat in self.region().clients.iter().take(top) {
            // A client that was on its way has its key still if its receiver was quicker.
            if seat.word.drain_of_dead(dead.incarnation) {
                seat.secret.store(0, Ordering::Relaxed);
                seat.word.follow_free();
            }
        }
    }

    fn drain_servers(&self, dead: Owner) -> Vec<Orphan> {
        let mut orphans = Vec::new();
        for (pool, seat) in self.servers() {
            let Some((word, cell)) = self.server_seat(pool, seat) else { continue };
            if word.drain_of_dead(dead.incarnation) {
                self.follow_references(cell, SeatState::Draining, Owner::SUPERVISOR);
                orphans.extend(self.orphan(pool, seat));
            }
        }
        orphans
    }

    /// Frees seats of limits that the dead worker's words hold and no connection refers to: those of its clients, and those it was just taking or leaving.
    /// One that a connection refers to is left alone even here: its receiver has accepted the pool's seat and is about to make the word its own.
    fn free_unreferenced(&self, dead: Owner) {
        let referenced: HashSet<(LimitId, SeatIndex)> = self
            .servers()
            .filter_map(|(pool, seat)| self.server_seat(pool, seat))
            .filter(|(word, _)| !word.read().is_free())
            .flat_map(|(_, cell)| references(cell))
            .flatten()
            .collect();
        for limit in self.limits() {
            let table = self.seats(limit);
            for index in 0..table.len() {
                if !referenced.contains(&(limit, SeatIndex(index as u32)))
                    && let Some(word) = table.word(index)
                {
                    word.free_of_dead(dead.incarnation);
                }
            }
        }
    }

    /// The seats of all pools, free ones too.
    fn servers(&self) -> impl Iterator<Item = (PoolId, SeatIndex)> {
        self.pools().flat_map(|pool| (0..self.pool_seats(pool).len() as u32).map(move |seat| (pool, SeatIndex(seat))))
    }

    fn orphan(&self, pool: PoolId, seat: SeatIndex) -> Option<Orphan> {
        let (word, cell) = self.server_seat(pool, seat)?;
        if word.read().state() != SeatState::Draining {
            return None;
        }
        let beside = info(cell);
        Some(Orphan { seats: server_seats(pool, seat, references(cell)), backend: beside.backend, busy: beside.busy })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ids::Incarnation;
    use crate::shm::{Limit, ServerLimits};

    const A: Owner = Owner { slot: Slot(0), incarnation: Incarnation(2) };
    const B: Owner = Owner { slot: Slot(1), incarnation: Incarnation(3) };

    fn fleet() -> (Shm, PoolId, ServerLimits) {
        let shm = Shm::create().unwrap().0;
        let pool = shm.pool("d", "u").unwrap();
        let limits = ServerLimits {
            pool: 5,
            database: shm.limit(Limit::Database("d")).map(|id| (id, 5)),
            user: shm.limit(Limit::User("u")).map(|id| (id, 5)),
            host: None,
        };
        (shm, pool, limits)
    }

    /// Pool, database and user.
    fn in_use(shm: &Shm, pool: PoolId, limits: &ServerLimits) -> [usize; 3] {
        let count = |limit: Option<(LimitId, usize)>| limit.map_or(0, |(id, _)| shm.seats(id).in_use());
        [shm.pool_seats(pool).in_use(), count(limits.database), count(limits.user)]
    }

    #[test]
    fn a_dead_worker_s_servers_drain_and_the_others_stay() {
        let (shm, pool, limits) = fleet();
        let (idle, busy, opening) = (
            shm.take_server(A, pool, &limits).unwrap(),
            shm.take_server(A, pool, &limits).unwrap(),
            shm.take_server(A, pool, &limits).unwrap(),
        );
        let other = shm.take_server(B, pool, &limits).unwrap();
        shm.set_backend(&idle, 100, 1);
        shm.set_backend(&busy, 200, 2);
        shm.set_busy(&busy, true);
        let orphans = shm.bury(A);
        let expected = [(idle, Some((100, 1)), false), (busy, Some((200, 2)), true), (opening, None, false)];
        assert_eq!(orphans, expected.map(|(seats, backend, busy)| Orphan { seats, backend, busy }));
        assert_eq!(shm.orphans(), orphans);
        assert_eq!((shm.bury(A), in_use(&shm, pool, &limits)), (vec![], [4; 3]));
        assert!(!shm.leave_server(A, &idle) && !shm.free_orphan(&other));
        for orphan in &orphans {
            assert!(shm.free_orphan(&orphan.seats) && !shm.free_orphan(&orphan.seats));
        }
        assert_eq!((in_use(&shm, pool, &limits), shm.orphans()), ([1; 3], vec![]));
        assert!(shm.leave_server(B, &other));
    }

    #[test]
    fn what_it_said_about_itself_is_taken_back() {
        let (shm, pool, limits) = fleet();
        let (user, _) = limits.user.unwrap();
        for slot in [A.slot, B.slot] {
            shm.pool_state(pool).set_idle(slot, 3);
            shm.pool_state(pool).set_oldest(slot, 9);
            shm.pool_state(pool).set_waiting(slot);
            shm.limit_state(user).set_waiting(slot);
        }
        shm.bury(A);
        let nobody = Slot::SUPERVISOR;
        assert_eq!((shm.pool_state(pool).idle(A.slot), shm.pool_state(pool).oldest(A.slot)), (0, None));
        assert_eq!((shm.pool_state(pool).idle(B.slot), shm.pool_state(pool).oldest(B.slot)), (3, Some(9)));
        assert_eq!((shm.pool_state(pool).waiting_others(nobody), shm.limit_state(user).waiting_others(nobody)), (0b10, 0b10));
    }

    #[test]
    fn a_predecessor_is_buried_without_its_successor_s_cells() {
        let (shm, pool, _) = fleet();
        shm.workers().start(Owner { incarnation: Incarnation(7), ..A }, 1, 0, 0);
        shm.pool_state(pool).set_idle(A.slot, 1);
        shm.bury(A);
        assert_eq!(shm.pool_state(pool).idle(A.slot), 1);
    }

    #[test]
    fn its_clients_seats_are_free_at_once() {
        let (shm, _, _) = fleet();
        let per_database = shm.seats(shm.limit(Limit::DatabaseClients("d")).unwrap());
        let keys: Vec<_> = [A, A, B]
            .into_iter()
            .map(|owner| {
                per_database.take(owner, 3).unwrap();
                let seat = shm.clients().take(owner, 3).unwrap();
                shm.clients().new_key(owner, seat, 42, 0).unwrap()
            })
            .collect();
        assert_eq!(shm.bury(A), []);
        assert_eq!((shm.clients().in_use(), per_database.in_use()), (1, 1));
        let found: Vec<_> = keys.into_iter().map(|key| shm.clients().find(key).map(|(_, owner)| owner)).collect();
        assert_eq!(found, [None, None, Some(B)]);
    }

    #[test]
    fn what_a_dead_supervisor_had_is_freed_and_its_orphans_stay() {
        let (shm, pool, limits) = fleet();
        let per_database = shm.seats(shm.limit(Limit::DatabaseClients("d")).unwrap());
        per_database.take(Owner::SUPERVISOR, 3).unwrap();
        let seat = shm.clients().take(A, 3).unwrap();
        let console = shm.clients().take(Owner::SUPERVISOR, 3).unwrap();
        shm.clients().new_key(Owner::SUPERVISOR, console, 42, 0).unwrap();
        shm.take_server(A, pool, &limits).unwrap();
        let orphans = shm.bury(A);
        // It was killed in the middle of another burial.
        let halfway = shm.clients().take(B, 3).unwrap();
        assert!(shm.region().clients[halfway.0 as usize].word.drain_of_dead(B.incarnation));
        shm.bury_supervisor();
        assert_eq!((shm.clients().in_use(), per_database.in_use()), (0, 0), "{seat:?}");
        assert_eq!((shm.orphans(), in_use(&shm, pool, &limits)), (orphans, [1; 3]));
    }

    /// A worker that died between two steps of `take_server`: a seat taken, nothing refers to it yet.
    #[test]
    fn a_seat_taken_and_not_yet_referred_to_is_freed() {
        let (shm, pool, limits) = fleet();
        let taken = shm.take_server(A, pool, &ServerLimits { user: None, ..limits }).unwrap();
        shm.seats(limits.user.unwrap().0).take(A, 5).unwrap();
        let orphans = shm.bury(A);
        assert_eq!((orphans.len(), orphans[0].seats), (1, taken));
        assert_eq!(in_use(&shm, pool, &limits), [1, 1, 0]);
    }

    /// A worker that died in `leave_server`: a reference is gone, the seat it referred to is not free yet.
    #[test]
    fn a_seat_whose_reference_is_gone_is_freed() {
        let (shm, pool, limits) = fleet();
        let seats = shm.take_server(A, pool, &limits).unwrap();
        shm.server_seat(pool, seats.seat).unwrap().1.references[0].store(0, Ordering::Relaxed);
        let orphans = shm.bury(A);
        assert_eq!((orphans.len(), orphans[0].seats), (1, ServerSeats { database: None, ..seats }));
        assert_eq!(in_use(&shm, pool, &limits), [1, 0, 1]);
        assert!(shm.free_orphan(&orphans[0].seats));
        assert_eq!(in_use(&shm, pool, &limits), [0; 3]);
    }

    #[test]
    fn a_lend_that_its_sender_did_not_live_to_see_accepted() {
        let (shm, pool, limits) = fleet();
        let (first, second) = (shm.take_server(A, pool, &limits).unwrap(), shm.take_server(A, pool, &limits).unwrap());
        let tickets = [first, second].map(|seats| shm.begin_lend(A, &seats, B.slot));
        assert!(shm.accept_lend(B, &first, tickets[0]));
        let orphans = shm.bury(A);
        assert_eq!((orphans.len(), orphans[0].seats), (1, second));
        assert!(!shm.accept_lend(B, &second, tickets[1]) && shm.leave_server(B, &first));
        assert_eq!(in_use(&shm, pool, &limits), [1; 3]);
    }

    /// A receiver that died right after the compare-and-swap that made a connection its own: the other words still name the sender.
    #[test]
    fn a_receiver_that_died_in_the_middle_of_accepting() {
        let (shm, pool, limits) = fleet();
        let seats = shm.take_server(A, pool, &limits).unwrap();
        let ticket = shm.begin_lend(A, &seats, B.slot);
        assert!(shm.server_seat(pool, seats.seat).unwrap().0.accept_lend(B, ticket));
        assert_eq!(
            (shm.bury(A), in_use(&shm, pool, &limits)),
            (vec![], [1; 3]),
            "the seats of limits are B's, whatever their words say"
        );
        let orphans = shm.bury(B);
        assert_eq!((orphans.len(), orphans[0].seats), (1, seats));
        assert!(shm.free_orphan(&seats));
        assert_eq!(in_use(&shm, pool, &limits), [0; 3]);
    }
}
