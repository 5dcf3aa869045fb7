//! New clients.

use super::{Client, ClientState, Login, Peer};
use crate::socket::Conn;
use crate::worker::{Listener, Source, Worker};
use nix::errno::Errno;
use std::io;
use std::os::fd::OwnedFd;

/// Clients accepted from one listener in one turn.
const ACCEPTS_PER_TURN: usize = 64;

/// Descriptors kept for servers and for what other workers send; clients get none of them.
const ACCEPT_RESERVE: usize = 64;

impl Worker {
    /// Accepts what waits at a listener.
    pub(crate) fn accept(&mut self, listener: usize) {
        for _ in 0..ACCEPTS_PER_TURN {
            if !self.has_spare_descriptors(ACCEPT_RESERVE) {
                return self.stall_accept("file descriptors run out");
            }
            let accepted = match self.listeners.get(listener) {
                None | Some(Listener::Closed) => return,
                Some(Listener::Tcp(_, tcp)) => {
                    tcp.accept().map(|(stream, address)| (OwnedFd::from(std::net::TcpStream::from(stream)), Peer::Tcp(address)))
                }
                Some(Listener::Unix(unix)) => unix.accept().map(|(stream, _)| {
                    let fd = OwnedFd::from(std::os::unix::net::UnixStream::from(stream));
                    let (pid, uid, _) = shared::sys::peer::peer_credentials(&fd).unwrap_or((0, u32::MAX, 0));
                    (fd, Peer::Unix { pid, uid })
                }),
            };
            match accepted {
                Ok((fd, peer)) => self.welcome_socket(fd, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.accept_stalled = false;
                    return;
                }
                Err(error) if matches!(error.raw_os_error(), Some(e) if out_of_resources(e)) => {
                    return self.stall_accept(&error.to_string());
                }
                // The client has gone again, or another passing condition (accept(2)): the next one may be fine.
                Err(_) => {}
            }
        }
        self.again.push(Source::Listener(listener));
    }

    /// Accepts nothing more for now, and says so once; the tick tries again.
    fn stall_accept(&mut self, why: &str) {
        if !std::mem::replace(&mut self.accept_stalled, true) {
            log::error!(target: "process", "accept() failed: {why}; accepting goes on when connections have closed");
        }
    }

    fn welcome_socket(&mut self, fd: OwnedFd, peer: Peer) {
        let conn = Conn::new(fd);
        let id = self.next_connection_id();
        let entry = self.clients.vacant_entry();
        let index = entry.key();
        if let Err(error) = conn.register(self.poll.registry(), Source::Client(index).into()) {
            log::error!(target: "process", "could not watch a new client's socket: {error}");
            return;
        }
        entry.insert(Client {
            conn,
            id,
            peer,
            connected_at: self.now,
            last_request: self.now,
            state: ClientState::Login(Box::new(Login::new(peer))),
        });
        let timeout = self.config.settings.client_login_timeout;
        if !timeout.is_zero() {
            self.login_deadlines.push_back((self.now + timeout, index, id));
        }
    }
}

fn out_of_resources(errno: i32) -> bool {
    matches!(Errno::from_raw(errno), Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)
}
