//! New clients.

use super::{Client, ClientState, Login, Peer};
use crate::clock::Instant;
use crate::socket::Conn;
use crate::worker::{Listener, Source, Worker};
use nix::errno::Errno;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// Clients accepted from one listener in one turn.
const ACCEPTS_PER_TURN: usize = 64;

/// Descriptors kept for servers and for what other workers send; clients get none of them.
pub(crate) const ACCEPT_RESERVE: usize = 64;

/// A client's socket, from which nothing has been read.
pub(crate) struct Arrival {
    pub(crate) fd: OwnedFd,
    /// `None`: the Unix socket.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) accepted_at: Instant,
}

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
                    tcp.accept().map(|(stream, address)| (OwnedFd::from(std::net::TcpStream::from(stream)), Some(address)))
                }
                Some(Listener::Unix(unix)) => {
                    unix.accept().map(|(stream, _)| (OwnedFd::from(std::os::unix::net::UnixStream::from(stream)), None))
                }
            };
            match accepted {
                Ok((fd, address)) => {
                    let arrival = Arrival { fd, address, accepted_at: self.now };
                    if !self.hand_over(&arrival) {
                        self.welcome_socket(arrival);
                    }
                }
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

    /// Begins with a client that this worker serves, whoever accepted it.
    pub(crate) fn welcome_socket(&mut self, arrival: Arrival) {
        let Arrival { fd, address, accepted_at } = arrival;
        let peer = address.map_or_else(|| unix_peer(&fd), Peer::Tcp);
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
            connected_at: accepted_at,
            last_request: accepted_at,
            state: ClientState::Login(Box::new(Login::new(peer))),
        });
        let timeout = self.config.settings.client_login_timeout;
        if !timeout.is_zero() {
            let deadline = accepted_at + timeout;
            // One that came by way of another worker may have been accepted before the last.
            let place = self.login_deadlines.partition_point(|(earlier, ..)| *earlier <= deadline);
            self.login_deadlines.insert(place, (deadline, index, id));
        }
        if self.has_colleagues() {
            self.tell_clients();
        }
    }
}

fn unix_peer(fd: &OwnedFd) -> Peer {
    let (pid, uid, _) = shared::sys::peer::peer_credentials(fd).unwrap_or((0, u32::MAX, 0));
    Peer::Unix { pid, uid }
}

fn out_of_resources(errno: i32) -> bool {
    matches!(Errno::from_raw(errno), Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)
}
