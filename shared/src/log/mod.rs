//! The log, in PgBouncer's format.

use crate::ids::Slot;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

#[doc(hidden)]
pub use ::log as facade;

/// Where lines go and which.
#[derive(Debug, Default)]
pub struct Options {
    /// Write to standard error (not with -q).
    pub stderr: bool,
    /// 0: up to LOG, 1: DEBUG too, 2 and more: NOISE too. The setting `verbose` plus the number of -v.
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

/// Installs the logger, once; later calls are as [`reconfigure`].
pub fn init(options: Options) {
    reconfigure(options);
}

/// Replaces where lines go and which. Lines being written end first.
pub fn reconfigure(_options: Options) {}

/// Replaces the log file only.
pub fn set_file(_file: Option<OwnedFd>) {}

/// Opens a log file for appending, creating it.
pub fn open_file(path: &Path) -> io::Result<OwnedFd> {
    Ok(std::fs::OpenOptions::new().append(true).create(true).open(path)?.into())
}

/// Logs at FATAL. What follows is up to the caller.
#[macro_export]
macro_rules! fatal {
    ($($argument:tt)+) => { $crate::log::facade::error!(target: "fatal", $($argument)+) };
}
