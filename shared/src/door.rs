//! A worker's door: the socket at which another supervisor finds it when its own has died.
//!
//! The supervisor binds it in the control directory, and the worker listens at it: so its credentials (SO_PEERCRED) are the worker's own. The
//! worker speaks first, in words that every version understands, and hands the shared memory over with them; everything else is
//! [`crate::control`]'s.

use crate::encoding::{decode_named, encode_named};
use crate::ids::{MAX_WORKERS, Owner, Slot};
use crate::sys::{memfd, seqpacket};
use nix::sys::stat::fstat;
use nix::unistd::{UnlinkatFlags, unlinkat};
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// What the words begin with.
const GREETING: &[u8] = b"pgfleet worker\n";

/// The longest that is read.
const LONGEST: usize = 4096;

/// Who speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Name and version of the program.
    pub by: String,
    /// [`crate::control::VERSION`] there.
    pub version: u8,
    /// [`crate::shm::Shm::LAYOUT`] there.
    pub layout: u64,
    /// The slot and the life.
    pub owner: Owner,
    /// The process.
    pub pid: u32,
}

/// What was heard at a door.
#[derive(Debug)]
pub struct Heard {
    /// Who speaks.
    pub hello: Hello,
    /// Its shared memory.
    pub memory: OwnedFd,
}

/// Every slot that there can be.
pub fn slots() -> impl Iterator<Item = Slot> {
    (0..MAX_WORKERS as u8).map(Slot)
}

fn name(slot: Slot) -> String {
    format!("worker-{slot}")
}

/// By the descriptor, not by the directory's path: that may mean another one by now, or be longer than a socket's may be.
fn address(directory: BorrowedFd<'_>, slot: Slot) -> io::Result<SockAddr> {
    SockAddr::unix(format!("/proc/self/fd/{}/{}", directory.as_raw_fd(), name(slot)))
}

fn socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET.nonblocking().cloexec(), None)?;
    seqpacket::enlarge(&socket)?;
    Ok(socket)
}

/// The door of a worker that is to be started. A predecessor's is gone.
pub fn bind(directory: BorrowedFd<'_>, slot: Slot) -> io::Result<OwnedFd> {
    remove(directory, slot);
    let socket = socket()?;
    socket.bind(&address(directory, slot)?)?;
    Ok(socket.into())
}

/// Takes the door's name away.
pub fn remove(directory: BorrowedFd<'_>, slot: Slot) {
    let _ = unlinkat(directory, name(slot).as_str(), UnlinkatFlags::NoRemoveDir);
}

/// Opens the door: to be called by the worker itself. While it hangs several supervisors may come and go in vain.
pub fn listen(door: &OwnedFd) -> io::Result<()> {
    socket2::SockRef::from(door).listen(16)
}

/// Takes in who stands there, with its user. `None`: nobody.
pub fn accept(door: &OwnedFd) -> io::Result<Option<(OwnedFd, u32)>> {
    match socket2::SockRef::from(door).accept() {
        Ok((socket, _)) => {
            socket.set_nonblocking(true)?;
            seqpacket::enlarge(&socket)?;
            let (_, uid, _) = crate::sys::peer::peer_credentials(&socket)?;
            Ok(Some((socket.into(), uid)))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Knocks at a slot's door. `NotFound`: it has none; `ConnectionRefused`: nobody listens; `WouldBlock`: somebody stands there already.
pub fn knock(directory: BorrowedFd<'_>, slot: Slot) -> io::Result<OwnedFd> {
    let socket = socket()?;
    socket.connect(&address(directory, slot)?)?;
    Ok(socket.into())
}

impl Hello {
    /// Says so, and hands the memory over.
    pub fn say(&self, to: BorrowedFd<'_>, memory: BorrowedFd<'_>) -> io::Result<()> {
        let words = encode_named(GREETING, self).map_err(io::Error::other)?;
        seqpacket::send(to, &words, &[memory])
    }

    /// Hears it. `WouldBlock`: nothing has been said yet; `UnexpectedEof`: the door was shut; `InvalidData`: that is no worker.
    pub fn hear(from: BorrowedFd<'_>) -> io::Result<Heard> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let mut buffer = [0; LONGEST];
        let received = seqpacket::recv(from, &mut buffer)?;
        if received.len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let words = buffer[..received.len].strip_prefix(GREETING).ok_or_else(invalid)?;
        let hello = decode_named(words).map_err(|_| invalid())?;
        let memory = received.fds.into_iter().next().ok_or_else(invalid)?;
        if memfd::is_fixed_size(memory.as_fd())? { Ok(Heard { hello, memory }) } else { Err(invalid()) }
    }
}

/// Whether two descriptors are of one memory.
pub fn is_same(one: &impl AsFd, other: &impl AsFd) -> bool {
    let place = |fd: BorrowedFd<'_>| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    place(one.as_fd()).is_ok_and(|place_of_one| place(other.as_fd()) == Ok(place_of_one))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ids::Incarnation;
    use std::fs::File;

    #[test]
    fn from_knock_to_greeting() {
        let folder = tempfile::tempdir().unwrap();
        let directory = File::open(folder.path()).unwrap();
        let (directory, slot) = (directory.as_fd(), Slot(3));
        let kind = |slot| knock(directory, slot).unwrap_err().kind();
        assert_eq!(kind(slot), io::ErrorKind::NotFound);
        drop(bind(directory, slot).unwrap());
        assert_eq!(kind(slot), io::ErrorKind::ConnectionRefused);
        let door = bind(directory, slot).unwrap();
        assert_eq!(kind(slot), io::ErrorKind::ConnectionRefused, "nobody listens yet");
        listen(&door).unwrap();
        assert!(accept(&door).unwrap().is_none());
        let guest = knock(directory, slot).unwrap();
        let (host, uid) = accept(&door).unwrap().unwrap();
        assert_eq!(uid, nix::unistd::geteuid().as_raw());
        assert_eq!(Hello::hear(guest.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let memory = memfd::create_region("test", 100).unwrap();
        let owner = Owner { slot, incarnation: Incarnation(7) };
        let hello = Hello { by: "pgfleet 1".into(), version: 1, layout: 2, owner, pid: 4711 };
        hello.say(host.as_fd(), memory.as_fd()).unwrap();
        let heard = Hello::hear(guest.as_fd()).unwrap();
        assert!(heard.hello == hello && is_same(&heard.memory, &memory));
        assert!(!is_same(&heard.memory, &memfd::create_region("test", 100).unwrap()));
        seqpacket::send(host.as_fd(), b"220 smtp", &[]).unwrap();
        assert_eq!(Hello::hear(guest.as_fd()).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(host);
        assert_eq!(Hello::hear(guest.as_fd()).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        remove(directory, slot);
        assert_eq!(kind(slot), io::ErrorKind::NotFound);
    }
}
