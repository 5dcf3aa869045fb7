//! A new binary is asked whether it can take the fleet over, before anything depends on it.
//!
//! It is opened once, and what is asked is what is executed later, whatever becomes of the file. It runs beside the fleet as a process of its own, is
//! given the estate and the shared memory, reads the configuration file as it is now, and answers. One that is no pgfleet, ends, hangs or lacks
//! the right to be executed does not answer, and that is an answer too.

use crate::estate;
use crate::fleet::Heir;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use shared::config;
use shared::control::{MAX_MESSAGE, VERSION};
use shared::encoding::{decode_named, encode_named};
use shared::shm::{Shm, ShmError};
use shared::sys::{process, seqpacket, spawn};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long the binary may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A binary that can take the fleet over.
#[derive(Debug)]
pub(crate) struct Binary {
    /// It, open.
    pub(crate) file: File,
    /// Where it was found.
    pub(crate) path: PathBuf,
    /// Its name and version.
    pub(crate) name: String,
    /// Its messages or its shared memory are others.
    pub(crate) strange: bool,
}

impl Binary {
    /// What the fleet is told of it.
    pub(crate) fn heir(&self) -> Heir {
        Heir { name: self.name.clone(), strange: self.strange }
    }
}

/// What a binary says of itself.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Verdict {
    name: String,
    /// The version of its messages.
    messages: u8,
    /// Whether it reads this shared memory.
    same_memory: bool,
    /// Why it cannot take the fleet over.
    refusal: Option<String>,
}

/// Asks the binary at `path`, which is given the estate and the shared memory. The error says why it cannot take the fleet over.
pub(crate) fn ask(path: PathBuf, estate: &OwnedFd, memory: &OwnedFd) -> Result<Binary, String> {
    let shown = path.display().to_string();
    let failed = |error: io::Error| format!("{shown}: {}", crate::listen::reason(&error));
    let file = File::open(&path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(format!("{shown} is not a file"));
    }
    let (ours, theirs) = seqpacket::pair().map_err(failed)?;
    let image = format!("/proc/self/fd/{}", file.as_raw_fd());
    let pid = spawn::spawn_worker(Path::new(&image), &["preflight"], theirs)
        .map_err(|error| format!("{shown} cannot be executed: {}", crate::listen::reason(&error)))?;
    let asked = seqpacket::send_patiently(ours.as_fd(), b"?", &[estate.as_fd(), memory.as_fd()]);
    let answer = asked.and_then(|()| receive(&ours));
    // Nothing more is wanted of it.
    let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
    let ended = crate::engine::reap(pid);
    let verdict = match answer {
        Ok(Some(bytes)) => decode_named::<Verdict>(&bytes).map_err(|error| format!("{shown} gives no proper answer: {error}"))?,
        Ok(None) => return Err(format!("{shown} does not answer within {} s", PATIENCE.as_secs())),
        Err(_) => return Err(format!("{shown} ended without an answer: {ended}")),
    };
    if let Some(refusal) = verdict.refusal {
        return Err(format!("{} refuses: {refusal}", verdict.name));
    }
    let strange = verdict.messages != VERSION || !verdict.same_memory;
    Ok(Binary { file, path, name: verdict.name, strange })
}

/// `None`: nothing has come in time. An error: nothing will.
fn receive(socket: &OwnedFd) -> io::Result<Option<Vec<u8>>> {
    let until = Instant::now() + PATIENCE;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(0) if left.is_zero() => return Ok(None),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let mut buffer = vec![0; MAX_MESSAGE];
    let received = seqpacket::recv(socket.as_fd(), &mut buffer)?;
    if received.len == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    buffer.truncate(received.len);
    Ok(Some(buffer))
}

/// The other side of [`ask`]: this binary answers.
pub(crate) fn answer() -> ExitCode {
    match process::take_control().map_err(|error| error.to_string()).and_then(|socket| answer_to(&socket)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pgfleet: `preflight` is started by a fleet that is upgraded only: {error}");
            ExitCode::FAILURE
        }
    }
}

fn answer_to(socket: &OwnedFd) -> Result<(), String> {
    let received = seqpacket::recv(socket.as_fd(), &mut [0; 16]).map_err(|error| error.to_string())?;
    let mut fds = received.fds.into_iter();
    let (Some(estate), Some(memory)) = (fds.next(), fds.next()) else {
        return Err("the question came without its descriptors".into());
    };
    let (same_memory, refusal) = match examine(&estate, &memory) {
        Ok(same_memory) => (same_memory, None),
        Err(refusal) => (false, Some(refusal)),
    };
    let verdict = Verdict { name: crate::NAME.to_owned(), messages: VERSION, same_memory, refusal };
    let bytes = encode_named(&[], &verdict).map_err(|error| error.to_string())?;
    seqpacket::send(socket.as_fd(), &bytes, &[]).map_err(|error| error.to_string())
}

/// Whether the shared memory is laid out as this build's.
fn examine(estate: &OwnedFd, memory: &OwnedFd) -> Result<bool, String> {
    let estate = estate::read(estate.as_fd())?;
    let (config, problems) = config::read(&estate.config.path);
    if config.is_none() {
        return Err(problems.errors().map(ToString::to_string).collect::<Vec<_>>().join("; "));
    }
    match Shm::open(memory.as_fd()) {
        Ok(_) => Ok(true),
        Err(ShmError::Layout { .. }) => {
            let census = estate.census.ok_or("it does not know who has what in shared memory")?;
            Shm::from_census(&census).map(|_| false).map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    }
}
