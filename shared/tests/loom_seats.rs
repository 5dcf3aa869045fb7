//! The seat protocols under loom: every interleaving and every value that the memory model lets a load return.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p shared --release --test loom_seats --target-dir target/loom`
//!
//! The code that runs is the product's own, [`Shm`] with a handful of seats on the heap. Where the model would not end otherwise, the
//! number of preemptions is bounded, and the test says so.
#![cfg(loom)]
#![allow(clippy::unwrap_used, missing_docs)]

use loom::model::Builder;
use loom::thread;
use shared::control::ServerSeats;
use shared::ids::{Incarnation, LimitId, Owner, PoolId, SeatIndex, Slot};
use shared::shm::{Limit, SeatState, ServerLimits, Shm};

const fn worker(slot: u8) -> Owner {
    Owner { slot: Slot(slot), incarnation: Incarnation(10 + slot as u32) }
}

const A: Owner = worker(0);
const B: Owner = worker(1);

fn check(preemptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 100_000;
    builder.check(model);
}

/// One pool whose servers count in one database limit.
fn fleet() -> (Shm, PoolId, LimitId) {
    let shm = Shm::for_model();
    let pool = shm.pool("d", "u").unwrap();
    let database = shm.limit(Limit::Database("d")).unwrap();
    (shm, pool, database)
}

fn limits(pool: usize, database: LimitId, most: usize) -> ServerLimits {
    ServerLimits { pool, database: Some((database, most)), ..ServerLimits::default() }
}

fn opened(shm: &Shm, pool: PoolId, database: LimitId) -> ServerSeats {
    let seats = shm.take_server(A, pool, &limits(2, database, 2)).unwrap();
    shm.set_backend(&seats, 42, 4242);
    seats
}

#[test]
fn two_takers_never_share_a_seat() {
    check(Some(3), || {
        let (shm, pool, _) = fleet();
        let other = shm.clone();
        let taker = thread::spawn(move || other.pool_seats(pool).take(B, 1));
        let mine = shm.pool_seats(pool).take(A, 1);
        let theirs = taker.join().unwrap();
        assert!(mine.is_some() != theirs.is_some(), "one seat, one taker: {mine:?} {theirs:?}");
        assert_eq!(shm.pool_seats(pool).in_use(), 1);
        assert_eq!(shm.pool_seats(pool).owner(SeatIndex(0)), Some(if mine.is_some() { A } else { B }));
    });
}

/// The limit was lowered from 3 to 2 while seat 2 was held, and one of two takers has stepped in: never three.
#[test]
fn two_takers_under_a_lowered_limit_never_exceed_it() {
    check(Some(2), || {
        let (shm, pool, _) = fleet();
        let table = shm.pool_seats(pool);
        let held: Vec<_> = (0..3).map(|_| table.take(A, 3).unwrap()).collect();
        table.leave(A, held[0]);
        table.leave(A, held[1]);
        let other = shm.clone();
        let taker = thread::spawn(move || other.pool_seats(pool).take(B, 2).is_some());
        let mine = shm.pool_seats(pool).take(A, 2).is_some();
        let theirs = taker.join().unwrap();
        assert!(!(mine && theirs), "seat 2 and two more under a limit of 2");
        assert_eq!(shm.pool_seats(pool).in_use(), 1 + usize::from(mine) + usize::from(theirs));
    });
}

/// A seat left by one worker is the next one's, with nothing of the old connection beside it, and what the next one adds stays.
#[test]
fn a_taker_sees_nothing_of_the_seat_s_last_holder() {
    check(Some(3), || {
        let (shm, pool, database) = fleet();
        let seats = shm.take_server(A, pool, &limits(1, database, 2)).unwrap();
        shm.set_backend(&seats, 42, 4242);
        let other = shm.clone();
        let taker = thread::spawn(move || {
            let taken = other.take_server(B, pool, &limits(1, database, 2)).ok()?;
            assert_eq!(other.server_info(pool, taken.seat).backend, None);
            Some(taken)
        });
        assert!(shm.leave_server(A, &seats));
        let taken = taker.join().unwrap();
        let used = usize::from(taken.is_some());
        assert_eq!((shm.pool_seats(pool).in_use(), shm.seats(database).in_use()), (used, used));
        if let Some(taken) = taken {
            assert_eq!(shm.seats(database).owner(taken.database.unwrap().1), Some(B));
            assert!(shm.leave_server(B, &taken));
            assert_eq!((shm.pool_seats(pool).in_use(), shm.seats(database).in_use()), (0, 0));
        }
    });
}

/// A dead worker is buried while another takes from the same limits: its connection is an orphan, the other has its own seats or none.
#[test]
fn a_burial_and_a_taker() {
    check(Some(3), || {
        let (shm, pool, database) = fleet();
        let seats = opened(&shm, pool, database);
        let other = shm.clone();
        let taker = thread::spawn(move || other.take_server(B, pool, &limits(2, database, 2)).unwrap());
        let orphans = shm.bury(A);
        let taken = taker.join().unwrap();
        assert_eq!(orphans.len(), 1);
        assert_eq!((orphans[0].seats, orphans[0].backend), (seats, Some((42, 4242))));
        assert_ne!(taken.seat, seats.seat);
        assert_eq!(shm.pool_seats(pool).owner(taken.seat), Some(B));
        assert_eq!(shm.seats(database).owner(taken.database.unwrap().1), Some(B));
        assert!(shm.free_orphan(&seats));
        assert_eq!((shm.pool_seats(pool).in_use(), shm.seats(database).in_use()), (1, 1));
    });
}

/// An orphan's seats are freed while another worker waits to take them.
#[test]
fn a_freed_orphan_and_a_taker() {
    check(Some(3), || {
        let (shm, pool, database) = fleet();
        let seats = shm.take_server(A, pool, &limits(1, database, 1)).unwrap();
        assert_eq!(shm.bury(A).len(), 1);
        let other = shm.clone();
        let taker = thread::spawn(move || other.take_server(B, pool, &limits(1, database, 1)).is_ok());
        assert!(shm.free_orphan(&seats));
        let used = usize::from(taker.join().unwrap());
        assert_eq!((shm.pool_seats(pool).in_use(), shm.seats(database).in_use()), (used, used));
    });
}

#[test]
fn a_lend_is_accepted_or_taken_back() {
    check(None, || {
        let (shm, pool, database) = fleet();
        let seats = opened(&shm, pool, database);
        let ticket = shm.begin_lend(A, &seats, B.slot);
        let other = shm.clone();
        let receiver = thread::spawn(move || other.accept_lend(B, &seats, ticket));
        let back = shm.cancel_lend(A, &seats, ticket);
        let accepted = receiver.join().unwrap();
        assert!(back != accepted, "exactly one has it");
        let owner = if accepted { B } else { A };
        assert_eq!(shm.pool_seats(pool).owner(seats.seat), Some(owner));
        assert_eq!(shm.seats(database).owner(seats.database.unwrap().1), Some(owner));
        assert!(!shm.lend_pending(&seats, ticket) && !shm.accept_lend(B, &seats, ticket) && !shm.cancel_lend(A, &seats, ticket));
    });
}

/// The sender dies with a connection on its way: the receiver has it whole, or the supervisor has it whole.
#[test]
fn a_lend_is_accepted_or_buried_with_its_sender() {
    check(Some(4), || {
        let (shm, pool, database) = fleet();
        let seats = opened(&shm, pool, database);
        let ticket = shm.begin_lend(A, &seats, B.slot);
        let other = shm.clone();
        let receiver = thread::spawn(move || other.accept_lend(B, &seats, ticket));
        let orphans = shm.bury(A);
        assert!(shm.seats(database).take(worker(2), 1).is_none(), "nobody else gets the connection's seat, whoever has it");
        let accepted = receiver.join().unwrap();
        assert!(accepted == orphans.is_empty(), "exactly one has it");
        let (state, owner) = if accepted { (SeatState::Held, B) } else { (SeatState::Draining, Owner::SUPERVISOR) };
        let (pool_seats, database_seats) = (shm.pool_seats(pool), shm.seats(database));
        let (_, database_seat) = seats.database.unwrap();
        assert_eq!((pool_seats.state(seats.seat), pool_seats.owner(seats.seat)), (state, Some(owner)));
        assert_eq!((database_seats.state(database_seat), database_seats.owner(database_seat)), (state, Some(owner)));
        let freed = if accepted { shm.leave_server(B, &seats) } else { shm.free_orphan(&seats) };
        assert!(freed);
        assert_eq!((pool_seats.in_use(), database_seats.in_use()), (0, 0));
    });
}

/// The receiver accepts and closes the connection while its sender is buried: no seat is freed twice, none is lost.
#[test]
fn an_accepted_lend_is_left_during_its_senders_burial() {
    check(Some(4), || {
        let (shm, pool, database) = fleet();
        let seats = opened(&shm, pool, database);
        let ticket = shm.begin_lend(A, &seats, B.slot);
        let other = shm.clone();
        let receiver = thread::spawn(move || other.accept_lend(B, &seats, ticket) && other.leave_server(B, &seats));
        let orphans = shm.bury(A);
        let left = receiver.join().unwrap();
        assert_eq!(orphans.len(), usize::from(!left));
        assert_eq!(shm.pool_seats(pool).in_use(), orphans.len());
        assert_eq!(shm.seats(database).in_use(), orphans.len());
    });
}

/// A waiter sets its bit, then looks for idle servers; a giver publishes one, then reads the bits. One of them sees the other.
#[test]
fn an_idle_server_and_a_waiter_do_not_miss_each_other() {
    check(None, || {
        let (shm, pool, _) = fleet();
        let other = shm.clone();
        let giver = thread::spawn(move || other.pool_state(pool).offer(B.slot, 1) != 0);
        let state = shm.pool_state(pool);
        state.set_oldest(A.slot, 7);
        state.set_waiting(A.slot);
        let found = state.idle_elsewhere(A.slot) == Some(B.slot);
        assert!(found || giver.join().unwrap(), "the client sleeps beside an idle server");
    });
}

/// The same with a seat that falls free.
#[test]
fn a_freed_seat_and_a_waiter_do_not_miss_each_other() {
    check(None, || {
        let (shm, pool, _) = fleet();
        let only = ServerLimits { pool: 1, ..ServerLimits::default() };
        let seats = shm.take_server(B, pool, &only).unwrap();
        let other = shm.clone();
        let giver = thread::spawn(move || {
            other.leave_server(B, &seats);
            other.waiting_beside(B.slot, &seats) != 0
        });
        shm.pool_state(pool).set_waiting(A.slot);
        let taken = shm.take_server(A, pool, &only).is_ok();
        assert!(giver.join().unwrap() || taken, "the client sleeps beside a free seat");
    });
}

/// The same with a seat of a database, which a client of another pool waits for.
#[test]
fn a_freed_seat_of_a_limit_and_a_waiter_do_not_miss_each_other() {
    check(None, || {
        let (shm, pool, database) = fleet();
        let seats = shm.take_server(B, pool, &limits(2, database, 1)).unwrap();
        let other = shm.clone();
        let giver = thread::spawn(move || {
            other.leave_server(B, &seats);
            other.waiting_beside(B.slot, &seats) != 0
        });
        shm.limit_state(database).set_waiting(A.slot);
        let taken = shm.seats(database).take(A, 1).is_some();
        assert!(giver.join().unwrap() || taken, "the client sleeps beside a free seat");
    });
}

/// Two workers enter the same name: one entry, one id.
#[test]
fn a_name_is_entered_once() {
    check(Some(4), || {
        let shm = Shm::for_model();
        let other = shm.clone();
        let racer = thread::spawn(move || other.pool("d", "u"));
        let mine = shm.pool("d", "u");
        assert_eq!((mine, racer.join().unwrap()), (Some(PoolId(0)), Some(PoolId(0))));
        assert_eq!(shm.pool_names(PoolId(0)), Some(("d".to_owned(), "u".to_owned())));
    });
}
