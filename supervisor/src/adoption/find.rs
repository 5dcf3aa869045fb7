//! Who is there: at each slot's door, and by the worker table.

use super::{PATIENCE, PAUSE, identity, is_worker, kill};
use crate::control_dir::ControlDir;
use nix::errno::Errno;
use shared::control::VERSION;
use shared::door::{self, Heard, Hello};
use shared::ids::{Owner, Slot};
use shared::shm::{Shm, WorkerState};
use shared::sys::peer::peer_credentials;
use shared::sys::pidfd::PidFd;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Workers that wait for a supervisor. Dropped, they go on without one.
#[derive(Debug)]
pub(crate) struct Found {
    pub(super) workers: BTreeMap<Slot, Waiting>,
    /// Those that have died, and were not buried.
    pub(super) dead: Vec<Owner>,
    pub(super) memory: OwnedFd,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) owner: Owner,
    pub(super) pid: u32,
    pub(super) process: PidFd,
    pub(super) socket: OwnedFd,
}

/// What stands behind a door.
enum Door {
    /// Nobody, or nobody has opened.
    Shut,
    /// Somebody who has not spoken.
    Open(Stranger),
}

/// A process by its socket's credentials, held before it is asked who it is.
struct Stranger {
    pid: u32,
    process: PidFd,
    socket: OwnedFd,
}

/// Looks for workers without a supervisor. `None`: there is none. The error is the FATAL line; then all are as they were.
pub(crate) fn find(directory: &ControlDir) -> Result<Option<Found>, String> {
    let mut heard = greet(directory.as_fd(), door::slots())?;
    let foreign: Vec<&Heard> = heard.values().map(|(_, heard)| heard).filter(|heard| !speaks_our_language(&heard.hello)).collect();
    if let Some(one) = foreign.first() {
        return Err(refusal(&one.hello.by, &foreign, heard.values().map(|(_, heard)| heard)));
    }
    let Some((_, (_, first))) = heard.first_key_value() else { return Ok(None) };
    if heard.values().any(|(_, other)| !door::is_same(&first.memory, &other.memory)) {
        let pids = pids(heard.values().map(|(_, heard)| heard));
        return Err(format!("the workers that serve on are of several fleets: end them (kill {pids})"));
    }
    let shm = Shm::open(first.memory.as_fd()).map_err(|error| error.to_string())?;
    let memory = first.memory.try_clone().map_err(|error| error.to_string())?;
    let dead = bring_out_your_dead(&shm, memory.as_fd(), &mut heard)?;
    if heard.is_empty() {
        return Ok(None);
    }
    let waiting = |(slot, (stranger, heard)): (Slot, (Stranger, Heard))| {
        let Stranger { pid, process, socket } = stranger;
        (slot, Waiting { owner: heard.hello.owner, pid, process, socket })
    };
    Ok(Some(Found { workers: heard.into_iter().map(waiting).collect(), dead, memory }))
}

fn speaks_our_language(hello: &Hello) -> bool {
    (hello.version, hello.layout) == (VERSION, Shm::LAYOUT)
}

impl Waiting {
    /// The same worker once more: one that was kept waiting for too long has turned away. False: it is there no more.
    pub(super) fn greet_again(&mut self, directory: BorrowedFd<'_>) -> Result<bool, String> {
        let (slot, expected) = (self.owner.slot, (self.owner, self.pid));
        let found = greet(directory, [slot])?.remove(&slot);
        let found = found.filter(|(stranger, heard)| (heard.hello.owner, stranger.pid) == expected);
        let is_there = found.is_some();
        if let Some((stranger, _)) = found {
            self.socket = stranger.socket;
        }
        Ok(is_there)
    }
}

/// Why workers of another version, and of this one beside them, are left as they are.
fn refusal<'a>(by: &str, foreign: &[&Heard], all: impl Iterator<Item = &'a Heard>) -> String {
    let (theirs, this) = (pids(foreign.iter().copied()), crate::NAME);
    let ours = pids(all.filter(|heard| speaks_our_language(&heard.hello)));
    if ours.is_empty() {
        return format!(
            "workers of another version ({by}, this is {this}) serve on and cannot be adopted, pids {theirs}: \
             start that version on this configuration and upgrade it, or end them (kill {theirs})"
        );
    }
    format!(
        "workers of two versions serve on, as the supervisor died during an upgrade, and cannot be adopted together: \
         those of the other one ({by}), pids {theirs}, and of this one ({this}), pids {ours}: \
         wait until either have left, or end them (kill {theirs}, or kill {ours}), and start the version of those that remain"
    )
}

fn pids<'a>(heard: impl Iterator<Item = &'a Heard>) -> String {
    heard.map(|heard| heard.hello.pid.to_string()).collect::<Vec<_>>().join(" ")
}

/// Knocks at these doors and hears who opens. Workers that do not answer are killed, whoever else does not is left alone.
fn greet(directory: BorrowedFd<'_>, slots: impl IntoIterator<Item = Slot>) -> Result<BTreeMap<Slot, (Stranger, Heard)>, String> {
    let mut doors: BTreeMap<Slot, Door> = slots.into_iter().map(|slot| (slot, Door::Shut)).collect();
    let mut heard = BTreeMap::new();
    // Rounds are counted, not the time: this process, too, may have been stopped for a while.
    for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
        for slot in doors.keys().copied().collect::<Vec<_>>() {
            let answer = match doors.remove(&slot) {
                Some(Door::Open(stranger)) => hear(slot, stranger),
                _ => knock(directory, slot)?,
            };
            match answer {
                Answer::None => {}
                Answer::NotYet(door) => drop(doors.insert(slot, door)),
                Answer::Worker(stranger, hello) => drop(heard.insert(slot, (stranger, hello))),
                Answer::NoWorker(pid) => ignore(directory, slot, pid),
            }
        }
        if doors.is_empty() {
            return Ok(heard);
        }
        std::thread::sleep(PAUSE);
    }
    for (slot, door) in doors {
        match door {
            Door::Shut => return Err(format!("worker {slot} does not open its door: another supervisor has it, or it hangs")),
            Door::Open(stranger) if is_worker(stranger.pid) => kill(slot, stranger.pid, &stranger.process, "does not answer")?,
            Door::Open(stranger) => ignore(directory, slot, stranger.pid),
        }
        door::remove(directory, slot);
    }
    Ok(heard)
}

enum Answer {
    /// There is no worker.
    None,
    NotYet(Door),
    Worker(Stranger, Heard),
    NoWorker(u32),
}

fn knock(directory: BorrowedFd<'_>, slot: Slot) -> Result<Answer, String> {
    let socket = match door::knock(directory, slot) {
        Ok(socket) => socket,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Answer::None),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            door::remove(directory, slot);
            return Ok(Answer::None);
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Answer::NotYet(Door::Shut)),
        Err(error) => return Err(format!("could not look for worker {slot}: {}", crate::listen::reason(&error))),
    };
    let failed =
        |error: io::Error| format!("could not tell who is at the door of worker {slot}: {}", crate::listen::reason(&error));
    let (pid, _, _) = peer_credentials(&socket).map_err(failed)?;
    match PidFd::open(pid) {
        Ok(process) => Ok(Answer::NotYet(Door::Open(Stranger { pid, process, socket }))),
        // It has ended since.
        Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => Ok(Answer::NotYet(Door::Shut)),
        Err(error) => Err(failed(error)),
    }
}

fn hear(slot: Slot, stranger: Stranger) -> Answer {
    match Hello::hear(stranger.socket.as_fd()) {
        Ok(heard) if (heard.hello.pid, heard.hello.owner.slot) == (stranger.pid, slot) => Answer::Worker(stranger, heard),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Answer::NotYet(Door::Open(stranger)),
        // It has not seen yet that its supervisor is gone, or has just ended.
        Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => Answer::NotYet(Door::Shut),
        _ => Answer::NoWorker(stranger.pid),
    }
}

fn ignore(directory: BorrowedFd<'_>, slot: Slot, pid: u32) {
    log::warn!("process {pid} listens where worker {slot} would, and is none: ignored");
    door::remove(directory, slot);
}

/// Who was on a slot and is no more, by the worker table. A worker that lives and could not be found is killed: its limits are those of the fleet.
fn bring_out_your_dead(
    shm: &Shm,
    memory: BorrowedFd<'_>,
    heard: &mut BTreeMap<Slot, (Stranger, Heard)>,
) -> Result<Vec<Owner>, String> {
    let mut dead = Vec::new();
    for slot in door::slots() {
        let row = shm.workers().get(slot);
        let owner = Owner { slot, incarnation: row.incarnation };
        let entered = row.state != WorkerState::Vacant;
        match heard.remove(&slot) {
            Some((stranger, hello)) if entered && (hello.hello.owner, stranger.pid) == (owner, row.pid) => {
                heard.insert(slot, (stranger, hello));
                continue;
            }
            Some((stranger, _)) => kill(slot, stranger.pid, &stranger.process, "is not in the table of workers")?,
            None => {}
        }
        if !entered {
            continue;
        }
        if let Ok(process) = PidFd::open(row.pid)
            && is_worker(row.pid)
            && identity::is_of_fleet(row.pid, memory, row.started_at_us)
        {
            kill(slot, row.pid, &process, "cannot be found")?;
        }
        dead.push(owner);
    }
    Ok(dead)
}
