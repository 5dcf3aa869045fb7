//! The thread against sockets that stand in for PostgreSQL.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::fleet::Event;
use crate::gate::Gate;
use crate::luggage::{Luggage, carry};
use crossbeam_channel::Receiver;
use shared::encoding::{decode_named, encode_named};
use shared::ids::{Incarnation, Owner};
use shared::shm::ServerLimits;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

const WORKER: Owner = Owner { slot: Slot(1), incarnation: Incarnation(7) };
const SOON: Duration = Duration::from_secs(5);

struct World {
    shm: Shm,
    orphans: Orphanage,
    gate: Arc<Gate>,
    inputs: Receiver<Input>,
    seats: ServerSeats,
}

impl World {
    /// A connection that has logged in, and runs a query or not.
    fn new(busy: bool) -> Self {
        let world = Self::opening();
        world.shm.set_backend(&world.seats, 77, 88);
        world.shm.set_busy(&world.seats, busy);
        world
    }

    /// A connection that is only being opened.
    fn opening() -> Self {
        let (shm, _) = Shm::create().unwrap();
        let (input, inputs) = crossbeam_channel::unbounded();
        let gate = Arc::new(Gate::default());
        let orphans = Orphanage::start(shm.clone(), Arc::default(), Arc::clone(&gate), input).unwrap();
        let pool = shm.pool("d", "u").unwrap();
        let limits = ServerLimits { pool: 1, database: None, user: None, host: None };
        let seats = shm.take_server(WORKER, pool, &limits).unwrap();
        Self { shm, orphans, gate, inputs, seats }
    }

    /// Another image takes the place of this one, whose descriptors are closed only then.
    fn upgraded(self) -> Self {
        self.upgraded_with(carry)
    }

    /// The same, with these descriptors.
    fn upgraded_with(self, carry: impl FnOnce(&Luggage) -> Arrived) -> Self {
        let closed = self.gate.close();
        let mut luggage = Luggage::default();
        let bytes = encode_named(&[], &self.orphans.park(&closed, &mut luggage)).unwrap();
        let mut arrived = carry(&luggage);
        // Of the old image nothing moves any more.
        std::mem::forget(closed);
        let (input, inputs) = crossbeam_channel::unbounded();
        let gate = Arc::new(Gate::default());
        let orphans = Orphanage::start(self.shm.clone(), Arc::default(), Arc::clone(&gate), input).unwrap();
        orphans.resume(decode_named(&bytes).unwrap(), &mut arrived);
        Self { shm: self.shm.clone(), orphans, gate, inputs, seats: self.seats }
    }

    fn die(&self) {
        let orphans = self.shm.bury(WORKER);
        assert_eq!(orphans.len(), 1);
        self.orphans.buried(WORKER.slot, orphans);
    }

    fn taken(&self) -> usize {
        self.shm.pool_seats(self.seats.pool).in_use()
    }

    fn wait_freed(&self) {
        assert!(matches!(self.inputs.recv_timeout(SOON), Ok(Input::Event(Event::OrphanFreed { .. }))));
        assert_eq!((self.taken(), self.orphans.draining(WORKER.slot)), (0, 0));
    }
}

/// A worker's connection, and the server's side of it.
fn connection() -> (TcpListener, TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (theirs, _) = listener.accept().unwrap();
    theirs.set_read_timeout(Some(SOON)).unwrap();
    (listener, ours, theirs)
}

/// The request for the backend of [`World::new`].
const REQUEST: [u8; 16] = *b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x4d\0\0\0\x58";

/// Takes the next connection and reads a cancel request from it.
fn cancel_request(listener: &TcpListener) -> [u8; 16] {
    let (mut cancel, _) = listener.accept().unwrap();
    let mut request = [0; 16];
    cancel.read_exact(&mut request).unwrap();
    request
}

#[test]
fn a_busy_backend_is_cancelled_and_its_seat_kept_until_it_has_ended() {
    let world = World::new(true);
    let (listener, ours, mut theirs) = connection();
    world.orphans.opened(world.seats, Some(ours.into()));
    world.die();
    assert_eq!(cancel_request(&listener), REQUEST);
    assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0, "and its socket is half-closed");
    // What it still has to say is read and thrown away, however much it is.
    theirs.write_all(&vec![b'x'; 8 << 20]).unwrap();
    assert_eq!((world.taken(), world.orphans.draining(WORKER.slot)), (1, 1));
    assert!(world.inputs.is_empty());
    drop(theirs);
    world.wait_freed();
}

#[test]
fn an_idle_backend_is_only_told_goodbye() {
    let world = World::new(false);
    let (listener, ours, mut theirs) = connection();
    listener.set_nonblocking(true).unwrap();
    world.orphans.opened(world.seats, Some(ours.into()));
    world.die();
    assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0);
    drop(theirs);
    world.wait_freed();
    assert!(listener.accept().is_err(), "no cancel");
}

#[test]
fn a_connection_that_was_just_being_opened_is_given_a_second() {
    let world = World::opening();
    let start = Instant::now();
    world.die();
    world.wait_freed();
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_socket_that_arrives_late_is_waited_for() {
    let world = World::new(false);
    let (_listener, ours, theirs) = connection();
    world.die();
    world.orphans.opened(world.seats, Some(ours.into()));
    assert!(world.inputs.recv_timeout(Duration::from_millis(1500)).is_err(), "its backend lives");
    drop(theirs);
    world.wait_freed();
}

#[test]
fn a_connection_that_ended_in_the_ordinary_way_leaves_nothing() {
    let world = World::new(false);
    let (_listener, ours, theirs) = connection();
    world.orphans.opened(world.seats, Some(ours.into()));
    drop(theirs);
    assert!(world.shm.leave_server(WORKER, &world.seats));
    world.orphans.closed(WORKER, world.seats);
    assert!(world.shm.bury(WORKER).is_empty());
}

/// The first may have come before PostgreSQL had begun with the query, which did nothing: the seat then waited for its grace.
#[test]
fn a_backend_that_goes_on_is_cancelled_again() {
    let world = World::new(true);
    let (listener, ours, theirs) = connection();
    world.orphans.opened(world.seats, Some(ours.into()));
    let start = Instant::now();
    world.die();
    for _ in 0..4 {
        assert_eq!(cancel_request(&listener), REQUEST);
    }
    assert!(start.elapsed() >= Duration::from_millis(100 + 200 + 400), "each later than the last: {:?}", start.elapsed());
    assert!(world.inputs.is_empty());
    drop(theirs);
    world.wait_freed();
}

#[test]
fn one_cancel_at_a_time() {
    let world = World::new(true);
    let (listener, ours, theirs) = connection();
    world.orphans.opened(world.seats, Some(ours.into()));
    world.die();
    let (first, _) = listener.accept().unwrap();
    listener.set_nonblocking(true).unwrap();
    assert!(world.inputs.recv_timeout(Duration::from_millis(500)).is_err());
    assert!(listener.accept().is_err(), "the first is still being worked on");
    listener.set_nonblocking(false).unwrap();
    drop(first);
    assert_eq!(cancel_request(&listener), REQUEST);
    drop(theirs);
    world.wait_freed();
}

/// connect_query, server_check_query: no client's query, and yet one that may run for long.
#[test]
fn a_backend_that_is_not_known_to_be_busy_has_a_second_to_end_by_itself() {
    let world = World::new(false);
    let (listener, ours, theirs) = connection();
    world.orphans.opened(world.seats, Some(ours.into()));
    let start = Instant::now();
    world.die();
    assert_eq!(cancel_request(&listener), REQUEST);
    assert!(start.elapsed() >= Duration::from_secs(1));
    drop(theirs);
    world.wait_freed();
}

/// Its query may run on, and nobody can look: that is no reason to count it as gone at once.
#[test]
fn a_backend_whose_socket_was_lost_is_not_taken_for_gone() {
    let world = World::new(true);
    world.orphans.opened(world.seats, None);
    world.die();
    assert!(world.inputs.recv_timeout(Duration::from_millis(1500)).is_err());
    assert_eq!((world.taken(), world.orphans.draining(WORKER.slot)), (1, 1));
}

#[test]
fn an_orphan_is_waited_for_by_the_next_image_and_freed_when_its_backend_ends() {
    let world = World::new(true);
    let (listener, ours, theirs) = connection();
    world.orphans.opened(world.seats, Some(ours.into()));
    world.die();
    assert_eq!(cancel_request(&listener), REQUEST);
    let world = world.upgraded();
    assert_eq!((world.taken(), world.orphans.draining(WORKER.slot)), (1, 1));
    assert_eq!(cancel_request(&listener), REQUEST, "it is told again until it ends");
    assert!(world.inputs.is_empty());
    drop(theirs);
    world.wait_freed();
}

/// An image in between has seen the end, closed the socket, and failed.
#[test]
fn an_orphan_whose_end_another_image_has_seen_is_freed_at_once() {
    let world = World::new(true);
    let (_listener, ours, _theirs) = connection();
    world.orphans.opened(world.seats, Some(ours.into()));
    world.die();
    world.upgraded_with(|_| Arrived::new(vec![None])).wait_freed();
}

#[test]
fn a_worker_may_die_under_the_next_image() {
    let world = World::new(false);
    let (_listener, ours, mut theirs) = connection();
    world.orphans.opened(world.seats, Some(ours.into()));
    let world = world.upgraded();
    world.die();
    assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0, "its socket was kept");
    drop(theirs);
    world.wait_freed();
}

#[test]
fn what_the_thread_has_not_read_is_parked_too() {
    let world = World::new(false);
    let (_listener, ours, mut theirs) = connection();
    {
        let _pass = world.gate.enter();
        world.orphans.opened(world.seats, Some(ours.into()));
        world.die();
    }
    let world = world.upgraded().upgraded();
    assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0);
    drop(theirs);
    world.wait_freed();
}

#[test]
fn a_deadline_is_the_same_for_the_next_image() {
    let world = World::opening();
    let start = Instant::now();
    world.die();
    let world = world.upgraded();
    world.wait_freed();
    assert!(start.elapsed() >= Duration::from_secs(1));
}
