//! Descriptors that whoever started this process has left open for it, as a service manager does (sd_listen_fds(3)).

use super::process::set_close_on_exec;
use nix::fcntl::{FcntlArg, fcntl};
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The first that a service manager passes.
pub const FIRST: RawFd = 3;

/// Takes over `count` descriptors from [`FIRST`] on, before this process has opened any itself. Once; an error if one of them is not open.
pub fn take(count: u16) -> io::Result<Vec<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the descriptors were taken before"));
    }
    let fds = FIRST..FIRST + RawFd::from(count);
    for fd in fds.clone() {
        // SAFETY: borrowed for one call only, which merely asks the kernel whether the number is open.
        fcntl(unsafe { BorrowedFd::borrow_raw(fd) }, FcntlArg::F_GETFD)?;
    }
    // SAFETY: all are open, as was just seen; whoever started this process put them there for this one caller, and TAKEN makes it one.
    let taken: Vec<OwnedFd> = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect();
    for fd in &taken {
        set_close_on_exec(fd, true)?;
    }
    Ok(taken)
}
