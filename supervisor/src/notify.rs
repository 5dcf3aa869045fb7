//! What the service manager is told (sd_notify) and given to keep, and its watchdog.

use crate::fleet::{Moment, Notice};
use sd_notify::NotifyState;
use shared::sys::seqpacket;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
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

/// The name of what a fleet leaves with the service manager.
pub(crate) const STORED: &str = "pgfleet";

/// Whether the service manager keeps descriptors for the next fleet. FDSTORE is set by systemd from 254 on, and by the unit file for older ones.
pub(crate) fn has_store() -> bool {
    let places = std::env::var("FDSTORE").ok().and_then(|places| places.parse::<u32>().ok());
    std::env::var_os("NOTIFY_SOCKET").is_some() && places.is_some_and(|places| places > 0)
}

/// Leaves these listeners with the service manager, which keeps one that it has already as it is.
pub(crate) fn store(listeners: &[BorrowedFd<'_>]) {
    /// The most descriptors in a message (unix(7)).
    const MOST: usize = 253;
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let message = format!("FDSTORE=1\nFDNAME={STORED}");
    let socket = connect(&path);
    for some in listeners.chunks(MOST) {
        let sent = socket.as_ref().map_err(ToString::to_string);
        let sent = sent.and_then(|socket| {
            seqpacket::send_patiently(socket.as_fd(), message.as_bytes(), some).map_err(|error| error.to_string())
        });
        if let Err(error) = sent {
            return log::warn!("could not leave the listeners with the service manager: {error}");
        }
    }
}

fn connect(path: &OsStr) -> io::Result<UnixDatagram> {
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    Ok(socket)
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
