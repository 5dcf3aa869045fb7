//! Listeners that the service manager has passed on: its own, by socket activation, or those that a fleet before this one has left with it.
//!
//! Its own are listened on whatever listen_addr and unix_socket_dir say, in place of these. What was left with it is used where the
//! configuration still wants it. Connections that wait at either are accepted as if nothing had happened in between.

use crate::notify;
use shared::sys::inherited;
use socket2::{Domain, SockAddr, Socket, Type};
use std::collections::BTreeSet;
use std::env;
use std::net::SocketAddr;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    sockets: Vec<Passed>,
}

#[derive(Debug)]
struct Passed {
    socket: Socket,
    /// A fleet has left it; else it is the service manager's own.
    left: bool,
}

impl Inherited {
    /// What LISTEN_FDS says there is. Before this process opens any descriptor. The error is the FATAL line.
    pub(crate) fn take() -> Result<Self, String> {
        let variable = |name: &str| env::var(name).ok();
        if variable("LISTEN_PID").and_then(|pid| pid.parse().ok()) != Some(std::process::id()) {
            return Ok(Self::default());
        }
        let Some(count) = variable("LISTEN_FDS").and_then(|count| count.parse().ok()) else { return Ok(Self::default()) };
        let fds = inherited::take(count).map_err(|error| format!("LISTEN_FDS={count}: {}", super::reason(&error)))?;
        let names = variable("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
        let sockets = fds.into_iter().map(Socket::from).zip(names);
        Ok(Self::of(sockets.map(|(socket, name)| Passed { socket, left: name == notify::STORED })))
    }

    /// Stream sockets of a family that is listened on, each once.
    fn of(sockets: impl Iterator<Item = Passed>) -> Self {
        let mut seen = BTreeSet::new();
        let fits = |passed: &Passed| {
            let socket = &passed.socket;
            let address = socket.local_addr().is_ok_and(|address| address.as_socket().is_some() || address.is_unix());
            address && socket.r#type().is_ok_and(|kind| kind == Type::STREAM)
        };
        let sockets = sockets.filter(fits).filter(|passed| passed.socket.cookie().map_or(true, |cookie| seen.insert(cookie)));
        Self { sockets: sockets.collect() }
    }

    /// Whether the service manager's own are among them: the ports are its then, too.
    pub(crate) fn is_activated(&self) -> bool {
        self.sockets.iter().any(|passed| !passed.left)
    }

    /// Addresses of its own TCP sockets, each once.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let mut addresses = Vec::new();
        for address in self.sockets.iter().filter(|passed| !passed.left).filter_map(|passed| tcp_address(&passed.socket)) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    /// Takes out the listeners of a TCP address.
    pub(crate) fn tcp(&mut self, address: SocketAddr) -> Vec<Socket> {
        self.extract(|passed| tcp_address(&passed.socket) == Some(address))
    }

    /// Takes out the Unix listener: the service manager's own, else the one that a fleet has left at this path.
    pub(crate) fn unix(&mut self, path: Option<&str>) -> Option<Socket> {
        let is_unix = |passed: &Passed| passed.socket.domain().is_ok_and(|domain| domain == Domain::UNIX);
        let mut own = self.extract(|passed| is_unix(passed) && !passed.left);
        let left = self.extract(|passed| is_unix(passed) && path.is_some() && unix_path(&passed.socket).as_deref() == path);
        own.drain(..).chain(left).next()
    }

    fn extract(&mut self, which: impl Fn(&Passed) -> bool) -> Vec<Socket> {
        self.sockets.extract_if(.., |passed| which(passed)).map(|passed| passed.socket).collect()
    }
}

impl Drop for Inherited {
    /// What the configuration does not want any more is closed, and forgotten where it was kept.
    fn drop(&mut self) {
        for Passed { socket, .. } in &self.sockets {
            let address = socket.local_addr().ok();
            let shown = address.as_ref().and_then(SockAddr::as_socket).map(|address| address.to_string());
            log::warn!("not listening any more on {}", shown.or_else(|| unix_path(socket)).unwrap_or_default());
        }
    }
}

fn tcp_address(socket: &Socket) -> Option<SocketAddr> {
    socket.local_addr().ok()?.as_socket()
}

/// Its path, with `@` for the abstract namespace.
fn unix_path(socket: &Socket) -> Option<String> {
    let address = socket.local_addr().ok()?;
    let path = address.as_pathname().map(|path| path.to_string_lossy().into_owned());
    path.or_else(|| Some(format!("@{}", String::from_utf8_lossy(address.as_abstract_namespace()?))))
}
