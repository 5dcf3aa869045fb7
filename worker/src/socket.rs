//! A connection's descriptor and the bytes that wait on either side of it.
//!
//! Every socket is registered once, edge-triggered, for both directions; a read that fills less than the buffer has emptied the socket,
//! so the next edge will tell of more (epoll(7)). A connection owns a buffer only while something could not be written, or while the
//! beginning of a message waits for its end.

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Buffers that connections give back, kept for the next one that needs one.
#[derive(Default)]
pub(crate) struct Buffers {
    free: Vec<Vec<u8>>,
}

impl Buffers {
    const KEPT: usize = 128;
    const LARGEST_KEPT: usize = 16 * 1024;

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
        (self.free.len(), self.free.iter().map(Vec::capacity).sum())
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
}

impl Conn {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { fd, out: Vec::new(), written: 0, input: Vec::new(), readable: false, hung_up: false }
    }

    pub(crate) fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.fd.as_raw_fd()), token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Must come before the descriptor is passed on: a duplicate elsewhere would keep it in our epoll.
    pub(crate) fn deregister(&self, registry: &Registry) -> io::Result<()> {
        registry.deregister(&mut SourceFd(&self.fd.as_raw_fd()))
    }

    /// Reads once into `buffer`.
    #[inline]
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Read {
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
    pub(crate) fn shutdown_write(&self) {
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
