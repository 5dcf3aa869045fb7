//! Clients: accepted, logged in, served, closed.
//!
//! A client is a [`ClientState`]: in [`Login`] until it is authenticated and greeted, then a [`Session`], then closing while it reads its
//! last message. [`accept`] and [`login`] bring it there, [`session`] moves its bytes, [`close`] ends it in whichever state it is.

pub(crate) mod accept;
mod admit;
pub(crate) mod auth;
mod close;
mod encryption;
pub(crate) mod greeting;
mod login;
mod parameters;
mod proxy;
pub(crate) mod replication;
mod session;

use crate::clock::Instant;
use crate::params::Params;
use crate::pool::PoolIndex;
use crate::protocol::backend::Reset;
use crate::protocol::frontend::Frontend;
use crate::socket::Conn;
use shared::control::{PeerName, Replication};
use shared::ids::{ConnectionId, LimitId, SeatIndex};
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;

pub(crate) use close::Ending;
pub(crate) use login::Login;
pub(crate) use proxy::Proxies;

/// One client connection.
pub(crate) struct Client {
    pub(crate) conn: Conn,
    pub(crate) id: ConnectionId,
    pub(crate) peer: Peer,
    pub(crate) connected_at: Instant,
    /// When it last sent something.
    pub(crate) last_request: Instant,
    pub(crate) state: ClientState,
}

/// Where a client is in its life.
pub(crate) enum ClientState {
    Login(Box<Login>),
    Session(Session),
    /// Its last message is on the way; what it sends is thrown away until it closes.
    Closing,
    Dead,
}

/// A client that has logged in.
pub(crate) struct Session {
    pub(crate) pool: PoolIndex,
    pub(crate) who: Rc<Identity>,
    pub(crate) seats: ClientSeats,
    pub(crate) key: [u8; 8],
    /// The values it expects of every server it is given.
    pub(crate) params: Params,
    /// Those it asked for at startup: RESET goes back to them.
    pub(crate) startup: Option<Params>,
    /// It speaks the replication protocol, on a server of its own.
    pub(crate) replication: Replication,
    pub(crate) front: Frontend,
    pub(crate) link: Link,
    /// It has not been greeted yet: it waits for a server first.
    pub(crate) owed: Option<Box<greeting::Owed>>,
    /// What it has set back, until its startup values are set again.
    pub(crate) reset: Option<Box<Reset>>,
    /// When what it asks for now was asked, for timeouts and statistics.
    pub(crate) query_start: Option<Instant>,
    pub(crate) transaction_start: Option<Instant>,
}

/// Who a client is, shared by all that are the same.
#[derive(PartialEq, Eq, Hash, Debug)]
pub(crate) struct Identity {
    /// The database entry's name.
    pub(crate) database: String,
    /// The login user.
    pub(crate) user: String,
}

/// What a session has to do with a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Link {
    None,
    /// In its pool's queue since then; what it wants is in the connection's input.
    Waiting(Instant),
    /// With this server.
    Linked(usize),
}

/// The seats a client holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientSeats {
    pub(crate) client: SeatIndex,
    pub(crate) database: Option<(LimitId, SeatIndex)>,
    pub(crate) user: Option<(LimitId, SeatIndex)>,
}

/// Where a client comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Peer {
    Tcp(SocketAddr),
    /// A Unix socket's other end: process and user.
    Unix {
        pid: u32,
        uid: u32,
    },
}

impl Peer {
    /// As SHOW CLIENTS has it: the address without its port.
    pub(crate) fn address(&self) -> String {
        match self {
            Peer::Tcp(address) => address.ip().to_string(),
            Peer::Unix { .. } => "unix".to_owned(),
        }
    }

    /// The port; for a Unix peer the one we listen on.
    pub(crate) fn port(&self, listen_port: u16) -> u16 {
        match self {
            Peer::Tcp(address) => address.port(),
            Peer::Unix { .. } => listen_port,
        }
    }

    /// For another process.
    pub(crate) fn name(&self, listen_port: u16) -> PeerName {
        PeerName { address: self.address(), port: self.port(listen_port), pid: self.pid() }
    }

    pub(crate) fn pid(&self) -> u32 {
        match self {
            Peer::Tcp(_) => 0,
            Peer::Unix { pid, .. } => *pid,
        }
    }
}

/// `127.0.0.1:4711`, `[::1]:4711`, `unix(4711):6432`.
pub(crate) struct PeerDisplay(pub(crate) Peer, pub(crate) u16);

impl fmt::Display for PeerDisplay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Peer::Tcp(address) => address.fmt(f),
            Peer::Unix { pid, .. } => write!(f, "unix({pid}):{}", self.1),
        }
    }
}

impl Client {
    /// The beginning of its log lines.
    pub(crate) fn prefix(&self, listen_port: u16) -> String {
        let (database, user) = match &self.state {
            ClientState::Session(session) => (Some(session.who.database.as_str()), Some(session.who.user.as_str())),
            ClientState::Login(login) => login.names(),
            _ => (None, None),
        };
        format!(
            "C-{}: {}/{}@{}",
            self.id,
            database.unwrap_or("(nodb)"),
            user.unwrap_or("(nouser)"),
            PeerDisplay(self.peer, listen_port)
        )
    }

    pub(crate) fn session(&self) -> Option<&Session> {
        match &self.state {
            ClientState::Session(session) => Some(session),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn session_mut(&mut self) -> Option<&mut Session> {
        match &mut self.state {
            ClientState::Session(session) => Some(session),
            _ => None,
        }
    }

    /// The query and the user's name, of a login that waits for auth_query.
    pub(crate) fn looked_up(&self) -> Option<(&str, &str)> {
        match &self.state {
            ClientState::Login(login) => login.looked_up(),
            _ => None,
        }
    }

    /// The pool in whose queue its login stands.
    pub(crate) fn waits_in(&self) -> Option<PoolIndex> {
        match &self.state {
            ClientState::Login(login) => login.waits_in(),
            _ => None,
        }
    }

    /// The seats that it has.
    pub(crate) fn seats(&self) -> Option<&ClientSeats> {
        match &self.state {
            ClientState::Login(login) => login.seats.as_ref(),
            ClientState::Session(session) => Some(&session.seats),
            _ => None,
        }
    }

    /// Whether it has not been told its end yet.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.state, ClientState::Login(_) | ClientState::Session(_))
    }

    /// Whether it has been told that it is logged in.
    pub(crate) fn is_greeted(&self) -> bool {
        self.session().is_some_and(|session| session.owed.is_none())
    }

    /// Whether it stands in its pool's queue.
    pub(crate) fn is_waiting(&self) -> bool {
        match &self.state {
            ClientState::Session(session) => matches!(session.link, Link::Waiting(_)),
            ClientState::Login(login) => login.awaits_server(),
            _ => false,
        }
    }
}
