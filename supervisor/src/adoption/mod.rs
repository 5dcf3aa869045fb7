//! Going on with the workers of a supervisor that has died.
//!
//! Workers serve on without one, each with a door in the control directory. A supervisor that starts there [`find`]s them, before it has
//! touched anything, asks each for what it has (`claim.rs`), buries those that have died meanwhile, and puts together what its
//! predecessor was made of (`foundation.rs`). Two things keep it from meeting strangers: the directory is this user's alone, and a process is
//! held by a descriptor from before it is asked who it is, so that what is killed is always what has answered, or has not.

mod claim;
mod find;
mod foundation;
mod identity;

pub(crate) use find::find;
pub(crate) use foundation::{Adopted, Rescued, put_together};

use nix::sys::signal::Signal;
use shared::ids::Slot;
use shared::sys::pidfd::PidFd;
use std::time::Duration;

/// How long a worker may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often those are looked at that have not.
const PAUSE: Duration = Duration::from_millis(10);

/// How long a process that is killed may take to end, in milliseconds.
const END: u16 = 10_000;

/// Ends a worker. The error is the FATAL line: with one that lives there must not be another fleet.
fn kill(slot: Slot, pid: u32, process: &PidFd, why: &str) -> Result<(), String> {
    log::error!("worker {slot} (pid {pid}) {why}, killing it");
    let failed = |error: std::io::Error| format!("worker {slot} (pid {pid}) {why} and cannot be killed: {error}");
    process.signal(Signal::SIGKILL).map_err(failed)?;
    if process.wait(END.into()).map_err(failed)? {
        return Ok(());
    }
    Err(format!("worker {slot} (pid {pid}) {why} and does not end though it was killed"))
}

/// Whether the process was started as a worker is.
fn is_worker(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == b"pgfleet\0worker\0")
}
