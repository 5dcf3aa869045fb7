//! What a process does to itself: descriptor limits, descriptor flags, its name, the descriptors it was born with.

use crate::control::CONTROL_FD;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Raises the soft limit of open descriptors to the hard one. Returns the limit now in force.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// The signals that are meant for the whole fleet, and the supervisor's to act on.
pub fn fleet_signals() -> SigSet {
    use Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
    [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2].into_iter().collect()
}

/// How many descriptors this process may have open.
pub fn descriptor_limit() -> io::Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.0)
}

/// Whether `fd` is to be closed when this process executes another program.
pub fn set_close_on_exec(fd: &impl AsFd, close: bool) -> io::Result<()> {
    let flags = if close { FdFlag::FD_CLOEXEC } else { FdFlag::empty() };
    fcntl(fd.as_fd(), FcntlArg::F_SETFD(flags))?;
    Ok(())
}

/// The name that `ps -o comm` and `top` show; the kernel keeps 15 bytes of it. A program executed by descriptor is otherwise named by the number.
pub fn set_name(name: &str) -> io::Result<()> {
    let name = std::ffi::CString::new(name)?;
    // SAFETY: PR_SET_NAME reads a string that ends with 0 and lives through the call.
    let result = unsafe { nix::libc::prctl(nix::libc::PR_SET_NAME, name.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The control socket a worker is started with, at [`CONTROL_FD`]. An error when nothing is open there or when it was taken before.
pub fn take_control() -> io::Result<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    // SAFETY: borrowed for one call only, which merely asks the kernel whether the number is open.
    fcntl(unsafe { BorrowedFd::borrow_raw(CONTROL_FD) }, FcntlArg::F_GETFD)?;
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the control socket was taken before"));
    }
    // SAFETY: open, as was just seen; whoever started this process put it there for this one caller (`spawn`), and TAKEN makes it one.
    let control = unsafe { OwnedFd::from_raw_fd(CONTROL_FD) };
    set_close_on_exec(&control, true)?;
    Ok(control)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_limit_is_raised_to_the_hard_one() {
        let raised = raise_descriptor_limit().unwrap();
        assert_eq!(descriptor_limit().unwrap(), raised);
    }

    #[test]
    fn close_on_exec_is_set_and_cleared() {
        let fd = crate::sys::memfd::create_region("test", 1).unwrap();
        for close in [false, true] {
            set_close_on_exec(&fd, close).unwrap();
            let flags = FdFlag::from_bits_truncate(fcntl(fd.as_fd(), FcntlArg::F_GETFD).unwrap());
            assert_eq!(flags.contains(FdFlag::FD_CLOEXEC), close);
        }
    }

    #[test]
    fn a_name_shows_in_proc() {
        std::thread::spawn(|| {
            set_name("pgfleet-test").unwrap();
            assert_eq!(std::fs::read_to_string("/proc/thread-self/comm").unwrap(), "pgfleet-test\n");
        })
        .join()
        .unwrap();
    }
}
