//! What the fleet's state machine takes in and gives out: events, the actions that answer them, and what the console can ask.
//!
//! Nothing here touches a process or a socket: [`crate::engine`] turns signals, datagrams and exits into events and carries out
//! the actions, in order.

use serde::{Deserialize, Serialize};
use shared::auth::Secret;
use shared::auth::scram::Keys;
use shared::config::News;
use shared::control::{Learned, ReportKind, ReportRows, Resolved, StopMode, ToWorker, Welcome};
use shared::ids::{ConnectionId, Incarnation, Owner, Slot};
use shared::orders::{Marks, Outcome, PoolName, Scope};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// A moment of the monotonic clock.
pub(crate) type Moment = Duration;

/// A console session's question that waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct AskId(pub u64);

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// The listeners and the shared memory stand: begin.
    Start,
    /// As `Start`, with workers of a supervisor that has died.
    Adopted(Box<Survivors>),
    /// The process asked for by [`Action::Spawn`] exists.
    Spawned {
        /// Where.
        slot: Slot,
        /// Its process id.
        pid: u32,
    },
    /// The slot asked for by [`Action::AddSlot`] is there, or the system's answer.
    SlotAdded(Result<(), String>),
    /// It could not be forked.
    SpawnFailed {
        /// Where.
        slot: Slot,
        /// The system's answer.
        error: String,
    },
    /// A worker's message.
    Said {
        /// Which worker.
        slot: Slot,
        /// Which life of it.
        incarnation: Incarnation,
        /// What.
        message: Said,
    },
    /// A worker does not read its control socket: the buffer is full.
    Deaf {
        /// Which.
        slot: Slot,
    },
    /// A worker's process has ended, its last messages have been handled and its seats reclaimed.
    Exited {
        /// Which worker.
        slot: Slot,
        /// Which life of it.
        incarnation: Incarnation,
        /// How.
        ended: Ended,
        /// What it had.
        lost: Holdings,
        /// The database of each of its server connections that still has a backend in PostgreSQL.
        orphans: Vec<String>,
    },
    /// One backend that had outlived its worker is gone, its seats are free.
    OrphanFreed {
        /// Its database.
        database: String,
    },
    /// A host name was looked up.
    Resolved(Resolved),
    /// The files of the TLS settings are not what they were when they were read.
    TlsFilesChanged,
    /// A signal to the supervisor.
    Signal(Signal),
    /// A console session asks.
    Asked {
        /// To be given back in [`Action::Answer`].
        ask: AskId,
        /// What.
        request: Request,
    },
    /// A cancel request for the console session that asked this.
    Cancelled {
        /// What it waits for.
        ask: AskId,
    },
    /// A console session begins.
    ConsoleOpened,
    /// A console session has ended.
    ConsoleClosed,
    /// The binary asked for by [`Action::Preflight`] has told what it is, or why it cannot take the fleet over.
    Preflighted(Result<Heir, String>),
    /// What had arrived when [`Action::StandStill`] was carried out has been dealt with, and nothing more arrives.
    Still,
    /// The first event of an image that goes on where another has left.
    Resumed(Resumed),
    /// The configuration asked for by [`Action::Load`] or carried by [`Request::Set`] was read (or not).
    Loaded(Result<Loaded, String>),
    /// Time passes; several times a second.
    Tick {
        /// Each slot's.
        pulses: Vec<Pulse>,
        /// Somebody waits at a TCP listener to be accepted.
        backlog: bool,
    },
}

/// A binary that can take the fleet over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heir {
    /// Its name and version.
    pub(crate) name: String,
    /// Its messages or its shared memory are others.
    pub(crate) strange: bool,
}

/// Which image goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resumed {
    /// The one that an upgrade is to.
    New,
    /// The one from before it, and why.
    Back(String),
}

/// What is left of a fleet whose supervisor has died.
#[derive(Debug, Default)]
pub(crate) struct Survivors {
    /// How many workers there are to be.
    pub(crate) wanted: usize,
    /// Those that there are.
    pub(crate) workers: Vec<Survivor>,
    /// Who accepts from each slot's listeners; `None`: it has no listeners.
    pub(crate) listening: Vec<Option<BTreeSet<Slot>>>,
    /// What orders have left behind.
    pub(crate) marks: Marks,
    /// The last order.
    pub(crate) last_order: u32,
    /// The last life.
    pub(crate) last_incarnation: u32,
    /// Keys that clients have proved to know.
    pub(crate) keys: Vec<Keys>,
    /// What pools' clients are greeted with.
    pub(crate) welcomes: Vec<Welcome>,
    /// What not all workers know.
    pub(crate) news: Vec<ToWorker>,
    /// The database of each server connection that has outlived its worker.
    pub(crate) orphans: Vec<String>,
}

/// One of its workers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Survivor {
    /// The slot and the life.
    pub(crate) owner: Owner,
    /// The process.
    pub(crate) pid: u32,
    /// Since when it runs.
    pub(crate) since: Moment,
    /// It was told to leave.
    pub(crate) leaving: bool,
}

/// How a slot's worker fares, by the worker table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Pulse {
    /// Its last heartbeat, if there has been one.
    pub(crate) beat: Option<Moment>,
    /// What it has.
    pub(crate) holds: Holdings,
}

/// What a worker has, and what ends if it dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Holdings {
    /// Clients.
    pub(crate) clients: u32,
    /// Server connections.
    pub(crate) servers: u32,
}

impl Holdings {
    /// What is added to the line about a worker's death.
    pub(super) fn mourned(self) -> String {
        match self {
            Self { clients: 0, servers: 0 } => String::new(),
            Self { clients, servers } => format!("; clients lost: {clients}, server connections: {servers}"),
        }
    }
}

/// A worker's message as far as the fleet decides by it; descriptors and look-ups are handled before.
#[derive(Debug)]
pub(crate) enum Said {
    /// It polls its listeners.
    Ready,
    /// Phase one of a reload.
    Prepared(u64),
    /// It cannot use that generation.
    Refused(u64, String),
    /// Phase two of a reload.
    Committed(u64),
    /// It has carried out the order with this number.
    Done(u32, Outcome),
    /// While clients are sent away: who is left.
    Remaining {
        /// Clients that it has just sent away.
        gone: u32,
        /// Clients that are idle.
        idle: u32,
        /// Others that have not been sent away.
        others: u32,
    },
    /// No server of its own is left while the fleet shuts down.
    Drained,
    /// It takes nothing new any more.
    Frozen,
    /// It accepts from this slot's listeners.
    Listening(Slot),
    /// It cannot accept from them now.
    CannotListen(Slot),
    /// What PostgreSQL says at the start of a pool's connection.
    Welcome(Welcome),
    /// What a login has taught it.
    Learned(Learned),
    /// The rows of a report.
    Report(u32, Box<ReportRows>),
}

/// What the state machine needs to know of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Rules {
    /// `worker_hang_timeout`; `None` = never.
    pub(crate) hang_timeout: Option<Duration>,
    /// The service manager keeps the listeners when the fleet ends: who waits at them is the next one's client.
    pub(crate) listeners_stay: bool,
    /// `shutdown_drain_timeout`; `None` = SIGTERM does not drain.
    pub(crate) drain_timeout: Option<Duration>,
    /// `pool_idle_timeout`; `None` = never.
    pub(crate) pool_idle_timeout: Option<Duration>,
    /// `autodb_idle_timeout`; `None` = never.
    pub(crate) autodb_idle_timeout: Option<Duration>,
    /// The database entries, and of each whether its pools stay: they have a forced user and min_pool_size.
    pub(crate) entries: BTreeMap<String, bool>,
    /// The same of `*`.
    pub(crate) fallback_keeps: bool,
}

/// A configuration that was read and holds no error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loaded {
    /// The generation it was given.
    pub(crate) generation: u64,
    /// What of it the fleet itself goes by.
    pub(crate) rules: Rules,
    /// How many workers there are to be.
    pub(crate) workers: usize,
    /// Database entries that are not what they were: their welcomes are forgotten.
    pub(crate) changed: Changed,
    /// Entries that are gone: they are neither paused nor disabled when they come back.
    pub(crate) dropped: Vec<String>,
    /// Secrets that auth_file has no longer: their keys are forgotten.
    pub(crate) outdated_secrets: Vec<Secret>,
    /// What is different, in words.
    pub(crate) news: News,
}

/// Which database entries a reload changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Changed {
    /// These.
    Entries(BTreeSet<String>),
    /// `*` is among them: any name may be concerned.
    All,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By exit.
    Status(i32),
    /// By a signal.
    Signal(i32),
    /// Nobody has seen how: it was another supervisor's child.
    Unseen,
}

impl Ended {
    /// Whether it ended by itself, with nothing left to do.
    pub(super) fn is_orderly(self, lost: Holdings) -> bool {
        self == Ended::Status(0) || self == Ended::Unseen && lost == Holdings::default()
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Ended::Status(code) => write!(f, "exit status {code}"),
            Ended::Unseen => f.write_str("how is not known, as another supervisor had started it"),
            Ended::Signal(number) => match nix::sys::signal::Signal::try_from(number) {
                Ok(name) => write!(f, "signal {number} ({name})"),
                Err(_) => write!(f, "signal {number}"),
            },
        }
    }
}

/// The signals that mean something to a fleet (PgBouncer's).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGHUP: reload.
    Hup,
    /// SIGTERM: shut down when the clients have left.
    Term,
    /// SIGINT: shut down when the transactions have ended.
    Int,
    /// SIGQUIT: shut down at once.
    Quit,
    /// SIGUSR1: pause.
    Usr1,
    /// SIGUSR2: resume.
    Usr2,
}

/// What a console session can ask of the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// Rows of all workers.
    Report(ReportKind),
    /// The slots and who is on them.
    Workers,
    /// SHOW STATE.
    State,
    /// RELOAD.
    Reload,
    /// SET of a setting: the running configuration with one value changed, already checked.
    Set(String, String),
    /// PAUSE.
    Pause(Scope),
    /// RESUME.
    Resume(Scope),
    /// DISABLE.
    Disable(String),
    /// ENABLE.
    Enable(String),
    /// RECONNECT.
    Reconnect(Scope),
    /// WAIT_CLOSE.
    WaitClose(Scope),
    /// KILL: as it was asked for, and the databases that it concerns.
    Kill(Scope, Vec<String>),
    /// KILL_CLIENT.
    KillClient(ConnectionId),
    /// RESTART.
    Restart {
        /// How long the sessions that cannot move may hold up each worker.
        deadline: Option<Duration>,
    },
    /// UPGRADE, to this binary; without one: to what is now where the running one was started from.
    Upgrade(Option<PathBuf>),
    /// SHUTDOWN.
    Shutdown(StopMode),
    /// DRAIN; answered when no client is left.
    Drain {
        /// How many idle clients go in a second.
        per_second: Option<u32>,
        /// When the rest is cut off.
        deadline: Option<Duration>,
    },
    /// UNDRAIN.
    Undrain,
}

/// The fleet's answer to a console session.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    /// Done.
    Done,
    /// A configuration is in force, and this is new about it.
    InForce(News),
    /// Every worker is a new process. So many clients were cut off for that.
    Restarted(u32),
    /// Refused or failed.
    Failed(Failure),
    /// The rows of each worker that answered, and what the dead ones had counted.
    Rows {
        /// By slot.
        live: Vec<(Slot, ReportRows)>,
        /// Counters of workers that are no more; gauges are 0.
        retired: Vec<shared::control::PoolRow>,
        /// Counters of pools that were removed, by database; without one: of databases that are no more.
        removed: Vec<shared::control::PoolRow>,
        /// Pools that were removed and have not been used since.
        forgotten: BTreeSet<PoolName>,
    },
    /// The slots.
    Workers(Vec<WorkerLine>),
    /// What is paused and disabled.
    State(Marks),
}

/// Why the fleet did not do what a console session asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// PAUSE while paused.
    #[error("already suspended/paused")]
    AlreadyPaused,
    /// RESUME while not paused.
    #[error("pooler is not paused/suspended")]
    NotPaused,
    /// RESUME of a database that is not paused.
    #[error("database {0} is not paused")]
    DatabaseNotPaused(String),
    /// KILL_CLIENT of a number that no client has.
    #[error("client not found")]
    ClientNotFound,
    /// A cancel request came while it was waited for.
    #[error("canceling statement due to user request")]
    Cancelled,
    /// RESUME while shutting down.
    #[error("pooler is shutting down")]
    ShuttingDown,
    /// UNDRAIN while nothing is drained.
    #[error("pooler is not draining")]
    NotDraining,
    /// UNDRAIN while a DRAIN is waited for.
    #[error("the drain was ended by UNDRAIN")]
    Undrained,
    /// DRAIN has come to its deadline before so many clients had left.
    #[error("clients cut off at the deadline: {0}")]
    CutOff(u32),
    /// RESTART while one is under way.
    #[error("workers are being restarted already")]
    Restarting,
    /// A worker's successor could not be started; workers that were not restarted go on.
    #[error("RESTART stopped: {0}")]
    Restart(String),
    /// UPGRADE or RESTART while an upgrade is under way, or DRAIN before its first worker is ready.
    #[error("an upgrade is under way already")]
    Upgrading,
    /// The binary before goes on, or some of its workers.
    #[error("{0}")]
    Upgrade(String),
    /// The configuration was not put in force, for these reasons.
    #[error("RELOAD failed, see logs for additional details")]
    Reload(Vec<String>),
    /// SET of an unknown setting or a value that is none, for these reasons.
    #[error("SET failed")]
    Set(Vec<String>),
}

/// One line of SHOW WORKERS, as far as the fleet knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WorkerLine {
    /// The slot.
    pub(crate) slot: Slot,
    /// Its process, if there is one.
    pub(crate) pid: Option<u32>,
    /// `starting`, `serving`, `silent`, `draining`, `backoff` or `gone`.
    pub(crate) state: &'static str,
    /// How long the process has been up.
    pub(crate) uptime: Duration,
    /// How many processes were started on the slot after its first.
    pub(crate) restarts: u32,
}

/// Something to be done, in the order given.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// Fork a worker and send it its `Start`. Answered at once by [`Event::Spawned`] or [`Event::SpawnFailed`].
    Spawn {
        /// Where.
        slot: Slot,
        /// Its life's number.
        incarnation: Incarnation,
        /// What orders have left behind.
        marks: Marks,
        /// What other workers learned.
        welcomes: Vec<Welcome>,
        /// Keys that clients have proved to know.
        keys: Vec<Keys>,
    },
    /// Send a message; the engine adds the descriptors that it needs.
    Send(Slot, ToWorker),
    /// SIGKILL.
    Kill(Slot),
    /// Read the configuration file again, away from this thread.
    Load,
    /// Apply one SET to the running configuration, away from this thread.
    LoadSet(String, String),
    /// Open the log file of the running configuration anew, away from this thread.
    LoadReopen,
    /// Read the files of the running configuration's TLS settings again, away from this thread.
    LoadTlsFiles,
    /// The candidate is the configuration from now on: for successors, for the console and for the supervisor's own log.
    Adopt,
    /// The slots that the configuration adds are there: their listeners listen, their inboxes can be sent to.
    Grow,
    /// Make one more slot, without listeners. Answered by [`Event::SlotAdded`].
    AddSlot,
    /// The candidate is dropped.
    Discard,
    /// Open this binary, or the one that is now where this image was started from, and ask it whether it can take the fleet over, away from
    /// this thread. Answered by [`Event::Preflighted`].
    Preflight(Option<PathBuf>),
    /// Nothing more is taken from any socket; deal with what was, and then with [`Event::Still`]. Unless that leads to `Leap`, it is taken again.
    StandStill,
    /// Execute the binary that was asked. Nothing follows in this image.
    Leap,
    /// There is no way back to the image before any more.
    Settle,
    /// Execute the image before, and tell it why. Nothing follows in this one.
    RollBack(String),
    /// Answer a console session.
    Answer(AskId, Answer),
    /// Write a log line.
    Log(log::Level, String),
    /// Write a log line of level FATAL; `Exit` follows.
    Fatal(String),
    /// Tell the service manager.
    Notify(Notice),
    /// No new connection gets as far as the TCP listeners; those that are there are still accepted.
    SealListeners,
    /// The TCP listeners listen no more: new connections are refused.
    ShutListeners,
    /// They listen again.
    OpenListeners,
    /// Close the supervisor's own TCP listeners: new connections are refused once the workers have closed theirs.
    CloseListeners,
    /// End the supervisor with this status: no worker is left.
    Exit(u8),
}

impl Action {
    /// Whether it may end this image: it is carried out when nothing else is left to do.
    pub(crate) fn is_last(&self) -> bool {
        matches!(self, Self::StandStill | Self::RollBack(_))
    }
}

/// What the service manager is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Up, or done reloading.
    Ready,
    /// A reload begins.
    Reloading,
    /// The end begins.
    Stopping,
}
