//! A process held by a descriptor (pidfd_open(2)): whatever becomes of its number, no other process is meant.

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// See the module.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Holds the process that has this number now. Whether that is the one that is meant has to be found out afterwards.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: takes two numbers; the kernel sets close-on-exec.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = i32::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        // SAFETY: the kernel has just made it for this call, nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sends the process a signal. One that has ended is no error.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is open; without a siginfo the kernel reads none.
        let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal as libc::c_int, none, 0) };
        match (sent, io::Error::last_os_error()) {
            (0, _) => Ok(()),
            (_, error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            (_, error) => Err(error),
        }
    }

    /// Waits for the process to end, at most so long. Whether it has.
    pub fn wait(&self, limit: PollTimeout) -> io::Result<bool> {
        let mut end = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut end, limit) {
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
                Ok(ready) => return Ok(ready > 0),
            }
        }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for PidFd {
    /// One that [`PidFd::open`] has made.
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_is_killed_and_its_end_is_seen() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let held = PidFd::open(child.id()).unwrap();
        assert!(!held.wait(PollTimeout::ZERO).unwrap());
        held.signal(Signal::SIGKILL).unwrap();
        assert!(held.wait(PollTimeout::from(5000u16)).unwrap());
        child.wait().unwrap();
        assert!(held.wait(PollTimeout::ZERO).unwrap());
        held.signal(Signal::SIGKILL).unwrap();
        assert_eq!(PidFd::open(child.id()).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }
}
