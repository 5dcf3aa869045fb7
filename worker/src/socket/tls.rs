//! A connection whose bytes travel inside TLS: what is read is opened where it was read to, what is sent is sealed on its way out.
//!
//! [`Conn::read`] means the same as without TLS: what it gives is content, and `Drained` says that the socket is empty. A record whose end has
//! not come is kept here and goes in front of the next read.

use super::{Buffers, Conn, Read};
use mio::Token;
use nix::errno::Errno;
use shared::tls::{End, Established, Packed, Role, Secured};

/// So many bytes are sealed at a time: what is ready is written before more is made ready.
const SEALED_AT_ONCE: usize = 64 * 1024;

/// Reads in a row that bring no content: a peer that sends empty records and the like must not hold up the others.
const EMPTY_READS: usize = 4;

/// A connection's TLS.
pub(super) struct Tls {
    secured: Secured,
    pub(super) role: Role,
    /// The connection's own, by which it is found when its keys are to be dropped.
    token: Token,
    /// Its keys may be there in the form in which they are used, and it is listed in [`Buffers::warm`].
    warm: bool,
    /// Since it was looked at last.
    used: bool,
    /// The peer has ended the session, or has broken it.
    end: Option<End>,
    /// Nothing more may be sealed.
    closed: bool,
}

impl Tls {
    fn new(secured: Secured, role: Role) -> Box<Self> {
        Box::new(Self { secured, role, token: Token(usize::MAX), warm: false, used: false, end: None, closed: false })
    }

    /// How much of a record waits for its end.
    #[cfg(test)]
    pub(super) fn partial(&self) -> usize {
        self.secured.partial.len()
    }

    #[inline]
    fn touch(&mut self, buffers: &mut Buffers) {
        self.used = true;
        if !self.warm {
            self.warm = true;
            buffers.warm.push_back(self.token);
        }
    }
}

impl Conn {
    /// The connection goes on inside TLS. Gives what the peer has said in it already.
    pub(crate) fn secure(&mut self, token: Token, role: Role, established: Established, buffers: &mut Buffers) -> Vec<u8> {
        let Established { session, mut plain, mut sealed, agreed } = established;
        let secured = Secured { session, partial: Vec::new(), label: agreed.label().into() };
        let mut tls = Tls::new(secured, role);
        tls.token = token;
        self.tls = Some(tls);
        let more = self.open(&mut sealed, buffers);
        plain.extend_from_slice(&sealed[..more]);
        plain
    }

    /// A connection that was packed elsewhere goes on here.
    pub(super) fn unpack(&mut self, role: Role, packed: &Packed) -> bool {
        self.tls = packed.unpack().map(|secured| Tls::new(secured, role));
        self.tls.is_some()
    }

    /// Its TLS, for the process that is to go on with it; this one must not.
    pub(crate) fn pack(&self) -> Option<Packed> {
        self.tls.as_ref().map(|tls| tls.secured.pack())
    }

    pub(crate) fn is_secured(&self) -> bool {
        self.tls.is_some()
    }

    /// What was agreed on; empty in the clear.
    pub(crate) fn tls_label(&self) -> &str {
        self.tls.as_ref().map_or("", |tls| &tls.secured.label)
    }

    /// Why the session came to a bad end.
    pub(crate) fn tls_failure(&self) -> Option<String> {
        match self.tls.as_ref()?.end? {
            End::Closed => None,
            End::Refused(alert) => Some(format!("alert from the peer: {alert}")),
            End::Broken(alert) => Some(alert.to_string()),
        }
    }

    /// The peer may still say something, and be told something.
    pub(crate) fn is_open(&self) -> bool {
        !self.hung_up && self.tls.as_ref().is_none_or(|tls| tls.end.is_none() && !tls.closed)
    }

    pub(super) fn set_tls_token(&mut self, token: Token) {
        if let Some(tls) = &mut self.tls {
            tls.token = token;
        }
    }

    /// Drops what can be made again, unless the connection was used since it was last asked to. True: it was.
    pub(crate) fn cool_down(&mut self, at_once: bool) -> bool {
        let Some(tls) = self.tls.as_mut().filter(|tls| tls.warm) else { return false };
        if std::mem::take(&mut tls.used) && !at_once {
            return true;
        }
        tls.warm = false;
        tls.secured.session.rest();
        false
    }

    #[inline(never)]
    pub(super) fn read_sealed(&mut self, buffer: &mut [u8], buffers: &mut Buffers) -> Read {
        for _ in 0..EMPTY_READS {
            let Some(tls) = &mut self.tls else { return Read::Broken };
            match tls.end {
                None => {}
                Some(End::Closed) if tls.role == Role::Server => return Read::End,
                // PostgreSQL says so before its backend has ended; what tells of that is the end of the connection.
                Some(End::Closed) => match self.read_raw(buffer) {
                    // There may be more; one read a turn is enough for what nobody wants.
                    Read::Full(_) | Read::Drained(_) => return Read::Blocked,
                    other => return other,
                },
                Some(_) => return Read::Broken,
            }
            let kept = tls.secured.partial.len();
            buffer[..kept].copy_from_slice(&tls.secured.partial);
            let read = self.read_raw(&mut buffer[kept..]);
            let (Read::Full(n) | Read::Drained(n)) = read else { return read };
            let plain = self.open(&mut buffer[..kept + n], buffers);
            let over = self.tls.as_ref().is_some_and(|tls| tls.end.is_some());
            match (plain, matches!(read, Read::Drained(_))) {
                (0, true) if !over => return Read::Blocked,
                (0, _) => {}
                (plain, true) if !over => return Read::Drained(plain),
                (plain, _) => return Read::Full(plain),
            }
        }
        // There may be more, and it may be content: the next turn sees.
        Read::Blocked
    }

    /// Opens what has been read, keeps what is incomplete and answers what TLS itself asks. Gives how many bytes of content there are.
    fn open(&mut self, data: &mut [u8], buffers: &mut Buffers) -> usize {
        let Some(tls) = &mut self.tls else { return 0 };
        tls.touch(buffers);
        let opened = tls.secured.session.open(data);
        let rest = &data[opened.rest..];
        let partial = &mut tls.secured.partial;
        partial.clear();
        if !rest.is_empty() {
            if partial.capacity() == 0 {
                *partial = buffers.take();
            }
            partial.extend_from_slice(rest);
        } else if partial.capacity() > 0 {
            buffers.give(std::mem::take(partial));
        }
        if opened.end.is_some() {
            tls.end = opened.end;
            // There is something to be read: the end.
            self.readable = true;
        }
        let mut sealed = std::mem::take(&mut buffers.sealed);
        sealed.clear();
        tls.secured.session.take_replies(&mut sealed);
        if !sealed.is_empty() {
            // A socket that is broken is found out when it is read.
            let _ = self.send_raw(&sealed, buffers);
        }
        buffers.sealed = sealed;
        opened.plain
    }

    #[inline(never)]
    pub(super) fn send_sealed(&mut self, bytes: &[u8], buffers: &mut Buffers) -> Result<(), Errno> {
        let mut sealed = std::mem::take(&mut buffers.sealed);
        let mut result = Ok(());
        for piece in bytes.chunks(SEALED_AT_ONCE) {
            sealed.clear();
            let Some(tls) =
                self.tls.as_mut().filter(|tls| !tls.closed && !matches!(tls.end, Some(End::Refused(_) | End::Broken(_))))
            else {
                result = Err(Errno::EPIPE);
                break;
            };
            tls.touch(buffers);
            result = match tls.secured.session.seal(piece, &mut sealed) {
                Ok(()) => self.send_raw(&sealed, buffers),
                Err(_) => Err(Errno::EPIPE),
            };
            if result.is_err() {
                break;
            }
        }
        buffers.sealed = sealed;
        result
    }

    /// Tells the peer that nothing more will be said. What waits to be written goes first, or both are lost.
    pub(crate) fn close_notify(&mut self, buffers: &mut Buffers) {
        let Some(tls) = &mut self.tls else { return };
        tls.closed = true;
        // A peer that has closed would answer with a reset.
        if self.hung_up {
            return;
        }
        let mut sealed = std::mem::take(&mut buffers.sealed);
        sealed.clear();
        tls.secured.session.close(&mut sealed);
        if !sealed.is_empty() {
            let _ = self.send_raw(&sealed, buffers);
        }
        buffers.sealed = sealed;
    }

    /// The session was used for so long that its keys are worn out, and it cannot have others.
    pub(crate) fn is_worn_out(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.secured.session.is_worn_out())
    }

    /// What TLS takes of this connection, in bytes.
    pub(crate) fn tls_memory(&self) -> usize {
        self.tls.as_ref().map_or(0, |tls| size_of::<Tls>() + tls.secured.label.len() + tls.secured.partial.capacity())
    }
}
