//! What the supervisor's threads share: the configuration in force, the shared memory, and the way to the fleet's thread.

use crate::asks::Asks;
use crate::auth::Checks;
use crate::console::Console;
use crate::dns::Resolver;
use crate::engine::NewSlot;
use crate::fleet::{Answer, Event, Request};
use crate::gate::Gate;
use crate::orphans::Orphanage;
use crate::stats::History;
use crate::upgrade::Binary;
use crossbeam_channel::{Receiver, Sender, bounded};
use shared::config::{Changes, Config, News};
use shared::ids::{ConnectionId, Incarnation, Slot};
use shared::shm::Shm;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// What the fleet's thread is told.
#[derive(Debug)]
pub(crate) enum Input {
    /// Something for the state machine as it is.
    Event(Event),
    /// Somebody asks: a console session, or the supervisor itself.
    Ask(Request, Option<ConnectionId>, Sender<Answer>),
    /// A cancel request for this console session.
    Cancel(ConnectionId),
    /// A worker's process has ended and its control socket is drained; it has not been reaped.
    Gone(Slot, Incarnation),
    /// A configuration was read, or why not.
    Loaded(Result<Box<Candidate>, String>),
    /// The binary that was asked as this one can take the fleet over, or why not.
    Preflighted(u64, Result<Binary, String>),
}

/// A configuration on its way to be put in force.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// The configuration.
    pub(crate) config: Arc<Config>,
    /// It as a sealed memfd.
    pub(crate) snapshot: OwnedFd,
    /// Its log file, newly opened.
    pub(crate) log_file: Option<OwnedFd>,
    /// What is worth knowing about it.
    pub(crate) warnings: Vec<String>,
    /// What it changes.
    pub(crate) changes: Changes,
    /// The same in words.
    pub(crate) news: News,
    /// How many workers there are to be.
    pub(crate) workers: usize,
    /// What the slots own that it adds.
    pub(crate) new_slots: Vec<NewSlot>,
}

/// See the module.
pub(crate) struct Office {
    config: RwLock<Arc<Config>>,
    consoles: Mutex<BTreeMap<ConnectionId, Console>>,
    input: Sender<Input>,
    /// What whoever takes something from outside passes through.
    pub(crate) gate: Arc<Gate>,
    /// The fleet's shared memory.
    pub(crate) shm: Shm,
    /// Backends that outlived their worker.
    pub(crate) orphans: Orphanage,
    /// Host names.
    pub(crate) names: Resolver,
    /// What workers have asked.
    pub(crate) asks: Arc<Asks>,
    /// Passwords that are checked outside the workers.
    pub(crate) checks: Checks,
    /// What averages start from.
    pub(crate) history: History,
    listeners: Mutex<Vec<ListenerRow>>,
}

/// A listener as SHOW FDS lists it: descriptor, address, port.
pub(crate) type ListenerRow = (i32, String, u16);

impl Office {
    /// Opens it.
    pub(crate) fn new(
        config: Arc<Config>,
        input: Sender<Input>,
        gate: Arc<Gate>,
        shm: Shm,
        orphans: Orphanage,
        names: Resolver,
        listeners: Vec<ListenerRow>,
    ) -> Self {
        Self {
            config: RwLock::new(config),
            asks: Asks::new(Arc::clone(&gate)),
            consoles: Mutex::default(),
            input,
            gate,
            shm,
            orphans,
            names,
            checks: Checks::default(),
            history: History::default(),
            listeners: Mutex::new(listeners),
        }
    }

    /// The configuration in force.
    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another one in force.
    pub(crate) fn adopt(&self, config: Arc<Config>) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// The console's sessions.
    pub(crate) fn consoles(&self) -> MutexGuard<'_, BTreeMap<ConnectionId, Console>> {
        self.consoles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The listeners.
    pub(crate) fn listeners(&self) -> MutexGuard<'_, Vec<ListenerRow>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the fleet's thread. Without one the supervisor is ending, and nothing matters any more.
    pub(crate) fn tell(&self, input: Input) {
        let _ = self.input.send(input);
    }

    /// Asks the fleet, for a console session if one is named; the answer comes in its own time, or never if the supervisor ends first.
    pub(crate) fn ask(&self, request: Request, session: Option<ConnectionId>) -> Receiver<Answer> {
        let (reply, answer) = bounded(1);
        self.tell(Input::Ask(request, session, reply));
        answer
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// An office without a fleet, and what the fleet's thread would be told.
    pub(crate) fn office() -> (Arc<Office>, Receiver<Input>) {
        let (input, inputs) = crossbeam_channel::unbounded();
        let (shm, gate) = (Shm::create().unwrap().0, Arc::new(Gate::default()));
        let orphans = Orphanage::start(shm.clone(), Arc::default(), Arc::clone(&gate), input.clone()).unwrap();
        let office = Office::new(Arc::default(), input, gate, shm, orphans, Resolver::default(), Vec::new());
        (Arc::new(office), inputs)
    }
}
