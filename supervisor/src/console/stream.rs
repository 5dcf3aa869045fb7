//! A console client's connection, in the clear or inside the TLS session that came with it from its worker.

use shared::tls::{End, Opened, Secured};
use socket2::Socket;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

/// One read takes at most this much; a TLS record fits in.
const READ_BYTES: usize = 20 * 1024;

/// See the module.
pub(super) struct Stream {
    socket: Arc<Socket>,
    tls: Option<Secured>,
    buffer: Vec<u8>,
}

impl Stream {
    pub(super) fn new(socket: Arc<Socket>, tls: Option<Secured>) -> Self {
        Self { socket, tls, buffer: Vec::new() }
    }

    pub(super) fn socket(&self) -> &Arc<Socket> {
        &self.socket
    }

    /// What was agreed on; empty in the clear.
    pub(super) fn tls_label(&self) -> &str {
        self.tls.as_ref().map_or("", |tls| &tls.label)
    }

    /// Waits until something has come; nothing when the client has left.
    pub(super) fn read(&mut self) -> io::Result<&[u8]> {
        self.buffer.resize(READ_BYTES, 0);
        loop {
            let kept = self.tls.as_ref().map_or(0, |tls| tls.partial.len());
            if let Some(tls) = &self.tls {
                self.buffer[..kept].copy_from_slice(&tls.partial);
            }
            let n = match (&*self.socket).read(&mut self.buffer[kept..]) {
                Ok(0) => return Ok(&[]),
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let Some(tls) = &mut self.tls else { return Ok(&self.buffer[..n]) };
            let data = &mut self.buffer[..kept + n];
            let Opened { plain, rest, end } = tls.session.open(data);
            tls.partial.clear();
            tls.partial.extend_from_slice(&data[rest..]);
            let mut replies = Vec::new();
            tls.session.take_replies(&mut replies);
            (&*self.socket).write_all(&replies)?;
            match end {
                Some(End::Refused(alert) | End::Broken(alert)) => return Err(io::Error::other(format!("TLS error: {alert}"))),
                Some(End::Closed) if plain == 0 => return Ok(&[]),
                _ if plain > 0 => return Ok(&self.buffer[..plain]),
                _ => {}
            }
        }
    }

    /// Sends all of it.
    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return (&*self.socket).write_all(bytes) };
        let mut sealed = Vec::new();
        tls.session.seal(bytes, &mut sealed).map_err(|alert| io::Error::other(format!("TLS error: {alert}")))?;
        tls.session.rest();
        (&*self.socket).write_all(&sealed)
    }

    /// Says that nothing more will come.
    pub(super) fn close(&mut self) {
        let Some(tls) = &mut self.tls else { return };
        let mut sealed = Vec::new();
        tls.session.close(&mut sealed);
        // The client may have left long ago.
        let _ = (&*self.socket).write(&sealed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_client_in_the_clear_is_read_as_it_sends() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut stream = Stream::new(Arc::new(std::os::fd::OwnedFd::from(ours).into()), None);
        theirs.write_all(b"show").unwrap();
        assert_eq!(stream.read().unwrap(), b"show");
        stream.write_all(b"answer").unwrap();
        let mut answer = [0; 6];
        theirs.read_exact(&mut answer).unwrap();
        assert_eq!((&answer, stream.tls_label()), (b"answer", ""));
        drop(theirs);
        assert!(stream.read().unwrap().is_empty());
    }
}
