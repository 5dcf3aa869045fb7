//! Connections to PostgreSQL: opened, logged in, linked to clients, closed.
//!
//! A server connection holds its seats from before it is opened until its backend has ended, which PostgreSQL shows by closing the
//! socket: it leaves it open until the backend's process is gone. So the number of backends never exceeds the seats. [`connect`] and
//! [`login`] bring a connection up, [`relay`] moves its bytes, [`close`] ends it.

mod close;
mod connect;
mod encryption;
mod login;
mod proof;
mod relay;

use crate::client::replication::Dedication;
use crate::clock::Instant;
use crate::lookup::Looking;
use crate::params::Params;
use crate::pool::PoolIndex;
use crate::protocol::backend::{Backend, HiddenError};
use crate::socket::Conn;
use shared::address::Address;
use shared::control::ServerSeats;
use shared::ids::ConnectionId;
use std::rc::Rc;

pub(crate) use connect::{Attempt, open};
pub(crate) use encryption::{Answer, judge};
pub(crate) use login::Login;

/// One server connection.
#[allow(clippy::struct_excessive_bools)] // independent facts, not one state
pub(crate) struct Server {
    pub(crate) conn: Conn,
    pub(crate) id: ConnectionId,
    pub(crate) pool: PoolIndex,
    pub(crate) seats: ServerSeats,
    pub(crate) address: Address,
    /// What the configuration calls that host: what its certificate must be for.
    pub(crate) host: Rc<str>,
    pub(crate) state: ServerState,
    pub(crate) back: Backend,
    /// The values of tracked parameters it has now; `None` until it has logged in.
    pub(crate) params: Option<Params>,
    /// Backend pid and cancel secret.
    pub(crate) backend_key: (u32, u32),
    pub(crate) connected_at: Instant,
    /// When the current state began to matter for timeouts: idle since, logging in since, closing since.
    pub(crate) since: Instant,
    /// When bytes last went either way.
    pub(crate) last_activity: Instant,
    /// Why it is to be closed as soon as nobody uses it.
    pub(crate) close_reason: Option<&'static str>,
    /// What PostgreSQL said unasked while the connection started, for the client in session mode that it was opened for.
    pub(crate) notices: Vec<u8>,
    /// Why the pooler's own query has failed, until its end.
    pub(crate) hidden_error: Option<Box<HiddenError>>,
    /// What its client sent before it had a server is still to be forwarded.
    pub(crate) unserved: bool,
    /// It was opened for one replication client alone.
    pub(crate) dedication: Option<Box<Dedication>>,
    /// The server has said its last words to the client.
    pub(crate) said_last_words: bool,
    /// It has served a client.
    pub(crate) used: bool,
    /// server_reset_query was run after the last one.
    pub(crate) was_reset: bool,
    /// connect_query runs, or what clears up after it, or auth_query: a query of our own, to be cancelled when the connection is closed.
    pub(crate) preparing: bool,
    /// Shared memory says that a query may be running: should this process die, the supervisor cancels it.
    pub(crate) busy: bool,
    /// Cancel requests on their way to its backend.
    pub(crate) cancels: u32,
    /// The pool's epoch at its start; an older one means that the entry has changed since.
    pub(crate) epoch: u64,
}

/// What a server connection is doing.
pub(crate) enum ServerState {
    Connecting,
    Login(Box<Login>),
    Idle,
    /// Serves this client.
    Linked(usize),
    /// Takes over this client's parameter values first.
    Setting(usize),
    /// Runs auth_query for a login.
    Looking(Box<Looking>),
    /// Runs server_reset_query.
    Resetting,
    /// Runs server_check_query, for a client that waits.
    Checking,
    /// Free, but a cancel request aimed at it is still on its way.
    BeingCanceled,
    /// Told to end; it is gone when it closes the socket.
    Closing,
    /// On its way to another worker, or gone.
    Dead,
}

impl Server {
    /// Its client may send to it.
    #[inline]
    pub(crate) fn takes_queries(&self) -> bool {
        matches!(self.state, ServerState::Linked(_))
    }

    /// The client it is linked to or being prepared for.
    #[inline]
    pub(crate) fn client(&self) -> Option<usize> {
        match self.state {
            ServerState::Linked(client) | ServerState::Setting(client) => Some(client),
            _ => None,
        }
    }

    /// TLS comes before its login.
    pub(crate) fn is_securing(&self) -> bool {
        matches!(&self.state, ServerState::Login(login) if login.is_securing())
    }

    /// What it has sent waits for the end of the turn.
    pub(crate) fn awaits_handshake(&self) -> bool {
        matches!(&self.state, ServerState::Login(login) if login.awaits_handshake())
    }

    /// PostgreSQL may be running something on it.
    pub(crate) fn may_be_running(&self) -> bool {
        self.preparing || self.back.requests.is_waiting()
    }

    /// Another worker could go on with it and its client: it does nothing that is ours.
    pub(crate) fn can_move(&self) -> bool {
        matches!(self.state, ServerState::Linked(_))
            && !self.unserved
            && !self.preparing
            && !self.said_last_words
            && self.cancels == 0
            && self.hidden_error.is_none()
            && self.notices.is_empty()
            && self.conn.is_open()
    }

    /// It does something for a client, cleans up after one, or finishes what one that has gone had begun.
    pub(crate) fn is_in_use(&self) -> bool {
        match self.state {
            ServerState::Linked(_)
            | ServerState::Setting(_)
            | ServerState::Looking(_)
            | ServerState::Resetting
            | ServerState::BeingCanceled => true,
            ServerState::Closing => self.back.requests.is_waiting(),
            ServerState::Connecting | ServerState::Login(_) | ServerState::Checking | ServerState::Idle | ServerState::Dead => {
                false
            }
        }
    }
}
