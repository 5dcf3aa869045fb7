//! No worker outlives a supervisor that ends by its own doing, be it by a panic.
//!
//! The pids stand in atomics, so that the panic hook needs no lock and no allocation to end them. A supervisor that is killed
//! runs nothing of this: its workers go on serving.

use crate::process::Process;
use nix::errno::Errno;
use nix::poll::PollTimeout;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use shared::ids::{MAX_WORKERS, Slot};
use shared::sys::guard;
use shared::sys::pidfd::PidFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex};

static PIDS: [AtomicI32; MAX_WORKERS] = [const { AtomicI32::new(0) }; MAX_WORKERS];
/// Those that another supervisor has started.
static ADOPTED: Mutex<Vec<(Slot, Arc<PidFd>)>> = Mutex::new(Vec::new());
static FILES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A worker runs on the slot.
pub(crate) fn remember(slot: Slot, process: &Process) {
    match process {
        Process::Child(pid) => PIDS[slot.index()].store(*pid as i32, Ordering::SeqCst),
        Process::Adopted(_, process) => {
            if let Ok(mut adopted) = ADOPTED.lock() {
                adopted.push((slot, Arc::clone(process)));
            }
        }
    }
}

/// It has been reaped.
pub(crate) fn forget(slot: Slot) {
    PIDS[slot.index()].store(0, Ordering::SeqCst);
    if let Ok(mut adopted) = ADOPTED.lock() {
        adopted.retain(|(other, _)| *other != slot);
    }
}

/// A file to be removed whatever happens.
pub(crate) fn remove_at_end(file: PathBuf) {
    if let Ok(mut files) = FILES.lock() {
        files.push(file);
    }
}

/// Kills and reaps every worker that is left.
pub(crate) fn end_workers() {
    let pids = PIDS.each_ref().map(|pid| pid.swap(0, Ordering::SeqCst));
    for pid in pids.into_iter().filter(|&pid| pid > 0) {
        // Ours until reaped, so the pid cannot be another's.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let adopted = ADOPTED.try_lock().map_or_else(|_| Vec::new(), |mut adopted| std::mem::take(&mut *adopted));
    for (_, process) in &adopted {
        let _ = process.signal(Signal::SIGKILL);
    }
    for (_, process) in &adopted {
        let _ = process.wait(PollTimeout::NONE);
    }
    for pid in pids.into_iter().filter(|&pid| pid > 0) {
        while waitpid(Pid::from_raw(pid), None) == Err(Errno::EINTR) {}
    }
}

/// From now on a panic in any thread is logged and ends the workers before it ends the supervisor.
pub(crate) fn on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if guard::is_armed() {
            let error = guard::fall_back(&format!("panicked: {panic}"));
            shared::fatal!("the version before cannot be executed: {error}");
        }
        end_workers();
        if let Ok(files) = FILES.try_lock() {
            for file in files.iter() {
                let _ = std::fs::remove_file(file);
            }
        }
        shared::fatal!("{panic}");
        report(panic);
        // A panic in a session's thread must not leave a supervisor without workers behind.
        std::process::exit(1);
    }));
}
