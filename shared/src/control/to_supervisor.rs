//! What a worker says to the supervisor.

use super::{Learned, PeerName, ServerSeats, WaitingClient, Welcome};
use crate::auth::{LdapOptions, Password};
use crate::ids::{ConnectionId, Owner, SeatIndex, Slot};
use crate::orders::{Marks, Outcome};
use crate::tls::Packed;
use serde::{Deserialize, Serialize};

/// From a worker to the supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToSupervisor {
    /// It polls its listeners.
    Ready,
    /// The configuration of this generation was read and can be put in force.
    Prepared {
        /// Its generation.
        generation: u64,
    },
    /// The configuration cannot be used.
    Refused {
        /// Its generation.
        generation: u64,
        /// Why.
        reason: String,
    },
    /// The configuration is in force.
    Committed {
        /// Its generation.
        generation: u64,
    },
    /// Rows for the console. Descriptor: a sealed memfd with postcard's [`ReportRows`](super::ReportRows).
    Report {
        /// The request's; 0, which no request has, for what a worker that leaves has counted in the end.
        id: u32,
    },
    /// An order has been carried out.
    Done {
        /// The order's.
        number: u32,
        /// How it went.
        outcome: Outcome,
    },
    /// No server connection of this worker is left (after `Stop(WaitForServers)`); it goes on until the whole fleet has none.
    Drained,
    /// A client that has passed authentication for the console. Descriptor: its socket.
    Console(ConsoleSession),
    /// Look up a host name; answered by `Resolved` when it is known.
    Resolve {
        /// The name.
        host: String,
    },
    /// Find the name of an operating system's user; answered by `UserNamed`.
    NameUser {
        /// The user.
        uid: u32,
    },
    /// A server connection begins. Descriptor: a duplicate of its socket, which the supervisor keeps so that it can tell, should
    /// the worker die, when the backend has ended: PostgreSQL leaves the socket open until the backend's process is gone.
    ServerOpened(ServerSeats),
    /// That connection's backend has ended and its seats are free again.
    ServerClosed(ServerSeats),
    /// What PostgreSQL said at the start of a connection of this pool, for the other workers.
    Welcome(Welcome),
    /// What a login has taught it, for the other workers and for those to come.
    Learned(Learned),
    /// It accepts from the listeners of this slot.
    Listening {
        /// Whose.
        of: Slot,
    },
    /// It cannot, as descriptors run out: to be asked again later.
    CannotListen {
        /// Whose.
        of: Slot,
    },
    /// Who is left here after a `Part`.
    Remaining {
        /// How many it has just sent away.
        #[serde(default)]
        gone: u32,
        /// Clients that are idle.
        idle: u32,
        /// Others that have not been sent away.
        others: u32,
    },
    /// Check a password where that may take long; answered by `PasswordChecked`.
    CheckPassword(PasswordCheck),
    /// The answer to `Adopt`. Descriptors, in this order: the configuration in force, a sealed memfd with postcard's [`Lore`], its inbox's receiving
    /// and sending end, its TCP listeners, its Unix listeners.
    Estate(Box<Estate>),
    /// Its server connections, at most [`MOST_SERVERS`] in a message. Descriptors: a duplicate of the socket of each.
    Servers(Vec<ServerSeats>),
    /// It takes no seat any more. From here on what it says is in the common tongue.
    Frozen,
    /// It turns, and has so much, several times a second once it is frozen: a supervisor of another build cannot see it in shared memory.
    Beat {
        /// Clients.
        clients: u32,
        /// Server connections.
        servers: u32,
    },
    /// A cancel request for a console session, which has this cancel key.
    CancelConsole {
        /// The key.
        key: [u8; 8],
    },
}

/// What a worker has that its supervisor must have too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Estate {
    /// The slot and the life.
    pub owner: Owner,
    /// How far it has come.
    pub stage: WorkerStage,
    /// How many slots it knows of.
    pub slots: u8,
    /// Whose each of its TCP listeners is.
    pub tcp: Vec<Slot>,
    /// How many Unix listeners it has.
    pub unix: u8,
    /// What orders have left behind there,
    pub marks: Marks,
    /// and the last of them.
    pub last_order: u32,
    /// The key of the mock SCRAM salts.
    pub mock_secret: [u8; 32],
    /// How many server connections it has: they are named by `Servers`.
    pub servers: u32,
}

/// How far a worker has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerStage {
    /// It serves.
    Serving,
    /// It was told to leave, or to stop, and goes on doing so.
    Leaving,
}

/// What workers have learned, as a new supervisor is told.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lore {
    /// What logins have taught.
    pub learned: Vec<Learned>,
    /// What pools' clients are greeted with.
    pub welcomes: Vec<Welcome>,
}

/// The most server connections that one message names.
pub const MOST_SERVERS: usize = 200;

/// A password that is checked outside the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordCheck {
    /// Given back in the answer.
    pub client: WaitingClient,
    /// Where.
    pub method: PasswordMethod,
    /// Whose it is said to be.
    pub user: String,
    /// What the client has sent; not empty.
    pub password: Password,
    /// The client's address, or `unix`.
    pub address: String,
}

/// Who says whether a password is right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PasswordMethod {
    /// An LDAP server.
    Ldap(Box<LdapOptions>),
    /// PAM, with this service's modules.
    Pam {
        /// Its name: a file in /etc/pam.d.
        service: String,
    },
}

/// A console client on its way from the worker that accepted it to the supervisor. Nothing has been sent to it since its
/// authentication was completed: AuthenticationOk and all that follows is the supervisor's to send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleSession {
    /// Its number.
    pub id: ConnectionId,
    /// Login user.
    pub user: String,
    /// The name it asked for: `pgbouncer` or `pgfleet`.
    pub database: String,
    /// In admin_users, or the process's own user on a Unix socket; else it may only SHOW.
    pub admin: bool,
    /// Its seat in the client table, whose owner is the supervisor from now on.
    pub seat: SeatIndex,
    /// The cancel key for BackendKeyData, which the seat holds too.
    pub cancel_key: [u8; 8],
    /// Its TLS session, if it has one.
    pub tls: Option<Packed>,
    /// Bytes read behind its last authentication message, and opened.
    pub unread: Vec<u8>,
    /// Startup parameters it set, in order.
    pub parameters: Vec<(String, String)>,
    /// Where it comes from.
    pub peer: PeerName,
    /// Wall-clock time of its accept, microseconds since 1970.
    pub connected_at: u64,
}
