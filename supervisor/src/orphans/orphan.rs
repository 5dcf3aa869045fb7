//! One backend that outlived its worker: told to stop, its socket half-closed, its end awaited.

use super::cancels::Cancels;
use crate::fleet::Moment;
use crate::luggage::{Arrived, Luggage, Place};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use serde::{Deserialize, Serialize};
use shared::control::ServerSeats;
use shared::wire::encode;
use socket2::SockRef;
use std::io::{ErrorKind, Read};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// After this long a seat is freed whatever the backend does.
const GRACE: Duration = Duration::from_secs(30);
/// The same for a connection that had not come as far as a backend, and whose socket the worker had not handed over.
const GRACE_UNBORN: Duration = Duration::from_secs(1);
/// How many reads one turn gives to one backend's remaining output.
const READS: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Orphan {
    pub(super) seats: ServerSeats,
    pub(super) deadline: Moment,
    socket: Option<Arc<OwnedFd>>,
    /// `None`: nobody knows the key.
    cancels: Option<Cancels>,
    /// There may be more to read without another event.
    pub(super) unread: bool,
    /// There are events of its socket.
    watched: bool,
}

/// What there is of one, while another image takes the place of this one.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeptOrphan {
    pub(super) seats: ServerSeats,
    deadline: Moment,
    socket: Option<Place>,
    cancels: Option<Cancels>,
}

impl Orphan {
    /// One whose socket has not been seen yet.
    pub(super) fn new(orphan: &shared::shm::Orphan, now: Moment) -> Self {
        let cancels = orphan.backend.map(|(pid, secret)| {
            let request = encode::cancel_request(encode::cancel_key(pid, secret));
            Cancels::new(request, orphan.busy, now)
        });
        let grace = if cancels.is_some() { GRACE } else { GRACE_UNBORN };
        Self { seats: orphan.seats, deadline: now + grace, socket: None, cancels, unread: false, watched: false }
    }

    /// For the image that takes the place of this one.
    pub(super) fn park(&self, luggage: &mut Luggage) -> KeptOrphan {
        KeptOrphan {
            seats: self.seats,
            deadline: self.deadline,
            socket: self.socket.as_ref().map(|socket| luggage.pack(socket)),
            cancels: self.cancels.as_ref().map(Cancels::parked),
        }
    }

    /// What was parked. `None`: an image that has failed since then has closed its socket, so it has ended.
    pub(super) fn resume(kept: KeptOrphan, arrived: &mut Arrived, registry: &Registry, token: Token) -> Option<Self> {
        let KeptOrphan { seats, deadline, socket, cancels } = kept;
        let mut orphan = Self { seats, deadline, socket: None, cancels, unread: false, watched: false };
        if let Some(place) = socket {
            orphan.watch(Arc::new(arrived.take(place)?), registry, token);
        }
        Some(orphan)
    }

    /// Whether its socket is known.
    pub(super) fn has_socket(&self) -> bool {
        self.socket.is_some()
    }

    /// Whether there may be a backend behind it.
    pub(super) fn may_have_backend(&self) -> bool {
        self.socket.is_some() || self.cancels.is_some()
    }

    /// Its socket: asks PostgreSQL to end the backend. `false`: there is no connection behind it, so no backend either.
    pub(super) fn attach(&mut self, socket: Arc<OwnedFd>, now: Moment, registry: &Registry, token: Token) -> bool {
        if SockRef::from(&socket).peer_addr().is_err() {
            return false;
        }
        self.deadline = now + GRACE;
        let end = Arc::clone(&socket);
        self.watch(socket, registry, token);
        self.cancel_if_due(now, registry, Token(token.0 + 1));
        // A backend that is idle ends when it reads the end; one that is busy when it has been cancelled, or next reads.
        SockRef::from(&end).shutdown(Shutdown::Write).is_ok()
    }

    fn watch(&mut self, socket: Arc<OwnedFd>, registry: &Registry, token: Token) {
        let watched = SockRef::from(&socket)
            .set_nonblocking(true)
            .and_then(|()| registry.register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE));
        if let Err(error) = &watched {
            // Without events it is read from time to time: the seat must not be free as long as the backend lives.
            log::error!("could not watch the socket of a dead worker's backend: {error}");
        }
        self.watched = watched.is_ok();
        self.unread = true;
        self.socket = Some(socket);
    }

    /// What is to be done from time to time.
    pub(super) fn sweep(&mut self, now: Moment, registry: &Registry, cancel_token: Token) {
        self.cancel_if_due(now, registry, cancel_token);
        self.unread |= self.has_socket() && !self.watched;
    }

    fn cancel_if_due(&mut self, now: Moment, registry: &Registry, token: Token) {
        if let (Some(cancels), Some(socket)) = (&mut self.cancels, &self.socket) {
            cancels.send_due(&SockRef::from(socket), now, registry, token);
        }
    }

    /// A cancel request's connection can be written, or has ended.
    pub(super) fn advance_cancel(&mut self, now: Moment, registry: &Registry) {
        if let Some(cancels) = &mut self.cancels {
            cancels.advance(now, registry);
        }
    }

    /// Reads and throws away what the backend still says. `true` when it has ended.
    pub(super) fn drain(&mut self, buffer: &mut [u8]) -> bool {
        let Some(socket) = &self.socket else { return false };
        let socket = SockRef::from(socket);
        for _ in 0..READS {
            match (&*socket).read(buffer) {
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
    pub(super) fn end(mut self, registry: &Registry) {
        if let Some(cancels) = &mut self.cancels {
            cancels.end(registry);
        }
        if let Some(socket) = &self.socket {
            let _ = registry.deregister(&mut SourceFd(&socket.as_raw_fd()));
        }
    }
}
