//! Listening sockets. A slot owns its TCP listeners, a process does not: they are opened once, inherited by every worker that the slot
//! ever has, given to another slot's worker when the slot is to be no more, and closed (never shut down, which would end them for every process)
//! with the fleet, unless the service manager keeps them: to close one of several SO_REUSEPORT listeners resets the connections that wait at it.

mod adopted;
mod doors;
mod inherited;
mod kept;
mod tcp;
mod unix;

pub(crate) use adopted::Group;
use doors::Sink;
pub(crate) use doors::Stray;
pub(crate) use inherited::Inherited;
pub(crate) use kept::KeptListeners;
pub(crate) use tcp::{Tcp, bind_more, defer_accept, listening};
pub(crate) use unix::{Unix, check_running, connect, file};

use serde::{Deserialize, Serialize};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// All listeners of the fleet.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// By slot, then by address.
    pub(crate) tcp: Vec<Vec<OwnedFd>>,
    /// The TCP addresses, in the order of each slot's listeners.
    pub(crate) addresses: Vec<SocketAddr>,
    /// The Unix listener that all slots share, if there is one.
    pub(crate) unix: Option<Unix>,
    /// Those that are passed on to the service manager's next fleet, or are its own, are not closed with this one.
    pub(crate) keeper: Keeper,
    /// While the others are sealed: where new connections are sent, and never get to.
    pub(crate) sinks: Vec<Sink>,
}

/// Who has the listeners when this fleet has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Keeper {
    /// Nobody.
    Nobody,
    /// The service manager's store.
    Store,
    /// The service manager, whose they are: socket activation.
    Manager,
}

/// The system's text for an error, without Rust's "(os error N)".
pub(crate) fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}
