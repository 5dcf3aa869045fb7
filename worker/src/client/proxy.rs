//! Clients behind a proxy that says for whom it connects.
//!
//! Only connections from proxy_protocol_networks begin with a header, and all of them do: what it says is believed, in the log, by the rules of
//! auth_hba_file and everywhere else, so nobody else may say it.

use super::{ClientState, Ending, Peer};
use crate::worker::Worker;
use nix::sys::socket::{SockaddrStorage, getsockname};
use shared::config::Settings;
use shared::network::Network;
use shared::wire::proxy::{self, ProxyError, Source};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

/// Which connections come from a proxy.
#[derive(Default)]
pub(crate) struct Proxies {
    networks: Vec<Network>,
    /// The addresses of ours that they connect to; none: all.
    addresses: Vec<IpAddr>,
}

impl Proxies {
    /// As the settings say. Words that mean nothing have been refused before.
    pub(crate) fn of(settings: &Settings) -> Self {
        let addresses = settings.proxy_protocol_addresses.iter().filter_map(|word| word.parse().ok());
        let networks = settings.proxy_protocol_networks.iter().filter_map(|word| Network::parse(word).ok());
        Self { networks: networks.collect(), addresses: addresses.collect() }
    }

    /// Whether what is accepted from `peer` must begin with a header.
    pub(super) fn expect_header(&self, fd: &OwnedFd, peer: SocketAddr) -> bool {
        let from_proxy = self.networks.iter().any(|network| network.has(peer.ip()));
        from_proxy && (self.addresses.is_empty() || own_address(fd).is_some_and(|own| self.addresses.contains(&own)))
    }
}

/// The address of ours that the client has connected to.
fn own_address(fd: &OwnedFd) -> Option<IpAddr> {
    let address: SockaddrStorage = getsockname(fd.as_raw_fd()).ok()?;
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

impl Worker {
    /// The first bytes from a proxy. `None`: more are needed, or the client is closed.
    pub(super) fn proxy_header(&mut self, index: usize, data: &[u8]) -> Option<usize> {
        match proxy::header(data) {
            Ok(found) => {
                let (source, length) = found?;
                let client = &mut self.clients[index];
                if let Source::Client(address) = source {
                    client.peer = Peer::Tcp(address);
                }
                if let ClientState::Login(login) = &mut client.state {
                    login.introduced();
                }
                Some(length)
            }
            Err(error) => {
                let prefix = self.clients[index].prefix(self.config.settings.listen_port);
                log::warn!("{prefix} from one of proxy_protocol_networks: {error}");
                let reason = if error == ProxyError::Missing { "no PROXY header" } else { "malformed PROXY header" };
                self.close_client(index, &Ending::Silent(reason));
                None
            }
        }
    }
}
