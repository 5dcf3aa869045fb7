//! The workers: what a slot owns, their lives on it, and when their loops turn.
//!
//! A worker that has something to do gets its turn a little later: other workers, PostgreSQL and the clients go on meanwhile.

use super::Simulation;
use super::network::Inbox;
use super::schedule::Event;
use crate::clock::Instant;
use crate::fleet::start::start;
use crate::worker::{Turn, Worker};
use shared::control::{self, ToWorker};
use shared::ids::{Owner, Slot};
use shared::orders::Marks;
use shared::sys::{memfd, seqpacket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// A slot: its inbox and its listener, which outlive its workers.
pub(super) struct Place {
    pub(super) inbox: Inbox,
    listener: UnixListener,
    pub(super) life: Option<Life>,
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
        Self { inbox: Inbox::new(), listener, life: None }
    }
}

impl Simulation {
    /// The name of the socket on which a slot's worker accepts clients.
    pub(super) fn listener_name(&self, slot: usize) -> String {
        format!("{}/{slot}", self.name)
    }

    /// As the supervisor starts a worker: the start message, with all that the slot owns.
    pub(super) fn start_worker(&mut self, slot: Slot) {
        let table = self.shm.workers();
        let owner = Owner { slot, incarnation: table.next_incarnation().unwrap() };
        let now = self.schedule.now.as_micros();
        table.start(owner, 1, now, now);
        let (control, theirs) = seqpacket::pair().unwrap();
        socket2::SockRef::from(&control).set_nonblocking(true).unwrap();
        let snapshot = memfd::create_sealed("configuration", &self.config.to_bytes().unwrap()).unwrap();
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
        };
        let place = &self.places[slot.index()];
        let mut descriptors: Vec<BorrowedFd<'_>> = vec![self.memory.as_fd(), snapshot.as_fd(), place.inbox.receiving.as_fd()];
        descriptors.extend(self.places.iter().map(|place| place.inbox.sending.as_fd()));
        descriptors.push(place.listener.as_fd());
        seqpacket::send(control.as_fd(), &control::encode(&message).unwrap(), &descriptors).unwrap();
        let worker = Box::new(start(theirs).unwrap());
        self.note("worker starts", slot.0.into(), owner.incarnation.0.into());
        let life = Life { owner, worker, turn: Turn::default(), control, next_turn: None };
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
        life.next_turn = None;
        let ended = life.worker.turn(&mut life.turn, std::time::Duration::ZERO);
        assert!(ended.is_none(), "worker {} ends by itself", owner.slot);
        self.note("turn", owner.slot.0.into(), 0);
        self.schedule_tick(owner.slot);
    }
}
