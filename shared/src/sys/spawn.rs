//! Starting a worker: a new process image with four descriptors and nothing else from its parent.

use crate::control::CONTROL_FD;
use crate::sys::process;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::sys::resource::{Resource, getrlimit};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Starts `exe` with `args` and `control` at [`CONTROL_FD`]; of the parent's other descriptors only 0, 1 and 2 stay open in it.
/// Returns its pid; the caller reaps it.
///
/// `exe` is `/proc/self/exe` for the image that runs now, whatever has become of its file, or `/proc/self/fd/N` for an open one.
/// The child has the fleet's signals blocked from its first moment, and its own process group, so that a terminal's ^C reaches the supervisor only.
pub fn spawn_worker(exe: &Path, args: &[&str], control: OwnedFd) -> io::Result<u32> {
    // std's own pipe for reporting a failed exec must not lie where `control` goes: if CONTROL_FD is free, this occupies it.
    let placed = duplicate_from(&control, CONTROL_FD)?;
    drop(control);
    let from = placed.as_raw_fd();
    let mut command = Command::new(exe);
    command.arg0("pgfleet").args(args).process_group(0);
    // SAFETY: between fork and exec the closure makes only async-signal-safe calls and allocates nothing.
    unsafe { command.pre_exec(move || prepare_child(from)) };
    let child = command.spawn()?;
    drop(placed);
    Ok(child.id())
}

fn duplicate_from(fd: &OwnedFd, lowest: RawFd) -> io::Result<OwnedFd> {
    let raw = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(lowest))?;
    // SAFETY: the kernel has just made it for this call, nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn prepare_child(control: RawFd) -> io::Result<()> {
    // A signal to the whole fleet that came before the child could block it would be its end.
    process::fleet_signals().thread_set_mask()?;
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
pub fn close_on_exec_from(first: RawFd) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sys::{memfd, seqpacket};
    use nix::sys::signal::{SigSet, Signal};
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::Pid;
    use std::os::fd::AsFd;

    /// Runs `script` with a control socket and returns what it sent there.
    fn answer(script: &str) -> (u32, String) {
        let (ours, theirs) = seqpacket::pair().unwrap();
        let pid = spawn_worker(Path::new("/bin/sh"), &["-c", script], theirs).unwrap();
        let mut buffer = [0; 4096];
        let received = seqpacket::recv(ours.as_fd(), &mut buffer).unwrap();
        let raw = Pid::from_raw(pid as i32);
        assert_eq!(waitpid(raw, None).unwrap(), WaitStatus::Exited(raw, 0));
        (pid, String::from_utf8_lossy(&buffer[..received.len]).trim().to_owned())
    }

    #[test]
    fn the_child_has_descriptors_0_to_3_only() {
        let leaky: Vec<OwnedFd> = (0..20).map(|_| memfd::create_region("leak", 1).unwrap()).collect();
        for fd in &leaky {
            process::set_close_on_exec(fd, false).unwrap();
        }
        // The list is expanded with a descriptor of the shell's own, gone when each is looked at.
        let script = r#"for f in /proc/$$/fd/*; do [ -e "$f" ] && s="$s ${f##*/}"; done; echo $s >&3"#;
        assert_eq!(answer(script).1, "0 1 2 3");
    }

    #[test]
    fn the_child_blocks_the_fleet_s_signals_and_leads_its_own_group() {
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGALRM);
        blocked.thread_block().unwrap();
        let (pid, text) = answer(r#"read -r a b c d group rest < /proc/$$/stat; echo "$group $(grep SigBlk /proc/$$/status)" >&3"#);
        blocked.thread_unblock().unwrap();
        assert_eq!(text, format!("{pid} SigBlk:\t0000000000004a07"));
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let (_ours, theirs) = seqpacket::pair().unwrap();
        let error = spawn_worker(Path::new("/nonexistent/pgfleet"), &[], theirs).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
