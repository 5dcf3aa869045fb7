//! What the supervisor says to a worker.

use super::{Learned, WaitingClient, Welcome};
use crate::ids::{Incarnation, Slot};
use crate::orders::{Marks, Order};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Duration;

/// From the supervisor to a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// The first message of a worker's life. Descriptors, in this order: shared memory, configuration snapshot, a sealed memfd with postcard's list of
    /// the [`Keys`](crate::auth::scram::Keys) that other workers have learned, log file (if `log_file`), its own inbox's receiving end, the sending ends of the inboxes of slots `0..inboxes`, `listeners` TCP listeners of its slot,
    /// `unix_listeners` shared Unix listeners, its door (if `door`).
    Start {
        /// The slot it serves.
        slot: Slot,
        /// Its life on that slot.
        incarnation: Incarnation,
        /// The configuration's generation.
        generation: u64,
        /// Whether a log file's descriptor is there.
        log_file: bool,
        /// How many inbox sending ends.
        inboxes: u8,
        /// How many TCP listeners.
        listeners: u8,
        /// How many Unix listeners.
        unix_listeners: u8,
        /// Which databases are paused or disabled, and what else orders have left behind.
        marks: Marks,
        /// Whether lines go to standard error too (not with -q or -d).
        stderr: bool,
        /// 32 bytes that every worker shares: the key of the mock SCRAM salts of users that do not exist.
        mock_secret: [u8; 32],
        /// Welcomes that other workers have learned.
        welcomes: Vec<Welcome>,
        /// Whether there is a door: see [`crate::door`].
        #[serde(default)]
        door: bool,
    },
    /// Of a supervisor that has found the worker at its door, after its `Hello`; answered by `Estate` and `Servers`.
    Adopt,
    /// That supervisor has what it needs, and this is how the fleet stands. Descriptors: the sending ends of the inboxes of all slots.
    Adopted {
        /// What orders have left behind.
        marks: Marks,
    },
    /// A new configuration; take it aside and answer `Prepared` or `Refused`. Descriptors: the snapshot, then the log file if `log_file`.
    Prepare {
        /// Its generation.
        generation: u64,
        /// Whether a log file's descriptor is there.
        log_file: bool,
    },
    /// Every worker has prepared this generation: put it in force and answer `Committed`.
    Commit {
        /// Its generation.
        generation: u64,
    },
    /// Forget the prepared generation.
    Abandon {
        /// Its generation.
        generation: u64,
    },
    /// Report rows for the console; answered by [`ToSupervisor::Report`](super::ToSupervisor::Report) with the same `id`.
    Report {
        /// Given back in the answer.
        id: u32,
        /// Which rows.
        what: ReportKind,
    },
    /// Do this; answered by `Done` with the same number.
    Order {
        /// Given back in the answer.
        number: u32,
        /// What.
        order: Order,
    },
    /// Shut down; the worker exits with status 0 when done.
    Stop(StopMode),
    /// What a host name means; told to every worker when it has been looked up, and to one that asks with `Resolve` meanwhile.
    Resolved(Resolved),
    /// The name of an operating system's user, asked for by `NameUser`.
    UserNamed {
        /// The user.
        uid: u32,
        /// The name, or why there is none.
        name: Result<String, String>,
    },
    /// Another worker has learned what PostgreSQL says at the start of a connection of this pool.
    Welcome(Welcome),
    /// Another worker has learned this.
    Learned(Learned),
    /// The fleet has grown. Descriptors: the sending ends of the inboxes of slots `first..`. Comes before the first message of a worker there.
    Inboxes {
        /// The lowest of the new slots.
        first: u8,
    },
    /// Accept from the listeners of a slot, your own or one whose worker leaves; answered by `Listening` or `CannotListen`. Descriptors, in this order:
    /// its TCP listeners; for your own slot the shared Unix listeners too.
    Listen {
        /// Whose.
        of: Slot,
        /// How many TCP listeners.
        listeners: u8,
        /// How many Unix listeners.
        unix_listeners: u8,
    },
    /// Another worker accepts from the listeners of this slot: close them. They live on, so nothing is shut down.
    Unlisten {
        /// Whose.
        of: Slot,
    },
    /// A password has been checked.
    PasswordChecked {
        /// Whose it is.
        client: WaitingClient,
        /// What came of it.
        outcome: PasswordOutcome,
    },
    /// This slot is to be no more: take no new client, give idle servers away, and exit with status 0 when the last client has left.
    Leave,
    /// It is to stay after all.
    Stay,
    /// Clients leave while the fleet is drained; answered by `Remaining`.
    Part(Parting),
    /// The supervisor is about to execute a build with other messages or another layout of shared memory: take nothing new, and answer with `Frozen`
    /// when nothing is under way. From then on no seat is taken, and none goes to another worker of this build.
    Freeze,
    /// It goes on with this build after all.
    Thaw,
    /// The workers of the other build that are ready, to whom one that leaves may send what it has, a bit for each slot.
    Strangers {
        /// Theirs.
        slots: u64,
    },
}

/// Which clients are sent away while the fleet is drained. One whose transaction ends is so in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Parting {
    /// At most so many of those that are idle.
    Idle(u32),
    /// All that are in no transaction, those that wait for a server among them.
    Outside,
    /// All.
    All,
}

/// The addresses of a host name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The name.
    pub host: String,
    /// Its addresses, or why there are none.
    pub addresses: Result<Vec<IpAddr>, String>,
    /// For how long this holds.
    pub lifetime: Duration,
}

/// How a worker is to shut down (PgBouncer's SHUTDOWN forms).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopMode {
    /// SIGTERM, SHUTDOWN WAIT_FOR_CLIENTS: accept nothing more, go on until the last client has left.
    WaitForClients,
    /// SIGINT, SHUTDOWN WAIT_FOR_SERVERS: accept nothing more, let transactions end, refuse new ones.
    WaitForServers,
    /// SIGQUIT, SHUTDOWN: at once.
    Immediate,
}

/// What the console can ask a worker for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReportKind {
    /// [`ReportRows::pools`](super::ReportRows::pools) and the counts.
    Pools,
    /// As `Pools`, and [`ReportRows::connections`](super::ReportRows::connections) of clients.
    Clients,
    /// As `Pools`, and [`ReportRows::connections`](super::ReportRows::connections) of servers.
    Servers,
    /// As `Pools`, and [`ReportRows::connections`](super::ReportRows::connections) of clients and servers in SHOW SOCKETS' words.
    Sockets,
    /// As `Pools`, and [`ReportRows::memory`](super::ReportRows::memory).
    Memory,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PasswordOutcome {
    /// It is the user's.
    Admitted,
    /// It is not.
    Refused,
    /// Nobody could say.
    Unavailable,
}
