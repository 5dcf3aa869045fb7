//! Requests for the clients of other fleets, `[peers]`.
//!
//! A fleet with a peer_id puts it into its cancel keys, so that any of several fleets behind one address knows whose client a request means. It is
//! forwarded over a fresh connection; the key counts down how often that may still happen, so that fleets that disagree about who is who
//! do not pass a request around for ever. At most a peer's pool_size requests are on their way to it at once, from all workers together.

use super::Asker;
use super::carry::{Aim, Stage};
use crate::pool::hosts::Host;
use crate::worker::Worker;
use shared::address::Address;
use shared::config::Peer;
use shared::control::{PeerRow, Resolved, ToSupervisor};
use shared::ids::{LimitId, SeatIndex};
use shared::shm::Limit;
use std::collections::BTreeMap;

/// The lowest bits of a key's last byte: how often it may still be forwarded.
const TTL: u8 = 0b11;

/// Peers that requests were forwarded to.
#[derive(Default)]
pub(crate) struct Peers(BTreeMap<u16, Host>);

/// Whose client a key is for, and the key to forward; or why it is not forwarded. `ours` is 0 without peering.
fn route(key: [u8; 8], ours: u32, known: impl Fn(u16) -> bool) -> Result<(u16, [u8; 8]), &'static str> {
    let id = u16::from_le_bytes([key[1], key[2]]);
    if ours == 0 || u32::from(id) == ours {
        return Err("failed cancel request");
    }
    if key[7] & TTL == 0 {
        return Err("failed to forward cancel request because its TTL was exhausted");
    }
    if !known(id) {
        return Err("could not find peer to forward request to");
    }
    let mut key = key;
    key[7] -= 1;
    Ok((id, key))
}

impl Worker {
    /// A request whose key is none of ours.
    pub(super) fn cancel_elsewhere(&mut self, key: [u8; 8], asker: Asker) {
        let config = &self.config;
        match route(key, config.settings.peer_id, |id| config.peers.contains_key(&id)) {
            Ok((id, key)) => {
                if let Some(peer) = config.peers.get(&id) {
                    self.peers.0.entry(id).or_insert_with(|| host(peer));
                }
                self.carry(key, Aim::Peer(id), Some(asker));
            }
            Err(reason) => self.log_asker(&asker.who, None, reason),
        }
    }

    /// Takes one of the places of requests to a peer. `None`: all are taken. No place is needed where there is no limit.
    #[allow(clippy::option_option)] // "not now" and "not needed" are two things
    pub(super) fn take_peer_seat(&self, id: u16) -> Option<Option<(LimitId, SeatIndex)>> {
        let most = match self.config.peers.get(&id)?.pool_size {
            Some(0) => return None,
            Some(most) => most,
            None => self.config.settings.default_pool_size,
        };
        if most == 0 {
            return Some(None);
        }
        let limit = self.shm.limit(Limit::Peer(&id.to_string()))?;
        let seat = self.shm.seats(limit).take(self.me, most as usize)?;
        Some(Some((limit, seat)))
    }

    /// The peer's next address. `None`: its name is being looked up, or leads nowhere.
    pub(super) fn peer_address(&mut self, id: u16) -> Option<Address> {
        let host = self.peers.0.get_mut(&id)?;
        if let Some(host) = host.question(self.now) {
            self.control.send(&ToSupervisor::Resolve { host }, &[]);
        }
        host.pick(|_| true)
    }

    /// A name was looked up; it may be a peer's.
    pub(crate) fn peer_resolved(&mut self, resolved: &Resolved) {
        let until = self.now + resolved.lifetime;
        let mut found = false;
        for host in self.peers.0.values_mut() {
            found |= host.resolved(&resolved.host, &resolved.addresses, until);
        }
        if found {
            self.start_carriers();
        }
    }

    /// The configuration has changed: requests that wait for a peer that is gone get nowhere, and time out.
    pub(crate) fn reconfigure_peers(&mut self) {
        let peers = &self.config.peers;
        self.peers.0.retain(|id, _| peers.contains_key(id));
        for (id, known) in &mut self.peers.0 {
            if let Some(peer) = peers.get(id) {
                *known = host(peer);
            }
        }
        self.start_carriers();
    }

    /// SHOW PEER_POOLS: the peers that requests were forwarded to.
    pub(crate) fn peer_rows(&self) -> Vec<PeerRow> {
        let mut rows: BTreeMap<u16, PeerRow> = self.peers.0.keys().map(|&id| (id, PeerRow { id, ..PeerRow::default() })).collect();
        for (_, carrier) in &self.carriers {
            let Aim::Peer(id) = carrier.aim else { continue };
            let Some(row) = rows.get_mut(&id) else { continue };
            match carrier.stage {
                Stage::Waiting(_) => row.cl_waiting_cancel_req += 1,
                Stage::Connecting(..) | Stage::Securing(..) => {
                    row.cl_waiting_cancel_req += 1;
                    row.sv_login += 1;
                }
                Stage::Sent(..) => {
                    row.cl_active_cancel_req += 1;
                    row.sv_active_cancel += 1;
                }
                Stage::Done => {}
            }
        }
        rows.into_values().collect()
    }
}

fn host(peer: &Peer) -> Host {
    Host::new(peer.host.as_deref().unwrap_or_default(), peer.port)
}

#[cfg(test)]
mod tests {
    use super::route;

    #[test]
    fn a_key_names_its_fleet_and_counts_down() {
        let key = |id: u16, last| {
            let [low, high] = id.to_le_bytes();
            [0x11, low, high, 0x22, 0x33, 0x44, 0x55, last]
        };
        let known = |id| id == 0x102;
        assert_eq!(route(key(0x102, 0b0111), 1, known), Ok((0x102, key(0x102, 0b0110))));
        assert_eq!(route(key(0x102, 0b0101), 1, known), Ok((0x102, key(0x102, 0b0100))));
        let exhausted = "failed to forward cancel request because its TTL was exhausted";
        assert_eq!(route(key(0x102, 0b0100), 1, known), Err(exhausted));
        assert_eq!(route(key(0x103, 0b0111), 1, known), Err("could not find peer to forward request to"));
        for ours in [0, 0x102] {
            assert_eq!(route(key(0x102, 0b0111), ours, known), Err("failed cancel request"));
        }
    }
}
