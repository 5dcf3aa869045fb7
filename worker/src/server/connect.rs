//! Opening a connection to PostgreSQL.

use super::{Server, ServerState};
use crate::client::replication::Dedication;
use crate::clock::Instant;
use crate::pool::PoolIndex;
use crate::protocol::backend::Backend;
use crate::socket::Conn;
use crate::worker::{Source, Worker};
use nix::errno::Errno;
use shared::address::Address;
use shared::control::{ServerSeats, ToSupervisor};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// However short server_login_retry is: a server that refuses is not asked in a loop.
const LEAST_RETRY: Duration = Duration::from_millis(100);

impl Worker {
    /// Begins to connect to `address`. An error: that failed at once, and not for the server's sake if it is [`Attempt::NotNow`].
    pub(crate) fn begin_connect(&mut self, pool: PoolIndex, address: &Address) -> Result<OwnedFd, Attempt> {
        open(address).map_err(|error| {
            log::warn!(target: "process", "sbuf_connect failed to connect to {address}: {error}");
            if is_passing(&error) {
                return Attempt::NotNow;
            }
            self.connect_failed(pool, address, "connect failed");
            Attempt::Failed
        })
    }

    /// Takes in a connection that was begun and for which `seats` were taken. False: it cannot be watched, and the seats are free again.
    pub(crate) fn open_server(
        &mut self,
        pool: PoolIndex,
        seats: ServerSeats,
        address: Address,
        socket: OwnedFd,
        dedication: Option<Box<Dedication>>,
    ) -> bool {
        if matches!(address, Address::Tcp(_)) {
            self.set_tcp_options(&socket);
        }
        // The supervisor's duplicate shows it, should this process die, when the backend has ended.
        self.control.send(&ToSupervisor::ServerOpened(seats), &[socket.as_fd()]);
        let host = self.pools.get(pool).hosts.name_of(&address).into();
        let id = self.next_connection_id();
        let now = self.now;
        let index = self.adopt(Server {
            conn: Conn::new(socket),
            id,
            pool,
            seats,
            address,
            host,
            state: ServerState::Connecting,
            back: Backend::default(),
            params: None,
            backend_key: (0, 0),
            connected_at: now,
            since: now,
            last_activity: now,
            close_reason: None,
            notices: Vec::new(),
            hidden_error: None,
            unserved: false,
            dedication,
            said_last_words: false,
            used: false,
            was_reset: false,
            preparing: false,
            busy: false,
            cancels: 0,
            epoch: self.pools.get(pool).epoch,
        });
        if let Some(index) = index {
            self.pools.get_mut(pool).opening += 1;
            // A Unix socket is connected at once, without an event.
            if matches!(self.servers[index].address, Address::Unix(..)) {
                self.server_writable(index);
            }
        }
        index.is_some()
    }

    /// Takes a connection into the slab and watches its socket.
    pub(crate) fn adopt(&mut self, mut server: Server) -> Option<usize> {
        let entry = self.servers.vacant_entry();
        let index = entry.key();
        if let Err(error) = server.conn.register(self.poll.registry(), Source::Server(index).into()) {
            log::error!(target: "process", "could not watch a server's socket: {error}");
            let seats = server.seats;
            self.shm.leave_server(self.me, &seats);
            self.control.send(&ToSupervisor::ServerClosed(seats), &[]);
            return None;
        }
        entry.insert(server);
        Some(index)
    }

    /// The socket takes bytes: the connection is there, or goes on after having been full.
    pub(crate) fn server_writable(&mut self, index: usize) {
        let Some(server) = self.servers.get_mut(index) else { return };
        match server.state {
            ServerState::Connecting => self.server_connected(index),
            ServerState::Dead => {}
            _ if !server.conn.is_backed_up() => {}
            _ => match server.conn.flush(&mut self.buffers) {
                // The reader will see what it was.
                Err(_) => {
                    server.conn.readable = true;
                    self.again.push(Source::Server(index));
                }
                Ok(false) => {}
                Ok(true) => {
                    if let Some(client) = server.client()
                        && self.clients[client].conn.readable
                    {
                        self.again.push(Source::Client(client));
                    }
                    self.again.push(Source::Server(index));
                }
            },
        }
    }

    fn server_connected(&mut self, index: usize) {
        let server = &mut self.servers[index];
        let error = socket2::SockRef::from(&server.conn).take_error();
        if let Ok(Some(error)) | Err(error) = error {
            log::warn!("{} sbuf_connect failed to connect to {}: {error}", self.server_prefix(index), self.servers[index].address);
            return self.server_failed(index, "connect failed");
        }
        if matches!(server.address, Address::Tcp(_)) && socket2::SockRef::from(&server.conn).peer_addr().is_err() {
            // Writable already, but not connected: the next edge tells.
            return;
        }
        self.begin_server_login(index);
    }

    /// A connection could not be made, or its server said before it served that it cannot: the next attempt goes to another address.
    /// True: there is none that has not failed of late, and nobody tries again before server_login_retry is over, in any worker.
    pub(crate) fn connect_failed(&mut self, pool: PoolIndex, address: &Address, text: &str) -> bool {
        let (now, retry) = (self.now, self.login_retry());
        let hosts = &mut self.pools.get_mut(pool).hosts;
        hosts.failed(address, now);
        let down = hosts.is_down(now, retry);
        if down {
            self.pool_down(pool, text);
        }
        down
    }

    /// No server of this pool can be reached.
    pub(crate) fn pool_down(&mut self, pool: PoolIndex, text: &str) {
        self.pools.get_mut(pool).failed(self.now, text.to_owned());
        self.shm.pool_state(self.pools.get(pool).id).set_login_failed_at(self.now.as_micros());
    }

    pub(crate) fn login_retry(&self) -> Duration {
        self.config.settings.server_login_retry.max(LEAST_RETRY)
    }

    /// The beginning of a server connection's log lines.
    pub(crate) fn server_prefix(&self, index: usize) -> String {
        let server = &self.servers[index];
        let pool = self.pools.get(server.pool);
        format!("S-{}: {}/{}@{}", server.id, pool.entry.name, pool.user, server.address)
    }

    /// Since when the pool's servers cannot be reached, in whichever worker that was seen, if it is too early to try again.
    pub(crate) fn retry_not_before(&self, pool: PoolIndex) -> Option<Instant> {
        let failed_at = self.shm.pool_state(self.pools.get(pool).id).login_failed_at()?;
        let again = Instant::from_micros(failed_at) + self.login_retry();
        (again > self.now).then_some(again)
    }
}

/// Why a connection could not even be begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Attempt {
    /// The address does not answer.
    Failed,
    /// This process has no descriptor left, or the queue of a Unix socket is full.
    NotNow,
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE | Errno::EAGAIN))
}

/// Begins a non-blocking connection.
pub(crate) fn open(address: &Address) -> io::Result<OwnedFd> {
    let (domain, target) = match address {
        Address::Tcp(address) => (Domain::for_address(*address), SockAddr::from(*address)),
        Address::Unix(directory, port) => (Domain::UNIX, unix_address(directory, *port)?),
    };
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), None)?;
    match socket.connect(&target) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}

/// `DIR/.s.PGSQL.PORT`, or the same name in the abstract namespace for `@DIR`.
fn unix_address(directory: &std::path::Path, port: u16) -> io::Result<SockAddr> {
    let path = directory.join(format!(".s.PGSQL.{port}"));
    match path.to_str().and_then(|p| p.strip_prefix('@')) {
        Some(name) => SockAddr::unix(format!("\0{name}")),
        None => SockAddr::unix(path),
    }
}
