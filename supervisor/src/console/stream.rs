//! A console client's connection, in the clear or inside the TLS session that came with it from its worker. Nothing here waits.

use shared::control::ConnectionState;
use shared::tls::{End, Opened, Secured};
use socket2::SockRef;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// One read takes at most this much; a TLS record fits in.
const READ_BYTES: usize = 20 * 1024;

/// See the module.
pub(super) struct Stream {
    /// It does not block.
    socket: Arc<OwnedFd>,
    tls: Option<Secured>,
    /// What the socket has not taken yet, sealed already if there is TLS.
    unsent: Vec<u8>,
    buffer: Vec<u8>,
}

impl Stream {
    /// `None`: its TLS cannot go on here.
    pub(super) fn new(socket: Arc<OwnedFd>, state: ConnectionState) -> Option<Self> {
        let tls = match &state.tls {
            Some(packed) => Some(packed.unpack()?),
            None => None,
        };
        Some(Self { socket, tls, unsent: state.unsent, buffer: Vec::new() })
    }

    /// What goes with the socket to another image.
    pub(super) fn park(&self) -> ConnectionState {
        ConnectionState { unsent: self.unsent.clone(), tls: self.tls.as_ref().map(Secured::pack), ..ConnectionState::default() }
    }

    pub(super) fn socket(&self) -> &Arc<OwnedFd> {
        &self.socket
    }

    /// What was agreed on; empty in the clear.
    pub(super) fn tls_label(&self) -> &str {
        self.tls.as_ref().map_or("", |tls| &tls.label)
    }

    /// What has come; nothing when the client has left. `WouldBlock`: nothing that could be used, so far.
    pub(super) fn read(&mut self) -> io::Result<&[u8]> {
        self.buffer.resize(READ_BYTES, 0);
        let kept = self.tls.as_ref().map_or(0, |tls| tls.partial.len());
        if let Some(tls) = &self.tls {
            self.buffer[..kept].copy_from_slice(&tls.partial);
        }
        let n = loop {
            match (&*SockRef::from(&self.socket)).read(&mut self.buffer[kept..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        let Some(tls) = self.tls.as_mut().filter(|_| n > 0) else { return Ok(&self.buffer[..n]) };
        let data = &mut self.buffer[..kept + n];
        let Opened { plain, rest, end } = tls.session.open(data);
        tls.partial.clear();
        tls.partial.extend_from_slice(&data[rest..]);
        tls.session.take_replies(&mut self.unsent);
        match end {
            Some(End::Refused(alert) | End::Broken(alert)) => Err(io::Error::other(format!("TLS error: {alert}"))),
            Some(End::Closed) => Ok(&self.buffer[..plain]),
            None if plain > 0 => Ok(&self.buffer[..plain]),
            None => Err(ErrorKind::WouldBlock.into()),
        }
    }

    /// Has it sent, by and by.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            self.unsent.extend_from_slice(bytes);
            return Ok(());
        };
        tls.session.seal(bytes, &mut self.unsent).map_err(|alert| io::Error::other(format!("TLS error: {alert}")))?;
        tls.session.rest();
        Ok(())
    }

    /// Gives the socket what it takes; returns how much that was.
    pub(super) fn flush(&mut self) -> io::Result<usize> {
        let mut sent = 0;
        while sent < self.unsent.len() {
            match (&*SockRef::from(&self.socket)).write(&self.unsent[sent..]) {
                Ok(n) => sent += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.unsent.drain(..sent);
        Ok(sent)
    }

    /// Whether the socket has taken all.
    pub(super) fn is_sent(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Says that nothing more will come.
    pub(super) fn close(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.session.close(&mut self.unsent);
        }
        // The client may have left long ago.
        let _ = self.flush();
    }
}
