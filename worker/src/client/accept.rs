//! New clients.

use super::{Client, ClientState, Login, Peer};
use crate::clock::Instant;
use crate::socket::Conn;
use crate::worker::{Listener, Source, Worker};
use nix::errno::Errno;
use shared::ids::ConnectionId;
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
        if self.leaves_to_strangers(listener) {
            return;
        }
        for _ in 0..ACCEPTS_PER_TURN {
            if !self.has_spare_descriptors(ACCEPT_RESERVE) {
                return self.stall_accept(listener, "file descriptors run out");
            }
            let accepted = match self.listeners.get(listener) {
                None | Some(Listener::Closed) => {
                    self.stalled_listeners.remove(&listener);
                    return;
                }
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
                    if self.stalled_listeners.remove(&listener) {
                        self.rewatch(listener);
                    }
                    return;
                }
                // Nobody is let in while the fleet is drained: the socket does not listen until it is to again, which makes an edge.
                Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => {
                    self.stalled_listeners.remove(&listener);
                    return;
                }
                Err(error) if matches!(error.raw_os_error(), Some(e) if out_of_resources(e)) => {
                    return self.stall_accept(listener, &error.to_string());
                }
                // The client has gone again, or another passing condition (accept(2)): the next one may be fine.
                Err(_) => {}
            }
        }
        self.again.push(Source::Listener(listener));
    }

    /// Accepts nothing more at this listener for now; the tick tries again. Said once for all of them.
    fn stall_accept(&mut self, listener: usize, why: &str) {
        if self.stalled_listeners.is_empty() {
            log::error!(target: "process", "accept() failed: {why}; accepting goes on when connections have closed");
        }
        if self.stalled_listeners.insert(listener) {
            self.ignore_shared(listener);
        }
    }

    /// Tries again where accepting has stalled. Each listener makes no further edge for what waits there already.
    pub(crate) fn accept_stalled(&mut self) {
        let stalled: Vec<usize> = self.stalled_listeners.iter().copied().collect();
        for listener in stalled {
            self.accept(listener);
        }
    }

    /// A client takes its place. Its seats are left if its socket cannot be watched.
    pub(crate) fn add_client(&mut self, mut client: Client) -> Result<usize, ()> {
        let index = self.clients.vacant_key();
        if let Err(error) = client.conn.register(self.poll.registry(), Source::Client(index).into()) {
            log::error!(target: "process", "could not watch a client's socket: {error}");
            if let Some(seats) = client.seats() {
                self.leave_client_seats(seats);
            }
            return Err(());
        }
        Ok(self.clients.insert(client))
    }

    /// A login may take until client_login_timeout.
    pub(crate) fn arm_login(&mut self, index: usize, id: ConnectionId, accepted_at: Instant) {
        let timeout = self.config.settings.client_login_timeout;
        if !timeout.is_zero() {
            let deadline = accepted_at + timeout;
            // One that came by way of another worker may have been accepted before the last.
            let place = self.login_deadlines.partition_point(|(earlier, ..)| *earlier <= deadline);
            self.login_deadlines.insert(place, (deadline, index, id));
        }
    }

    /// Begins with a client that this worker serves, whoever accepted it.
    pub(crate) fn welcome_socket(&mut self, arrival: Arrival) {
        let Arrival { fd, address, accepted_at } = arrival;
        let peer = address.map_or_else(|| unix_peer(&fd), Peer::Tcp);
        let proxied = address.is_some_and(|address| self.proxies.expect_header(&fd, address));
        let (conn, id) = (Conn::new(fd), self.next_connection_id());
        let client = Client {
            conn,
            id,
            peer,
            connected_at: accepted_at,
            last_request: accepted_at,
            state: ClientState::Login(Box::new(Login::new(proxied))),
        };
        let Ok(index) = self.add_client(client) else { return };
        self.arm_login(index, id, accepted_at);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mio::{Events, Token};
    use shared::config::Config;
    use shared::ids::Slot;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::time::Duration;

    struct Case {
        worker: Worker,
        folder: tempfile::TempDir,
        clients: Vec<UnixStream>,
    }

    impl Case {
        /// A worker with two listeners and no descriptor to spare.
        fn new() -> Self {
            let mut worker = Worker::alone(Config::default());
            let folder = tempfile::tempdir().unwrap();
            let listeners = ["0", "1"].map(|name| UnixListener::bind(folder.path().join(name)).unwrap().into());
            worker.watch_listeners(Slot(0), 0, listeners.into()).unwrap();
            worker.descriptor_limit = 0;
            Self { worker, folder, clients: Vec::new() }
        }

        fn connect(&mut self, listener: usize) {
            self.clients.push(UnixStream::connect(self.folder.path().join(listener.to_string())).unwrap());
        }

        fn reported(&mut self, listener: usize) -> bool {
            let mut events = Events::with_capacity(8);
            self.worker.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            events.iter().any(|event| event.token() == Token::from(Source::Listener(listener)))
        }

        fn stalled(&self) -> Vec<usize> {
            self.worker.stalled_listeners.iter().copied().collect()
        }
    }

    #[test]
    fn an_emptied_listener_does_not_make_others_forgotten() {
        let mut case = Case::new();
        case.connect(0);
        case.worker.accept(0);
        assert_eq!((case.worker.clients.len(), case.stalled()), (0, vec![0]));
        case.worker.descriptor_limit = 1000;
        case.connect(1);
        case.worker.accept(1);
        assert_eq!((case.worker.clients.len(), case.stalled()), (1, vec![0]));
        case.worker.accept_stalled();
        assert_eq!((case.worker.clients.len(), case.stalled()), (2, vec![]));
    }

    #[test]
    fn a_shared_listener_is_left_to_others_until_it_has_been_emptied() {
        let mut case = Case::new();
        case.connect(0);
        case.worker.accept(0);
        case.connect(0);
        assert!(!case.reported(0));
        case.worker.descriptor_limit = 1000;
        case.worker.accept_stalled();
        assert_eq!((case.worker.clients.len(), case.stalled()), (2, vec![]));
        case.connect(0);
        assert!(case.reported(0));
    }

    #[test]
    fn one_that_is_closed_does_not_stay_stalled() {
        let mut case = Case::new();
        case.worker.accept(1);
        case.worker.listeners[1] = Listener::Closed;
        case.worker.descriptor_limit = 1000;
        case.worker.accept_stalled();
        assert_eq!(case.stalled(), [0; 0]);
    }
}
