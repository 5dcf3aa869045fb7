//! Slots that a reload adds: what they own is made ready while the configuration is read, so that a reload that cannot have it is refused, and is
//! theirs when the reload is in force.

use super::Engine;
use crate::listen;
use crate::process::set_nonblocking;
use shared::sys::seqpacket;
use socket2::Socket;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

/// What one more slot is to own. Dropped, it has never been seen by a client.
#[derive(Debug)]
pub(crate) struct NewSlot {
    bound: Vec<(SocketAddr, Socket)>,
    inbox: (OwnedFd, OwnedFd),
}

impl NewSlot {
    /// Binds a socket to each address and makes an inbox. The error says what was wrong.
    pub(super) fn prepare(addresses: &[SocketAddr]) -> Result<Self, String> {
        let bound = addresses.iter().map(|&address| Ok((address, listen::bind_more(address)?))).collect::<Result<_, String>>()?;
        let inbox = inbox().map_err(|error| format!("could not create an inbox: {}", listen::reason(&error)))?;
        Ok(Self { bound, inbox })
    }
}

/// Receiving and sending end of an inbox; neither blocks, whoever holds it.
pub(crate) fn inbox() -> io::Result<(OwnedFd, OwnedFd)> {
    let (receiving, sending) = seqpacket::pair()?;
    set_nonblocking(&receiving)?;
    set_nonblocking(&sending)?;
    Ok((receiving, sending))
}

impl Engine {
    /// Adds a slot that has an inbox and no listeners.
    pub(super) fn add_slot(&mut self) -> Result<(), String> {
        let (receiving, sending) = inbox().map_err(|error| format!("could not create an inbox: {}", listen::reason(&error)))?;
        self.parts.own.listeners.tcp.push(Vec::new());
        self.parts.own.inbox_ends.push(receiving);
        self.parts.own.inboxes.add(sending);
        self.workers.push(None);
        Ok(())
    }

    /// Takes the new slots in. Clients are sent to their listeners from now on, and wait there for the workers to come.
    pub(super) fn grow(&mut self) {
        let config = self.parts.office.config();
        for NewSlot { bound, inbox: (receiving, sending) } in std::mem::take(&mut self.new_slots) {
            let mut listeners = Vec::with_capacity(bound.len());
            for (address, socket) in bound {
                match listen::listening(socket, &config.settings) {
                    Ok(listener) => {
                        let row = (listener.as_raw_fd(), address.ip().to_string(), address.port());
                        self.parts.office.listeners().push(row);
                        listeners.push(listener);
                    }
                    // The other slots' listeners get what this one would have got.
                    Err((call, error)) => log::error!("cannot listen on {address}: {call}: {}", listen::reason(&error)),
                }
            }
            self.parts.own.listeners.tcp.push(listeners);
            self.parts.own.inbox_ends.push(receiving);
            self.parts.own.inboxes.add(sending);
            self.workers.push(None);
        }
    }
}
