//! Going on with a fleet that another image has written down.

use super::{Engine, Worker, load, rules};
use crate::control::Control;
use crate::estate::{Estate, KeptSlot, KeptWorker};
use crate::listen::{Keeper, Unix};
use crate::luggage::Arrived;
use crate::orphans::Inboxes;
use crate::process::{self, Process};
use crate::start::{Foundation, assemble};
use crate::upgrade::WayBack;
use crate::{last_breath, logging};
use crossbeam_channel::bounded;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use shared::control::Tongue;
use shared::ids::{Owner, Slot};
use shared::shm::{Shm, WorkerRow};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

impl Engine {
    /// An engine that goes on, and with it the threads. The error says why it cannot.
    pub(crate) fn resume(estate: Estate, mut arrived: Arrived, way_back: Option<WayBack>) -> Result<Self, String> {
        let failed = |error: io::Error| format!("cannot go on with the fleet: {}", crate::listen::reason(&error));
        let missing = || "cannot go on with the fleet: a descriptor is missing".to_owned();
        let log_file = estate.log_file.map(|place| arrived.take(place).ok_or_else(missing)).transpose()?;
        logging::apply(&estate.config.settings, estate.stderr, log_file.as_ref()).map_err(failed)?;
        let memory = arrived.take(estate.memory).ok_or_else(missing)?;
        // The image before goes on with what it has left.
        let census = estate.census.filter(|_| way_back.is_some());
        let (shm, memory, memory_before) = match census {
            Some(census) => {
                let (shm, own) = Shm::from_census(&census).map_err(|error| error.to_string())?;
                (shm, own, Some(memory))
            }
            None => (Shm::open(memory.as_fd()).map_err(|error| error.to_string())?, memory, None),
        };
        let inboxes = Arc::new(Inboxes::default());
        let (mut inbox_ends, mut kept) = (Vec::new(), Vec::new());
        for KeptSlot { receiving, sending, worker } in estate.slots {
            inbox_ends.push(arrived.take(receiving).ok_or_else(missing)?);
            inboxes.add(arrived.take(sending).ok_or_else(missing)?);
            let worker = worker.map(|KeptWorker { owner, pid, control, held }| {
                let held = held.map(|held| arrived.take(held).ok_or_else(missing)).transpose()?;
                Ok::<_, String>((owner, Process::new(pid, held), arrived.take(control).ok_or_else(missing)?))
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
        let snapshot = load::snapshot(&estate.config)?;
        let rules = rules(&estate.config, keeps);
        let foundation = Foundation {
            config: estate.config,
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
        let parts = assemble(foundation)?;
        let mut engine = Self::new(parts, estate.mock_secret);
        engine.fleet = estate.fleet;
        engine.fleet.go_on(rules, crate::NAME);
        engine.generation = estate.generation;
        engine.last_ask = estate.last_ask;
        engine.ticket_key_since = estate.ticket_key_since;
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
        engine.reap_helpers();
        engine.end_strangers();
        if engine.way_back.is_none() {
            engine.settle();
        }
        Ok(engine)
    }

    /// Processes that a thread of the image before had started and would have waited for. Those that have not ended yet are the next image's.
    fn reap_helpers(&self) {
        let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok());
        let is_worker = |pid: &u32| self.workers.iter().flatten().any(|worker| worker.process.pid() == *pid);
        for pid in children.filter(|pid| !is_worker(pid)) {
            let _ = waitpid(Pid::from_raw(pid as i32), Some(WaitPidFlag::WNOHANG));
        }
    }

    /// Workers that the estate does not know: an image that has failed had started them after it was written.
    fn end_strangers(&self) {
        let shm = &self.parts.office.shm;
        for (place, worker) in self.workers.iter().enumerate() {
            let slot = Slot(place as u8);
            let WorkerRow { pid, incarnation, .. } = shm.workers().get(slot);
            let known = worker.as_ref().is_some_and(|worker| worker.owner.incarnation == incarnation);
            if pid == 0 || known {
                continue;
            }
            log::warn!("worker {slot} (pid {pid}) is the failed version's, killing it");
            if let Err(error) = kill(Pid::from_raw(pid as i32), Signal::SIGKILL) {
                log::error!("could not kill worker {slot} (pid {pid}): {}", error.desc());
            }
            super::reap(pid);
            let orphans = shm.bury(Owner { slot, incarnation });
            shm.workers().vacate(slot);
            self.parts.office.orphans.buried(slot, orphans);
        }
    }
}
