//! TCP options that the settings decide: on the listeners, whose accepted sockets inherit them (tcp(7)), and on connections to servers.

use crate::worker::{Listener, Worker};
use shared::config::Settings;
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

impl Worker {
    /// Sets the options on the listeners.
    pub(crate) fn apply_tcp_settings(&self) {
        for listener in &self.listeners {
            if let Listener::Tcp(_, tcp) = listener {
                self.set_tcp_options(tcp);
            }
        }
    }

    /// Sets the options on a listener or a connection.
    pub(crate) fn set_tcp_options(&self, socket: &impl AsFd) {
        if let Err(error) = set(&SockRef::from(socket), &self.config.settings) {
            log::warn!(target: "process", "could not set TCP options: {error}");
        }
    }
}

/// Sets TCP_NODELAY and what the settings say of keepalive, TCP_USER_TIMEOUT and buffers.
fn set(socket: &SockRef<'_>, settings: &Settings) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(settings.tcp_keepalive)?;
    if settings.tcp_keepalive {
        socket.set_tcp_keepalive(&keepalive(settings)?)?;
    }
    // 0 is the system's own.
    socket.set_tcp_user_timeout(Some(Duration::from_millis(settings.tcp_user_timeout.into())))?;
    if settings.tcp_socket_buffer > 0 {
        socket.set_send_buffer_size(settings.tcp_socket_buffer as usize)?;
        socket.set_recv_buffer_size(settings.tcp_socket_buffer as usize)?;
    }
    Ok(())
}

/// A 0 is written as what the system gives a new socket: a listener may have had another value before a reload, and keeps what is not written.
fn keepalive(settings: &Settings) -> io::Result<TcpKeepalive> {
    let (idle, interval, count) = (settings.tcp_keepidle, settings.tcp_keepintvl, settings.tcp_keepcnt);
    let seconds = |own: u32, system: Duration| if own > 0 { Duration::from_secs(own.into()) } else { system };
    let fresh = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    Ok(TcpKeepalive::new()
        .with_time(seconds(idle, fresh.tcp_keepalive_time()?))
        .with_interval(seconds(interval, fresh.tcp_keepalive_interval()?))
        .with_retries(if count > 0 { count } else { fresh.tcp_keepalive_retries()? }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    type Seen = (bool, Duration, Duration, u32, Option<Duration>);

    fn seen(socket: &Socket) -> Seen {
        let keepalive = (socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_interval().unwrap());
        let (count, timeout) = (socket.tcp_keepalive_retries().unwrap(), socket.tcp_user_timeout().unwrap());
        (socket.keepalive().unwrap(), keepalive.0, keepalive.1, count, timeout)
    }

    #[test]
    fn every_option_and_back() {
        for domain in [Domain::IPV4, Domain::IPV6] {
            let socket = Socket::new(domain, Type::STREAM, None).unwrap();
            let system = seen(&socket);
            let mut settings = Settings::default();
            (settings.tcp_keepidle, settings.tcp_keepintvl, settings.tcp_keepcnt) = (1234, 77, 3);
            (settings.tcp_user_timeout, settings.tcp_socket_buffer) = (4321, 20_000);
            set(&SockRef::from(&socket), &settings).unwrap();
            let seconds = Duration::from_secs;
            assert_eq!(seen(&socket), (true, seconds(1234), seconds(77), 3, Some(Duration::from_millis(4321))));
            // The kernel doubles it for its own book-keeping (socket(7)).
            assert_eq!((socket.send_buffer_size().unwrap(), socket.recv_buffer_size().unwrap()), (40_000, 40_000));
            assert!(socket.tcp_nodelay().unwrap());
            set(&SockRef::from(&socket), &Settings::default()).unwrap();
            assert_eq!(seen(&socket), (true, system.1, system.2, system.3, system.4));
            settings.tcp_keepalive = false;
            set(&SockRef::from(&socket), &settings).unwrap();
            assert!(!seen(&socket).0);
        }
    }
}
