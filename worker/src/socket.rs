//! A connection's descriptor and the bytes that wait on either side of it.
//!
//! Every socket is registered once, edge-triggered, for both directions; a read that fills less than the buffer has emptied the socket,
//! so the next edge will tell of more (epoll(7)). A connection owns a buffer only while something could not be written, or while the
//! beginning of a message waits for its end. With TLS ([`tls`]) all of this means the content: what is read has been opened, what waits to be
//! written has been sealed.

#[cfg(test)]
mod tests;
mod tls;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use shared::control::ConnectionState;
use shared::tls::Role;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Buffers that connections give back, kept for the next one that needs one, and what else connections share.
#[derive(Default)]
pub(crate) struct Buffers {
    free: Vec<Vec<u8>>,
    /// Records on their way out.
    sealed: Vec<u8>,
    /// Connections whose TLS keys are there in the form in which they are used, which takes some 1.5 KB each; the one looked at longest ago first.
    pub(crate) warm: VecDeque<Token>,
}

impl Buffers {
    const KEPT: usize = 128;
    /// A TLS record fits in.
    const LARGEST_KEPT: usize = 20 * 1024;

    fn take(&mut self) -> Vec<u8> {
        self.free.pop().unwrap_or_default()
    }

    /// Takes back a buffer, unless it is large or there are enough.
    pub(crate) fn give(&mut self, mut buffer: Vec<u8>) {
        if self.free.len() < Self::KEPT && (1..=Self::LARGEST_KEPT).contains(&buffer.capacity()) {
            buffer.clear();
            self.free.push(buffer);
        }
    }

    /// How many are kept, and their bytes.
    pub(crate) fn kept(&self) -> (usize, usize) {
        (self.free.len(), self.sealed.capacity() + self.free.iter().map(Vec::capacity).sum::<usize>())
    }
}

/// What a read brought.
pub(crate) enum Read {
    /// This many bytes, and the socket may hold more.
    Full(usize),
    /// This many bytes, and the socket is empty.
    Drained(usize),
    /// The peer will send no more.
    End,
    /// Nothing there.
    Blocked,
    /// The connection is broken.
    Broken,
}

/// A non-blocking stream socket with its waiting bytes.
pub(crate) struct Conn {
    fd: OwnedFd,
    /// Bytes that could not be written yet.
    out: Vec<u8>,
    written: usize,
    /// The beginning of a message, or a whole request that waits for a server.
    pub(crate) input: Vec<u8>,
    /// An edge has told of bytes that were not read yet.
    pub(crate) readable: bool,
    /// The peer sends nothing more; the end is behind what was not read yet, and no edge will tell of it again.
    pub(crate) hung_up: bool,
    tls: Option<Box<tls::Tls>>,
}

impl Conn {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { fd, out: Vec::new(), written: 0, input: Vec::new(), readable: false, hung_up: false, tls: None }
    }

    /// For the process that is to go on with the connection; this one must not.
    pub(crate) fn state(&self) -> ConnectionState {
        let unsent = self.out[self.written.min(self.out.len())..].to_vec();
        ConnectionState { unsent, input: self.input.clone(), tls: self.pack() }
    }

    /// A connection that comes from another process. The error: it is there, but its TLS session cannot be read.
    pub(crate) fn arrived(fd: OwnedFd, role: Role, state: &ConnectionState) -> Result<Self, Self> {
        let mut conn = Self { out: state.unsent.clone(), input: state.input.clone(), ..Self::new(fd) };
        let is_whole = state.tls.as_ref().is_none_or(|packed| conn.unpack(role, packed));
        if is_whole { Ok(conn) } else { Err(conn) }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.set_tls_token(token);
        registry.register(&mut SourceFd(&self.fd.as_raw_fd()), token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Must come before the descriptor is passed on: a duplicate elsewhere would keep it in our epoll.
    pub(crate) fn deregister(&self, registry: &Registry) -> io::Result<()> {
        registry.deregister(&mut SourceFd(&self.fd.as_raw_fd()))
    }

    /// Reads once into `buffer`, which has room for a TLS record and more.
    #[inline]
    pub(crate) fn read(&mut self, buffer: &mut [u8], buffers: &mut Buffers) -> Read {
        if self.tls.is_some() { self.read_sealed(buffer, buffers) } else { self.read_raw(buffer) }
    }

    /// As [`Conn::read`], when what comes is of no interest.
    pub(crate) fn discard(&mut self, buffer: &mut [u8]) -> Read {
        self.read_raw(buffer)
    }

    #[inline]
    fn read_raw(&mut self, buffer: &mut [u8]) -> Read {
        loop {
            return match nix::unistd::read(&self.fd, buffer) {
                Ok(0) => Read::End,
                Ok(n) if n == buffer.len() => Read::Full(n),
                Ok(n) => {
                    self.readable = self.hung_up;
                    Read::Drained(n)
                }
                Err(Errno::EAGAIN) => {
                    self.readable = false;
                    Read::Blocked
                }
                Err(Errno::EINTR) => continue,
                Err(_) => Read::Broken,
            };
        }
    }

    /// Writes `bytes`; what the socket does not take now waits for its next writable edge.
    #[inline]
    pub(crate) fn send(&mut self, bytes: &[u8], buffers: &mut Buffers) -> Result<(), Errno> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.tls.is_some() { self.send_sealed(bytes, buffers) } else { self.send_raw(bytes, buffers) }
    }

    #[inline]
    fn send_raw(&mut self, bytes: &[u8], buffers: &mut Buffers) -> Result<(), Errno> {
        let taken = if self.out.is_empty() { write(&self.fd, bytes)? } else { 0 };
        if taken < bytes.len() {
            if self.out.is_empty() {
                self.out = buffers.take();
                self.written = 0;
            }
            self.out.extend_from_slice(&bytes[taken..]);
        }
        Ok(())
    }

    /// Goes on writing after a writable edge. True when nothing waits any more.
    pub(crate) fn flush(&mut self, buffers: &mut Buffers) -> Result<bool, Errno> {
        while self.written < self.out.len() {
            match write(&self.fd, &self.out[self.written..])? {
                0 => return Ok(false),
                n => self.written += n,
            }
        }
        buffers.give(std::mem::take(&mut self.out));
        Ok(true)
    }

    /// Bytes wait to be written.
    #[inline]
    pub(crate) fn is_backed_up(&self) -> bool {
        !self.out.is_empty()
    }

    /// Keeps what was read and cannot be dealt with yet.
    pub(crate) fn keep(&mut self, bytes: &[u8], buffers: &mut Buffers) {
        if bytes.is_empty() {
            return;
        }
        if self.input.capacity() == 0 {
            self.input = buffers.take();
        }
        self.input.extend_from_slice(bytes);
    }

    /// Bytes written and bytes still to be written of what did not go out at once.
    pub(crate) fn backlog(&self) -> (usize, usize) {
        (self.written.min(self.out.len()), self.out.len().saturating_sub(self.written))
    }

    /// How many buffers it owns, and their bytes.
    pub(crate) fn buffers(&self) -> (usize, usize) {
        let owned = [&self.input, &self.out].map(Vec::capacity);
        (owned.iter().filter(|bytes| **bytes > 0).count(), owned.iter().sum())
    }

    /// Tells the peer that nothing more will come.
    pub(crate) fn shutdown_write(&mut self, buffers: &mut Buffers) {
        self.close_notify(buffers);
        let _ = nix::sys::socket::shutdown(self.fd.as_raw_fd(), nix::sys::socket::Shutdown::Write);
    }

    /// Ends both directions, for every process that holds the socket.
    pub(crate) fn shutdown(&self) {
        let _ = nix::sys::socket::shutdown(self.fd.as_raw_fd(), nix::sys::socket::Shutdown::Both);
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Writes once; 0 when the socket is full.
#[inline]
fn write(fd: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    loop {
        return match nix::unistd::write(fd, bytes) {
            Err(Errno::EAGAIN) => Ok(0),
            Err(Errno::EINTR) => continue,
            done => done,
        };
    }
}
