//! What each worker has.

use super::find::{Found, Waiting};
use super::{PATIENCE, kill};
use crate::control_dir::ControlDir;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shared::config::Config;
use shared::control::{self, Estate, Lore, MAX_MESSAGE, ServerSeats, ToSupervisor, ToWorker};
use shared::door;
use shared::ids::{Owner, Slot};
use shared::shm::{Orphan, Shm};
use shared::sys::pidfd::PidFd;
use shared::sys::{memfd, seqpacket};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use zeroize::Zeroize;

/// The longest configuration and list of what was learned, in bytes.
const LONGEST: usize = 256 * 1024 * 1024;

/// Workers that go by this supervisor, and the dead ones' connections.
pub(crate) struct Claimed {
    pub(super) workers: Vec<Worker>,
    /// Connections whose worker has died, before or after the supervisor.
    pub(super) orphans: Vec<(Slot, Vec<Orphan>)>,
    pub(super) shm: Shm,
    pub(super) memory: OwnedFd,
}

/// One of them, with copies of all that it holds.
pub(super) struct Worker {
    pub(super) owner: Owner,
    pub(super) pid: u32,
    pub(super) process: PidFd,
    pub(super) control: OwnedFd,
    pub(super) estate: Estate,
    pub(super) config: Config,
    pub(super) lore: Lore,
    /// Receiving and sending end.
    pub(super) inbox: (OwnedFd, OwnedFd),
    pub(super) tcp: Vec<(Slot, OwnedFd)>,
    pub(super) unix: Vec<OwnedFd>,
    pub(super) servers: Vec<(ServerSeats, OwnedFd)>,
}

impl Found {
    /// Becomes their supervisor. The error is the FATAL line. `None`: none of them has answered, and none is left.
    pub(crate) fn claim(self, directory: &ControlDir) -> Result<Option<Claimed>, String> {
        let Self { workers: waiting, mut dead, memory } = self;
        let shm = Shm::open(memory.as_fd()).map_err(|error| error.to_string())?;
        // Before a worker can send this process a console's client.
        shm.bury_supervisor();
        let adopt = control::encode(&ToWorker::Adopt).map_err(|error| error.to_string())?;
        let mut workers = Vec::new();
        // One after the other: so many descriptors on their way at once might be more than one user is allowed.
        for mut one in waiting.into_values() {
            let (slot, owner) = (one.owner.slot, one.owner);
            let mut read = ask(&one, &adopt);
            // It waits for a limited time only, and others before it may have taken long.
            if read.as_ref().is_err_and(has_turned_away) && one.greet_again(directory.as_fd())? {
                read = ask(&one, &adopt);
            }
            match read {
                Ok(read) => workers.push(read.of(one)),
                Err(error) if error.raw_os_error() == Some(Errno::EMFILE as i32) => {
                    return Err(format!("what worker {slot} has cannot be taken over: {}", crate::listen::reason(&error)));
                }
                Err(error) => {
                    kill(slot, one.pid, &one.process, &format!("does not say what it has ({})", crate::listen::reason(&error)))?;
                    door::remove(directory.as_fd(), slot);
                    dead.push(owner);
                }
            }
        }
        // Nobody knows any more whose they were.
        let mut orphans = vec![(Slot(0), shm.orphans())];
        for owner in dead {
            log::warn!("worker {} had ended while there was no supervisor", owner.slot);
            orphans.push((owner.slot, shm.bury(owner)));
            shm.workers().vacate(owner.slot);
        }
        Ok((!workers.is_empty()).then_some(Claimed { workers, orphans, shm, memory }))
    }
}

/// Everything that one worker has said.
struct Read {
    estate: Estate,
    config: Config,
    lore: Lore,
    inbox: (OwnedFd, OwnedFd),
    tcp: Vec<(Slot, OwnedFd)>,
    unix: Vec<OwnedFd>,
    servers: Vec<(ServerSeats, OwnedFd)>,
}

impl Read {
    fn of(self, one: Waiting) -> Worker {
        let Self { estate, config, lore, inbox, tcp, unix, servers } = self;
        let Waiting { owner, pid, process, socket: control } = one;
        Worker { owner, pid, process, control, estate, config, lore, inbox, tcp, unix, servers }
    }
}

fn has_turned_away(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof)
}

fn ask(one: &Waiting, adopt: &[u8]) -> io::Result<Read> {
    seqpacket::send(one.socket.as_fd(), adopt, &[])?;
    read_all(one)
}

fn read_all(one: &Waiting) -> io::Result<Read> {
    let (message, fds) = next(one)?;
    let ToSupervisor::Estate(estate) = message else { return Err(invalid()) };
    let mut read = Read::new(*estate, fds)?;
    if read.estate.owner != one.owner {
        return Err(invalid());
    }
    while read.servers.len() < read.estate.servers as usize {
        let (ToSupervisor::Servers(seats), fds) = next(one)? else { return Err(invalid()) };
        if seats.is_empty() || seats.len() != fds.len() {
            return Err(invalid());
        }
        read.servers.extend(seats.into_iter().zip(fds));
    }
    Ok(read)
}

impl Read {
    fn new(estate: Estate, fds: Vec<OwnedFd>) -> io::Result<Self> {
        let mut fds = fds.into_iter();
        let mut next = || fds.next().ok_or_else(invalid);
        let config = memfd::read_all(next()?.as_fd(), LONGEST)?;
        let config = Config::from_bytes(&config).map_err(|_| invalid())?;
        let lore = control::decode(&memfd::read_all(next()?.as_fd(), LONGEST)?).map_err(|_| invalid())?;
        let inbox = (next()?, next()?);
        let tcp = estate.tcp.iter().map(|slot| Ok((*slot, next()?))).collect::<io::Result<_>>()?;
        let unix = (0..estate.unix).map(|_| next()).collect::<io::Result<_>>()?;
        Ok(Self { estate, config, lore, inbox, tcp, unix, servers: Vec::new() })
    }
}

/// The next message.
fn next(one: &Waiting) -> io::Result<(ToSupervisor, Vec<OwnedFd>)> {
    let limit = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
    let mut readable = [PollFd::new(one.socket.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut readable, limit) {
            Err(Errno::EINTR) => {}
            Ok(0) => return Err(ErrorKind::TimedOut.into()),
            Ok(_) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let mut buffer = vec![0; MAX_MESSAGE];
    let received = seqpacket::recv(one.socket.as_fd(), &mut buffer)?;
    if received.len == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    if received.truncated {
        return Err(Errno::EMFILE.into());
    }
    let message = control::decode(&buffer[..received.len]).map_err(|_| invalid());
    buffer[..received.len].zeroize();
    Ok((message?, received.fds))
}

fn invalid() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "what it says is not understood")
}
