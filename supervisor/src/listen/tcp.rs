//! The TCP listeners: for each slot one SO_REUSEPORT socket per address of listen_addr.

use super::{Inherited, reason};
use shared::config::Settings;
use shared::sys::tcp::set_defer_accept;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;

/// What is to be listened on.
#[derive(Debug)]
pub(crate) struct Tcp<'a> {
    settings: &'a Settings,
    addresses: Vec<SocketAddr>,
}

impl<'a> Tcp<'a> {
    /// Looks up listen_addr, unless the service manager says where to listen. The error is the FATAL line.
    pub(crate) fn resolve_beside(settings: &'a Settings, inherited: &Inherited) -> Result<Self, String> {
        if inherited.is_activated() { Ok(Self { settings, addresses: inherited.addresses() }) } else { Self::resolve(settings) }
    }

    /// Looks up listen_addr. The error is the FATAL line.
    pub(crate) fn resolve(settings: &'a Settings) -> Result<Self, String> {
        let port = settings.listen_port;
        let mut addresses = Vec::new();
        for name in &settings.listen_addr {
            let found = if name == "*" {
                vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))]
            } else if let Ok(address) = name.parse::<IpAddr>() {
                vec![SocketAddr::from((address, port))]
            } else {
                let found = (name.as_str(), port).to_socket_addrs();
                found.map_err(|error| format!("getaddrinfo('{name}', '{port}') = {}", reason(&error)))?.collect()
            };
            for address in found {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        Ok(Self { settings, addresses })
    }

    /// Opens the listeners of `slots` slots. An address that cannot be had is only warned of, unless none can. The error is the FATAL line.
    pub(crate) fn open(&self, slots: usize, inherited: &mut Inherited) -> Result<(Vec<Vec<OwnedFd>>, Vec<SocketAddr>), String> {
        let mut tcp: Vec<Vec<OwnedFd>> = (0..slots).map(|_| Vec::new()).collect();
        let mut opened = Vec::new();
        for &address in &self.addresses {
            match self.group(address, slots, inherited.tcp(address)) {
                Ok(group) => {
                    log::info!("listening on {address}");
                    opened.push(address);
                    // One that is left over from a fleet of more workers has somebody who accepts from it, too.
                    for (place, listener) in group.into_iter().enumerate() {
                        tcp[place % slots].push(listener);
                    }
                }
                Err((call, error)) => log::warn!("cannot listen on {address}: {call}: {}", reason(&error)),
            }
        }
        if opened.is_empty() && !self.settings.listen_addr.is_empty() {
            let list = self.settings.listen_addr.as_text();
            return Err(format!("failed to listen on any address in listen_addr list: {list}"));
        }
        Ok((tcp, opened))
    }

    /// At least one listener for each slot, or none at all.
    fn group(&self, address: SocketAddr, slots: usize, passed: Vec<Socket>) -> Result<Vec<OwnedFd>, (&'static str, io::Error)> {
        if passed.is_empty() && !self.settings.so_reuseport {
            // SO_REUSEPORT lets any fleet of the same user join in. A socket without it is refused while anybody listens.
            drop(bound(address, false)?);
        }
        let mut group = Vec::with_capacity(slots);
        for socket in passed {
            socket.set_nonblocking(true).map_err(|error| ("fcntl()", error))?;
            group.push(listening(socket, self.settings)?);
        }
        let given = group.len();
        for place in given..slots {
            let another = bound(address, true).and_then(|socket| listening(socket, self.settings));
            group.push(match another {
                // Nothing can be bound beside a socket of another user, or one that is not to be shared: workers accept from the same one.
                Err(_) if given > 0 => group[place % given].try_clone().map_err(|error| ("dup()", error))?,
                other => other?,
            });
        }
        Ok(group)
    }
}

/// A socket on this address for one more slot. Nobody is sent to it before it listens, so it may still be closed. The error says what was wrong.
pub(crate) fn bind_more(address: SocketAddr) -> Result<Socket, String> {
    bound(address, true).map_err(|(call, error)| format!("cannot listen on {address}: {call}: {}", reason(&error)))
}

/// From here on connections wait at it, which closing it would reset.
pub(crate) fn listening(socket: Socket, settings: &Settings) -> Result<OwnedFd, (&'static str, io::Error)> {
    defer_accept(&socket, settings.tcp_defer_accept > 0);
    let backlog = i32::try_from(settings.listen_backlog).unwrap_or(i32::MAX);
    socket.listen(backlog).map_err(|error| ("listen()", error))?;
    Ok(socket.into())
}

/// Whether connections wait in the kernel until their first bytes are there. PgBouncer's value is 1 s, whatever the setting says.
pub(crate) fn defer_accept(listener: &impl std::os::fd::AsFd, on: bool) {
    if let Err(error) = set_defer_accept(listener, u32::from(on)) {
        log::warn!("could not set TCP_DEFER_ACCEPT: {}", reason(&error));
    }
}

pub(super) fn bound(address: SocketAddr, shared: bool) -> Result<Socket, (&'static str, io::Error)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP));
    let socket = socket.map_err(|error| ("socket()", error))?;
    let options = || {
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if shared { socket.set_reuse_port(true) } else { Ok(()) }
    };
    options().map_err(|error| ("setsockopt()", error))?;
    socket.bind(&SockAddr::from(address)).map_err(|error| ("bind()", error))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::TcpStream;

    fn settings(addresses: &str, port: u16) -> Settings {
        let mut settings = Settings::default();
        settings.set("listen_addr", addresses).unwrap();
        settings.listen_port = port;
        settings
    }

    fn free_port() -> u16 {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    #[test]
    fn a_listener_for_each_slot_and_address() {
        let settings = settings("127.0.0.1, 127.0.0.2", free_port());
        let (tcp, addresses) = Tcp::resolve(&settings).unwrap().open(3, &mut Inherited::default()).unwrap();
        assert_eq!(tcp.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2]);
        for address in addresses {
            TcpStream::connect(address).unwrap();
        }
    }

    #[test]
    fn a_second_fleet_is_refused_unless_it_may_share() {
        let mut settings = settings("127.0.0.1", free_port());
        let _first = Tcp::resolve(&settings).unwrap().open(2, &mut Inherited::default()).unwrap();
        let error = Tcp::resolve(&settings).unwrap().open(2, &mut Inherited::default()).unwrap_err();
        assert_eq!(error, "failed to listen on any address in listen_addr list: 127.0.0.1");
        settings.so_reuseport = true;
        Tcp::resolve(&settings).unwrap().open(2, &mut Inherited::default()).unwrap();
    }

    #[test]
    fn one_bad_address_of_two_is_only_warned_of() {
        // 192.0.2.1 is reserved for documentation: nobody has it.
        let settings = settings("192.0.2.1,127.0.0.1", free_port());
        let (tcp, addresses) = Tcp::resolve(&settings).unwrap().open(1, &mut Inherited::default()).unwrap();
        assert_eq!((tcp[0].len(), addresses.len()), (1, 1));
    }

    #[test]
    fn names_and_stars() {
        let star = settings("*", 1);
        assert_eq!(Tcp::resolve(&star).unwrap().addresses.len(), 2);
        let name = settings("no-such-host.invalid", 1);
        assert!(Tcp::resolve(&name).unwrap_err().starts_with("getaddrinfo('no-such-host.invalid', '1') = "));
        let nothing = settings("", 1);
        let (tcp, _) = Tcp::resolve(&nothing).unwrap().open(2, &mut Inherited::default()).unwrap();
        assert!(tcp.iter().all(Vec::is_empty));
    }
}
