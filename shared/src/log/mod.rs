//! The log, line for line as PgBouncer writes it: `YYYY-MM-DD HH:MM:SS.mmm TZ [PID] LEVEL MESSAGE`.
//!
//! The supervisor and every worker install this once, behind the `log` crate's macros, and replace its sinks at each reload. A
//! line goes to standard error, the log file and syslog, each in one write(2), before the macro returns: what was logged is not lost with
//! the process, and lines of several processes in one file do not mix. A sink that fails is passed over.
//!
//! Levels: `error!` is ERROR, `warn!` WARNING, `info!` LOG, `debug!` DEBUG, `trace!` NOISE, [`crate::fatal!`] FATAL. Lines about a
//! connection carry their own prefix; lines about the process have the target `process`, and in a worker begin `worker N: `.

mod line;
mod logger;
mod stamp;
mod syslog;

use crate::ids::Slot;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

#[doc(hidden)]
pub use ::log as facade;

/// The target of lines about the process as a whole.
pub const PROCESS: &str = "process";

/// Where lines go and which.
#[derive(Debug, Default)]
pub struct Options {
    /// Write to standard error (not with -q).
    pub stderr: bool,
    /// 0: up to LOG, 1: DEBUG too, 2 and more: NOISE too. The setting `verbose`, or else the number of -v.
    pub verbose: u8,
    /// The log file, as [`open_file`] gives it.
    pub file: Option<OwnedFd>,
    /// Send to the local syslog daemon too.
    pub syslog: Option<SyslogOptions>,
    /// In a worker, its slot: lines with the target `process` begin `worker N: `.
    pub worker: Option<Slot>,
}

/// How lines are labelled for syslog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyslogOptions {
    /// The setting `syslog_ident`.
    pub ident: String,
    /// The setting `syslog_facility`; an unknown name is `daemon`.
    pub facility: String,
}

/// Installs the logger; until then nothing is logged. Later calls are as [`reconfigure`].
pub fn init(options: Options) {
    // An error says that a logger is installed already, which is this one unless a test has its own.
    let _ = ::log::set_logger(&logger::LOGGER);
    reconfigure(options);
}

/// Replaces where lines go and which. Lines being written end first.
pub fn reconfigure(options: Options) {
    ::log::set_max_level(logger::most_verbose(options.verbose));
    logger::LOGGER.replace(options);
}

/// Replaces the log file only.
pub fn set_file(file: Option<OwnedFd>) {
    logger::LOGGER.set_file(file);
}

/// Opens a log file for appending; creates it with what the umask leaves of 0666, as PgBouncer does.
pub fn open_file(path: &Path) -> io::Result<OwnedFd> {
    Ok(std::fs::OpenOptions::new().append(true).create(true).open(path)?.into())
}

/// Logs at FATAL. What follows is up to the caller.
#[macro_export]
macro_rules! fatal {
    ($($argument:tt)+) => { $crate::log::facade::error!(target: "fatal", $($argument)+) };
}
