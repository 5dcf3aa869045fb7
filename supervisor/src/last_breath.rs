//! No worker outlives a supervisor that ends by its own doing, be it by a panic.
//!
//! The pids stand in atomics, so that the panic hook needs no lock and no allocation to end them. A supervisor that is killed
//! runs nothing of this: its workers go on serving.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use shared::ids::{MAX_WORKERS, Slot};
use shared::sys::guard;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};

static PIDS: [AtomicI32; MAX_WORKERS] = [const { AtomicI32::new(0) }; MAX_WORKERS];
static FILES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A worker runs on the slot; 0: it has been reaped.
pub(crate) fn remember(slot: Slot, pid: u32) {
    PIDS[slot.index()].store(pid as i32, Ordering::SeqCst);
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
