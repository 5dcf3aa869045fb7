//! What the supervisor and its workers say to each other, and workers among themselves.
//!
//! Supervisor and worker share one AF_UNIX SOCK_SEQPACKET pair (the control socket); every worker also has an inbox, another such
//! pair whose sending end all the others hold. A message is one datagram, for a process of the same build in postcard's short form,
//! for one of another in a form that names every field ([`Tongue`]). Descriptors travel beside it; each message says which it carries. What could outgrow a
//! datagram (the configuration, the rows of a report) travels as a sealed memfd instead.
//!
//! A field that is added to a message needs `#[serde(default)]`: processes of builds before it leave it out.

use crate::address::Address;
use crate::auth::scram::Keys;
use crate::auth::{LdapOptions, Password, Secret};
use crate::ids::{ConnectionId, Incarnation, LimitId, Owner, PoolId, SeatIndex, Slot};
use crate::orders::{Marks, Order, Outcome};
use crate::shm::Ticket;
use crate::tls::Packed;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use zeroize::{Zeroize, ZeroizeOnDrop};

pub use crate::rows::{Buffered, ConnectionRow, MemoryRow, PeerRow, PoolRow, Replication, ReportRows};
pub use crate::tongue::{MAX_MESSAGE, MessageError, Tongue, VERSION, decode};

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

/// From the supervisor to a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// The first message of a worker's life. Descriptors, in this order: shared memory, configuration snapshot, a sealed memfd with postcard's list of
    /// the [`Keys`] that other workers have learned, log file (if `log_file`), its own inbox's receiving end, the sending ends of the inboxes of slots `0..inboxes`, `listeners` TCP listeners of its slot,
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
    /// Report rows for the console; answered by [`ToSupervisor::Report`] with the same `id`.
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
    /// [`ReportRows::pools`] and the counts.
    Pools,
    /// As `Pools`, and [`ReportRows::connections`] of clients.
    Clients,
    /// As `Pools`, and [`ReportRows::connections`] of servers.
    Servers,
    /// As `Pools`, and [`ReportRows::connections`] of clients and servers in SHOW SOCKETS' words.
    Sockets,
    /// As `Pools`, and [`ReportRows::memory`].
    Memory,
}

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
    /// Rows for the console. Descriptor: a sealed memfd with postcard's [`ReportRows`].
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

/// A client that waits for an answer, in its worker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingClient {
    /// Where the worker keeps it.
    pub place: u32,
    /// Its number: another client may be kept there by now.
    pub id: ConnectionId,
}

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
