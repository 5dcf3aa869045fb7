//! What of a session goes to another worker beside its sockets.
//!
//! Encoded with the names of its fields, so that two versions understand each other: what one does not know it leaves out, what it misses it
//! takes as it was before there was such a thing.

use crate::client::{Client, ClientSeats, Identity, Peer, Session};
use crate::params::{Interner, Params};
use crate::protocol::saved::{SavedBackend, SavedFrontend};
use crate::server::Server;
use serde::{Deserialize, Serialize};
use shared::control::{ConnectionState, Lent, Replication};
use shared::ids::{ConnectionId, LimitId, PoolId, SeatIndex};
use std::net::SocketAddr;

/// A session as it is sent.
#[derive(Serialize, Deserialize)]
pub(super) struct State {
    pub(super) id: ConnectionId,
    pub(super) peer: From,
    /// CLOCK_MONOTONIC microseconds, as all times here.
    pub(super) connected_at: u64,
    pub(super) last_request: u64,
    pub(super) database: String,
    pub(super) user: String,
    pub(super) pool: PoolId,
    /// The same as database entry and user of the server: the number is only good in the sender's region.
    #[serde(default)]
    pub(super) pool_name: (String, String),
    pub(super) database_seat: Option<(LimitId, SeatIndex)>,
    pub(super) user_seat: Option<(LimitId, SeatIndex)>,
    pub(super) key: [u8; 8],
    pub(super) params: Values,
    pub(super) startup: Option<Values>,
    pub(super) replication: Replication,
    pub(super) front: SavedFrontend,
    pub(super) conn: ConnectionState,
    pub(super) query_start: Option<u64>,
    pub(super) transaction_start: Option<u64>,
    pub(super) place: Place,
}

/// What the session has to do with a server.
#[derive(Serialize, Deserialize)]
pub(super) enum Place {
    /// Nothing.
    Idle,
    /// It stands in its pool's queue since then.
    Queued { since: u64, notified: bool },
    /// It has logged in with these values and waits for its greeting; a replication client for its connection.
    Ungreeted { parameters: Vec<(String, String)> },
    /// It is linked to this one, which goes with it.
    Linked(Box<Linked>),
}

/// A server in use.
#[derive(Serialize, Deserialize)]
pub(super) struct Linked {
    pub(super) server: Lent,
    pub(super) back: SavedBackend,
    pub(super) last_activity: u64,
    /// It is to be closed when its client lets it go.
    pub(super) outdated: bool,
    /// It was opened for this client alone, with these parameters.
    pub(super) dedicated: Option<Vec<(String, String)>>,
}

/// Where a client comes from.
#[derive(Serialize, Deserialize)]
pub(super) enum From {
    Tcp(SocketAddr),
    Unix { pid: u32, uid: u32 },
}

impl std::convert::From<Peer> for From {
    fn from(peer: Peer) -> Self {
        match peer {
            Peer::Tcp(address) => Self::Tcp(address),
            Peer::Unix { pid, uid } => Self::Unix { pid, uid },
        }
    }
}

impl std::convert::From<&From> for Peer {
    fn from(from: &From) -> Self {
        match *from {
            From::Tcp(address) => Self::Tcp(address),
            From::Unix { pid, uid } => Self::Unix { pid, uid },
        }
    }
}

/// Values of parameters.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Values {
    reported: Vec<(String, String)>,
    asked: Vec<(String, String)>,
}

impl Values {
    fn of(params: &Params) -> Self {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self { reported: params.reported().map(owned).collect(), asked: params.asked().map(owned).collect() }
    }

    pub(super) fn intern(&self, interner: &mut Interner) -> Params {
        let params = interner.set(self.reported.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        self.asked.iter().fold(params, |params, (name, value)| interner.ask(&params, name, value))
    }
}

impl State {
    /// A session whose place is `place`, in the pool of that number.
    pub(super) fn of(client: &Client, session: &Session, pool: PoolId, pool_name: (String, String), place: Place) -> Self {
        let Identity { database, user } = &*session.who;
        let ClientSeats { database: database_seat, user: user_seat, .. } = session.seats;
        Self {
            id: client.id,
            peer: client.peer.into(),
            connected_at: client.connected_at.as_micros(),
            last_request: client.last_request.as_micros(),
            database: database.clone(),
            user: user.clone(),
            pool,
            pool_name,
            database_seat,
            user_seat,
            key: session.key,
            params: Values::of(&session.params),
            startup: session.startup.as_ref().map(Values::of),
            replication: session.replication,
            front: SavedFrontend::of(&session.front),
            conn: client.conn.state(),
            query_start: session.query_start.map(crate::clock::Instant::as_micros),
            transaction_start: session.transaction_start.map(crate::clock::Instant::as_micros),
            place,
        }
    }
}

impl Linked {
    pub(super) fn of(server: &Server, lent: Lent) -> Box<Self> {
        Box::new(Self {
            server: lent,
            back: SavedBackend::of(&server.back),
            last_activity: server.last_activity.as_micros(),
            outdated: server.close_reason.is_some(),
            dedicated: server.dedication.as_ref().map(|dedication| dedication.parameters.clone()),
        })
    }
}
