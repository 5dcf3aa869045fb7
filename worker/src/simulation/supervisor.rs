//! The supervisor's part: what workers tell it and it tells them, reloads, and the burial of workers that die.

use super::Simulation;
use super::schedule::Event;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};
use shared::auth::scram::Keys;
use shared::config::Config;
use shared::control::{self, ServerSeats, ToSupervisor, ToWorker, Tongue, Welcome};
use shared::ids::{Owner, PoolId, SeatIndex, Slot};
use shared::shm;
use shared::sys::{memfd, seqpacket};
use shared::wire::encode;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// After this long an orphan's seats are free whatever its backend does: with its socket at hand, and without.
const GRACE: Duration = Duration::from_secs(30);
const GRACE_BLIND: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Supervisor {
    pub(super) welcomes: Vec<Welcome>,
    /// The duplicates of server sockets, by the seat in their pool; for a moment a seat can have several.
    duplicates: BTreeMap<(PoolId, SeatIndex), Vec<UnixStream>>,
    pub(super) orphans: BTreeMap<u64, Orphan>,
    buried: u64,
    /// A configuration that is not in force yet, and the workers that have not taken it.
    candidate: Option<(Config, BTreeSet<u8>)>,
}

/// A backend that has outlived its worker.
pub(super) struct Orphan {
    seats: ServerSeats,
    pub(super) socket: Option<UnixStream>,
}

impl Supervisor {
    /// Nothing is left to be done.
    pub(super) fn is_at_rest(&self) -> bool {
        self.orphans.is_empty() && self.candidate.is_none()
    }

    fn take_duplicate(&mut self, seats: &ServerSeats) -> Option<UnixStream> {
        self.duplicates.remove(&key(seats))?.pop()
    }
}

fn key(seats: &ServerSeats) -> (PoolId, SeatIndex) {
    (seats.pool, seats.seat)
}

/// Whether the other side has closed the socket.
fn is_over(socket: &UnixStream) -> bool {
    let ended = PollFlags::from_bits_retain(nix::libc::POLLRDHUP) | PollFlags::POLLHUP | PollFlags::POLLERR;
    let mut query = [PollFd::new(socket.as_fd(), ended)];
    poll(&mut query, PollTimeout::ZERO).unwrap() > 0
}

impl Simulation {
    /// A worker has said something.
    pub(super) fn supervisor_reads(&mut self, slot: usize) {
        loop {
            let Some(life) = &self.places[slot].life else { return };
            let (owner, mut buffer) = (life.owner, std::mem::take(&mut self.buffer));
            let received = seqpacket::recv(life.control.as_fd(), &mut buffer);
            self.buffer = buffer;
            match received {
                Ok(received) if received.len == 0 => return,
                Ok(received) => {
                    let message = control::decode(&self.buffer[..received.len]).unwrap();
                    self.supervisor_hears(owner, message, received.fds);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("a control socket cannot be read: {error}"),
            }
        }
    }

    fn supervisor_hears(&mut self, from: Owner, message: ToSupervisor, descriptors: Vec<OwnedFd>) {
        match message {
            ToSupervisor::ServerOpened(seats) => {
                let duplicate = descriptors.into_iter().next().unwrap();
                self.supervisor.duplicates.entry(key(&seats)).or_default().push(duplicate.into());
            }
            ToSupervisor::ServerClosed(seats) => {
                self.stranger_closed(from, &seats);
                if let Some(duplicates) = self.supervisor.duplicates.get_mut(&key(&seats)) {
                    duplicates.remove(duplicates.iter().position(is_over).unwrap_or(0));
                    self.supervisor.duplicates.retain(|_, duplicates| !duplicates.is_empty());
                }
            }
            ToSupervisor::Welcome(welcome) => {
                let known = self.supervisor.welcomes.iter().any(|w| (&w.database, &w.user) == (&welcome.database, &welcome.user));
                if !known {
                    self.supervisor.welcomes.push(welcome.clone());
                }
                let others: Vec<Owner> = self.owners().filter(|owner| *owner != from).collect();
                self.tell(&others, &ToWorker::Welcome(welcome));
            }
            ToSupervisor::Learned(learned) => {
                let others: Vec<Owner> = self.owners().filter(|owner| *owner != from).collect();
                self.tell(&others, &ToWorker::Learned(learned));
            }
            ToSupervisor::Prepared { .. } => self.prepared(from.slot),
            ToSupervisor::Ready | ToSupervisor::Frozen => self.upgrade_goes_on(from.slot),
            ToSupervisor::Beat { clients, servers } => self.stranger_beats(from, clients, servers),
            ToSupervisor::Committed { .. } | ToSupervisor::Remaining { .. } | ToSupervisor::Report { id: 0 } => {}
            other => panic!("worker {} says {other:?}", from.slot),
        }
    }

    pub(super) fn tell(&mut self, whom: &[Owner], message: &ToWorker) {
        for owner in whom {
            let delay = self.draw(&self.plan.mail_delay.clone());
            self.schedule.after(delay, Event::Say(*owner, Box::new(message.clone())));
        }
    }

    /// The supervisor's message arrives, unless the worker has died since.
    pub(super) fn say(&mut self, to: Owner, message: &ToWorker) {
        let snapshot = match (&message, &self.supervisor.candidate) {
            (ToWorker::Prepare { .. }, Some((config, _))) => Some(snapshot(config)),
            _ => None,
        };
        let descriptors: Vec<_> = snapshot.iter().map(AsFd::as_fd).collect();
        if let Some(life) = self.places[to.slot.index()].life.as_ref().filter(|life| life.owner == to) {
            let tongue = if self.is_old(to.slot) { Tongue::Common } else { Tongue::Own };
            seqpacket::send(life.control.as_fd(), &tongue.encode(message).unwrap(), &descriptors).unwrap();
        }
    }

    /// Whether a worker may be started now: one that starts while a new configuration is shown to the others would miss it.
    pub(super) fn is_reloading(&self) -> bool {
        self.supervisor.candidate.is_some()
    }

    /// A new configuration is shown to every worker.
    pub(super) fn reload(&mut self, config: Config) {
        if self.is_reloading() {
            return;
        }
        let config = Config { generation: self.config.generation + 1, ..config };
        self.note("reload", config.generation, 0);
        let workers: Vec<Owner> = self.owners().collect();
        let prepare = ToWorker::Prepare { generation: config.generation, log_file: false };
        self.supervisor.candidate = Some((config, workers.iter().map(|owner| owner.slot.0).collect()));
        self.tell(&workers, &prepare);
        self.commit_if_all_have_taken_it();
    }

    /// A worker has taken the new configuration, or has died.
    pub(super) fn prepared(&mut self, slot: Slot) {
        if let Some((_, missing)) = &mut self.supervisor.candidate {
            missing.remove(&slot.0);
            self.commit_if_all_have_taken_it();
        }
    }

    fn commit_if_all_have_taken_it(&mut self) {
        let Some((config, _)) = self.supervisor.candidate.take_if(|(_, missing)| missing.is_empty()) else { return };
        self.note("commit", config.generation, 0);
        let workers: Vec<Owner> = self.owners().collect();
        self.tell(&workers, &ToWorker::Commit { generation: config.generation });
        self.config = config;
    }

    /// A dead worker has been reaped: its seats are reclaimed, its backends told to end, and whoever waits is woken.
    pub(super) fn bury(&mut self, dead: Owner) {
        self.note("burial", dead.slot.0.into(), 0);
        let orphans = self.shm.bury(dead);
        self.shm.workers().vacate(dead.slot);
        for orphan in orphans {
            self.adopt_orphan(&orphan);
        }
        self.wake_waiters();
        self.prepared(dead.slot);
        if !self.has_successor(dead.slot) {
            self.places[dead.slot.index()].is_abandoned = true;
            return self.old_one_gone(dead.slot);
        }
        let delay = self.draw(&self.plan.restart_delay.clone());
        self.schedule.after(delay, Event::Start(dead.slot));
    }

    fn adopt_orphan(&mut self, orphan: &shm::Orphan) {
        self.supervisor.buried += 1;
        let number = self.supervisor.buried;
        let socket = self.supervisor.take_duplicate(&orphan.seats);
        self.note("orphan", number, socket.is_some().into());
        let grace = if socket.is_some() { GRACE } else { GRACE_BLIND };
        self.schedule.after(grace, Event::Grace(number));
        if let Some(socket) = &socket {
            socket.set_nonblocking(true).unwrap();
            if let (Some((pid, secret)), true) = (orphan.backend, orphan.busy) {
                let delay = self.draw(&self.plan.mail_delay.clone());
                self.schedule.after(delay, Event::Cancel(encode::cancel_key(pid, secret)));
            }
            let _ = shutdown(socket.as_raw_fd(), Shutdown::Write);
        }
        self.supervisor.orphans.insert(number, Orphan { seats: orphan.seats, socket });
    }

    /// An orphan's socket can be read: at its end the backend is gone.
    pub(super) fn orphan_ready(&mut self, number: u64) {
        let Some(socket) = self.supervisor.orphans.get_mut(&number).and_then(|orphan| orphan.socket.as_mut()) else { return };
        loop {
            match socket.read(&mut self.buffer) {
                Ok(1..) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Ok(0) | Err(_) => return self.free_orphan(number),
            }
        }
    }

    /// It has had its time.
    pub(super) fn grace_over(&mut self, number: u64) {
        if let Some(orphan) = self.supervisor.orphans.get(&number) {
            assert!(orphan.socket.is_none(), "an orphan's backend has not ended");
            self.free_orphan(number);
        }
    }

    fn free_orphan(&mut self, number: u64) {
        let Some(orphan) = self.supervisor.orphans.remove(&number) else { return };
        self.note("orphan freed", number, 0);
        self.shm.free_orphan(&orphan.seats);
        if self.shm.waiting_beside(Slot::SUPERVISOR, &orphan.seats) != 0 {
            self.wake_waiters();
        }
    }

    /// Whoever has a client waiting is told to look again.
    pub(super) fn wake_waiters(&mut self) {
        let pools = self.shm.pools().map(|pool| self.shm.pool_state(pool).waiting_others(Slot::SUPERVISOR));
        let limits = self.shm.limits().map(|limit| self.shm.limit_state(limit).waiting_others(Slot::SUPERVISOR));
        let waiting = pools.chain(limits).fold(0, |all, some| all | some);
        for slot in (0..self.places.len() as u8).filter(|slot| waiting & (1 << slot) != 0) {
            self.wake(Slot(slot));
        }
    }

    /// Everybody who lives.
    pub(super) fn owners(&self) -> impl Iterator<Item = Owner> {
        self.places.iter().filter_map(|place| place.life.as_ref()).map(|life| life.owner)
    }
}

/// What workers read keys from that others have learned: here none.
pub(super) fn no_keys() -> OwnedFd {
    memfd::create_sealed("keys", &control::encode_long(&Vec::<Keys>::new()).unwrap()).unwrap()
}

/// What workers read a configuration from.
pub(super) fn snapshot(config: &Config) -> OwnedFd {
    memfd::create_sealed("configuration", &config.to_bytes().unwrap()).unwrap()
}
