//! Datagrams with descriptors between processes of this host: AF_UNIX SOCK_SEQPACKET pairs.
//!
//! One datagram is one message, whole or not at all, also with several senders on one end. When every holder of the other end is
//! gone, `recv` returns 0 bytes; so no message may be empty. A receiver at its descriptor limit still gets the datagram, but without the
//! descriptors (`truncated`): it must stop reading before it gets there.

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, cmsg_space, sendmsg, setsockopt, socketpair, sockopt,
};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// The most descriptors one datagram can carry (Linux's SCM_MAX_FD).
pub const MAX_FDS: usize = 253;

/// The send buffer asked for, in bytes: room for several of the longest messages.
const SEND_BUFFER: usize = 1024 * 1024;

/// How long descriptors that are sent patiently wait for others to arrive,
const PATIENCE: Duration = Duration::from_secs(1);
/// and how often they try.
const PAUSE: Duration = Duration::from_millis(1);

/// What one `recv` brought.
#[derive(Debug)]
pub struct Received {
    /// Bytes of the datagram that are in the buffer; 0 when the other side is gone.
    pub len: usize,
    /// The descriptors it carried, in the sender's order, close-on-exec.
    pub fds: Vec<OwnedFd>,
    /// The datagram was longer than the buffer, or descriptors were lost because this process may open no more.
    pub truncated: bool,
}

/// Two connected ends, both close-on-exec and blocking. The send buffer is 1 MiB, or what `net.core.wmem_max` allows.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    enlarge(&a)?;
    enlarge(&b)?;
    Ok((a, b))
}

/// Gives a socket the send buffer that [`pair`] gives.
pub fn enlarge(socket: &impl AsFd) -> io::Result<()> {
    // With CAP_NET_ADMIN beyond wmem_max; else Linux itself cuts the value down and reports success.
    if setsockopt(socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
        setsockopt(socket, sockopt::SndBuf, &SEND_BUFFER)?;
    }
    Ok(())
}

/// Sends one datagram. Blocks or returns `WouldBlock` as the descriptor's own O_NONBLOCK says; `BrokenPipe` when nobody holds the other end.
pub fn send(fd: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if bytes.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "an empty datagram would read as the end"));
    }
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    let sent = loop {
        match sendmsg::<()>(fd.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(nix::Error::EINTR) => {}
            other => break other?,
        }
    };
    if sent == bytes.len() { Ok(()) } else { Err(io::Error::new(io::ErrorKind::WriteZero, "datagram sent in part")) }
}

/// As [`send`], by somebody whom a wait of up to a second does not hurt: while [too many](is_crowded) descriptors are on their way, it tries again.
pub fn send_patiently(fd: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        match send(fd, bytes, fds) {
            Err(error) if is_crowded(&error) && Instant::now() < until => std::thread::sleep(PAUSE),
            sent => return sent,
        }
    }
}

/// Whether descriptors could not be sent since more are on their way, between all processes of this user together, than this one may have open:
/// that passes as they are received, and nobody says when (unix(7), ETOOMANYREFS).
pub fn is_crowded(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ETOOMANYREFS as i32)
}

/// Room for the descriptors, aligned for the headers the kernel writes into it.
#[repr(align(8))]
struct ControlBuffer([u8; cmsg_space::<[RawFd; MAX_FDS]>()]);

/// Receives one datagram into `buffer`. Blocks or returns `WouldBlock` as the descriptor's own O_NONBLOCK says.
pub fn recv(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = ControlBuffer([0; cmsg_space::<[RawFd; MAX_FDS]>()]);
    let mut slice = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero is a valid msghdr: null pointers with lengths 0.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut slice;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len();
    let len = loop {
        // SAFETY: `header` points to `slice` and `control`, both alive and as long as stated; `slice` covers exactly `buffer`.
        let len = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) };
        if let Ok(len) = usize::try_from(len) {
            break len;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    };
    // SAFETY: the kernel has just filled `header` and the control buffer it points to, which is still alive.
    let fds = unsafe { descriptors(&header) };
    Ok(Received { len, fds, truncated: header.msg_flags & (libc::MSG_CTRUNC | libc::MSG_TRUNC) != 0 })
}

/// Takes ownership of the descriptors in a control buffer, also of those that came through when the rest were cut off
/// (nix's own iterator gives none of them back then, and they would stay open for ever).
///
/// # Safety
/// `header` is as `recvmsg` left it, its control buffer is alive and aligned, and this is called once for it.
unsafe fn descriptors(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: as the caller promises; CMSG_FIRSTHDR and CMSG_NXTHDR return null or a header that lies whole inside the buffer.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: not null, therefore a header inside the buffer.
    while let Some(control) = unsafe { message.as_ref() } {
        if control.cmsg_level == libc::SOL_SOCKET && control.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: plain arithmetic.
            let bytes = control.cmsg_len - unsafe { libc::CMSG_LEN(0) } as usize;
            // SAFETY: the header is inside the buffer, so is the start of its data.
            let data = unsafe { libc::CMSG_DATA(control) }.cast::<[u8; size_of::<RawFd>()]>();
            for index in 0..bytes / size_of::<RawFd>() {
                // SAFETY: `cmsg_len` counts the data that the kernel wrote, and each descriptor in it is new and belongs to nobody yet.
                fds.push(unsafe { OwnedFd::from_raw_fd(RawFd::from_ne_bytes(data.add(index).read())) });
            }
        }
        // SAFETY: as for CMSG_FIRSTHDR.
        message = unsafe { libc::CMSG_NXTHDR(header, control) };
    }
    fds
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    fn nonblocking(fd: &OwnedFd) {
        fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    }

    #[test]
    fn datagrams_keep_their_bounds_and_their_descriptors() {
        let (a, b) = pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        send(a.as_fd(), b"first", &[]).unwrap();
        send(a.as_fd(), b"second", &[writer.as_fd(), a.as_fd()]).unwrap();
        drop(writer);
        let mut buffer = [0; 100];
        let first = recv(b.as_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..first.len], first.fds.len(), first.truncated), (&b"first"[..], 0, false));
        let second = recv(b.as_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..second.len], second.fds.len(), second.truncated), (&b"second"[..], 2, false));
        for fd in &second.fds {
            let flags = FdFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFD).unwrap());
            assert!(flags.contains(FdFlag::FD_CLOEXEC));
        }
        let mut fds = second.fds.into_iter();
        File::from(fds.next().unwrap()).write_all(b"through the pipe").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through the pipe", "the descriptors come in the sender's order");
    }

    #[test]
    fn as_many_descriptors_as_linux_allows() {
        let (a, b) = pair().unwrap();
        send(a.as_fd(), b"x", &[a.as_fd(); MAX_FDS]).unwrap();
        assert!(send(a.as_fd(), b"x", &[a.as_fd(); MAX_FDS + 1]).is_err());
        let received = recv(b.as_fd(), &mut [0; 1]).unwrap();
        assert_eq!((received.len, received.fds.len(), received.truncated), (1, MAX_FDS, false));
    }

    #[test]
    fn a_buffer_too_short_is_reported() {
        let (a, b) = pair().unwrap();
        send(a.as_fd(), b"longer", &[]).unwrap();
        let received = recv(b.as_fd(), &mut [0; 3]).unwrap();
        assert_eq!((received.len, received.truncated), (3, true));
    }

    #[test]
    fn the_longest_message_passes_and_a_full_socket_would_block() {
        let (a, b) = pair().unwrap();
        nonblocking(&a);
        nonblocking(&b);
        let mut buffer = vec![0; crate::control::MAX_MESSAGE + 1];
        assert_eq!(recv(b.as_fd(), &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let message = vec![7; crate::control::MAX_MESSAGE];
        let mut sent = 0;
        let full = loop {
            match send(a.as_fd(), &message, &[]) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert!(sent >= 1);
        for _ in 0..sent {
            let received = recv(b.as_fd(), &mut buffer).unwrap();
            assert_eq!((&buffer[..received.len], received.truncated), (&message[..], false));
        }
    }

    #[test]
    fn the_end_is_seen_from_both_sides() {
        let (a, b) = pair().unwrap();
        let (c, d) = pair().unwrap();
        assert_eq!(send(a.as_fd(), b"", &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        drop((a, d));
        assert_eq!(recv(b.as_fd(), &mut [0; 10]).unwrap().len, 0);
        assert_eq!(send(c.as_fd(), b"x", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
