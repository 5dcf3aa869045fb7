//! What the supervisor and its workers say to each other, and workers among themselves.
//!
//! Supervisor and worker share one AF_UNIX SOCK_SEQPACKET pair (the control socket); every worker also has an inbox, another such
//! pair whose sending end all the others hold. A message is one datagram, for a process of the same build in postcard's short form,
//! for one of another in a form that names every field ([`Tongue`]). Descriptors travel beside it; each message says which it carries. What could outgrow a
//! datagram (the configuration, the rows of a report) travels as a sealed memfd instead.
//!
//! A field that is added to a message needs `#[serde(default)]`: processes of builds before it leave it out.

mod to_inbox;
mod to_supervisor;
mod to_worker;

pub use crate::rows::{Buffered, ConnectionRow, MemoryRow, PeerRow, PoolRow, Replication, ReportRows};
pub use crate::tongue::{MAX_MESSAGE, MessageError, Tongue, VERSION, decode};
pub use to_inbox::{Lent, MovedSession, Requester, SessionState, ToInbox};
pub use to_supervisor::{ConsoleSession, Estate, Lore, MOST_SERVERS, PasswordCheck, PasswordMethod, ToSupervisor, WorkerStage};
pub use to_worker::{Parting, PasswordOutcome, ReportKind, Resolved, StopMode, ToWorker};

use crate::auth::Secret;
use crate::auth::scram::Keys;
use crate::ids::{ConnectionId, LimitId, PoolId, SeatIndex};
use crate::tls::Packed;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The descriptor on which a worker finds its control socket when it starts.
pub const CONTROL_FD: i32 = 3;

/// Encodes `message` as one datagram for a process of this build.
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, MessageError> {
    Tongue::Own.encode(message)
}

/// Encodes `message` for a file, however long it is.
pub fn encode_long<M: Serialize>(message: &M) -> Result<Vec<u8>, MessageError> {
    Tongue::Own.encode_long(message)
}

/// A client that waits for an answer, in its worker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingClient {
    /// Where the worker keeps it.
    pub place: u32,
    /// Its number: another client may be kept there by now.
    pub id: ConnectionId,
}

/// The seats of one server connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServerSeats {
    /// Its pool.
    pub pool: PoolId,
    /// Its seat in the pool; never absent, since an unlimited pool still has a seat table to find orphans by.
    pub seat: SeatIndex,
    /// Its seat under max_db_connections.
    pub database: Option<(LimitId, SeatIndex)>,
    /// Its seat under max_user_connections.
    pub user: Option<(LimitId, SeatIndex)>,
    /// Its seat under max_host_connections.
    pub host: Option<(LimitId, SeatIndex)>,
}

/// The parameters a pool's clients are greeted with: what PostgreSQL reported when the pool's first connection started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Database entry.
    pub database: String,
    /// Server-side user.
    pub user: String,
    /// ParameterStatus pairs in the server's order.
    pub parameters: Vec<(String, String)>,
}

/// What a login has taught a worker about logging in to servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Learned {
    /// A client has proved to know these keys.
    Keys(Keys),
    /// auth_query says this of the user of a pool now.
    Secret {
        /// Database entry.
        database: String,
        /// Server-side user.
        user: String,
        /// What is stored of its password.
        secret: Secret,
    },
    /// This was said of a user before, and its keys open nothing any more.
    Outdated(Secret),
}

/// A peer's address as log lines and the console print it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerName {
    /// `127.0.0.1`, `::1` or `unix`.
    pub address: String,
    /// Its port; for a Unix peer the listen_port.
    pub port: u16,
    /// A Unix peer's process, else 0.
    pub pid: u32,
}

/// `127.0.0.1:4711`, `[::1]:4711`, `unix(4711):6432`.
impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, port, pid } = self;
        match address.as_str() {
            "unix" => write!(f, "unix({pid}):{port}"),
            v6 if v6.contains(':') => write!(f, "[{v6}]:{port}"),
            v4 => write!(f, "{v4}:{port}"),
        }
    }
}

/// What goes with a connection's socket to another process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectionState {
    /// Bytes that its peer has not taken yet; sealed already if there is TLS.
    #[serde(with = "serde_bytes")]
    pub unsent: Vec<u8>,
    /// Bytes that were read, and opened, and not dealt with.
    #[serde(with = "serde_bytes")]
    pub input: Vec<u8>,
    /// Its TLS session, if it has one.
    pub tls: Option<Packed>,
}
