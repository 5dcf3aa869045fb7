//! A server connection's seats: one in its pool, and one in each limit that it counts in.
//!
//! The pool's seat stands for the connection. Beside it are references to the others, written when those are taken and cleared before they are
//! freed: so a seat of a database, user or host belongs to the pool seat that refers to it, whatever its own word says, and one that a dead
//! worker's word holds and nothing refers to was caught between two steps, when no connection existed. A lend moves the pool's
//! seat alone through transit; the receiver makes the other words follow once it has it.

use super::Shm;
use super::atomic::{Ordering, fence};
use super::layout::ServerCell;
use super::seat::{SeatState, SeatWord, Ticket};
use super::table::Words;
use crate::control::ServerSeats;
use crate::ids::{LimitId, Owner, PoolId, SeatIndex, Slot};

/// The limits that a new server connection counts in. A number of 0 is no limit, `None` not even a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerLimits {
    /// Server connections of the pool.
    pub pool: usize,
    /// max_db_connections.
    pub database: Option<(LimitId, usize)>,
    /// max_user_connections.
    pub user: Option<(LimitId, usize)>,
    /// max_host_connections.
    pub host: Option<(LimitId, usize)>,
}

/// Which limit has no seat left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The pool's own.
    Pool,
    /// max_db_connections.
    Database,
    /// max_user_connections.
    User,
    /// max_host_connections.
    Host,
    /// Shared memory has no room for more seats.
    Table,
}

/// What stands beside a pool's seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServerInfo {
    /// The backend's process and cancel secret, once known.
    pub backend: Option<(u32, u32)>,
    /// Whether a query may be running.
    pub busy: bool,
}

/// A seat of a limit as one word: 0 for none.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Reference(pub(super) u64);

impl Reference {
    const SOME: u64 = 1 << 63;

    pub(super) fn new(limit: LimitId, seat: SeatIndex) -> Self {
        Self(Self::SOME | (u64::from(limit.0) << 32) | u64::from(seat.0))
    }

    pub(super) fn get(self) -> Option<(LimitId, SeatIndex)> {
        (self.0 & Self::SOME != 0).then_some((LimitId((self.0 >> 32) as u16), SeatIndex(self.0 as u32)))
    }
}

impl Shm {
    /// Takes the seats of one server connection, in the order pool, database, user, host, and gives back those it has when a later
    /// one is full. Those given back may meanwhile have turned another worker away: read `waiting_others` of them on an error too.
    pub fn take_server(&self, owner: Owner, pool: PoolId, limits: &ServerLimits) -> Result<ServerSeats, Full> {
        let table = self.pool_seats(pool);
        let seat = table.take(owner, limits.pool).ok_or_else(|| full(Full::Pool, limits.pool, table.len()))?;
        let mut taken = [None; 3];
        let others = [(limits.database, Full::Database), (limits.user, Full::User), (limits.host, Full::Host)];
        for (index, (limit, reason)) in others.into_iter().enumerate() {
            let Some((id, most)) = limit else { continue };
            let table = self.seats(id);
            let Some(other) = table.take(owner, most) else {
                self.leave_server(owner, &server_seats(pool, seat, taken));
                return Err(full(reason, most, table.len()));
            };
            if let Some(cell) = self.server_cell(pool, seat) {
                cell.references[index].store(Reference::new(id, other).0, Ordering::Release);
            }
            taken[index] = Some((id, other));
        }
        Ok(server_seats(pool, seat, taken))
    }

    /// A connection that is there takes a seat in every limit that it does not count in yet: those that came after it. Where one is full it takes a
    /// seat beyond, which shows that it is one too many.
    pub fn join_limits(&self, owner: Owner, seats: &ServerSeats, limits: &ServerLimits) -> ServerSeats {
        let mut has = [seats.database, seats.user, seats.host];
        for (index, limit) in [limits.database, limits.user, limits.host].into_iter().enumerate() {
            let (None, Some((id, most)), Some(cell)) = (has[index], limit, self.server_cell(seats.pool, seats.seat)) else {
                continue;
            };
            let table = self.seats(id);
            if let Some(seat) = table.take(owner, most).or_else(|| table.take(owner, 0)) {
                cell.references[index].store(Reference::new(id, seat).0, Ordering::Release);
                has[index] = Some((id, seat));
            }
        }
        server_seats(seats.pool, seats.seat, has)
    }

    /// Frees a connection's seats; its backend must be gone. `false`, and nothing happens, when the pool's seat is not `owner`'s.
    pub fn leave_server(&self, owner: Owner, seats: &ServerSeats) -> bool {
        let Some((word, cell)) = self.server_seat(seats.pool, seats.seat) else { return false };
        if !word.read().is_held_by(owner) {
            return false;
        }
        self.free_references(cell);
        clear(cell);
        word.leave(owner)
    }

    /// Records the connection's backend, so that it can be cancelled should this worker die.
    pub fn set_backend(&self, seats: &ServerSeats, pid: u32, secret: u32) {
        if let Some(cell) = self.server_cell(seats.pool, seats.seat) {
            cell.secret.store(secret, Ordering::Relaxed);
            cell.pid.store(pid, Ordering::Release);
        }
    }

    /// Records whether a query may be running on the connection.
    pub fn set_busy(&self, seats: &ServerSeats, busy: bool) {
        if let Some(cell) = self.server_cell(seats.pool, seats.seat) {
            cell.busy.store(u32::from(busy), Ordering::Relaxed);
        }
    }

    /// Marks a connection as one that is being closed, unless fewer than `keep` that serve would be left. `false`: it is to stay.
    ///
    /// Each marks first and counts afterwards, so of two workers that close at once both see both: one too many may stay, never one too few.
    pub fn begin_leave(&self, seats: &ServerSeats, keep: usize) -> bool {
        let Some(cell) = self.server_cell(seats.pool, seats.seat) else { return true };
        cell.leaving.store(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let stays = keep > 0 && self.serving(seats.pool) < keep;
        if stays {
            cell.leaving.store(0, Ordering::SeqCst);
        }
        !stays
    }

    /// The pool's connections that have logged in and are not being closed.
    fn serving(&self, pool: PoolId) -> usize {
        let seats = (0..self.pool_seats(pool).len() as u32).filter_map(|seat| self.server_seat(pool, SeatIndex(seat)));
        let serves = |(word, cell): &(&SeatWord, &ServerCell)| {
            matches!(word.read().state(), SeatState::Held | SeatState::Transit)
                && cell.pid.load(Ordering::Acquire) != 0
                && cell.leaving.load(Ordering::SeqCst) == 0
        };
        seats.filter(serves).count()
    }

    /// What stands beside a pool's seat.
    pub fn server_info(&self, pool: PoolId, seat: SeatIndex) -> ServerInfo {
        self.server_cell(pool, seat).map_or_else(ServerInfo::default, info)
    }

    /// Whether any connection of the pool, whichever worker's, has logged in: its backend is known.
    pub fn any_backend(&self, pool: PoolId) -> bool {
        let seats = 0..self.pool_seats(pool).len() as u32;
        seats.into_iter().any(|seat| self.server_info(pool, SeatIndex(seat)).backend.is_some())
    }

    /// Puts a connection's seats on the way to the worker of slot `to`. The ticket goes with the descriptor; if `owner` does not hold
    /// the seat, it is one that never matches.
    ///
    /// The receiver may die between reading the ticket and accepting it. So the sender keeps its descriptor until
    /// [`Self::lend_pending`] is false; [`Self::cancel_lend`] takes the connection back at any time before.
    pub fn begin_lend(&self, owner: Owner, seats: &ServerSeats, to: Slot) -> Ticket {
        self.server_seat(seats.pool, seats.seat).and_then(|(word, _)| word.begin_lend(owner, to)).unwrap_or(Ticket(0))
    }

    /// The sender takes the connection back. `false`: the receiver has accepted it, and it is no longer the sender's.
    pub fn cancel_lend(&self, owner: Owner, seats: &ServerSeats, ticket: Ticket) -> bool {
        self.server_seat(seats.pool, seats.seat).is_some_and(|(word, _)| word.cancel_lend(owner, ticket))
    }

    /// The receiver takes the connection over. `false`: it was taken back, or its sender died, or the ticket is for another slot; close the
    /// descriptor. Exactly one accept or cancel succeeds.
    pub fn accept_lend(&self, me: Owner, seats: &ServerSeats, ticket: Ticket) -> bool {
        let Some((word, cell)) = self.server_seat(seats.pool, seats.seat) else { return false };
        if !word.accept_lend(me, ticket) {
            return false;
        }
        self.follow_references(cell, SeatState::Held, me);
        true
    }

    /// Takes a connection over whose seats are `from`'s, a worker of another build: here they are a shadow of those in its region, and who of the two has
    /// the connection has been decided already ([`crate::sys::token`]). `false`: `from` has died, and what became of its seats has been decided too.
    pub fn claim_server(&self, from: Owner, me: Owner, seats: &ServerSeats, (pid, secret): (u32, u32)) -> bool {
        if self.pool_names(seats.pool).is_none() {
            return false;
        }
        let Some((word, cell)) = self.server_seat(seats.pool, seats.seat) else { return false };
        if !word.give(from, me) {
            return false;
        }
        self.follow_references(cell, SeatState::Held, me);
        self.set_backend(seats, pid, secret);
        true
    }

    /// Whether the connection is still on its way.
    pub fn lend_pending(&self, seats: &ServerSeats, ticket: Ticket) -> bool {
        ticket != Ticket(0) && self.server_seat(seats.pool, seats.seat).is_some_and(|(word, _)| word.read().0 == ticket.0)
    }

    pub(super) fn server_seat(&self, pool: PoolId, seat: SeatIndex) -> Option<(&SeatWord, &ServerCell)> {
        let region = self.region();
        let position = self.pool_seats(pool).position(seat.0 as usize)?;
        Some((region.server_words.get(position)?, region.server_cells.get(position)?))
    }

    fn server_cell(&self, pool: PoolId, seat: SeatIndex) -> Option<&ServerCell> {
        self.server_seat(pool, seat).map(|(_, cell)| cell)
    }

    /// Sets the words of the limits' seats that a pool seat refers to.
    pub(super) fn follow_references(&self, cell: &ServerCell, state: SeatState, owner: Owner) {
        for (limit, seat) in references(cell).into_iter().flatten() {
            if let Some(word) = self.seats(limit).word(seat.0 as usize) {
                word.follow(state, owner);
            }
        }
    }

    /// Frees the limits' seats that a pool seat refers to. Each reference goes first: a seat that is free may be another's a moment later.
    pub(super) fn free_references(&self, cell: &ServerCell) {
        for reference in &cell.references {
            let Some((limit, seat)) = Reference(reference.load(Ordering::Acquire)).get() else { continue };
            reference.store(0, Ordering::Release);
            if let Some(word) = self.seats(limit).word(seat.0 as usize) {
                word.follow_free();
            }
        }
    }
}

/// The database's, the user's and the host's seat that a pool seat refers to.
pub(super) fn references(cell: &ServerCell) -> [Option<(LimitId, SeatIndex)>; 3] {
    [0, 1, 2].map(|index: usize| Reference(cell.references[index].load(Ordering::Acquire)).get())
}

/// The seats of a connection from its pool's seat and the others in the order of the references.
pub(super) fn server_seats(
    pool: PoolId,
    seat: SeatIndex,
    [database, user, host]: [Option<(LimitId, SeatIndex)>; 3],
) -> ServerSeats {
    ServerSeats { pool, seat, database, user, host }
}

pub(super) fn info(cell: &ServerCell) -> ServerInfo {
    let pid = cell.pid.load(Ordering::Acquire);
    let backend = (pid != 0).then(|| (pid, cell.secret.load(Ordering::Relaxed)));
    ServerInfo { backend, busy: cell.busy.load(Ordering::Relaxed) != 0 }
}

/// Forgets the backend.
pub(super) fn clear(cell: &ServerCell) {
    for word in [&cell.pid, &cell.secret, &cell.busy, &cell.leaving] {
        word.store(0, Ordering::Relaxed);
    }
}

/// Whether the limit or the room is what kept a seat from being taken: a table that has not grown to its limit could not.
fn full(limit: Full, most: usize, len: usize) -> Full {
    if most == 0 || len < most { Full::Table } else { limit }
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ids::Incarnation;
    use crate::shm::Limit;

    const A: Owner = Owner { slot: Slot(0), incarnation: Incarnation(2) };
    const B: Owner = Owner { slot: Slot(1), incarnation: Incarnation(3) };

    fn fleet() -> (Shm, PoolId, ServerLimits) {
        let shm = Shm::create().unwrap().0;
        let pool = shm.pool("d", "u").unwrap();
        let limit = |what, most| shm.limit(what).map(|id| (id, most));
        let limits = ServerLimits {
            pool: 5,
            database: limit(Limit::Database("d"), 4),
            user: limit(Limit::User("u"), 3),
            host: limit(Limit::Host("h:5432"), 0),
        };
        (shm, pool, limits)
    }

    fn in_use(shm: &Shm, pool: PoolId, limits: &ServerLimits) -> [usize; 4] {
        let count = |limit: Option<(LimitId, usize)>| limit.map_or(0, |(id, _)| shm.seats(id).in_use());
        [shm.pool_seats(pool).in_use(), count(limits.database), count(limits.user), count(limits.host)]
    }

    #[test]
    fn every_limit_counts_and_a_full_one_leaves_no_trace() {
        let (shm, pool, all) = fleet();
        let mut limits = all;
        let taken: Vec<_> = (0..3).map(|_| shm.take_server(A, pool, &limits).unwrap()).collect();
        let mut refused = |change: fn(&mut ServerLimits), reason| {
            change(&mut limits);
            assert_eq!(shm.take_server(B, pool, &limits), Err(reason));
            assert_eq!(in_use(&shm, pool, &all), [3; 4]);
        };
        refused(|_| (), Full::User);
        refused(|limits| limits.database = limits.database.map(|(id, _)| (id, 3)), Full::Database);
        refused(|limits| limits.pool = 3, Full::Pool);
        refused(
            |limits| *limits = ServerLimits { pool: 0, database: None, user: None, host: limits.host.map(|(id, _)| (id, 3)) },
            Full::Host,
        );
        for seats in &taken {
            assert!(!shm.leave_server(B, seats) && shm.leave_server(A, seats) && !shm.leave_server(A, seats));
        }
        assert_eq!(in_use(&shm, pool, &all), [0; 4]);
    }

    #[test]
    fn more_than_there_is_room_for_is_not_the_limit_s_fault() {
        let (shm, pool, _) = fleet();
        let limits = ServerLimits { pool: 20_000, ..ServerLimits::default() };
        let taken = (0..20_000).map_while(|_| shm.take_server(A, pool, &limits).ok()).count();
        assert_eq!((taken, shm.take_server(A, pool, &limits)), (16_384, Err(Full::Table)));
        assert_eq!(shm.take_server(A, pool, &ServerLimits::default()), Err(Full::Table));
    }

    #[test]
    fn a_limit_that_comes_later_counts_what_is_there() {
        let (shm, pool, all) = fleet();
        let limits = ServerLimits { database: all.database.map(|(id, _)| (id, 2)), user: None, ..all };
        let before = ServerLimits { pool: 5, ..ServerLimits::default() };
        let taken: Vec<_> = (0..3).map(|_| shm.take_server(A, pool, &before).unwrap()).collect();
        let joined: Vec<_> = taken.iter().map(|seats| shm.join_limits(A, seats, &limits)).collect();
        assert_eq!(in_use(&shm, pool, &all), [3, 3, 0, 3]);
        let beyond = |seats: &&ServerSeats| seats.database.is_some_and(|(_, seat)| seat.0 >= 2);
        assert_eq!(joined.iter().filter(beyond).count(), 1, "the third is one too many");
        assert_eq!(shm.take_server(B, pool, &limits), Err(Full::Database));
        assert_eq!(shm.join_limits(A, &joined[0], &limits), joined[0]);
        for seats in &joined {
            assert!(shm.leave_server(A, seats));
        }
        assert_eq!(in_use(&shm, pool, &all), [0; 4]);
    }

    #[test]
    fn what_stands_beside_a_seat_goes_with_its_holder() {
        let (shm, pool, limits) = fleet();
        let seats = shm.take_server(A, pool, &limits).unwrap();
        assert_eq!(shm.server_info(pool, seats.seat), ServerInfo::default());
        shm.set_backend(&seats, 4711, 0xffff_ffff);
        shm.set_busy(&seats, true);
        assert_eq!(shm.server_info(pool, seats.seat), ServerInfo { backend: Some((4711, 0xffff_ffff)), busy: true });
        let ticket = shm.begin_lend(A, &seats, B.slot);
        assert!(shm.accept_lend(B, &seats, ticket));
        assert_eq!(shm.server_info(pool, seats.seat).backend, Some((4711, 0xffff_ffff)));
        assert!(shm.leave_server(B, &seats));
        assert_eq!(shm.server_info(pool, seats.seat), ServerInfo::default());
    }

    #[test]
    fn as_many_stay_as_are_to_be_kept() {
        let (shm, pool, limits) = fleet();
        let all: Vec<_> = [A, A, B].into_iter().map(|owner| shm.take_server(owner, pool, &limits).unwrap()).collect();
        for seats in &all[..2] {
            shm.set_backend(seats, 1, 1);
        }
        assert!(!shm.begin_leave(&all[0], 2) && !shm.begin_leave(&all[1], 2), "the third has not logged in");
        shm.set_backend(&all[2], 1, 1);
        assert!(shm.begin_leave(&all[0], 2) && !shm.begin_leave(&all[1], 2) && !shm.begin_leave(&all[2], 2));
        assert!(shm.begin_leave(&all[1], 0), "for another reason");
        assert!(shm.leave_server(A, &all[0]) && !shm.begin_leave(&all[2], 1));
        let new = shm.take_server(A, pool, &limits).unwrap();
        shm.set_backend(&new, 1, 1);
        assert!(shm.begin_leave(&all[2], 1), "a new one is not marked");
    }

    #[test]
    fn a_lend_moves_every_seat() {
        let (shm, pool, limits) = fleet();
        let seats = shm.take_server(A, pool, &limits).unwrap();
        let ticket = shm.begin_lend(A, &seats, B.slot);
        assert!(shm.lend_pending(&seats, ticket) && !shm.leave_server(A, &seats) && !shm.leave_server(B, &seats));
        assert_eq!(in_use(&shm, pool, &limits), [1; 4]);
        assert!(shm.accept_lend(B, &seats, ticket) && !shm.lend_pending(&seats, ticket));
        for (id, seat) in [seats.database, seats.user, seats.host].into_iter().flatten() {
            assert_eq!(shm.seats(id).owner(seat), Some(B));
        }
        assert!(!shm.cancel_lend(A, &seats, ticket) && shm.leave_server(B, &seats));
        assert_eq!(in_use(&shm, pool, &limits), [0; 4]);
    }

    #[test]
    fn a_lend_to_one_who_never_answers_can_be_taken_back_at_any_time() {
        let (shm, pool, limits) = fleet();
        let seats = shm.take_server(A, pool, &limits).unwrap();
        let ticket = shm.begin_lend(A, &seats, B.slot);
        assert_eq!(shm.bury(B), [], "it is still the sender's");
        assert!(shm.lend_pending(&seats, ticket));
        let successor = Owner { incarnation: Incarnation(9), ..B };
        assert!(shm.cancel_lend(A, &seats, ticket) && !shm.accept_lend(successor, &seats, ticket));
        let ticket = shm.begin_lend(A, &seats, B.slot);
        assert!(shm.accept_lend(successor, &seats, ticket), "a slot's next worker reads the same inbox");
    }

    #[test]
    fn a_lend_of_what_one_does_not_hold_never_matches() {
        let (shm, pool, limits) = fleet();
        let seats = shm.take_server(A, pool, &limits).unwrap();
        let ticket = shm.begin_lend(B, &seats, B.slot);
        assert!(!shm.lend_pending(&seats, ticket) && !shm.accept_lend(B, &seats, ticket) && !shm.cancel_lend(B, &seats, ticket));
        assert!(shm.leave_server(A, &seats));
        assert!(!shm.lend_pending(&seats, ticket));
    }
}
