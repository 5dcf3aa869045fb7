//! The data path of pgfleet: clients on one side, PostgreSQL on the other, one thread and one event loop.
//!
//! [`run`] is a worker process's life: it receives its slot, sockets and configuration over the control socket, and serves until it is
//! told to stop. [`protocol`] decides what to do with bytes and knows no sockets; [`worker`] is the loop; [`client`], [`server`],
//! [`pool`] and [`fleet`] act. What could block is asked of the supervisor; when the supervisor is gone, workers go on.

#![forbid(unsafe_code)]

mod cancel;
mod client;
mod clock;
mod encryption;
mod fleet;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod hashing;
mod lookup;
mod memory;
mod params;
mod pool;
mod protocol;
mod report;
mod server;
#[cfg(test)]
mod simulation;
mod socket;
mod tcp;
mod timers;
mod worker;

use nix::sys::signal::{SigSet, Signal};
use std::os::fd::OwnedFd;
use std::process::ExitCode;

/// Serves clients until told to stop. `control` is this worker's end of its control socket, on which the supervisor's
/// [`shared::control::ToWorker::Start`] is the first message. Returns 0 after an orderly stop, 1 when the worker could not start or its
/// event loop failed; the reason is in the log.
pub fn run(control: OwnedFd) -> ExitCode {
    ignore_signals();
    report_panics();
    match fleet::start::start(control) {
        Ok(worker) => worker.run(),
        Err(error) => {
            eprintln!("pgfleet worker could not start: {error}");
            shared::fatal!("could not start: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A panic is a line in the log before it is the end: standard error may lead nowhere.
fn report_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        shared::fatal!("{panic}");
        report(panic);
    }));
}

/// What the signals of PgBouncer's mean is for the whole fleet, and the supervisor's to act on: a worker that happens to get one (a
/// terminal, a service manager, `pkill`) must neither end nor do a part of it. The thread that calls this is the process's only one.
fn ignore_signals() {
    if let Err(error) = shared::sys::process::fleet_signals().thread_block() {
        eprintln!("pgfleet worker: could not block signals: {}", error.desc());
    }
}

/// The signals that end a process; a worker without a supervisor obeys them, since nobody else is left to.
const ENDING: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];

/// From now on the signals that end a process end this one.
fn obey_ending_signals() {
    let signals: SigSet = ENDING.into_iter().collect();
    if let Err(error) = signals.thread_unblock() {
        log::error!(target: "process", "could not unblock signals: {}", error.desc());
    }
}
