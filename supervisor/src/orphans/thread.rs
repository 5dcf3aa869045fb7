//! The thread that keeps the duplicates and waits for the orphans' ends.

use super::Message;
use super::orphan::{KeptOrphan, Orphan};
use super::registry::{KeptSeat, Registry, key};
use super::wake::{Inboxes, wake_for};
use crate::engine::database_of;
use crate::engine::now;
use crate::fleet::Event;
use crate::gate::Gate;
use crate::luggage::{Arrived, Luggage};
use crate::office::Input;
use crossbeam_channel::{Receiver, Sender};
use mio::{Events, Poll, Token};
use serde::{Deserialize, Serialize};
use shared::control::ServerSeats;
use shared::ids::{MAX_WORKERS, Slot};
use shared::shm::Shm;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The token of the waker.
pub(super) const WAKE: Token = Token(usize::MAX);
/// How often deadlines and cancels are looked at while there are orphans.
const SWEEP: Duration = Duration::from_millis(100);

/// What the thread holds. It is locked inside the gate only, by the thread or by whoever parks it.
pub(super) struct Home {
    events: mio::Registry,
    messages: Receiver<Message>,
    shm: Shm,
    inboxes: Arc<Inboxes>,
    input: Sender<Input>,
    draining: Arc<[AtomicU32; MAX_WORKERS]>,
    registry: Registry,
    /// By number; its socket's token is twice that, its cancel's one more.
    orphans: BTreeMap<usize, (Slot, Orphan)>,
    last: usize,
    buffer: Vec<u8>,
}

/// All that the thread holds, while another image takes the place of this one.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Kept {
    seats: Vec<KeptSeat>,
    orphans: Vec<(Slot, KeptOrphan)>,
}

impl Kept {
    /// The seats of the orphans in it.
    pub(crate) fn seats(&self) -> impl Iterator<Item = ServerSeats> {
        self.orphans.iter().map(|(_, orphan)| orphan.seats)
    }
}

/// Runs the thread.
pub(super) fn run(mut poll: Poll, gate: &Gate, home: &Mutex<Home>) {
    let mut events = Events::with_capacity(256);
    let mut wait = None;
    loop {
        match poll.poll(&mut events, wait) {
            Err(error) if error.kind() != ErrorKind::Interrupted => {
                log::error!("poll of the thread that frees seats: {error}");
                std::thread::sleep(SWEEP);
            }
            _ => {}
        }
        let _pass = gate.enter();
        wait = home.lock().unwrap_or_else(PoisonError::into_inner).turn(&events);
    }
}

impl Home {
    pub(super) fn new(
        events: mio::Registry,
        messages: Receiver<Message>,
        shm: Shm,
        inboxes: Arc<Inboxes>,
        input: Sender<Input>,
        draining: Arc<[AtomicU32; MAX_WORKERS]>,
    ) -> Self {
        let registry = Registry::default();
        Self {
            events,
            messages,
            shm,
            inboxes,
            input,
            draining,
            registry,
            orphans: BTreeMap::new(),
            last: 0,
            buffer: vec![0; 65536],
        }
    }

    /// Takes up what was parked.
    pub(super) fn resume(&mut self, kept: Kept, arrived: &mut Arrived) {
        let Kept { seats, orphans } = kept;
        self.registry = Registry::resume(seats, arrived);
        for (slot, orphan) in orphans {
            self.last += 1;
            let seats = orphan.seats;
            let Some(orphan) = Orphan::resume(orphan, arrived, &self.events, Token(self.last * 2)) else {
                self.vacate(&seats);
                continue;
            };
            self.draining[slot.index()].fetch_add(1, Ordering::Relaxed);
            self.orphans.insert(self.last, (slot, orphan));
        }
    }

    /// For the image that takes the place of this one.
    pub(super) fn park(&mut self, luggage: &mut Luggage) -> Kept {
        self.take_messages();
        let orphans = self.orphans.values().map(|(slot, orphan)| (*slot, orphan.park(luggage))).collect();
        Kept { seats: self.registry.park(luggage), orphans }
    }

    /// Does what there is to do; returns how long the next turn may be in coming.
    fn turn(&mut self, events: &Events) -> Option<Duration> {
        let mut readable: Vec<usize> = Vec::new();
        for event in events.iter().filter(|event| event.token() != WAKE) {
            let number = event.token().0 / 2;
            if event.token().0.is_multiple_of(2) {
                readable.push(number);
            } else if let Some((_, orphan)) = self.orphans.get_mut(&number) {
                orphan.advance_cancel(now(), &self.events);
            }
        }
        self.take_messages();
        readable.extend(self.orphans.iter().filter(|(_, (_, orphan))| orphan.unread).map(|(number, _)| *number));
        for number in readable {
            self.read(number);
        }
        self.sweep();
        if self.orphans.values().any(|(_, orphan)| orphan.unread) {
            Some(Duration::ZERO)
        } else {
            (!self.orphans.is_empty()).then_some(SWEEP)
        }
    }

    fn take_messages(&mut self) {
        while let Ok(message) = self.messages.try_recv() {
            self.take(message);
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Opened(_, None) => {}
            Message::Opened(seats, Some(duplicate)) => {
                let waiting = self.orphans.iter().find(|(_, (_, o))| key(&o.seats) == key(&seats) && !o.has_socket());
                match waiting.map(|(number, _)| *number) {
                    Some(number) => self.attach(number, Arc::new(duplicate)),
                    None => self.registry.opened(key(&seats), Arc::new(duplicate)),
                }
            }
            Message::Closed(owner, seats) => {
                self.registry.closed(key(&seats));
                // A worker of another build has freed its own region's seats.
                if self.shm.workers().is_stranger(owner.slot) && self.shm.leave_server(owner, &seats) {
                    wake_for(&self.shm, &self.inboxes, &seats);
                }
            }
            Message::Buried(slot, orphans) => {
                for orphan in orphans {
                    self.last += 1;
                    let number = self.last;
                    self.orphans.insert(number, (slot, Orphan::new(&orphan, now())));
                    if let Some(socket) = self.registry.take(key(&orphan.seats)) {
                        self.attach(number, socket);
                    }
                }
            }
        }
    }

    fn attach(&mut self, number: usize, socket: Arc<OwnedFd>) {
        if let Some((_, orphan)) = self.orphans.get_mut(&number)
            && !orphan.attach(socket, now(), &self.events, Token(number * 2))
        {
            self.free(number);
        }
    }

    fn read(&mut self, number: usize) {
        if let Some((_, orphan)) = self.orphans.get_mut(&number)
            && orphan.drain(&mut self.buffer)
        {
            self.free(number);
        }
    }

    fn sweep(&mut self) {
        let now = now();
        let mut late = Vec::new();
        for (number, (slot, orphan)) in &mut self.orphans {
            if orphan.deadline <= now {
                if orphan.may_have_backend() {
                    log::warn!("a backend of the dead worker {slot} has not ended in time; its place is given up");
                }
                late.push(*number);
            } else {
                orphan.sweep(now, &self.events, Token(number * 2 + 1));
            }
        }
        for number in late {
            self.free(number);
        }
    }

    fn free(&mut self, number: usize) {
        let Some((slot, orphan)) = self.orphans.remove(&number) else { return };
        let seats: ServerSeats = orphan.seats;
        orphan.end(&self.events);
        self.draining[slot.index()].fetch_sub(1, Ordering::Relaxed);
        self.vacate(&seats);
    }

    /// There is no backend behind them any more.
    fn vacate(&self, seats: &ServerSeats) {
        self.shm.free_orphan(seats);
        wake_for(&self.shm, &self.inboxes, seats);
        let _ = self.input.send(Input::Event(Event::OrphanFreed { database: database_of(&self.shm, seats.pool) }));
    }
}
