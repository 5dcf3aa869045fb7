//! One backend that outlived its worker: told to stop, its socket half-closed, its end awaited.

use crate::fleet::Moment;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use shared::control::ServerSeats;
use shared::wire::encode;
use socket2::{SockAddr, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// After this long a seat is freed whatever the backend does.
const GRACE: Duration = Duration::from_secs(30);
/// The same for a connection whose socket the worker had not handed over: it was just being opened.
const GRACE_BLIND: Duration = Duration::from_secs(1);
/// How many reads one turn gives to one backend's remaining output.
const READS: usize = 16;

/// Where the cancel stands.
#[derive(Debug)]
enum Cancel {
    /// Nothing was running, or nobody knows the key.
    Unneeded,
    /// To be sent.
    Wanted([u8; 16]),
    /// On its way; kept until PostgreSQL closes it, which is when the signal has been sent.
    Connecting([u8; 16], Socket),
    /// Sent.
    Sent(Socket),
    /// Over.
    Done,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Orphan {
    pub(super) seats: ServerSeats,
    pub(super) deadline: Moment,
    socket: Option<Socket>,
    cancel: Cancel,
    /// There may be more to read without another event.
    pub(super) unread: bool,
}

impl Orphan {
    /// One whose socket has not been seen yet.
    pub(super) fn new(orphan: &shared::shm::Orphan, now: Moment) -> Self {
        let cancel = match orphan.backend {
            Some((pid, secret)) if orphan.busy => Cancel::Wanted(encode::cancel_request(encode::cancel_key(pid, secret))),
            _ => Cancel::Unneeded,
        };
        Self { seats: orphan.seats, deadline: now + GRACE_BLIND, socket: None, cancel, unread: false }
    }

    /// Whether its socket is known.
    pub(super) fn has_socket(&self) -> bool {
        self.socket.is_some()
    }

    /// Its socket: asks PostgreSQL to end the backend. `false`: there is no connection behind it, so no backend either.
    pub(super) fn attach(&mut self, socket: Socket, now: Moment, registry: &Registry, token: Token) -> bool {
        if socket.set_nonblocking(true).is_err() || socket.peer_addr().is_err() {
            return false;
        }
        if registry.register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE).is_err() {
            return false;
        }
        self.deadline = now + GRACE;
        self.unread = true;
        self.socket = Some(socket);
        self.start_cancel(registry, Token(token.0 + 1));
        // A backend that is idle ends when it reads the end; one that is busy when it has been cancelled, or next reads.
        self.socket.as_ref().is_some_and(|socket| socket.shutdown(Shutdown::Write).is_ok())
    }

    /// Connects to the backend's postmaster, again if it could not be done before.
    pub(super) fn start_cancel(&mut self, registry: &Registry, token: Token) {
        let (Cancel::Wanted(request), Some(socket)) = (&self.cancel, &self.socket) else { return };
        let request = *request;
        match socket.peer_addr().and_then(|address| connect(&address)) {
            Ok(connection) => {
                let both = Interest::READABLE | Interest::WRITABLE;
                if registry.register(&mut SourceFd(&connection.as_raw_fd()), token, both).is_ok() {
                    self.cancel = Cancel::Connecting(request, connection);
                    self.advance_cancel(registry);
                }
            }
            Err(error) => log::debug!("could not connect for a cancel request: {error}"),
        }
    }

    /// The cancel's connection can be written, or has ended.
    pub(super) fn advance_cancel(&mut self, registry: &Registry) {
        self.cancel = match std::mem::replace(&mut self.cancel, Cancel::Done) {
            Cancel::Connecting(request, mut connection) => match connection.write(&request) {
                Ok(16) => Cancel::Sent(connection),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    Cancel::Connecting(request, connection)
                }
                _ => {
                    close(registry, &connection);
                    Cancel::Done
                }
            },
            Cancel::Sent(mut connection) => match connection.read(&mut [0; 16]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => Cancel::Sent(connection),
                _ => {
                    close(registry, &connection);
                    Cancel::Done
                }
            },
            other => other,
        };
    }

    /// Reads and throws away what the backend still says. `true` when it has ended.
    pub(super) fn drain(&mut self, buffer: &mut [u8]) -> bool {
        let Some(socket) = &mut self.socket else { return false };
        for _ in 0..READS {
            match socket.read(buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.unread = false;
                    return false;
                }
                Err(_) => return true,
            }
        }
        self.unread = true;
        false
    }

    /// Closes what is open. A descriptor is taken off the poll first: a duplicate elsewhere would keep it there.
    pub(super) fn end(self, registry: &Registry) {
        for socket in self.socket.iter().chain(match &self.cancel {
            Cancel::Connecting(_, socket) | Cancel::Sent(socket) => Some(socket),
            _ => None,
        }) {
            close(registry, socket);
        }
    }
}

fn close(registry: &Registry, socket: &Socket) {
    let _ = registry.deregister(&mut SourceFd(&socket.as_raw_fd()));
}

fn connect(address: &SockAddr) -> io::Result<Socket> {
    let socket = Socket::new(address.domain(), Type::STREAM.nonblocking(), None)?;
    match socket.connect(address) {
        Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}
