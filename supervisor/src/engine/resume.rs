//! Going on with a fleet that another image has written down.

use super::{Belongings, Engine, Setup, Worker, rules};
use crate::control::Control;
use crate::dns::Resolver;
use crate::estate::{Estate, KeptSlot, KeptWorker};
use crate::fleet::AskId;
use crate::listen::{Keeper, Unix};
use crate::luggage::Arrived;
use crate::orphans::{Inboxes, wake_waiters};
use crate::parlour::{Parlour, Seats};
use crate::process::{self, Process};
use crate::start::assemble;
use crate::upgrade::{WayBack, give_up};
use crate::{last_breath, logging};
use crossbeam_channel::bounded;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shared::control::Tongue;
use shared::door;
use shared::ids::{ConnectionId, Owner, Slot};
use shared::shm::{Orphan, Shm, WorkerRow};
use shared::sys::seqpacket;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// A worker of the image before, with its control socket.
type Kept = (Owner, Process, OwnedFd);

/// What every slot had.
#[derive(Default)]
struct Slots {
    inbox_ends: Vec<OwnedFd>,
    inboxes: Inboxes,
    workers: Vec<Option<Kept>>,
}

/// Without it this image gives up. Wherever it does, all that the image before needs is still open.
trait OrGiveUp<T> {
    fn or_give_up(self) -> Result<T, String>;
}

impl<T> OrGiveUp<T> for io::Result<T> {
    fn or_give_up(self) -> Result<T, String> {
        self.map_err(|error| give_up(format!("cannot go on with the fleet: {}", crate::listen::reason(&error))))
    }
}

impl<T> OrGiveUp<T> for Option<T> {
    fn or_give_up(self) -> Result<T, String> {
        self.ok_or_else(|| give_up("cannot go on with the fleet: a descriptor is missing".to_owned()))
    }
}

/// A control socket with nobody at its other end.
fn closed() -> io::Result<OwnedFd> {
    let (ours, _) = seqpacket::pair()?;
    process::set_nonblocking(&ours)?;
    Ok(ours)
}

fn unpack(kept: Vec<KeptSlot>, arrived: &mut Arrived) -> Result<Slots, String> {
    let mut slots = Slots::default();
    for KeptSlot { receiving, sending, worker } in kept {
        slots.inbox_ends.push(arrived.take(receiving).or_give_up()?);
        slots.inboxes.add(arrived.take(sending).or_give_up()?);
        let worker = worker.map(|KeptWorker { owner, pid, control, held }| {
            let held = held.map(|held| arrived.take(held).or_give_up()).transpose()?;
            // One whose end an image has seen that has failed since then is found to have ended.
            let control = arrived.take(control).map_or_else(closed, Ok).or_give_up()?;
            Ok::<_, String>((owner, Process::new(pid, held), control))
        });
        slots.workers.push(worker.transpose()?);
    }
    Ok(slots)
}

impl Engine {
    /// An engine that goes on, and with it the threads. The error says why it cannot.
    pub(crate) fn resume(estate: Estate, mut arrived: Arrived, way_back: Option<WayBack>) -> Result<Self, String> {
        let log_file = estate.log_file.map(|place| arrived.take(place).or_give_up()).transpose()?;
        logging::apply(&estate.config.settings, estate.stderr, log_file.as_ref()).or_give_up()?;
        let memory = arrived.take(estate.memory).or_give_up()?;
        // The image before goes on with what it has left.
        let census = estate.census.filter(|_| way_back.is_some());
        let (shm, memory, memory_before) = match census {
            Some(census) => {
                let (shm, own) = Shm::from_census(&census).map_err(|error| give_up(error.to_string()))?;
                (shm, own, Some(memory))
            }
            None => (Shm::open(memory.as_fd()).map_err(|error| give_up(error.to_string()))?, memory, None),
        };
        let Slots { inbox_ends, inboxes, workers } = unpack(estate.slots, &mut arrived)?;
        let listeners = estate.listeners.take(&mut arrived).or_give_up()?;
        let keeps = listeners.keeper != Keeper::Nobody;
        if let Some(file) = listeners.unix.as_ref().and_then(Unix::file).filter(|_| !keeps) {
            last_breath::remove_at_end(file);
        }
        let control_dir = estate.control_dir.map(|kept| kept.take(&mut arrived).or_give_up()).transpose()?;
        let rules = rules(&estate.config, keeps);
        let own = Belongings { memory, listeners, inbox_ends, inboxes: Arc::new(inboxes) };
        let Estate { warned, stderr, verbose, image, .. } = estate;
        let setup = Setup { log_file, warned, stderr, verbose, image, control_dir };
        // A file of name servers that has become unreadable is no reason to end: who is looked up is told.
        let parts = assemble(estate.config, shm, own, setup, |_| Ok(Resolver::default()))?;
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
        engine.know_again(workers);
        let seats = estate.parlour.seats();
        engine.host_again(estate.asks, estate.parlour, &mut arrived);
        let dead = engine.end_strangers();
        engine.recount(dead, &seats, estate.given_back);
        for Worker { owner, process, control } in engine.workers.iter().flatten() {
            last_breath::remember(owner.slot, process);
            process::listen(Arc::clone(&engine.parts.office), control.clone(), *owner, process.clone()).or_give_up()?;
        }
        if engine.way_back.is_none() {
            engine.come_back();
            engine.settle();
        }
        Ok(engine)
    }

    /// The workers, each spoken to as its version understands.
    fn know_again(&mut self, kept: Vec<Option<Kept>>) {
        let office = &self.parts.office;
        let table = office.shm.workers();
        let tongue = |owner: Owner| if table.is_stranger(owner.slot) { Tongue::Common } else { Tongue::Own };
        let again = |(owner, process, control)| {
            let control = Control::new(control, Arc::clone(&office.gate), tongue(owner));
            Worker { owner, process, control }
        };
        self.workers = kept.into_iter().map(|worker| worker.map(again)).collect();
    }

    /// The console sessions, and who among them waits for what.
    fn host_again(&mut self, asks: Vec<(AskId, Option<ConnectionId>)>, parlour: Parlour, arrived: &mut Arrived) {
        let mut answers = BTreeMap::new();
        for (ask, session) in asks {
            let (reply, answer) = bounded(1);
            self.asks.insert(ask, (session, reply));
            answers.extend(session.map(|session| (session, answer)));
        }
        let control = |owner| Some(&self.workers.iter().flatten().find(|worker| worker.owner == owner)?.control);
        parlour.resume(&self.parts.office, control, |session| answers.remove(&session), arrived);
    }

    /// Ends what the image before, or one that has failed, has started beside the workers of the estate: workers, helpers, binaries that were asked.
    /// Returns whose lives on a slot are over.
    fn end_strangers(&self) -> Vec<Owner> {
        let (shm, workers) = (&self.parts.office.shm, || self.workers.iter().flatten());
        let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok());
        for pid in children.filter(|pid| !workers().any(|worker| worker.process.pid() == *pid)) {
            log::debug!("process {pid} is nobody's any more");
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
            super::reap(pid);
        }
        let mut dead = Vec::new();
        for slot in door::slots() {
            let WorkerRow { pid, incarnation, .. } = shm.workers().get(slot);
            let owner = Owner { slot, incarnation };
            if pid == 0 || workers().any(|worker| worker.owner == owner) {
                continue;
            }
            log::warn!("worker {slot} (pid {pid}) has ended under the version that failed");
            if let Some(directory) = &self.parts.setup.control_dir {
                door::remove(directory.as_fd(), slot);
            }
            dead.push(owner);
        }
        dead
    }

    /// Takes the seats in shared memory for what they are now; `seats` are those of what goes on. In memory that was given back all others are as they
    /// were when another image began to go on without it.
    fn recount(&self, dead: Vec<Owner>, seats: &Seats, given_back: bool) {
        let office = &self.parts.office;
        let recount = |slot: Slot, mut orphans: Vec<Orphan>| {
            orphans.retain(|orphan| !seats.orphans.contains(&orphan.seats));
            if given_back {
                for orphan in orphans {
                    office.shm.free_orphan(&orphan.seats);
                }
            } else {
                office.orphans.buried(slot, orphans);
            }
        };
        // Nobody knows any more whose they were.
        recount(Slot(0), office.shm.orphans());
        for owner in dead {
            recount(owner.slot, office.shm.bury(owner));
            office.shm.workers().vacate(owner.slot);
        }
        if given_back {
            // Workers are frozen and not yet listened to. A console login that outlasted the freeze and is still in a socket loses its place here, not its session.
            let clients = office.shm.clients();
            for seat in clients.held_by(Owner::SUPERVISOR).filter(|seat| !seats.clients.contains(seat)) {
                clients.leave(Owner::SUPERVISOR, seat);
            }
        }
        wake_waiters(&office.shm, &self.parts.own.inboxes);
    }
}
