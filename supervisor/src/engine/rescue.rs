//! Going on with workers whose supervisor has died.

use super::{Engine, Parts, Worker};
use crate::adoption::Rescued;
use crate::control::Control;
use crate::fleet::Event;
use crate::listen::{Keeper, reason};
use crate::orphans::wake_waiters;
use crate::{last_breath, process};
use std::sync::Arc;

impl Engine {
    /// An engine and what it begins with. The error says why it cannot; the workers go on without it then.
    pub(crate) fn rescue(parts: Parts, rescued: Rescued) -> Result<(Self, Event), String> {
        let Rescued { mock_secret, survivors, workers, servers, orphans } = rescued;
        let mut engine = Self::new(parts, mock_secret);
        engine.generation = engine.parts.office.config().generation;
        let office = Arc::clone(&engine.parts.office);
        for (seats, duplicate) in servers {
            office.orphans.opened(seats, Some(duplicate));
        }
        for (slot, orphans) in orphans {
            office.orphans.buried(slot, orphans);
        }
        wake_waiters(&office.shm, &engine.parts.own.inboxes);
        for (owner, process, control) in workers {
            let control = Control::new(control, Arc::clone(&office.gate), shared::control::Tongue::Own);
            let listening = process::listen(Arc::clone(&office), control.clone(), owner, process.clone());
            listening.map_err(|error| format!("could not start the thread for worker {}: {}", owner.slot, reason(&error)))?;
            engine.workers[owner.slot.index()] = Some(Worker { owner, process, control });
        }
        for worker in engine.workers.iter().flatten() {
            last_breath::remember(worker.owner.slot, &worker.process);
        }
        let listeners = &mut engine.parts.own.listeners;
        if let Some(unix) = listeners.unix.as_mut().filter(|_| listeners.keeper == Keeper::Nobody) {
            unix.own();
        }
        Ok((engine, Event::Adopted(Box::new(survivors))))
    }
}
