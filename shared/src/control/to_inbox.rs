//! What workers say to each other.

use super::{ConnectionState, PeerName, ServerSeats};
use crate::address::Address;
use crate::ids::{ConnectionId, LimitId, Owner, PoolId, SeatIndex, Slot};
use crate::shm::Ticket;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Between workers, over an inbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToInbox {
    /// `from` has a client waiting in this pool: lend an idle server, or answer `Nothing`.
    Borrow {
        /// The pool.
        pool: PoolId,
        /// Who asks.
        from: Slot,
    },
    /// There is no idle server of this pool here.
    Nothing {
        /// The pool.
        pool: PoolId,
        /// Who answers.
        from: Slot,
    },
    /// An idle server connection. Descriptors: its token if it has no ticket, then its socket. It is the receiver's once the receiver has accepted the ticket,
    /// or has taken the token.
    Lend(Box<Lent>),
    /// A seat has fallen free that a client of yours may be waiting for.
    Wake,
    /// Clients wait for seats of this limit, which is full: close idle connections that count in it, and pass on to the next worker what is
    /// still wanted then.
    MakeRoom {
        /// The limit.
        limit: LimitId,
        /// Who has asked first.
        from: Slot,
        /// How many connections.
        servers: u32,
    },
    /// A message that is too long for a datagram. Descriptors: a sealed memfd with it, then those that it carries.
    Long,
    /// A cancel request landed here. Descriptor: the requester's socket, closed when the cancel has been delivered.
    Cancel {
        /// The key it carried.
        key: [u8; 8],
        /// Who asks.
        from: Requester,
    },
    /// A client's session, with the server that it is linked to if there is one. Descriptors: its token if it has no ticket, then the client's socket, then
    /// the server's. It is the receiver's once the receiver has accepted the ticket of its seat, or has taken the token; one that does not answers `NotTaken`.
    Session(Box<MovedSession>),
    /// A session that was sent could not be taken over, and is the sender's still.
    NotTaken {
        /// Its seat.
        seat: SeatIndex,
        /// As it was sent.
        ticket: Option<Ticket>,
    },
    /// A client that another worker has accepted and has not read from. Descriptor: its socket.
    Client {
        /// CLOCK_MONOTONIC microseconds of its accept.
        accepted_at: u64,
        /// Where it comes from; `None`: the Unix socket, which says itself who is at its other end.
        address: Option<SocketAddr>,
    },
}

/// A client that asks for a query to be cancelled, for the log and the console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requester {
    /// Its number.
    pub id: ConnectionId,
    /// Where it comes from.
    pub peer: PeerName,
    /// CLOCK_MONOTONIC microseconds of its accept.
    pub connected_at: u64,
}

/// A client's session on its way to another worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MovedSession {
    /// Who sends it.
    pub from: Owner,
    /// The client's seat, which decides whose the session is: the server's seats follow it.
    pub seat: SeatIndex,
    /// The right to take over the seat. `None`: the sender maps another region, and a [`Token`](crate::sys::token::Token) is that right.
    pub ticket: Option<Ticket>,
    /// All else, in the workers' own words.
    pub state: SessionState,
}

/// A session, encoded by the worker that it comes from. There are keys in it: nobody prints it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct SessionState(#[serde(with = "serde_bytes")] pub Vec<u8>);

impl fmt::Debug for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionState({} bytes)", self.0.len())
    }
}

/// An idle server connection on its way to another worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lent {
    /// Who sends it.
    pub from: Owner,
    /// Its number, which it keeps.
    pub id: ConnectionId,
    /// Its seats.
    pub seats: ServerSeats,
    /// The right to take over its pool seat. `None`: as for a session; if it goes with one, that one's token is its as well.
    pub ticket: Option<Ticket>,
    /// The configuration's generation under which the pool was last marked for reconnection.
    pub epoch: u64,
    /// The last RECONNECT of its database that the sender knows of.
    pub reconnected: u32,
    /// Backend pid and cancel secret.
    pub backend_key: (u32, u32),
    /// What the pool's clients are greeted with.
    pub greeting: Vec<(String, String)>,
    /// Current values of the parameters that a client can set.
    pub parameters: Vec<(String, String)>,
    /// Values of other parameters that were set for a client that asked for them.
    pub asked: Vec<(String, String)>,
    /// Prepared statements it holds, by the hash that names them, least recently used first.
    pub statements: Vec<[u8; 16]>,
    /// CLOCK_MONOTONIC microseconds of its start.
    pub connected_at: u64,
    /// CLOCK_MONOTONIC microseconds since which it has been idle.
    pub idle_since: u64,
    /// Whether it has served a client.
    pub used: bool,
    /// Where it leads.
    pub address: Address,
    /// What the configuration calls that host.
    pub host: String,
    /// What waits on it, which is the receiver's alone from here on.
    pub conn: ConnectionState,
}
