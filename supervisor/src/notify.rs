//! What the service manager is told (sd_notify), and its watchdog.

use crate::fleet::{Moment, Notice};
use sd_notify::NotifyState;
use std::time::Duration;

/// Says that the fleet is up, reloading or on its way out. Without a service manager nothing happens.
pub(crate) fn tell(notice: Notice) {
    let states = match notice {
        Notice::Ready => vec![NotifyState::Ready],
        Notice::Stopping => vec![NotifyState::Stopping],
        // systemd wants the moment beside it (Type=notify-reload).
        Notice::Reloading => std::iter::once(NotifyState::Reloading).chain(NotifyState::monotonic_usec_now().ok()).collect(),
    };
    send(&states);
}

/// The line that `systemctl status` shows.
pub(crate) fn status(line: &str) {
    send(&[NotifyState::Status(line)]);
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::debug!("could not notify the service manager: {error}");
    }
}

/// The watchdog, fed by the fleet's thread only: when that one stands still, the service manager acts.
#[derive(Debug)]
pub(crate) struct Watchdog {
    every: Option<Duration>,
    last: Moment,
}

impl Watchdog {
    /// As WATCHDOG_USEC says.
    pub(crate) fn from_environment() -> Self {
        Self { every: sd_notify::watchdog_enabled().map(|limit| limit / 2), last: Moment::ZERO }
    }

    /// The fleet's thread is alive.
    pub(crate) fn alive(&mut self, now: Moment) {
        if self.every.is_some_and(|every| now.saturating_sub(self.last) >= every) {
            self.last = now;
            send(&[NotifyState::Watchdog]);
        }
    }
}
