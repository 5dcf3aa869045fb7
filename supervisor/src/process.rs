//! A worker's process as the supervisor holds it: its start, and a thread that listens to its control socket.
//!
//! That thread reads until the worker's end is closed and then waits for the process without reaping it: so everything the
//! worker said has been handled before its end is known, and its pid stays its own until the fleet's thread has reaped it.
//! A worker that another supervisor has started is nobody's child here, and held by a descriptor instead.

use crate::asks::{self, Question};
use crate::control::Control;
use crate::fleet::{Ended, Event, Said};
use crate::gate::Gate;
use crate::office::{Input, Office};
use crate::{console, dns};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use shared::control::{self, MAX_MESSAGE, ReportRows, ToSupervisor, Tongue};
use shared::ids::{Owner, Slot};
use shared::sys::pidfd::PidFd;
use shared::sys::{clock, memfd, seqpacket, spawn};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroize;

/// The longest report that is read, in bytes: some 250,000 connections.
const MAX_REPORT: usize = 128 * 1024 * 1024;

/// A process that is ours to end, and that nothing else can be mistaken for.
#[derive(Debug, Clone)]
pub(crate) enum Process {
    /// A child, until it is reaped.
    Child(u32),
    /// Another supervisor's.
    Adopted(u32, Arc<PidFd>),
}

impl Process {
    /// As another image of this process has had it.
    pub(crate) fn new(pid: u32, held: Option<OwnedFd>) -> Self {
        held.map_or(Process::Child(pid), |held| Process::Adopted(pid, Arc::new(held.into())))
    }

    /// What holds one that is no child.
    pub(crate) fn held(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Process::Child(_) => None,
            Process::Adopted(_, process) => Some(process.as_fd()),
        }
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        match self {
            Process::Child(pid) | Process::Adopted(pid, _) => *pid,
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&self) -> io::Result<()> {
        match self {
            Process::Child(pid) => Ok(kill(Pid::from_raw(*pid as i32), Signal::SIGKILL)?),
            Process::Adopted(_, process) => process.signal(Signal::SIGKILL),
        }
    }

    /// Waits for its end. It is not reaped.
    fn wait(&self) {
        match self {
            Process::Child(pid) => {
                let pid = Pid::from_raw(*pid as i32);
                while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
            }
            Process::Adopted(pid, process) => {
                if let Err(error) = process.wait(PollTimeout::NONE) {
                    log::error!("could not wait for process {pid}: {error}");
                }
            }
        }
    }

    /// How it ended. After [`Self::wait`], once.
    pub(crate) fn reap(&self) -> Ended {
        match self {
            Process::Child(pid) => crate::engine::reap(*pid),
            Process::Adopted(..) => Ended::Unseen,
        }
    }
}

/// Starts a worker's process from this process's own image, whatever has become of its file.
pub(crate) fn start(gate: &Arc<Gate>) -> io::Result<(Control, u32)> {
    let (ours, theirs) = seqpacket::pair()?;
    set_nonblocking(&ours)?;
    let pid = spawn::spawn_worker(Path::new("/proc/self/exe"), &["worker"], theirs)?;
    Ok((Control::new(ours, Arc::clone(gate), Tongue::Own), pid))
}

/// Sets O_NONBLOCK on the open file, for every process that holds it.
pub(crate) fn set_nonblocking(fd: &impl AsFd) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Whether the other side of a connection has ended it, unread bytes or not.
pub(crate) fn peer_has_ended(socket: &impl AsFd) -> bool {
    let rdhup = PollFlags::from_bits_retain(nix::libc::POLLRDHUP);
    let mut query = [PollFd::new(socket.as_fd(), rdhup | PollFlags::POLLHUP | PollFlags::POLLERR)];
    poll(&mut query, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Listens to a worker from a thread of its own until its process has ended.
pub(crate) fn listen(office: Arc<Office>, control: Control, owner: Owner, process: Process) -> io::Result<()> {
    let listener = Listener { office, control, owner };
    let run = move || {
        if let Err(error) = listener.read_all() {
            log::error!("control socket of worker {}: {error}", listener.owner.slot);
        }
        process.wait();
        listener.office.tell(Input::Gone(listener.owner.slot, listener.owner.incarnation));
    };
    std::thread::Builder::new().name(format!("worker {}", owner.slot)).spawn(run)?;
    Ok(())
}

struct Listener {
    office: Arc<Office>,
    control: Control,
    owner: Owner,
}

impl Listener {
    fn read_all(&self) -> io::Result<()> {
        let mut buffer = vec![0; MAX_MESSAGE];
        loop {
            match poll(&mut [PollFd::new(self.control.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let _pass = self.office.gate.enter();
            let received = match seqpacket::recv(self.control.as_fd(), &mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                // The worker died with messages of ours unread.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
                Err(error) => return Err(error),
            };
            if received.len == 0 {
                return Ok(());
            }
            if received.truncated {
                log::error!("out of file descriptors: lost one that worker {} sent", self.owner.slot);
            }
            let message = control::decode(&buffer[..received.len]);
            // A client's password may have been in it.
            buffer[..received.len].zeroize();
            match message {
                Ok(message) => self.route(message, received.fds),
                Err(error) => log::error!("from worker {}: {error}", self.owner.slot),
            }
        }
    }

    fn ask(&self, question: Question) {
        asks::ask(&self.office, self.owner, question, &self.control);
    }

    /// Handles what needs no decision; the rest is the fleet's.
    fn route(&self, message: ToSupervisor, descriptors: Vec<OwnedFd>) {
        let descriptor = descriptors.into_iter().next();
        let said = match message {
            ToSupervisor::Ready => Said::Ready,
            ToSupervisor::Prepared { generation } => Said::Prepared(generation),
            ToSupervisor::Refused { generation, reason } => Said::Refused(generation, reason),
            ToSupervisor::Committed { generation } => Said::Committed(generation),
            ToSupervisor::Done { number, outcome } => Said::Done(number, outcome),
            ToSupervisor::Remaining { gone, idle, others } => Said::Remaining { gone, idle, others },
            ToSupervisor::Drained => Said::Drained,
            ToSupervisor::Frozen => Said::Frozen,
            ToSupervisor::Listening { of } => Said::Listening(of),
            ToSupervisor::CannotListen { of } => Said::CannotListen(of),
            ToSupervisor::Welcome(welcome) => Said::Welcome(welcome),
            ToSupervisor::Learned(learned) => Said::Learned(learned),
            ToSupervisor::Report { id } => match descriptor.map(|fd| read_report(&fd)) {
                Some(Ok(rows)) => Said::Report(id, Box::new(rows)),
                Some(Err(error)) => return log::error!("report of worker {}: {error}", self.owner.slot),
                None => return,
            },
            ToSupervisor::Console(session) => return console::admit(&self.office, session, descriptor),
            ToSupervisor::CancelConsole { key } => return console::cancel(&self.office, key),
            ToSupervisor::Resolve { host } => return dns::resolve(&self.office, &host, &self.control),
            ToSupervisor::NameUser { uid } => return self.ask(Question::NameUser(uid)),
            ToSupervisor::CheckPassword(check) => return self.ask(Question::CheckPassword(check)),
            ToSupervisor::Estate(_) | ToSupervisor::Servers(_) => {
                return log::error!("worker {} says what it has without having been asked", self.owner.slot);
            }
            ToSupervisor::ServerOpened(seats) => return self.office.orphans.opened(seats, descriptor),
            ToSupervisor::ServerClosed(seats) => return self.office.orphans.closed(self.owner, seats),
            ToSupervisor::Beat { clients, servers } => {
                return self.office.shm.workers().beat_for(self.owner, clock::monotonic_us(), clients, servers);
            }
        };
        let (slot, incarnation): (Slot, _) = (self.owner.slot, self.owner.incarnation);
        self.office.tell(Input::Event(Event::Said { slot, incarnation, message: said }));
    }
}

fn read_report(fd: &OwnedFd) -> io::Result<ReportRows> {
    let bytes = memfd::read_all(fd.as_fd(), MAX_REPORT)?;
    control::decode(&bytes).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::control::Control;
    use crate::office::tests::office;
    use shared::ids::Incarnation;
    use std::time::Duration;

    const SOON: Duration = Duration::from_secs(10);

    /// What was taken before the gate was closed is in the channel, and the rest is still in the socket, for another image.
    #[test]
    fn a_listener_stops_between_two_messages() {
        let (office, inputs) = office();
        let (ours, worker) = seqpacket::pair().unwrap();
        set_nonblocking(&ours).unwrap();
        set_nonblocking(&worker).unwrap();
        let control = Control::new(ours, Arc::clone(&office.gate), Tongue::Own);
        let owner = Owner { slot: Slot(0), incarnation: Incarnation(2) };
        let listener = Listener { office: Arc::clone(&office), control: control.clone(), owner };
        std::thread::spawn(move || listener.read_all());
        let number = |input: Input| match input {
            Input::Event(Event::Said { message: Said::Prepared(number), .. }) => number,
            other => panic!("{other:?}"),
        };
        let mut count = 0;
        let mut send = |some| {
            for generation in count..count + some {
                let bytes = control::encode(&ToSupervisor::Prepared { generation }).unwrap();
                seqpacket::send(worker.as_fd(), &bytes, &[]).unwrap();
            }
            count += some;
        };
        send(1);
        assert_eq!(number(inputs.recv_timeout(SOON).unwrap()), 0);
        send(50);
        std::mem::forget(office.gate.close());
        send(3);
        let taken = inputs.try_iter().map(number);
        let mut buffer = vec![0; MAX_MESSAGE];
        let left = std::iter::from_fn(|| {
            let received = seqpacket::recv(control.as_fd(), &mut buffer).ok()?;
            match control::decode(&buffer[..received.len]).unwrap() {
                ToSupervisor::Prepared { generation } => Some(generation),
                other => panic!("{other:?}"),
            }
        });
        let all: Vec<u64> = taken.chain(left).collect();
        assert_eq!(all, (1..count).collect::<Vec<_>>());
        assert!(inputs.is_empty());
    }
}
