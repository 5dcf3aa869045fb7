//! From a bare process to a worker: the start message and what comes with it.

use super::adoption::Adoption;
use super::supervisor::Control;
use crate::encryption::Contexts;
use crate::worker::{Source, Start, Worker};
use mio::unix::SourceFd;
use mio::{Interest, Poll};
use shared::auth::scram::Keys;
use shared::config::Config;
use shared::control::{self, ToSupervisor, ToWorker};
use shared::ids::{Owner, Slot};
use shared::log::{Options, SyslogOptions};
use shared::shm::{Shm, ShmError, WorkerState};
use shared::sys::{memfd, seqpacket};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// The longest configuration snapshot, in bytes.
pub(super) const LONGEST_SNAPSHOT: usize = 256 * 1024 * 1024;

/// The longest list of keys, in bytes: far above any that there can be.
const LONGEST_KEYS: usize = 16 * 1024 * 1024;

/// Why a worker could not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("could not {0}: {1}")]
    Io(&'static str, #[source] io::Error),
    #[error("could not read the supervisor's message: {0}")]
    Message(#[from] control::MessageError),
    #[error("the supervisor's first message was no Start")]
    NotAStart,
    #[error("the start message came without its {0}")]
    Missing(&'static str),
    #[error("could not use the shared memory: {0}")]
    Shm(#[from] ShmError),
    #[error("could not read the configuration: {0}")]
    Config(String),
}

/// Receives the start message and makes a worker that serves.
pub(crate) fn start(control: OwnedFd) -> Result<Worker, StartError> {
    let io = |what| move |error| StartError::Io(what, error);
    let mut buffer = vec![0; control::MAX_MESSAGE];
    let received = seqpacket::recv(control.as_fd(), &mut buffer).map_err(io("receive the start message"))?;
    let ToWorker::Start {
        slot,
        incarnation,
        generation: _,
        log_file,
        inboxes,
        listeners,
        unix_listeners,
        marks,
        stderr,
        mock_secret,
        welcomes,
        door,
    } = control::decode(&buffer[..received.len])?
    else {
        return Err(StartError::NotAStart);
    };
    let mut fds = received.fds.into_iter();
    let mut next = |what| fds.next().ok_or(StartError::Missing(what));
    let memory = next("shared memory")?;
    let shm = Shm::open(memory.as_fd())?;
    let config = read_snapshot(&next("configuration")?)?;
    let keys = read_keys(&next("keys")?)?;
    let file = if log_file { Some(next("log file")?) } else { None };
    init_log(&config, slot, file, stderr);
    let inbox = next("inbox")?;
    let inboxes = (0..inboxes).map(|_| next("inbox of another worker")).collect::<Result<Vec<_>, _>>()?;
    let poll = Poll::new().map_err(io("make an event queue"))?;
    let registry = poll.registry();
    let watch = |fd: &OwnedFd, source: Source, interest| {
        registry.register(&mut SourceFd(&fd.as_raw_fd()), source.into(), interest).map_err(io("watch a socket"))
    };
    for fd in inboxes.iter().chain([&control, &inbox]) {
        set_nonblocking(fd).map_err(io("prepare a socket"))?;
    }
    watch(&control, Source::Control, Interest::READABLE | Interest::WRITABLE)?;
    watch(&inbox, Source::Inbox, Interest::READABLE)?;
    let sockets = usize::from(listeners) + usize::from(unix_listeners);
    let sockets = (0..sockets).map(|_| next("listener")).collect::<Result<Vec<_>, _>>()?;
    let adoption = if door {
        Adoption::at(next("door")?, memory, poll.registry(), inboxes.len()).map_err(io("open its door"))?
    } else {
        Adoption::default()
    };
    let me = Owner { slot, incarnation };
    let mut worker = Worker::new(Start {
        me,
        shm,
        config,
        mock_secret,
        log_to_stderr: stderr,
        marks,
        poll,
        control: Control::new(control),
        adoption,
        inbox,
        inboxes,
    });
    worker.encryption.contexts = Contexts::new(&worker.shm, &worker.config).map_err(|e| StartError::Config(e.to_string()))?;
    worker.watch_listeners(slot, usize::from(listeners), sockets).map_err(io("watch a listener"))?;
    for keys in keys {
        worker.client_keys.learn(keys);
    }
    for welcome in welcomes {
        worker.pools.welcomes.insert((welcome.database, welcome.user), welcome.parameters);
    }
    worker.apply_tcp_settings();
    worker.enter_limits();
    worker.find_pools_to_fill();
    worker.shm.workers().beat(slot, worker.now.as_micros());
    worker.shm.workers().set_state(slot, WorkerState::Serving);
    worker.control.send(&ToSupervisor::Ready, &[]);
    // What came before the sockets were watched has made no edge.
    worker.accept_all();
    worker.inbox_readable();
    Ok(worker)
}

fn read_keys(fd: &OwnedFd) -> Result<Vec<Keys>, StartError> {
    let bytes = memfd::read_all(fd.as_fd(), LONGEST_KEYS).map_err(|e| StartError::Io("read the keys", e))?;
    Ok(control::decode(&bytes)?)
}

pub(super) fn read_snapshot(fd: &OwnedFd) -> Result<Config, StartError> {
    let bytes = memfd::read_all(fd.as_fd(), LONGEST_SNAPSHOT).map_err(|e| StartError::Io("read the configuration", e))?;
    Config::from_bytes(&bytes).map_err(|e| StartError::Config(e.to_string()))
}

pub(super) fn init_log(config: &Config, slot: Slot, file: Option<OwnedFd>, stderr: bool) {
    let settings = &config.settings;
    let options = Options {
        stderr,
        verbose: settings.verbose as u8,
        file,
        syslog: settings
            .syslog
            .then(|| SyslogOptions { ident: settings.syslog_ident.clone(), facility: settings.syslog_facility.clone() }),
        worker: Some(slot),
    };
    shared::log::init(options);
}

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    socket2::SockRef::from(fd).set_nonblocking(true)
}
