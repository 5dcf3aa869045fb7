//! The supervisor's signals, as events.

use crate::fleet::{Event, Signal};
use crate::office::Input;
use crossbeam_channel::Sender;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use std::io;

/// Registers the signals and passes them on from a thread of their own.
pub(crate) fn listen(input: Sender<Input>) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2])?;
    let pass_on = move || {
        for number in signals.forever() {
            let signal = match number {
                SIGHUP => Signal::Hup,
                SIGTERM => Signal::Term,
                SIGINT => Signal::Int,
                SIGQUIT => Signal::Quit,
                SIGUSR1 => Signal::Usr1,
                _ => Signal::Usr2,
            };
            if input.send(Input::Event(Event::Signal(signal))).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(pass_on)?;
    Ok(())
}
