//! What workers say to each other, on its way.
//!
//! A worker's sending ends lead here: each inbox has a tap, whose other end is read after every turn. A message is kept with its
//! descriptors and put into the real inbox later, or lost.

use super::Simulation;
use super::schedule::Event;
use crate::clock::Instant;
use shared::control::{self, ToInbox};
use shared::ids::Slot;
use shared::sys::seqpacket;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};

/// The most messages that a worker sends in one turn.
const MOST_IN_A_TURN: u32 = 40;

/// A message between workers.
pub(super) struct Mail {
    pub(super) to: Slot,
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// A slot's inbox. It outlives the slot's workers, with what has been delivered and not read.
pub(super) struct Inbox {
    /// What the other workers hold.
    pub(super) sending: OwnedFd,
    /// Where what they send comes out.
    pub(super) tap: OwnedFd,
    /// What the slot's worker reads.
    pub(super) receiving: OwnedFd,
    delivering: OwnedFd,
    /// When the message sent last arrives: without faults the next one is not before it.
    last: Instant,
}

impl Inbox {
    pub(super) fn new() -> Self {
        let (sending, tap) = seqpacket::pair().unwrap();
        let (delivering, receiving) = seqpacket::pair().unwrap();
        for end in [&tap, &delivering] {
            socket2::SockRef::from(end).set_nonblocking(true).unwrap();
        }
        Self { sending, tap, receiving, delivering, last: Instant::default() }
    }
}

impl Simulation {
    /// Takes what was sent to `to` and decides when it arrives, if at all.
    pub(super) fn collect_mail(&mut self, to: Slot) {
        loop {
            let mut buffer = std::mem::take(&mut self.buffer);
            let received = seqpacket::recv(self.places[to.index()].inbox.tap.as_fd(), &mut buffer);
            self.buffer = buffer;
            let received = match received {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                other => other.unwrap(),
            };
            let bytes = self.buffer[..received.len].to_vec();
            let (kind, word) = describe(&bytes);
            self.note(word, u64::from(to.0), kind);
            self.mail_sent += 1;
            self.mail_in_turn += 1;
            assert!(self.mail_in_turn <= MOST_IN_A_TURN, "a storm of messages\n{}", self.picture());
            if self.chance(self.plan.loss_per_mille) {
                self.note("lost", u64::from(to.0), kind);
                continue;
            }
            let arrival = self.schedule.now + self.draw(&self.plan.mail_delay.clone());
            let last = &mut self.places[to.index()].inbox.last;
            let arrival = if self.plan.reorders { arrival } else { arrival.max(*last) };
            *last = arrival;
            self.in_transit += 1;
            self.schedule.at(arrival, Event::Deliver(Mail { to, bytes, descriptors: received.fds }));
        }
    }

    /// A message arrives. An inbox that is full keeps it waiting.
    pub(super) fn deliver(&mut self, mail: Mail) {
        let descriptors: Vec<_> = mail.descriptors.iter().map(AsFd::as_fd).collect();
        let inbox = &self.places[mail.to.index()].inbox;
        match seqpacket::send(inbox.delivering.as_fd(), &mail.bytes, &descriptors) {
            Ok(()) => self.in_transit -= 1,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.schedule.after(crate::worker::TICK, Event::Deliver(mail));
            }
            Err(error) => panic!("an inbox cannot be written: {error}"),
        }
    }

    /// The supervisor tells a worker that something has fallen free.
    pub(super) fn wake(&mut self, to: Slot) {
        let bytes = control::encode(&ToInbox::Wake).unwrap();
        let delay = self.draw(&self.plan.mail_delay.clone());
        self.in_transit += 1;
        self.schedule.after(delay, Event::Deliver(Mail { to, bytes, descriptors: Vec::new() }));
    }
}

/// For the trace: the pool it is about, and what it is.
fn describe(bytes: &[u8]) -> (u64, &'static str) {
    match control::decode(bytes).unwrap() {
        ToInbox::Borrow { pool, .. } => (pool.0.into(), "borrow to"),
        ToInbox::Nothing { pool, .. } => (pool.0.into(), "nothing to"),
        ToInbox::Lend(lent) => (lent.seats.pool.0.into(), "lend to"),
        ToInbox::Wake => (0, "wake to"),
        ToInbox::MakeRoom { limit, .. } => (limit.0.into(), "make room to"),
        ToInbox::Cancel { .. } => (0, "cancel to"),
        ToInbox::Client { .. } => (0, "client to"),
        ToInbox::Session(moved) => (moved.seat.0.into(), "session to"),
        ToInbox::NotTaken { seat, .. } => (seat.0.into(), "session not taken to"),
        ToInbox::Long => (0, "long message to"),
    }
}
