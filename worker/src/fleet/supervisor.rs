//! The control socket: what the supervisor says and what it is told.
//!
//! Sending never blocks: what does not fit waits for the socket. When the supervisor is gone, messages are dropped and the worker goes on.

use crate::worker::{Life, Listener, Worker};
use mio::unix::SourceFd;
use shared::control::{self, StopMode, ToSupervisor, ToWorker, Tongue};
use shared::shm::WorkerState;
use shared::sys::seqpacket;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use zeroize::{Zeroize, Zeroizing};

/// The worker's end of its control socket.
pub(crate) struct Control {
    /// `None` when the supervisor is gone.
    fd: Option<OwnedFd>,
    unsent: VecDeque<(Zeroizing<Vec<u8>>, Vec<OwnedFd>)>,
    /// What the supervisor understands: it may be about to become one of another build.
    pub(crate) tongue: Tongue,
}

impl Control {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { fd: Some(fd), unsent: VecDeque::new(), tongue: Tongue::Own }
    }

    /// Sends a message with descriptors, now or as soon as there is room. False: there is nobody to send it to, or it cannot be sent at all.
    pub(crate) fn send(&mut self, message: &ToSupervisor, fds: &[BorrowedFd<'_>]) -> bool {
        let Some(control) = &self.fd else { return false };
        let bytes = match self.tongue.encode(message) {
            // A client's password may be in it.
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) => {
                log::error!(target: "process", "a message to the supervisor could not be made: {error}");
                return false;
            }
        };
        #[cfg(test)]
        crate::simulation::may_die();
        if self.unsent.is_empty() {
            match seqpacket::send(control.as_fd(), &bytes, fds) {
                Ok(()) => return true,
                Err(error) if is_for_later(&error) => {}
                Err(error) => return self.failed(&error),
            }
        }
        let kept: io::Result<Vec<OwnedFd>> = fds.iter().map(BorrowedFd::try_clone_to_owned).collect();
        match kept {
            Ok(kept) => self.unsent.push_back((bytes, kept)),
            Err(error) => {
                log::error!(target: "process", "a message to the supervisor was lost: {error}");
                return false;
            }
        }
        true
    }

    /// Sends what waits. Descriptors on their way to the supervisor may be more than one user is allowed at a moment, and nobody says when they
    /// are fewer again.
    pub(super) fn flush(&mut self) {
        while let (Some(control), Some((bytes, fds))) = (&self.fd, self.unsent.front()) {
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            match seqpacket::send(control.as_fd(), bytes, &fds) {
                Ok(()) => drop(self.unsent.pop_front()),
                Err(error) if is_for_later(&error) => return,
                Err(error) => {
                    self.unsent.pop_front();
                    self.failed(&error);
                }
            }
        }
    }

    /// A message is lost; all that wait are, when there is nobody to read them.
    fn failed(&mut self, error: &io::Error) -> bool {
        if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) {
            log::warn!(target: "process", "the supervisor cannot be reached: {error}");
            self.unsent.clear();
        } else {
            log::error!(target: "process", "a message to the supervisor was lost: {error}");
        }
        false
    }

    /// The supervisor is gone.
    pub(crate) fn is_lost(&self) -> bool {
        self.fd.is_none()
    }

    /// Everything has been sent, or never can be.
    pub(crate) fn is_flushed(&self) -> bool {
        self.unsent.is_empty()
    }
}

/// Whether there is no room now.
fn is_for_later(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || seqpacket::is_crowded(error)
}

impl Worker {
    pub(crate) fn control_event(&mut self, readable: bool, writable: bool) {
        if writable {
            self.control.flush();
        }
        if !readable {
            return;
        }
        let mut buffer = vec![0; control::MAX_MESSAGE];
        while let Some(control) = &self.control.fd {
            self.adoption.make_room();
            match seqpacket::recv(control.as_fd(), &mut buffer) {
                Ok(received) if received.len == 0 => self.supervisor_gone(),
                Ok(received) => {
                    let message = control::decode(&buffer[..received.len]);
                    // Somebody's keys may have been in it.
                    buffer[..received.len].zeroize();
                    match message {
                        Ok(message) => self.supervisor_says(message, received.fds),
                        Err(error) => log::error!(target: "process", "the supervisor's message is not understood: {error}"),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.supervisor_gone(),
            }
        }
    }

    /// Workers outlive their supervisor: clients and servers are theirs.
    fn supervisor_gone(&mut self) {
        if let Some(control) = self.control.fd.take() {
            let _ = self.poll.registry().deregister(&mut SourceFd(&control.as_raw_fd()));
            self.control.unsent.clear();
            log::warn!(target: "process", "the supervisor has ended; serving on without it");
            crate::obey_ending_signals();
            self.nobody_checks();
            self.thaw_alone();
        }
    }

    fn supervisor_says(&mut self, message: ToWorker, fds: Vec<OwnedFd>) {
        match message {
            ToWorker::Start { .. } | ToWorker::Adopt => log::error!(target: "process", "a second start message was ignored"),
            ToWorker::Adopted { marks } => self.adopted(marks, fds),
            ToWorker::Prepare { generation, log_file } => self.prepare(generation, log_file, fds),
            ToWorker::Commit { generation } => self.commit(generation),
            ToWorker::Abandon { generation } => {
                if self.prepared.as_ref().is_some_and(|prepared| prepared.generation == generation) {
                    self.prepared = None;
                }
            }
            ToWorker::Report { id, what } => self.report(id, what),
            ToWorker::Order { number, order } => self.obey(number, order),
            ToWorker::Stop(mode) => self.stop(mode),
            ToWorker::Inboxes { first } => self.colleagues_join(first, fds),
            ToWorker::Listen { of, listeners, unix_listeners }
                if fds.len() < usize::from(listeners) + usize::from(unix_listeners) =>
            {
                self.cannot_listen(of, "out of file descriptors");
            }
            ToWorker::Listen { of, listeners, .. } => self.listen_for(of, usize::from(listeners), fds),
            ToWorker::Unlisten { of } => self.unlisten(of),
            ToWorker::PasswordChecked { client, outcome } => self.password_checked(client, outcome),
            ToWorker::Leave => self.leave(),
            ToWorker::Stay => self.stay(),
            ToWorker::Part(parting) => self.part(parting),
            ToWorker::Freeze => self.freeze(),
            ToWorker::Thaw => self.thaw(),
            ToWorker::Strangers { slots } => self.strangers_told(slots),
            ToWorker::Resolved(resolved) => {
                self.resolved(&resolved);
                self.peer_resolved(&resolved);
            }
            ToWorker::UserNamed { uid, name } => self.user_named(uid, &name),
            ToWorker::Learned(learned) => self.learned_elsewhere(learned),
            ToWorker::Welcome(welcome) => match self.pools.find(&welcome.database, &welcome.user) {
                Some(pool) if self.pools.get(pool).welcome.is_none() => self.learn_welcome(pool, &welcome.parameters),
                Some(_) => {}
                None => {
                    self.pools.welcomes.insert((welcome.database, welcome.user), welcome.parameters);
                }
            },
        }
    }

    fn stop(&mut self, mode: StopMode) {
        self.life = Life::Stopping(mode);
        self.drained = false;
        self.shm.workers().set_state(self.me.slot, WorkerState::Draining);
        // The Unix socket stays open for the console; others are turned away after they have logged in.
        self.close_listeners(|listener| matches!(listener, Listener::Tcp(..)));
        if mode == StopMode::WaitForServers {
            self.close_unused_servers(|_| true, "server shutting down");
            let waiting: Vec<usize> = self.clients.iter().filter(|(_, c)| c.is_waiting()).map(|(index, _)| index).collect();
            for client in waiting {
                let text = "server shutting down".to_owned();
                let ending = crate::client::Ending::Fatal(shared::wire::report::sqlstate::ADMIN_SHUTDOWN, text);
                self.close_client(client, &ending);
            }
        }
    }
}
