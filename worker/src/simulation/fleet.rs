//! The workers: what a slot owns, their lives on it, and when their loops turn.
//!
//! A worker that has something to do gets its turn a little later: other workers, PostgreSQL and the clients go on meanwhile. One that hangs gets
//! none for a while. One that dies does so between two turns, or in the middle of one, just before it would send something: of what it
//! owns the descriptors are closed, as the kernel does, and nothing else is done.

use super::network::Inbox;
use super::schedule::Event;
use super::{Simulation, supervisor};
use crate::clock::Instant;
use crate::fleet::start::start;
use crate::worker::{TICK, Turn, Worker};
use shared::control::{self, ToWorker};
use shared::ids::{Incarnation, Owner, Slot};
use shared::orders::Marks;
use shared::sys::seqpacket;
use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

/// A slot: its inbox and its listener, which outlive its workers.
pub(super) struct Place {
    pub(super) inbox: Inbox,
    listener: UnixListener,
    pub(super) life: Option<Life>,
    /// No worker is started on it again.
    pub(super) is_abandoned: bool,
}

/// A worker that lives.
pub(super) struct Life {
    pub(super) owner: Owner,
    pub(super) worker: Box<Worker>,
    turn: Turn,
    /// The supervisor's end of its control socket.
    pub(super) control: OwnedFd,
    /// When its loop turns next. There is an event for then, and perhaps older ones for later.
    next_turn: Option<Instant>,
    pub(super) hung_until: Option<Instant>,
    /// It dies in its next turn, before it sends this many messages more.
    doomed: Option<u32>,
}

impl Life {
    /// Whether its next turn has been decided on, because it has something to do.
    pub(super) fn has_turn_due(&self) -> bool {
        self.next_turn.is_some()
    }
}

impl Place {
    pub(super) fn new(listener: &str) -> Self {
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(listener).unwrap()).unwrap();
        Self { inbox: Inbox::new(), listener, life: None, is_abandoned: false }
    }

    /// A slot whose worker accepts from the listener of another.
    pub(super) fn beside(other: &Place) -> Self {
        Self { inbox: Inbox::new(), listener: other.listener.try_clone().unwrap(), life: None, is_abandoned: false }
    }
}

impl Simulation {
    /// The name of the socket on which a slot's worker accepts clients.
    pub(super) fn listener_name(&self, slot: usize) -> String {
        format!("{}/{slot}", self.name)
    }

    /// As the supervisor starts a worker: the start message, with all that the slot owns.
    pub(super) fn start_worker(&mut self, slot: Slot) {
        if self.is_reloading() {
            return self.schedule.after(TICK, Event::Start(slot));
        }
        let table = self.shm.workers();
        let owner = Owner { slot, incarnation: Incarnation(table.last_incarnation().0 + 1) };
        let now = self.schedule.now.as_micros();
        table.start(owner, 1, now, now);
        let (control, theirs) = seqpacket::pair().unwrap();
        socket2::SockRef::from(&control).set_nonblocking(true).unwrap();
        let snapshot = supervisor::snapshot(&self.config);
        let keys = supervisor::no_keys();
        let message = ToWorker::Start {
            slot,
            incarnation: owner.incarnation,
            generation: self.config.generation,
            log_file: false,
            inboxes: self.places.len() as u8,
            listeners: 0,
            unix_listeners: 1,
            marks: Marks::default(),
            stderr: self.trace.tells(),
            mock_secret: [7; 32],
            welcomes: self.supervisor.welcomes.clone(),
            door: false,
        };
        let place = &self.places[slot.index()];
        let mut descriptors: Vec<BorrowedFd<'_>> =
            vec![self.memory.as_fd(), snapshot.as_fd(), keys.as_fd(), place.inbox.receiving.as_fd()];
        descriptors.extend(self.places.iter().map(|place| place.inbox.sending.as_fd()));
        descriptors.push(place.listener.as_fd());
        seqpacket::send(control.as_fd(), &control::encode(&message).unwrap(), &descriptors).unwrap();
        let worker = Box::new(start(theirs).unwrap());
        self.note("worker starts", slot.0.into(), owner.incarnation.0.into());
        let life = Life { owner, worker, turn: Turn::default(), control, next_turn: None, hung_until: None, doomed: None };
        self.places[slot.index()].life = Some(life);
        self.schedule_tick(slot);
    }

    /// A worker has something to do: it gets its turn soon.
    pub(super) fn schedule_turn(&mut self, slot: usize) {
        let delay = self.draw(&self.plan.turn_delay.clone());
        let at = self.schedule.now + delay;
        if let Some(life) = &mut self.places[slot].life
            && life.next_turn.is_none()
        {
            life.next_turn = Some(at);
            self.schedule.at(at, Event::Turn(life.owner));
        }
    }

    /// Its loop turns when it must, whether or not anything comes.
    fn schedule_tick(&mut self, slot: Slot) {
        let Some(life) = &self.places[slot.index()].life else { return };
        let wait = life.worker.until_next_turn();
        if wait.is_zero() {
            return self.schedule_turn(slot.index());
        }
        self.schedule.at(life.worker.now + wait, Event::Turn(life.owner));
    }

    /// A worker's turn, unless it has died since.
    pub(super) fn turn_worker(&mut self, owner: Owner) {
        let now = self.schedule.now;
        let place = &mut self.places[owner.slot.index()];
        let Some(life) = place.life.as_mut().filter(|life| life.owner == owner) else { return };
        let is_due = life.next_turn == Some(now) || life.worker.now + life.worker.until_next_turn() <= now;
        if !is_due {
            return;
        }
        if let Some(until) = life.hung_until.filter(|until| *until > now) {
            life.next_turn = Some(until);
            return self.schedule.at(until, Event::Turn(owner));
        }
        (life.next_turn, life.hung_until) = (None, None);
        self.before_turn(owner.slot);
        (self.turning, self.mail_in_turn) = (Some(owner.slot), 0);
        let leaves = self.is_old(owner.slot);
        let alive = self.places[owner.slot.index()].life.as_mut().is_some_and(|life| life.turn(leaves));
        self.note("turn", owner.slot.0.into(), alive.into());
        if alive {
            self.schedule_tick(owner.slot);
        } else {
            self.worker_dies(owner.slot);
        }
    }

    /// A worker gets no turn for a while.
    pub(super) fn hang(&mut self, slot: Slot, time: Duration) {
        let until = self.schedule.now + time;
        if let Some(life) = &mut self.places[slot.index()].life {
            life.hung_until = Some(until);
            self.note("hangs", slot.0.into(), time.as_micros() as u64);
        }
    }

    /// A worker is to die: in its next turn before it sends `sends` messages more, or at once.
    pub(super) fn doom(&mut self, slot: Slot, sends: Option<u32>) {
        match (self.places.get_mut(slot.index()).and_then(|place| place.life.as_mut()), sends) {
            (Some(life), Some(sends)) => life.doomed = Some(sends),
            (Some(_), None) => self.worker_dies(slot),
            (None, _) => {}
        }
    }

    /// Its process is gone. What it has said is read; it is reaped a little later.
    fn worker_dies(&mut self, slot: Slot) {
        while self.react() {}
        let Some(life) = self.places[slot.index()].life.take() else { return };
        self.note("dies", slot.0.into(), life.owner.incarnation.0.into());
        let owner = life.owner;
        drop(life);
        let delay = self.draw(&self.plan.reap_delay.clone());
        self.schedule.after(delay, Event::Bury(owner));
    }
}

impl Life {
    /// The loop turns once. False: the worker has died, or has ended as one that leaves does.
    fn turn(&mut self, leaves: bool) -> bool {
        let doomed = self.doomed.take();
        SENDS_LEFT.set(doomed);
        let turned = catch_unwind(AssertUnwindSafe(|| self.worker.turn(&mut self.turn, Duration::ZERO)));
        SENDS_LEFT.set(None);
        match turned {
            Ok(None) => {}
            Ok(Some(_)) => {
                assert!(leaves, "worker {} ends by itself", self.owner.slot);
                return false;
            }
            Err(cause) if cause.is::<Killed>() => {}
            Err(cause) => resume_unwind(cause),
        }
        doomed.is_none()
    }
}

/// What ends the turn of a worker that is killed in the middle of it.
struct Killed;

thread_local! {
    /// How many messages the worker whose turn it is may send before it dies.
    static SENDS_LEFT: Cell<Option<u32>> = const { Cell::new(None) };
}

/// A worker is about to send something, to another or to the supervisor: a doomed one may die first.
pub(crate) fn may_die() {
    match SENDS_LEFT.get() {
        None => {}
        Some(0) => resume_unwind(Box::new(Killed)),
        Some(left) => SENDS_LEFT.set(Some(left - 1)),
    }
}
