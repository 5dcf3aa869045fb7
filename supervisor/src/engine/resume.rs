//! Going on with a fleet that another image has written down.

use super::{Engine, Worker, load, rules};
use crate::control::Control;
use crate::dns::Resolver;
use crate::estate::{Estate, KeptSlot, KeptWorker};
use crate::listen::{Keeper, Unix};
use crate::luggage::Arrived;
use crate::orphans::Inboxes;
use crate::process::{self, Process};
use crate::start::{Foundation, assemble};
use crate::upgrade::{WayBack, give_up};
use crate::{last_breath, logging};
use crossbeam_channel::bounded;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shared::control::Tongue;
use shared::door;
use shared::ids::Owner;
use shared::shm::{Shm, WorkerRow};
use shared::sys::seqpacket;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// A control socket with nobody at its other end.
fn closed() -> io::Result<OwnedFd> {
    let (ours, _) = seqpacket::pair()?;
    process::set_nonblocking(&ours)?;
    Ok(ours)
}

impl Engine {
    /// An engine that goes on, and with it the threads. The error says why it cannot.
    pub(crate) fn resume(estate: Estate, mut arrived: Arrived, way_back: Option<WayBack>) -> Result<Self, String> {
        // Wherever it fails, all that the image before needs is still open.
        let failed = |error: io::Error| give_up(format!("cannot go on with the fleet: {}", crate::listen::reason(&error)));
        let missing = || give_up("cannot go on with the fleet: a descriptor is missing".to_owned());
        let log_file = estate.log_file.map(|place| arrived.take(place).ok_or_else(missing)).transpose()?;
        logging::apply(&estate.config.settings, estate.stderr, log_file.as_ref()).map_err(failed)?;
        let memory = arrived.take(estate.memory).ok_or_else(missing)?;
        // The image before goes on with what it has left.
        let census = estate.census.filter(|_| way_back.is_some());
        let (shm, memory, memory_before) = match census {
            Some(census) => {
                let (shm, own) = Shm::from_census(&census).map_err(|error| give_up(error.to_string()))?;
                (shm, own, Some(memory))
            }
            None => (Shm::open(memory.as_fd()).map_err(|error| give_up(error.to_string()))?, memory, None),
        };
        let inboxes = Arc::new(Inboxes::default());
        let (mut inbox_ends, mut kept) = (Vec::new(), Vec::new());
        for KeptSlot { receiving, sending, worker } in estate.slots {
            inbox_ends.push(arrived.take(receiving).ok_or_else(missing)?);
            inboxes.add(arrived.take(sending).ok_or_else(missing)?);
            let worker = worker.map(|KeptWorker { owner, pid, control, held }| {
                let held = held.map(|held| arrived.take(held).ok_or_else(missing)).transpose()?;
                // One whose end an image has seen that has failed since then is found to have ended.
                let control = arrived.take(control).map_or_else(closed, Ok).map_err(failed)?;
                Ok::<_, String>((owner, Process::new(pid, held), control))
            });
            kept.push(worker.transpose()?);
        }
        let listeners = estate.listeners.take(&mut arrived).ok_or_else(missing)?;
        if listeners.keeper == Keeper::Nobody
            && let Some(file) = listeners.unix.as_ref().and_then(Unix::file)
        {
            last_breath::remove_at_end(file);
        }
        let control_dir = estate.control_dir.map(|kept| kept.take(&mut arrived).ok_or_else(missing)).transpose()?;
        let keeps = listeners.keeper != Keeper::Nobody;
        let snapshot = load::snapshot(&estate.config).map_err(give_up)?;
        let rules = rules(&estate.config, keeps);
        let foundation = Foundation {
            config: Arc::new(estate.config),
            listeners,
            shm,
            memory,
            inbox_ends,
            inboxes,
            snapshot,
            log_file,
            warned: estate.warned,
            stderr: estate.stderr,
            verbose: estate.verbose,
            image: estate.image,
            control_dir,
        };
        // A file of name servers that has become unreadable is no reason to end: who is looked up is told.
        let parts = assemble(foundation, |_| Ok(Resolver::default()))?;
        let mut engine = Self::new(parts, estate.mock_secret);
        engine.fleet = estate.fleet;
        engine.fleet.go_on(rules, crate::NAME);
        engine.fleet.skip_incarnations(engine.parts.office.shm.workers().last_incarnation());
        engine.generation = estate.generation;
        engine.last_ask = estate.last_ask;
        engine.ticket_key_since = estate.ticket_key_since;
        engine.image_before = estate.image_before;
        engine.way_back = way_back;
        engine.memory_before = memory_before;
        let gate = &engine.parts.office.gate;
        let table = engine.parts.office.shm.workers();
        let tongue = |owner: Owner| if table.is_stranger(owner.slot) { Tongue::Common } else { Tongue::Own };
        let again = |(owner, process, control)| {
            let control = Control::new(control, Arc::clone(gate), tongue(owner));
            Worker { owner, process, control }
        };
        engine.workers = kept.into_iter().map(|worker| worker.map(again)).collect();
        let control = |owner| Some(&engine.workers.iter().flatten().find(|worker| worker.owner == owner)?.control);
        let mut answers = BTreeMap::new();
        for (ask, session) in estate.asks {
            let (reply, answer) = bounded(1);
            engine.asks.insert(ask, (session, reply));
            answers.extend(session.map(|session| (session, answer)));
        }
        estate.parlour.resume(&engine.parts.office, control, |session| answers.remove(&session), &mut arrived);
        for Worker { owner, process, control } in engine.workers.iter().flatten() {
            last_breath::remember(owner.slot, process);
            process::listen(Arc::clone(&engine.parts.office), control.clone(), *owner, process.clone()).map_err(failed)?;
        }
        engine.end_strangers();
        if engine.way_back.is_none() {
            engine.come_back();
            engine.settle();
        }
        Ok(engine)
    }

    /// Ends what the image before, or one that has failed, has started beside the workers of the estate: workers, helpers, binaries that were asked.
    fn end_strangers(&self) {
        let (shm, workers) = (&self.parts.office.shm, || self.workers.iter().flatten());
        let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok());
        for pid in children.filter(|pid| !workers().any(|worker| worker.process.pid() == *pid)) {
            log::debug!("process {pid} is nobody's any more");
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
            super::reap(pid);
        }
        for slot in door::slots() {
            let WorkerRow { pid, incarnation, .. } = shm.workers().get(slot);
            let owner = Owner { slot, incarnation };
            if pid == 0 || workers().any(|worker| worker.owner == owner) {
                continue;
            }
            log::warn!("worker {slot} (pid {pid}) was the failed version's");
            if let Some(directory) = &self.parts.control_dir {
                door::remove(directory.as_fd(), slot);
            }
            let orphans = shm.bury(owner);
            shm.workers().vacate(slot);
            self.parts.office.orphans.buried(slot, orphans);
        }
    }
}
