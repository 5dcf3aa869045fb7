//! The port is closed without resetting anybody, and opened again.
//!
//! A listener that is closed, or stops listening, resets the connections that wait to be accepted, and those half way there. So the listeners of
//! an address are sealed first: one more joins them whose queue is full, and the kernel is told to send every new connection there. It drops the first
//! packet then, which its sender repeats a second later, while connections that had begun are completed and accepted. When nobody waits any
//! more the listeners stop listening, by shutdown(), which acts on the socket itself, whichever processes hold it. They keep their address
//! and listen again when they are told to.

use super::tcp::bound;
use super::{Keeper, Listeners, reason};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shared::config::Settings;
use shared::sys::tcp::{steer, steer_no_more};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

/// A listener whose queue is full of one connection, which is ours.
#[derive(Debug)]
pub(crate) struct Sink {
    listener: Socket,
    ours: Socket,
}

/// Somebody who came to a sink before its queue was full.
#[derive(Debug)]
pub(crate) struct Stray {
    pub(crate) socket: OwnedFd,
    pub(crate) address: SocketAddr,
}

impl Sink {
    /// Joins the group of these listeners and has every new connection sent there.
    fn open(address: SocketAddr, group: &[&OwnedFd]) -> io::Result<Option<Self>> {
        let (Some(first), Ok(index)) = (group.first(), u32::try_from(group.len())) else { return Ok(None) };
        let listener = bound(address, true).map_err(|(_, error)| error)?;
        // The smallest queue there is: full when one waits in it.
        listener.listen(0)?;
        steer(first, index)?;
        let ours = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        match ours.connect(&SockAddr::from(address)) {
            Err(error) if error.raw_os_error() != Some(nix::errno::Errno::EINPROGRESS as i32) => return Err(error),
            _ => {}
        }
        Ok(Some(Self { listener, ours }))
    }

    /// Closes it. Who is in its queue has been connected, and is not to be reset.
    fn close(self) -> Vec<Stray> {
        if let Err(error) = steer_no_more(&self.listener) {
            log::warn!("connections are still sent to where nobody accepts them: {}", reason(&error));
        }
        let own = self.ours.local_addr().ok().and_then(|address| address.as_socket());
        let accepted = std::iter::from_fn(|| self.listener.accept().ok());
        let strays = accepted.filter_map(|(socket, address)| Some(Stray { socket: socket.into(), address: address.as_socket()? }));
        strays.filter(|stray| Some(stray.address) != own).collect()
    }
}

impl Listeners {
    /// No new connection begins, as far as that can be had: where other fleets share the port, the kernel is not told where to send connections.
    pub(crate) fn seal(&mut self, settings: &Settings) {
        if self.keeper == Keeper::Manager {
            return log::warn!("the port stays open: its sockets are the service manager's; who logs in is refused");
        }
        if settings.so_reuseport || !self.sinks.is_empty() {
            return;
        }
        for address in &self.addresses {
            let is_there = |fd: &&OwnedFd| SockRef::from(*fd).local_addr().is_ok_and(|at| at.as_socket() == Some(*address));
            let group: Vec<&OwnedFd> = self.tcp.iter().flatten().filter(is_there).collect();
            match Sink::open(*address, &group) {
                Ok(sink) => self.sinks.extend(sink),
                // Some connection may be reset; that is no reason to stay open.
                Err(error) => log::warn!("{address} could not be sealed before it is closed: {}", reason(&error)),
            }
        }
    }

    /// They listen no more. Whoever came to a sink is returned.
    pub(crate) fn shut(&mut self) -> Vec<Stray> {
        if self.keeper == Keeper::Manager {
            return Vec::new();
        }
        self.each("shut", |listener| match listener.shutdown(Shutdown::Both) {
            // It was shut already.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            other => other,
        });
        // Only now: they would be sent to the others again.
        self.sinks.drain(..).flat_map(Sink::close).collect()
    }

    /// They listen again, sealed or shut before. Whoever came to a sink is returned.
    pub(crate) fn open(&mut self, settings: &Settings) -> Vec<Stray> {
        let strays = self.sinks.drain(..).flat_map(Sink::close).collect();
        let backlog = i32::try_from(settings.listen_backlog).unwrap_or(i32::MAX);
        self.each("opened", |listener| listener.listen(backlog));
        strays
    }

    /// Whether somebody waits to be accepted.
    pub(crate) fn has_backlog(&self) -> bool {
        let mut listeners: Vec<_> = self.tcp.iter().flatten().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
        let ready = poll(&mut listeners, PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
        // One that listens no more reports POLLHUP, and has nobody.
        let waits = |events: PollFlags| events.contains(PollFlags::POLLIN) && !events.contains(PollFlags::POLLHUP);
        ready && listeners.iter().any(|fd| fd.revents().is_some_and(waits))
    }

    fn each(&self, what: &str, act: impl Fn(SockRef<'_>) -> io::Result<()>) {
        for listener in self.tcp.iter().flatten() {
            if let Err(error) = act(SockRef::from(listener)) {
                log::error!("a listener could not be {what}: {}", reason(&error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Inherited, Tcp};
    use super::*;
    use std::io::ErrorKind;
    use std::net::TcpStream;
    use std::time::Duration;

    fn listeners() -> (Listeners, Settings, SocketAddr) {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut settings = Settings { listen_port: port, tcp_defer_accept: 0, ..Settings::default() };
        settings.set("listen_addr", "127.0.0.1").unwrap();
        let (tcp, addresses) = Tcp::resolve(&settings).unwrap().open(4, &mut Inherited::default()).unwrap();
        let address = addresses[0];
        (Listeners { tcp, addresses, unix: None, keeper: Keeper::Nobody, sinks: Vec::new() }, settings, address)
    }

    fn accept_all(listeners: &Listeners) -> Vec<usize> {
        let accept = |fd: &OwnedFd| std::iter::from_fn(|| SockRef::from(fd).accept().ok()).count();
        listeners.tcp.iter().map(|slot| accept(&slot[0])).collect()
    }

    #[test]
    fn closed_without_resetting_who_waits_and_opened_again() {
        let (mut listeners, settings, address) = listeners();
        for _ in 0..2 {
            let waiting: Vec<TcpStream> = (0..80).map(|_| TcpStream::connect(address).unwrap()).collect();
            listeners.seal(&settings);
            listeners.seal(&settings);
            let refused = TcpStream::connect_timeout(&address, Duration::from_millis(300)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::TimedOut, "the first packet is dropped, not answered");
            assert!(listeners.has_backlog());
            let spread = accept_all(&listeners);
            assert!(spread.iter().sum::<usize>() == 80 && spread.iter().all(|count| *count > 0), "not one group: {spread:?}");
            assert!(!listeners.has_backlog());
            drop(waiting);
            assert!(listeners.shut().is_empty(), "nobody but ourselves");
            assert!(listeners.shut().is_empty());
            assert!(!listeners.has_backlog());
            assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
            listeners.open(&settings);
        }
        TcpStream::connect(address).unwrap();
        assert_eq!(accept_all(&listeners).iter().sum::<usize>(), 1);
    }

    #[test]
    fn opened_again_before_it_was_shut() {
        let (mut listeners, settings, address) = listeners();
        let _waiting: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
        listeners.seal(&settings);
        assert!(listeners.open(&settings).is_empty());
        let _more: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
        assert_eq!(accept_all(&listeners).iter().sum::<usize>(), 80);
    }

    /// The first to come to a sink is let in by the kernel if it is quicker than we are.
    #[test]
    fn a_stray_is_found() {
        let (mut listeners, settings, address) = listeners();
        listeners.seal(&settings);
        let Sink { listener, ours } = listeners.sinks.pop().unwrap();
        listener.accept().unwrap();
        let early = TcpStream::connect(address).unwrap();
        listeners.sinks.push(Sink { listener, ours });
        let strays = listeners.shut();
        assert_eq!(strays.iter().map(|stray| stray.address).collect::<Vec<_>>(), [early.local_addr().unwrap()]);
    }

    #[test]
    fn a_port_that_others_share_is_not_sealed() {
        let (mut listeners, mut settings, address) = listeners();
        settings.so_reuseport = true;
        listeners.seal(&settings);
        TcpStream::connect(address).unwrap();
        assert_eq!(accept_all(&listeners).iter().sum::<usize>(), 1);
    }
}
