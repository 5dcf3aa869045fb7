//! Where the supervisor's lines go, from the settings and the command line.

use shared::config::Settings;
use shared::log::{Options, SyslogOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Opens the log file for appending, if the settings name one. The error is a log line.
pub(crate) fn open(settings: &Settings) -> Result<Option<OwnedFd>, String> {
    let path = &settings.logfile;
    if path.is_empty() {
        return Ok(None);
    }
    let opened = shared::log::open_file(Path::new(path));
    opened.map(Some).map_err(|error| format!("could not open logfile {path}: {}", crate::listen::reason(&error)))
}

/// Logs as the settings say from now on.
pub(crate) fn apply(settings: &Settings, stderr: bool, file: Option<&OwnedFd>) -> io::Result<()> {
    shared::log::init(Options {
        stderr,
        verbose: u8::try_from(settings.verbose).unwrap_or(u8::MAX),
        file: file.map(|file| file.as_fd().try_clone_to_owned()).transpose()?,
        syslog: settings
            .syslog
            .then(|| SyslogOptions { ident: settings.syslog_ident.clone(), facility: settings.syslog_facility.clone() }),
        worker: None,
    });
    Ok(())
}
