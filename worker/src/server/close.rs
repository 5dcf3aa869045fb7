//! The end of a server connection, and what becomes of its seats.

use super::ServerState;
use crate::client::Ending;
use crate::pool::{Pool, PoolIndex};
use crate::worker::{Source, Worker};
use shared::config::PoolMode;
use shared::control::{Replication, ServerSeats, ToInbox, ToSupervisor};
use shared::wire::encode;
use shared::wire::report::sqlstate;
use std::time::Duration;

/// How long a backend that was told to end may take before its seats are given up as lost track of.
const CLOSING_GRACE: Duration = Duration::from_secs(60);

/// How long after a cancel request a backend that goes on gets another.
const CANCEL_AGAIN: Duration = Duration::from_secs(1);

impl Worker {
    /// Ends a connection. Its seats stay taken until PostgreSQL has closed its end.
    pub(crate) fn close_server(&mut self, index: usize, reason: &'static str) {
        let Some(server) = self.servers.get(index) else { return };
        if matches!(server.state, ServerState::Closing | ServerState::Dead) {
            return;
        }
        self.log_server_closing(index, reason);
        self.unlist(index);
        self.server_login_ended(index);
        let server = &mut self.servers[index];
        self.shm.begin_leave(&server.seats, 0);
        let running = server.may_be_running() && server.backend_key.0 != 0;
        let ours = server.preparing;
        let checking = matches!(server.state, ServerState::Checking);
        let was_connecting = matches!(server.state, ServerState::Connecting);
        let state = std::mem::replace(&mut server.state, ServerState::Closing);
        // A query that nobody cancels may run as long as it likes: the backend is there all the while. A check is no client's query, nor is connect_query.
        let runs_on = running && !self.config.settings.cancel_on_disconnect && !checking && !ours;
        server.since = if runs_on { crate::clock::Instant::from_micros(u64::MAX) } else { self.now };
        if was_connecting {
            return self.free_server(index);
        }
        let _ = server.conn.send(encode::TERMINATE, &mut self.buffers);
        server.conn.shutdown_write(&mut self.buffers);
        server.conn.readable = true;
        self.again.push(Source::Server(index));
        if running && !runs_on {
            self.cancel_closing(index);
        }
        if let ServerState::Looking(looking) = state {
            self.lookup_lost(&looking);
        }
    }

    /// Cancels what the backend of a closing connection runs.
    fn cancel_closing(&mut self, index: usize) {
        self.servers[index].last_activity = self.now;
        self.cancel_backend(index);
    }

    /// PostgreSQL has closed the socket: the backend is gone.
    pub(super) fn server_ended(&mut self, index: usize) {
        let server = &mut self.servers[index];
        match server.state {
            ServerState::Closing => self.free_server(index),
            ServerState::Dead => {}
            ServerState::Connecting | ServerState::Login(_) => {
                self.server_failed(index, "server closed the connection during login");
            }
            ServerState::Linked(client) | ServerState::Setting(client) => {
                let ending = if let Some(error) = server.hidden_error.take() {
                    Ending::Relayed(error.code, error.message)
                } else if server.said_last_words || server.back.is_mid_message() {
                    Ending::Told("server conn crashed?")
                } else {
                    Ending::violation("server conn crashed?")
                };
                // Not the client's doing: it must not find a server to clean up.
                server.state = ServerState::Closing;
                self.log_server_closing(index, "server conn crashed?");
                self.close_client(client, &ending);
                self.free_server(index);
            }
            ServerState::Looking(_) => {
                self.log_server_closing(index, "server conn crashed?");
                let state = std::mem::replace(&mut self.servers[index].state, ServerState::Closing);
                self.free_server(index);
                if let ServerState::Looking(looking) = state {
                    self.lookup_lost(&looking);
                }
            }
            ServerState::Idle | ServerState::Resetting | ServerState::Checking | ServerState::BeingCanceled => {
                let checking = matches!(server.state, ServerState::Checking);
                self.log_server_closing(index, if checking { "test query failed" } else { "server connection closed" });
                self.unlist(index);
                self.servers[index].state = ServerState::Closing;
                self.free_server(index);
            }
        }
    }

    /// The server does not keep to the protocol.
    pub(super) fn server_broke(&mut self, index: usize, text: &'static str) {
        let client = self.servers[index].client();
        self.close_server(index, text);
        if let Some(client) = client {
            self.close_client(client, &Ending::violation(text));
        }
    }

    /// A connection that never came to serve: another address is tried at once, if there is one.
    pub(super) fn server_failed(&mut self, index: usize, reason: &'static str) {
        let (pool, address) = (self.servers[index].pool, self.servers[index].address.clone());
        let down = self.connect_failed(pool, &address, reason);
        self.server_gone(index, reason);
        if !down {
            self.pools.get_mut(pool).exhausted = false;
            self.pump(pool);
        }
    }

    /// As `server_failed`, without saying that the server is down.
    pub(crate) fn server_gone(&mut self, index: usize, reason: &'static str) {
        self.log_server_closing(index, reason);
        let pool = self.servers[index].pool;
        if let Some(dedication) = &self.servers[index].dedication {
            self.candidate_waits(pool, dedication.id);
        }
        let pool = self.pools.get_mut(pool);
        pool.opening = pool.opening.saturating_sub(1);
        self.server_login_ended(index);
        let server = &mut self.servers[index];
        let state = std::mem::replace(&mut server.state, ServerState::Closing);
        if matches!(state, ServerState::Connecting) || server.conn.hung_up {
            return self.free_server(index);
        }
        // There is a backend at the other end, or one that is just starting: its seats are free when it has ended.
        server.since = self.now;
        server.conn.shutdown_write(&mut self.buffers);
        server.conn.readable = true;
        self.again.push(Source::Server(index));
        if self.servers[index].preparing {
            self.cancel_closing(index);
        }
    }

    /// Takes a server off the lists of its pool that its state put it on.
    fn unlist(&mut self, index: usize) {
        let server = &self.servers[index];
        if let Some(dedication) = &server.dedication {
            self.candidate_waits(server.pool, dedication.id);
        }
        let server = &self.servers[index];
        let pool = self.pools.get_mut(server.pool);
        match server.state {
            ServerState::Idle => {
                if let Some(at) = pool.idle.iter().position(|&i| i == index) {
                    pool.idle.remove(at);
                    self.shm.pool_state(pool.id).set_idle(self.me.slot, pool.idle.len() as u32);
                }
            }
            ServerState::Connecting | ServerState::Login(_) | ServerState::Checking => {
                pool.opening = pool.opening.saturating_sub(1);
            }
            _ => {}
        }
    }

    /// Lets go of the socket and the seats.
    fn free_server(&mut self, index: usize) {
        let server = &mut self.servers[index];
        server.conn.shutdown();
        let _ = server.conn.deregister(self.poll.registry());
        let seats = server.seats;
        self.forget_server(index);
        self.give_up_seats(&seats);
    }

    /// The connection is over: its seats are free, the supervisor drops its duplicate, and whoever waits looks again.
    pub(crate) fn give_up_seats(&mut self, seats: &ServerSeats) {
        self.shm.leave_server(self.me, seats);
        self.control.send(&ToSupervisor::ServerClosed(*seats), &[]);
        self.seat_freed(seats);
    }

    /// Seats have fallen free: whoever waits for one, here or in another worker, looks again.
    pub(crate) fn seat_freed(&mut self, seats: &ServerSeats) {
        if self.has_colleagues() {
            let waiting = self.shm.waiting_beside(self.me.slot, seats);
            for slot in (0..64).filter(|slot| waiting & (1 << slot) != 0).map(shared::ids::Slot) {
                self.send_inbox(slot, &ToInbox::Wake, &[]);
            }
        }
        self.pump_waiting();
    }

    /// The client of this server has left it, perhaps in the middle of a message.
    pub(crate) fn client_left(&mut self, index: usize, mid_message: bool) {
        let Some(server) = self.servers.get_mut(index) else { return };
        if matches!(server.state, ServerState::Closing | ServerState::Dead) {
            return;
        }
        if server.dedication.is_some() {
            return self.close_server(index, "replication client disconnected");
        }
        if matches!(server.state, ServerState::Setting(_)) {
            return self.close_server(index, "client disconnect while server was not ready");
        }
        if server.back.is_free() && !server.conn.is_backed_up() && !mid_message {
            server.state = ServerState::Idle;
            return self.server_released(index);
        }
        let reason = if mid_message || server.conn.is_backed_up() {
            "client disconnect before everything was sent to the server"
        } else if server.back.requests.is_waiting() {
            "client disconnected with query in progress"
        } else {
            "client disconnect while server was not ready"
        };
        self.close_server(index, reason);
    }

    fn log_server_closing(&self, index: usize, reason: &str) {
        if let Some(failure) = self.servers[index].conn.tls_failure() {
            log::warn!("{} TLS error: {failure}", self.server_prefix(index));
        }
        if self.config.settings.log_disconnections {
            let age = (self.now - self.servers[index].connected_at).as_secs();
            log::info!("{} closing because: {reason} (age={age}s)", self.server_prefix(index));
        }
    }

    /// Closes what has taken too long, or has lived long enough.
    pub(crate) fn expire_servers(&mut self) {
        for index in 0..self.servers.capacity() {
            if self.servers.contains(index) {
                self.expire_server(index);
            }
        }
    }

    fn expire_server(&mut self, index: usize) {
        let settings = &self.config.settings;
        let server = &self.servers[index];
        let over = |since: crate::clock::Instant, limit: Duration| !limit.is_zero() && self.now - since > limit;
        match server.state {
            ServerState::Connecting | ServerState::Login(_) if over(server.since, settings.server_connect_timeout) => {
                self.server_failed(index, "connect timeout");
            }
            ServerState::Idle => {
                if self.is_lifetime_over(server) {
                    self.close_server(index, "server lifetime over");
                } else if over(server.since, settings.server_idle_timeout)
                    && self.shm.begin_leave(&server.seats, self.pools.get(server.pool).least)
                {
                    self.close_server(index, "server idle timeout");
                } else if let Some(reason) = server.close_reason {
                    self.close_server(index, reason);
                }
            }
            ServerState::Linked(client) | ServerState::Setting(client) => self.expire_linked(index, client),
            ServerState::Looking(_) => self.expire_lookup(index),
            // A client waits for it as it would for a new connection, and no longer.
            ServerState::Checking if over(server.since, settings.server_connect_timeout) => self.check_failed(index),
            ServerState::Resetting if over(server.since, settings.server_idle_timeout) => {
                self.close_server(index, "server idle timeout");
            }
            ServerState::Closing if over(server.since, CLOSING_GRACE) => {
                log::warn!("{} its backend has not ended in {CLOSING_GRACE:?}; its place is given up", self.server_prefix(index));
                self.free_server(index);
            }
            // A request that comes before PostgreSQL has begun with the query does nothing.
            ServerState::Closing
                if server.may_be_running()
                    && (settings.cancel_on_disconnect || server.preparing)
                    && over(server.last_activity, CANCEL_AGAIN) =>
            {
                self.cancel_closing(index);
            }
            _ => {}
        }
    }

    /// server_fast_close: a connection that is to be closed does not wait for its client to leave.
    pub(crate) fn close_with_client(&mut self, index: usize, client: usize) {
        const REASON: &str = "database configuration changed";
        self.close_server(index, self.servers[index].close_reason.unwrap_or(REASON));
        self.close_client(client, &Ending::violation(REASON));
    }

    /// query_timeout, idle_transaction_timeout, transaction_timeout, server_fast_close.
    fn expire_linked(&mut self, index: usize, client: usize) {
        let server = &self.servers[index];
        let Pool { user, mode, .. } = self.pools.get(server.pool);
        let is_free = server.back.is_free() && !server.conn.is_backed_up();
        if is_free && server.close_reason.is_some() && *mode == PoolMode::Session && self.config.settings.server_fast_close {
            return self.close_with_client(index, client);
        }
        // A stream of changes is one query that has no end.
        let Some(session) = self.clients[client].session().filter(|s| s.replication == Replication::None) else { return };
        let over = |since: Option<crate::clock::Instant>, limit: Option<Duration>| {
            since.zip(limit).is_some_and(|(since, limit)| self.now - since > limit)
        };
        // Half a message holds the server as well as a query does.
        let running = server.back.requests.is_waiting() || session.front.is_mid_message();
        let busy = running || !server.back.is_free();
        let text = if running && over(session.query_start, self.config.query_timeout(user)) {
            "query timeout"
        } else if !running && busy && over(Some(server.last_activity), self.config.idle_transaction_timeout(user)) {
            "idle transaction timeout"
        } else if busy && over(session.transaction_start, self.config.transaction_timeout(user)) {
            "transaction timeout"
        } else {
            return;
        };
        self.close_server(index, text);
        self.close_client(client, &Ending::violation(text));
    }

    /// Whether any worker has a connection of this pool that has logged in.
    pub(crate) fn fleet_has_servers(&self, pool: PoolIndex) -> bool {
        self.shm.any_backend(self.pools.get(pool).id)
    }

    /// All clients that wait in this pool, for a server or for their greeting, get this FATAL.
    pub(super) fn fail_waiters(&mut self, pool: PoolIndex, code: &str, text: &str) {
        let code = if code.is_empty() { sqlstate::PROTOCOL_VIOLATION } else { code };
        let pool = self.pools.get_mut(pool);
        let waiters: Vec<_> = pool.waiters.iter().copied().chain(std::mem::take(&mut pool.to_greet)).collect();
        for waiter in waiters {
            if !self.still_waits(&waiter) {
                continue;
            }
            let ending = match self.clients[waiter.client].waits_in() {
                // Who has not proved anything yet hears nothing of how we log in.
                Some(_) => Ending::violation("bouncer config error"),
                None => Ending::Relayed(code.to_owned(), text.to_owned()),
            };
            self.close_client(waiter.client, &ending);
        }
    }
}
