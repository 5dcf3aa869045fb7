//! The supervisor's signals, as events.
//!
//! They are blocked in every thread and read from a descriptor: what has come and was not read yet stays with the process when it executes another image.

use crate::fleet::{Event, Signal};
use crate::office::{Input, Office};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use shared::sys::process::fleet_signals;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

fn meant(number: u32) -> Option<Signal> {
    Some(match signal::Signal::try_from(number as i32).ok()? {
        signal::Signal::SIGHUP => Signal::Hup,
        signal::Signal::SIGTERM => Signal::Term,
        signal::Signal::SIGINT => Signal::Int,
        signal::Signal::SIGQUIT => Signal::Quit,
        signal::Signal::SIGUSR1 => Signal::Usr1,
        signal::Signal::SIGUSR2 => Signal::Usr2,
        _ => return None,
    })
}

/// Blocks them in this thread and in those that it starts from now on.
pub(crate) fn block() -> io::Result<()> {
    Ok(fleet_signals().thread_block()?)
}

/// Passes them on from a thread of their own.
pub(crate) fn listen(office: Arc<Office>) -> io::Result<()> {
    let signals = SignalFd::with_flags(&fleet_signals(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let pass_on = move || {
        loop {
            // Interrupted or not: it is looked at.
            let _ = poll(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
            let _pass = office.gate.enter();
            while let Ok(Some(read)) = signals.read_signal() {
                if let Some(signal) = meant(read.ssi_signo) {
                    office.tell(Input::Event(Event::Signal(signal)));
                }
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(pass_on)?;
    Ok(())
}
