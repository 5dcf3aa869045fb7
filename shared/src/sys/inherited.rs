//! Descriptors that were left open for this image: by a service manager that started the process (sd_listen_fds(3)), or by an image before it in the
//! same process.

use super::process::set_close_on_exec;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

/// The first that a service manager passes.
pub const FIRST: RawFd = 3;

/// Takes over `count` descriptors from [`FIRST`] on, before this process has opened any itself. Once; an error if one of them is not open.
pub fn take(count: u16) -> io::Result<Vec<OwnedFd>> {
    let numbers: Vec<RawFd> = (FIRST..FIRST + RawFd::from(count)).collect();
    let taken: Option<Vec<OwnedFd>> = claim(&numbers)?.into_iter().collect();
    let taken = taken.ok_or_else(|| io::Error::from(Errno::EBADF))?;
    for fd in &taken {
        set_close_on_exec(fd, true)?;
    }
    Ok(taken)
}

/// Takes over these descriptors, whose numbers an image before this one has written down. They may still be inherited by the next image. `None` in
/// place of one that is not open any more. An error, and nothing is taken, if one is named twice or was taken before.
pub fn claim(numbers: &[RawFd]) -> io::Result<Vec<Option<OwnedFd>>> {
    static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut claimed = taken.clone();
    if let Some(fd) = numbers.iter().find(|fd| **fd < FIRST || !claimed.insert(**fd)) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("descriptor {fd} is not to be taken")));
    }
    *taken = claimed;
    Ok(numbers.iter().map(|&fd| left_open(fd)).collect())
}

fn left_open(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: borrowed for one call only, which merely asks the kernel about the number.
    let flags = fcntl(unsafe { BorrowedFd::borrow_raw(fd) }, FcntlArg::F_GETFD).ok()?;
    // What this image opens itself is close-on-exec from the beginning, and another's.
    let is_left = !FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC);
    // SAFETY: open; the number was not taken before, as `claim` has seen, and nobody in this image has opened it, so nobody in it owns it.
    is_left.then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}
