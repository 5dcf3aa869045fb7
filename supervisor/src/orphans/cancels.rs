//! Cancel requests to one backend, until it has ended.
//!
//! One is not enough. A request that comes before PostgreSQL has begun with the query does nothing; one may be lost where the postmaster is
//! too busy to take it; and when a query of a pipeline has been cancelled the next one begins. So they are repeated, one at a time.

use crate::fleet::Moment;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use serde::{Deserialize, Serialize};
use socket2::{SockAddr, SockRef, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// From the end of the first request to the second; each pause is twice the last,
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// up to this one. A backend of which nobody knows that it runs anything has as long to end by itself.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Cancels {
    request: [u8; 16],
    due: Moment,
    pause: Duration,
    /// It is not taken along through an exec: another one is sent then.
    #[serde(skip)]
    under_way: Option<Carrier>,
}

/// A connection that carries a request; kept until PostgreSQL closes it, which is when the signal has been sent.
#[derive(Debug)]
struct Carrier {
    connection: Socket,
    sent: bool,
}

impl Cancels {
    /// For a backend that is running a query if `busy`; else it may still be one of the pooler's own.
    pub(super) fn new(request: [u8; 16], busy: bool, now: Moment) -> Self {
        let due = if busy { now } else { now + LONGEST_PAUSE };
        Self { request, due, pause: FIRST_PAUSE, under_way: None }
    }

    /// As another image goes on with them.
    pub(super) fn parked(&self) -> Self {
        Self { request: self.request, due: self.due, pause: self.pause, under_way: None }
    }

    /// Sends a request to the postmaster behind `server` if it is time and none is under way.
    pub(super) fn send_due(&mut self, server: &SockRef<'_>, now: Moment, registry: &Registry, token: Token) {
        if self.under_way.is_some() || now < self.due {
            return;
        }
        let begun = server.peer_addr().and_then(|address| connect(&address)).and_then(|connection| {
            let both = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut SourceFd(&connection.as_raw_fd()), token, both)?;
            Ok(connection)
        });
        match begun {
            Ok(connection) => {
                self.under_way = Some(Carrier { connection, sent: false });
                self.advance(now, registry);
            }
            Err(error) => {
                log::debug!("could not connect for a cancel request: {error}");
                self.pause(now);
            }
        }
    }

    /// The carrier can be written, or has ended.
    pub(super) fn advance(&mut self, now: Moment, registry: &Registry) {
        let Some(carrier) = &mut self.under_way else { return };
        if carrier.goes_on(&self.request) {
            return;
        }
        self.end(registry);
        self.pause(now);
    }

    /// Closes what is open. A descriptor is taken off the poll first: a duplicate elsewhere would keep it there.
    pub(super) fn end(&mut self, registry: &Registry) {
        if let Some(carrier) = self.under_way.take() {
            let _ = registry.deregister(&mut SourceFd(&carrier.connection.as_raw_fd()));
        }
    }

    fn pause(&mut self, now: Moment) {
        self.due = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

impl Carrier {
    /// Does what can be done now. `false`: PostgreSQL has closed it, or it has failed.
    fn goes_on(&mut self, request: &[u8; 16]) -> bool {
        let waits = |error: &io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected);
        if !self.sent {
            match self.connection.write(request) {
                Ok(16) => self.sent = true,
                Err(error) if waits(&error) => return true,
                _ => return false,
            }
        }
        self.connection.read(&mut [0; 16]).is_err_and(|error| waits(&error))
    }
}

fn connect(address: &SockAddr) -> io::Result<Socket> {
    let socket = Socket::new(address.domain(), Type::STREAM.nonblocking(), None)?;
    match socket.connect(address) {
        Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}
