//! Cancel requests: from whichever client they come, to the backend that they mean.
//!
//! The key names a seat in the client table, and the seat its worker. A request for another worker's client goes there together with the
//! requester's socket, which is closed when PostgreSQL has taken the request: clients wait for that.

use crate::client::{Ending, Link};
use crate::clock::Instant;
use crate::protocol::frontend;
use crate::server::ServerState;
use crate::socket::{Conn, Read};
use crate::worker::{Source, Worker};
use shared::address::Address;
use shared::control::{ToInbox, ToSupervisor};
use shared::ids::{ConnectionId, Owner, SeatIndex};
use shared::wire::encode;
use std::os::fd::{AsFd, OwnedFd};

/// A connection that carries one cancel request.
pub(crate) struct Canceller {
    conn: Conn,
    key: (u32, u32),
    since: Instant,
    sent: bool,
    /// Who asked; closed when done.
    requester: Option<OwnedFd>,
    /// The server it is aimed at, which serves nobody else meanwhile.
    target: Option<(usize, ConnectionId)>,
    done: bool,
}

impl Worker {
    /// A client in login turns out to carry a cancel request.
    pub(crate) fn cancel_requested(&mut self, index: usize, key: [u8; 8]) {
        let client = &self.clients[index];
        let prefix = client.prefix(self.config.settings.listen_port);
        let found = self.find_client(key);
        let reason = match found {
            None => Some("failed cancel request"),
            Some((_, owner)) if owner.slot == Owner::SUPERVISOR.slot => {
                self.control.send(&ToSupervisor::CancelConsole { key }, &[]);
                Some("cancel request for console client")
            }
            Some(_) => None,
        };
        let requester = client.conn.as_fd().try_clone_to_owned().ok();
        let reason = match (reason, found) {
            (Some(reason), _) => reason,
            (None, Some((seat, owner))) if owner == self.me => self.cancel_query(seat, requester),
            (None, Some((_, owner))) => {
                let fds: Vec<_> = requester.iter().map(AsFd::as_fd).collect();
                if self.send_inbox(owner.slot, &ToInbox::Cancel { key }, &fds) {
                    "cancel request passed to its worker"
                } else {
                    "failed cancel request"
                }
            }
            (None, None) => "failed cancel request",
        };
        if self.config.settings.log_disconnections {
            log::info!("{prefix} closing because: {reason} (age={}s)", (self.now - self.clients[index].connected_at).as_secs());
        }
        self.drop_client(index);
    }

    /// The client that was given this key. One that begins with a backend's process id (report_backend_pid) does not name its seat.
    fn find_client(&self, key: [u8; 8]) -> Option<(SeatIndex, Owner)> {
        let clients = self.shm.clients();
        clients.find(key).or_else(|| self.config.settings.report_backend_pid.then(|| clients.search(key)).flatten())
    }

    /// Another worker passes on a request for one of our clients.
    pub(crate) fn cancel_forwarded(&mut self, key: [u8; 8], requester: Option<OwnedFd>) {
        if let Some((seat, owner)) = self.find_client(key)
            && owner == self.me
        {
            self.cancel_query(seat, requester);
        }
    }

    /// Cancels what the client of `seat` runs. Gives the reason for the log.
    fn cancel_query(&mut self, seat: SeatIndex, requester: Option<OwnedFd>) -> &'static str {
        let client = self.by_seat.get(&seat).copied();
        let session = client.and_then(|client| self.clients.get(client)).and_then(|c| c.session());
        let index = match (client, session.map(|s| s.link)) {
            (_, Some(Link::Linked(index))) => index,
            (Some(client), Some(Link::Waiting(_))) => return self.cancel_waiting(client),
            _ => return "cancel request for idle client",
        };
        let server = &mut self.servers[index];
        if !matches!(server.state, ServerState::Linked(_)) {
            return "ignoring cancel request for server that is setting vars";
        }
        let (key, address, target) = (server.backend_key, server.address.clone(), (index, server.id));
        server.cancels += 1;
        self.start_canceller(key, &address, requester, Some(target));
        "cancel request sent to the server"
    }

    /// A client in its pool's queue leaves it, with PostgreSQL's error for the request it waited with. What it sent behind that goes on.
    fn cancel_waiting(&mut self, index: usize) -> &'static str {
        let client = &mut self.clients[index];
        let data = std::mem::take(&mut client.conn.input);
        let Some(session) = client.session_mut() else { return "cancel request for idle client" };
        session.link = Link::None;
        session.query_start = None;
        session.transaction_start = None;
        let pool = session.pool;
        let mut replies = Vec::new();
        let taken = frontend::cancel_first(&mut session.front, &data, &mut replies);
        self.pools.get_mut(pool).waiters.retain(|waiter| waiter.client != index);
        self.waiter_left(pool);
        if self.clients[index].conn.send(&replies, &mut self.buffers).is_err() {
            self.close_client(index, &Ending::Silent("client unexpected eof"));
        } else {
            self.session_input(index, &data[taken..]);
            self.again.push(Source::Client(index));
        }
        self.buffers.give(data);
        "canceled a query that waited for a server"
    }

    /// Cancels a backend whose client has gone.
    pub(crate) fn cancel_backend(&mut self, key: (u32, u32), address: &Address) {
        self.start_canceller(key, address, None, None);
    }

    fn start_canceller(
        &mut self,
        key: (u32, u32),
        address: &Address,
        requester: Option<OwnedFd>,
        target: Option<(usize, ConnectionId)>,
    ) {
        let conn = match crate::server::open(address) {
            Ok(socket) => Conn::new(socket),
            Err(error) => {
                log::warn!(target: "process", "a cancel request could not be sent to {address}: {error}");
                return self.cancel_landed(target);
            }
        };
        let entry = self.cancellers.vacant_entry();
        let index = entry.key();
        if conn.register(self.poll.registry(), Source::Canceller(index).into()).is_err() {
            return self.cancel_landed(target);
        }
        entry.insert(Canceller { conn, key, since: self.now, sent: false, requester, target, done: false });
        if matches!(address, Address::Unix(..)) {
            self.canceller_event(index);
        }
    }

    /// The connection is there, or PostgreSQL has closed it: then the request has been dealt with.
    pub(crate) fn canceller_event(&mut self, index: usize) {
        let Some(canceller) = self.cancellers.get_mut(index) else { return };
        if canceller.done {
            return;
        }
        if !canceller.sent {
            if socket2::SockRef::from(&canceller.conn).peer_addr().is_err() {
                let failed = !matches!(socket2::SockRef::from(&canceller.conn).take_error(), Ok(None));
                if failed {
                    self.end_canceller(index);
                }
                return;
            }
            let key = encode::cancel_key(canceller.key.0, canceller.key.1);
            if canceller.conn.send(&encode::cancel_request(key), &mut self.buffers).is_err() {
                return self.end_canceller(index);
            }
            canceller.sent = true;
        }
        let mut byte = [0; 16];
        if let Read::End | Read::Broken = canceller.conn.read(&mut byte) {
            self.end_canceller(index);
        }
    }

    fn end_canceller(&mut self, index: usize) {
        let canceller = &mut self.cancellers[index];
        canceller.done = true;
        drop(canceller.requester.take());
        let _ = canceller.conn.deregister(self.poll.registry());
        let target = canceller.target.take();
        self.cancel_landed(target);
    }

    /// The server that a request was aimed at may serve others again.
    fn cancel_landed(&mut self, target: Option<(usize, ConnectionId)>) {
        let Some((index, id)) = target else { return };
        let Some(server) = self.servers.get_mut(index).filter(|s| s.id == id) else { return };
        server.cancels = server.cancels.saturating_sub(1);
        if server.cancels == 0 && matches!(server.state, ServerState::BeingCanceled) {
            self.server_released(index);
        }
    }

    /// Gives up on requests that got nowhere, and clears away those that are done.
    pub(crate) fn expire_cancellers(&mut self) {
        let timeout = self.config.settings.cancel_wait_timeout;
        let late: Vec<usize> = self
            .cancellers
            .iter()
            .filter(|(_, c)| !c.done && !timeout.is_zero() && self.now - c.since > timeout)
            .map(|(index, _)| index)
            .collect();
        for index in late {
            self.end_canceller(index);
        }
        self.cancellers.retain(|_, canceller| !canceller.done);
    }
}
