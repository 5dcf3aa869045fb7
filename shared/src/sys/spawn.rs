//! Starting a worker: a new process image with four descriptors and nothing else from its parent.

use crate::control::CONTROL_FD;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::SigSet;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Starts `exe` with `args` and `control` at [`CONTROL_FD`]; of the parent's other descriptors only 0, 1 and 2 stay open in it.
/// Returns its pid; the caller reaps it.
///
/// `exe` is `/proc/self/exe` for the image that runs now, whatever has become of its file, or `/proc/self/fd/N` for an open one.
/// The child has an empty signal mask, and its own process group, so that a terminal's ^C reaches the supervisor only.
pub fn spawn_worker(exe: &Path, args: &[&str], control: OwnedFd) -> io::Result<u32> {
    // std's own pipe for reporting a failed exec must not lie where `control` goes: if CONTROL_FD is free, this occupies it.
    let control = duplicate_from(&control, CONTROL_FD)?;
    let from = control.as_raw_fd();
    let mut command = Command::new(exe);
    command.arg0("pgfleet").args(args).process_group(0);
    // SAFETY: between fork and exec the closure makes only async-signal-safe calls and allocates nothing.
    unsafe { command.pre_exec(move || prepare_child(from)) };
    let child = command.spawn()?;
    Ok(child.id())
}

fn duplicate_from(fd: &OwnedFd, lowest: RawFd) -> io::Result<OwnedFd> {
    let raw = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(lowest))?;
    // SAFETY: the kernel has just made it for this call, nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn prepare_child(control: RawFd) -> io::Result<()> {
    SigSet::empty().thread_set_mask()?;
    if control == CONTROL_FD {
        // SAFETY: open in this process (the parent owns it across the fork) and borrowed for one call.
        fcntl(unsafe { BorrowedFd::borrow_raw(control) }, FcntlArg::F_SETFD(FdFlag::empty()))?;
    } else {
        // SAFETY: dup2 takes any numbers; what CONTROL_FD was before is the parent's and not used in this process.
        if unsafe { libc::dup2(control, CONTROL_FD) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    close_on_exec_from(CONTROL_FD + 1)
}

/// Marks every descriptor from `first` on; closing them at once would close std's pipe too.
fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    // SAFETY: changes flags of descriptors of this process only.
    let marked = unsafe { libc::close_range(first.unsigned_abs(), libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int) };
    if marked == 0 {
        return Ok(());
    }
    // Before Linux 5.11: one by one.
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    for fd in first..RawFd::try_from(limit).unwrap_or(RawFd::MAX) {
        // SAFETY: any number may be asked; one that is not open is refused with EBADF.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}
