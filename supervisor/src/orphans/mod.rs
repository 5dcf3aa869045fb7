//! Backends that outlived their worker.
//!
//! A query that a dead worker had started runs on in PostgreSQL, so its seats stay taken until the backend is gone: else the
//! real number of backends would exceed the limit. Of every server connection the supervisor keeps a duplicate of the socket; PostgreSQL
//! leaves its side open until the backend's process has ended, so end of file on the duplicate is the proof. One thread does it
//! all and blocks on nothing but its poll.

mod cancels;
mod orphan;
mod registry;
#[cfg(test)]
mod tests;
mod thread;
mod wake;

pub(crate) use thread::Kept;
pub(crate) use wake::{Inboxes, wake_waiters};

use crate::gate::{Closed, Gate};
use crate::luggage::{Arrived, Luggage};
use crate::office::Input;
use crossbeam_channel::Sender;
use shared::control::ServerSeats;
use shared::ids::{MAX_WORKERS, Owner, Slot};
use shared::shm::{Orphan, Shm};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thread::Home;

/// What the thread is told.
#[derive(Debug)]
enum Message {
    Opened(ServerSeats, Option<OwnedFd>),
    Closed(Owner, ServerSeats),
    Buried(Slot, Vec<Orphan>),
}

/// The way to the thread.
pub(crate) struct Orphanage {
    sender: Sender<Message>,
    waker: mio::Waker,
    draining: Arc<[AtomicU32; MAX_WORKERS]>,
    home: Arc<Mutex<Home>>,
}

impl Orphanage {
    /// Starts the thread. It reports each orphan's end to `input` and to the workers that wait for its seats.
    pub(crate) fn start(shm: Shm, inboxes: Arc<Inboxes>, gate: Arc<Gate>, input: Sender<Input>) -> io::Result<Self> {
        let poll = mio::Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), thread::WAKE)?;
        let (sender, messages) = crossbeam_channel::unbounded();
        let draining = Arc::new([const { AtomicU32::new(0) }; MAX_WORKERS]);
        let home = Home::new(poll.registry().try_clone()?, messages, shm, inboxes, input, Arc::clone(&draining));
        let home = Arc::new(Mutex::new(home));
        let at_home = Arc::clone(&home);
        std::thread::Builder::new().name("orphans".into()).spawn(move || thread::run(poll, &gate, &at_home))?;
        Ok(Self { sender, waker, draining, home })
    }

    /// All that the thread holds, and what it has been told so far.
    pub(crate) fn park(&self, _: &Closed<'_>, luggage: &mut Luggage) -> Kept {
        self.home().park(luggage)
    }

    /// Goes on with what was parked; called before anything else happens here.
    pub(crate) fn resume(&self, kept: Kept, arrived: &mut Arrived) {
        self.home().resume(kept, arrived);
        self.wake();
    }

    fn home(&self) -> MutexGuard<'_, Home> {
        self.home.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A server connection begins; the duplicate of its socket is to be kept.
    pub(crate) fn opened(&self, seats: ServerSeats, duplicate: Option<OwnedFd>) {
        self.tell(Message::Opened(seats, duplicate));
    }

    /// A connection of this worker's has ended in the ordinary way.
    pub(crate) fn closed(&self, owner: Owner, seats: ServerSeats) {
        self.tell(Message::Closed(owner, seats));
    }

    /// The worker of this slot died and left these.
    pub(crate) fn buried(&self, slot: Slot, orphans: Vec<Orphan>) {
        self.draining[slot.index()].fetch_add(orphans.len() as u32, Ordering::Relaxed);
        self.tell(Message::Buried(slot, orphans));
    }

    /// How many backends the slot's dead workers still have.
    pub(crate) fn draining(&self, slot: Slot) -> u32 {
        self.draining[slot.index()].load(Ordering::Relaxed)
    }

    fn tell(&self, message: Message) {
        if self.sender.send(message).is_ok() {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("could not wake the thread that frees seats: {error}");
        }
    }
}
