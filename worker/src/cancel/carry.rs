//! One cancel request on its way: it waits, connects, is sent, and is done when the other side closes the connection.
//!
//! Who asked waits for that end. A connection that fails is tried again until cancel_wait_timeout.

use super::Asker;
use super::secure::Securing;
use crate::clock::Instant;
use crate::pool::PoolIndex;
use crate::server::ServerState;
use crate::socket::{Conn, Read};
use crate::worker::{Source, Worker};
use shared::address::Address;
use shared::ids::{ConnectionId, LimitId, SeatIndex};
use shared::wire::encode;
use std::rc::Rc;
use std::time::Duration;

/// A connection that failed is tried again after this long.
const RETRY: Duration = Duration::from_secs(1);

/// PostgreSQL has taken the request.
const DELIVERED: &str = "successfully sent cancel request";

/// A cancel request on its way.
pub(crate) struct Carrier {
    pub(super) id: ConnectionId,
    key: [u8; 8],
    pub(super) aim: Aim,
    /// Who asked; nobody for a client that has gone.
    pub(super) askers: Vec<Asker>,
    since: Instant,
    pub(super) stage: Stage,
    /// Its place among the requests to the same peer.
    seat: Option<(LimitId, SeatIndex)>,
}

/// Where a request is to go.
pub(super) enum Aim {
    Backend {
        pool: PoolIndex,
        address: Address,
        /// What the configuration calls that host, if the server's connection is inside TLS.
        host: Option<Rc<str>>,
        /// The server it is aimed at, which serves nobody else meanwhile.
        held: Option<(usize, ConnectionId)>,
    },
    /// The fleet of this peer_id.
    Peer(u16),
}

/// How far it has come.
pub(super) enum Stage {
    /// For its turn, for a name's addresses, or to try again at this time.
    Waiting(Instant),
    Connecting(Conn, Address),
    Securing(Conn, Address, Securing),
    Sent(Conn, Address),
    Done,
}

impl Carrier {
    /// When it began.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Somebody waits for it to be done.
    pub(crate) fn is_asked_for(&self) -> bool {
        !self.askers.is_empty()
    }

    /// Both are aimed at the same server of ours.
    fn has_same_target(&self, other: &Carrier) -> bool {
        match (&self.aim, &other.aim) {
            (Aim::Backend { held: Some(mine), .. }, Aim::Backend { held: Some(theirs), .. }) => mine == theirs,
            _ => false,
        }
    }

    /// It is aimed at this server and has not been sent yet.
    pub(super) fn is_about_to_reach(&self, server: usize, id: ConnectionId) -> bool {
        matches!(self.stage, Stage::Waiting(_) | Stage::Connecting(..) | Stage::Securing(..))
            && matches!(self.aim, Aim::Backend { held: Some(held), .. } if held == (server, id))
    }

    /// It has to do with this pool.
    pub(crate) fn concerns(&self, index: PoolIndex) -> bool {
        matches!(self.aim, Aim::Backend { pool, .. } if pool == index)
    }

    /// Descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        self.askers.len() + usize::from(self.is_connected())
    }

    /// It has a connection, or is about to have one.
    pub(crate) fn is_connected(&self) -> bool {
        matches!(self.stage, Stage::Connecting(..) | Stage::Securing(..) | Stage::Sent(..))
    }
}

impl Worker {
    /// Sends a request on its way.
    pub(super) fn carry(&mut self, key: [u8; 8], aim: Aim, asker: Option<Asker>) {
        let (id, now, askers) = (self.next_connection_id(), self.now, asker.into_iter().collect());
        let index = self.carriers.insert(Carrier { id, key, aim, askers, since: now, stage: Stage::Waiting(now), seat: None });
        self.start_carrier(index);
    }

    /// Begins to connect, if it is this request's turn.
    fn start_carrier(&mut self, index: usize) {
        let carrier = &self.carriers[index];
        let Stage::Waiting(not_before) = carrier.stage else { return };
        // One after the other: PostgreSQL is not to be flooded for the sake of one query.
        if self.now < not_before || self.carriers.iter().any(|(_, other)| other.is_connected() && other.has_same_target(carrier)) {
            return;
        }
        let address = match &carrier.aim {
            Aim::Backend { address, .. } => address.clone(),
            &Aim::Peer(peer) => {
                if carrier.seat.is_none() {
                    let Some(seat) = self.take_peer_seat(peer) else { return };
                    self.carriers[index].seat = seat;
                }
                match self.peer_address(peer) {
                    Some(address) => address,
                    None => return,
                }
            }
        };
        let mut conn = match crate::server::open(&address) {
            Ok(socket) => Conn::new(socket),
            Err(error) => return self.carrier_failed(index, &address, &error.to_string()),
        };
        if let Err(error) = conn.register(self.poll.registry(), Source::Carrier(index).into()) {
            return self.carrier_failed(index, &address, &error.to_string());
        }
        let is_unix = matches!(address, Address::Unix(..));
        self.carriers[index].stage = Stage::Connecting(conn, address);
        // A Unix socket is connected at once, without an event.
        if is_unix {
            self.carrier_event(index);
        }
    }

    /// The connection is there, or the other side has closed it: then the request has been dealt with.
    pub(crate) fn carrier_event(&mut self, index: usize) {
        let Some(carrier) = self.carriers.get_mut(index) else { return };
        if let Stage::Connecting(conn, address) = &carrier.stage {
            let socket = socket2::SockRef::from(conn);
            if let Ok(Some(error)) | Err(error) = socket.take_error() {
                let (address, error) = (address.clone(), error.to_string());
                return self.carrier_failed(index, &address, &error);
            }
            if socket.peer_addr().is_err() {
                // Not connected yet: the next edge tells.
                return;
            }
            if !self.begin_carrier_tls(index) {
                self.send_request(index);
            }
        }
        match &self.carriers[index].stage {
            Stage::Securing(..) => self.secure_carrier(index),
            Stage::Sent(..) => self.await_end(index),
            _ => {}
        }
    }

    /// Sends the request, if it is still wanted.
    pub(super) fn send_request(&mut self, index: usize) {
        if !self.is_still_wanted(index) {
            return self.end_carrier(index, "not sending cancel request for client that is now idle");
        }
        let carrier = &mut self.carriers[index];
        let stage = std::mem::replace(&mut carrier.stage, Stage::Done);
        let (Stage::Connecting(mut conn, address) | Stage::Securing(mut conn, address, _)) = stage else { return };
        let sent = conn.send(&encode::cancel_request(carrier.key), &mut self.buffers);
        carrier.stage = Stage::Sent(conn, address);
        if sent.is_err() {
            self.end_carrier(index, "failed to send cancel request");
        }
    }

    /// The other side says nothing that matters; that it closes the connection does.
    fn await_end(&mut self, index: usize) {
        while let Stage::Sent(conn, _) = &mut self.carriers[index].stage {
            match conn.discard(&mut [0; 1024]) {
                // The end may have come in the same breath: no edge would tell of it again.
                Read::Full(_) | Read::Drained(_) => {}
                Read::Blocked => return,
                Read::End | Read::Broken => return self.end_carrier(index, DELIVERED),
            }
        }
    }

    /// Whether the client still waits for the query that the request is aimed at.
    fn is_still_wanted(&self, index: usize) -> bool {
        let Aim::Backend { held: Some((server, id)), .. } = self.carriers[index].aim else { return true };
        self.servers.get(server).is_some_and(|s| s.id == id && matches!(s.state, ServerState::Linked(_)))
    }

    /// No connection: the request waits for the next attempt.
    pub(super) fn carrier_failed(&mut self, index: usize, address: &Address, error: &str) {
        let carrier = &mut self.carriers[index];
        let stage = std::mem::replace(&mut carrier.stage, Stage::Waiting(self.now + RETRY));
        if let Stage::Connecting(conn, _) | Stage::Securing(conn, ..) = stage {
            let _ = conn.deregister(self.poll.registry());
        }
        if self.config.settings.log_disconnections {
            let carrier = &self.carriers[index];
            log::info!("{} closing because: connect failed: {error}", self.carrier_prefix(carrier.id, &carrier.aim, address));
        }
    }

    /// Ends the request of the client with this number; a request gets no message. False: there is none.
    pub(crate) fn kill_asker(&mut self, id: ConnectionId) -> bool {
        let carrier = self.carriers.iter().find(|(_, carrier)| carrier.askers.iter().any(|asker| asker.who.id == id));
        let found = carrier.map(|(index, _)| index);
        if let Some(index) = found {
            self.end_carrier(index, "admin forced disconnect");
        }
        found.is_some()
    }

    fn end_carrier(&mut self, index: usize, reason: &str) {
        let carrier = &mut self.carriers[index];
        let stage = std::mem::replace(&mut carrier.stage, Stage::Done);
        let (askers, seat) = (std::mem::take(&mut carrier.askers), carrier.seat.take());
        let carrier = &self.carriers[index];
        // One that was sent and not answered may reach the backend at any time, whoever it serves by then.
        let is_at_large = matches!(stage, Stage::Sent(..)) && reason != DELIVERED;
        if let Stage::Connecting(conn, address) | Stage::Securing(conn, address, _) | Stage::Sent(conn, address) = stage {
            let _ = conn.deregister(self.poll.registry());
            if self.config.settings.log_disconnections {
                let age = (self.now - carrier.since).as_secs();
                log::info!("{} closing because: {reason} (age={age}s)", self.carrier_prefix(carrier.id, &carrier.aim, &address));
            }
        }
        for asker in &askers {
            self.log_asker(&asker.who, Some(&carrier.aim), reason);
        }
        let held = if let Aim::Backend { held, .. } = carrier.aim { held } else { None };
        if let Some((limit, seat)) = seat {
            self.shm.seats(limit).leave(self.me, seat);
        }
        self.start_carriers();
        self.cancel_landed(held, is_at_large);
    }

    /// The server that a request was aimed at may serve others again, unless the request may still reach it.
    fn cancel_landed(&mut self, held: Option<(usize, ConnectionId)>, is_at_large: bool) {
        let Some((index, id)) = held else { return };
        let Some(server) = self.servers.get_mut(index).filter(|s| s.id == id) else { return };
        if is_at_large {
            server.close_reason = Some("cancel_wait_timeout");
        }
        server.cancels = server.cancels.saturating_sub(1);
        if server.cancels == 0 && matches!(server.state, ServerState::BeingCanceled) {
            self.server_released(index);
        }
    }

    /// Looks again at the requests that wait.
    pub(super) fn start_carriers(&mut self) {
        for index in 0..self.carriers.capacity() {
            if self.carriers.contains(index) {
                self.start_carrier(index);
            }
        }
    }

    /// Gives up on requests that got nowhere, looks again at those that wait, and clears away those that are done.
    pub(crate) fn tick_carriers(&mut self) {
        if self.carriers.is_empty() {
            return;
        }
        let timeout = self.config.settings.cancel_wait_timeout;
        let late =
            |carrier: &Carrier| !matches!(carrier.stage, Stage::Done) && !timeout.is_zero() && self.now - carrier.since > timeout;
        let late: Vec<usize> = self.carriers.iter().filter(|(_, carrier)| late(carrier)).map(|(index, _)| index).collect();
        for index in late {
            self.end_carrier(index, "cancel_wait_timeout");
        }
        self.start_carriers();
        self.carriers.retain(|_, carrier| !matches!(carrier.stage, Stage::Done));
    }
}
