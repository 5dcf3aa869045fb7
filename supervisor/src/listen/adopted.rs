//! Listeners that the workers of a dead supervisor hold, and new ones in the place of those that nobody holds any more.

use super::{Inherited, Tcp, bind_more, listening, reason};
use shared::config::Settings;
use shared::ids::Slot;
use shared::sys::tcp::steer_no_more;
use socket2::{SockRef, Socket};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// The TCP listeners of a fleet.
#[derive(Debug)]
pub(crate) struct Group {
    slots: Vec<Vec<(SocketAddr, OwnedFd)>>,
    /// Who accepts from each slot's.
    holders: Vec<BTreeSet<Slot>>,
    addresses: Vec<SocketAddr>,
    known: BTreeSet<u64>,
}

impl Group {
    /// None yet of so many slots.
    pub(crate) fn new(slots: usize) -> Self {
        let (slots, holders) = (0..slots).map(|_| Default::default()).unzip();
        Self { slots, holders, addresses: Vec::new(), known: BTreeSet::new() }
    }

    /// The worker of the slot `by` accepts from this one of the slot `of`. Several may hold copies of one socket.
    pub(crate) fn add(&mut self, of: Slot, by: Slot, socket: OwnedFd) {
        let address = SockRef::from(&socket).local_addr().ok().and_then(|address| address.as_socket());
        let (Some(slot), Some(address)) = (self.slots.get_mut(of.index()), address) else { return };
        self.holders[of.index()].insert(by);
        if SockRef::from(&socket).cookie().map_or(true, |cookie| self.known.insert(cookie)) {
            slot.push((address, socket));
        }
        if !self.addresses.contains(&address) {
            self.addresses.push(address);
        }
    }

    /// Connections go to all of them again, should the dead supervisor have been about to close the port. There are to be as many slots with listeners as there are to be workers: those that died with a worker are opened anew, unless the service manager has
    /// kept them. Slots in `busy` get none. Returns who accepts from which slot's; `None`: it has none. The error is the FATAL line.
    pub(crate) fn complete(
        &mut self,
        settings: &Settings,
        busy: &BTreeSet<Slot>,
        inherited: &mut Inherited,
    ) -> Result<Vec<Option<BTreeSet<Slot>>>, String> {
        let wanted = settings.worker_count();
        if self.addresses.is_empty() && !settings.listen_addr.is_empty() {
            let (tcp, addresses) = Tcp::resolve_beside(settings, inherited)?.open(wanted, inherited)?;
            let free = (0..self.slots.len()).filter(|slot| !busy.contains(&Slot(*slot as u8)));
            for (slot, sockets) in free.zip(tcp) {
                self.slots[slot] = addresses.iter().copied().zip(sockets).collect();
            }
            self.addresses = addresses;
        }
        for socket in self.slots.iter().flatten().map(|(_, socket)| socket) {
            // Where nothing was sealed there is nothing to be undone.
            let _ = steer_no_more(socket);
        }
        let mut kept: Vec<(SocketAddr, Vec<Socket>)> = Vec::new();
        for address in &self.addresses {
            let is_new = |socket: &Socket| socket.cookie().map_or(true, |cookie| self.known.insert(cookie));
            kept.push((*address, inherited.tcp(*address).into_iter().filter(is_new).collect()));
        }
        let mut missing = wanted.saturating_sub(self.slots.iter().filter(|slot| !slot.is_empty()).count());
        for slot in 0..self.slots.len() {
            if missing == 0 || !self.slots[slot].is_empty() || busy.contains(&Slot(slot as u8)) {
                continue;
            }
            for (address, kept) in &mut kept {
                let socket = kept.pop().map_or_else(|| bind_more(*address), Ok);
                match socket.map(|socket| listening(socket, settings)) {
                    Ok(Ok(listener)) => self.slots[slot].push((*address, listener)),
                    // The others' get what this one would have got.
                    Ok(Err((call, error))) => log::error!("cannot listen on {address}: {call}: {}", reason(&error)),
                    Err(error) => log::error!("{error}"),
                }
            }
            missing -= 1;
        }
        let has = |slot: &Vec<_>| !slot.is_empty();
        Ok(self.slots.iter().zip(&self.holders).map(|(slot, holders)| has(slot).then(|| holders.clone())).collect())
    }

    /// By slot, then by address; and the addresses.
    pub(crate) fn into_parts(mut self) -> (Vec<Vec<OwnedFd>>, Vec<SocketAddr>) {
        let addresses = self.addresses;
        for slot in &mut self.slots {
            slot.sort_by_key(|(address, _)| addresses.iter().position(|other| other == address));
        }
        (self.slots.into_iter().map(|slot| slot.into_iter().map(|(_, socket)| socket).collect()).collect(), addresses)
    }
}
