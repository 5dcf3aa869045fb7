//! A worker's process as the supervisor holds it: its start, and a thread that listens to its control socket.
//!
//! That thread reads until the worker's end is closed and then waits for the process without reaping it: so everything the
//! worker said has been handled before its end is known, and its pid stays its own until the fleet's thread has reaped it.

use crate::control::Control;
use crate::fleet::{Event, Said};
use crate::office::{Input, Office};
use crate::{auth, console, dns, system_users};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use shared::control::{self, MAX_MESSAGE, ReportRows, ToSupervisor};
use shared::ids::{Owner, Slot};
use shared::sys::{memfd, seqpacket, spawn};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroize;

/// The longest report that is read, in bytes: some 250,000 connections.
const MAX_REPORT: usize = 128 * 1024 * 1024;

/// Starts a worker's process from this process's own image, whatever has become of its file.
pub(crate) fn start() -> io::Result<(Control, u32)> {
    let (ours, theirs) = seqpacket::pair()?;
    set_nonblocking(&ours)?;
    let pid = spawn::spawn_worker(Path::new("/proc/self/exe"), &["worker"], theirs)?;
    Ok((Control::new(ours), pid))
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
pub(crate) fn listen(office: Arc<Office>, control: Control, owner: Owner, pid: u32) -> io::Result<()> {
    let listener = Listener { office, control, owner };
    let run = move || {
        if let Err(error) = listener.read_all() {
            log::error!("control socket of worker {}: {error}", listener.owner.slot);
        }
        let pid = Pid::from_raw(pid as i32);
        while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
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

    /// Handles what needs no decision; the rest is the fleet's.
    fn route(&self, message: ToSupervisor, descriptors: Vec<OwnedFd>) {
        let descriptor = descriptors.into_iter().next();
        let said = match message {
            ToSupervisor::Ready => Said::Ready,
            ToSupervisor::Prepared { generation } => Said::Prepared(generation),
            ToSupervisor::Refused { generation, reason } => Said::Refused(generation, reason),
            ToSupervisor::Committed { generation } => Said::Committed(generation),
            ToSupervisor::Done { number, outcome } => Said::Done(number, outcome),
            ToSupervisor::Remaining { idle, others } => Said::Remaining { idle, others },
            ToSupervisor::Drained => Said::Drained,
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
            ToSupervisor::NameUser { uid } => return system_users::name(uid, &self.control),
            ToSupervisor::CheckPassword(check) => return auth::check(&self.office, check, &self.control),
            ToSupervisor::ServerOpened(seats) => return self.office.orphans.opened(seats, descriptor),
            ToSupervisor::ServerClosed(seats) => return self.office.orphans.closed(seats),
        };
        let (slot, incarnation): (Slot, _) = (self.owner.slot, self.owner.incarnation);
        self.office.tell(Input::Event(Event::Said { slot, incarnation, message: said }));
    }
}

fn read_report(fd: &OwnedFd) -> io::Result<ReportRows> {
    let bytes = memfd::read_all(fd.as_fd(), MAX_REPORT)?;
    postcard::from_bytes(&bytes).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}
