//! The local syslog daemon.
//!
//! The crate finds and connects the socket; the line is our own (RFC 3164), because the crate's has its time in UTC where readers
//! expect local time. Lines are dropped rather than waited for when the daemon does not keep up.

use super::SyslogOptions;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use syslog::{Facility, LoggerBackend};

/// How long to leave a daemon alone that could not be reached.
const RETRY: Duration = Duration::from_secs(1);

/// What a line matters, in syslog's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    Critical = 2,
    Error = 3,
    Warning = 4,
    Info = 6,
    Debug = 7,
}

pub(super) struct Syslog {
    ident: String,
    facility: u8,
    /// Where the daemon listens; `None` is wherever the system has it.
    path: Option<PathBuf>,
    socket: Option<LoggerBackend>,
    failed_at: Option<Instant>,
    buffer: Vec<u8>,
}

impl Syslog {
    /// Connects to the system's daemon; says on standard error if that fails, and tries again later.
    pub(super) fn new(options: SyslogOptions) -> Self {
        Self::at(None, options)
    }

    fn at(path: Option<PathBuf>, options: SyslogOptions) -> Self {
        let facility = facility(&options.facility) as u8;
        let mut syslog = Self { ident: options.ident, facility, path, socket: None, failed_at: None, buffer: Vec::new() };
        if let Err(error) = syslog.connect() {
            let _ = writeln!(io::stderr(), "syslog cannot be reached: {error}");
        }
        syslog
    }

    fn connect(&mut self) -> Result<(), syslog::Error> {
        let connected = match &self.path {
            Some(path) => syslog::unix_custom((), path),
            None => syslog::unix(()),
        };
        self.failed_at = connected.is_err().then(Instant::now);
        let socket = connected?.backend;
        if let LoggerBackend::Unix(datagrams) = &socket {
            datagrams.set_nonblocking(true)?;
        }
        self.socket = Some(socket);
        Ok(())
    }

    /// Sends one message, connecting again if the daemon was restarted.
    pub(super) fn send(&mut self, time: &str, severity: Severity, message: &[u8]) {
        self.buffer.clear();
        let priority = self.facility | severity as u8;
        // Writing to a Vec cannot fail.
        let _ = write!(self.buffer, "<{priority}>{time} {}[{}]: ", self.ident, std::process::id());
        self.buffer.extend_from_slice(message);
        for _ in 0..2 {
            if self.socket.is_none() {
                let rested = self.failed_at.is_none_or(|at| at.elapsed() >= RETRY);
                if !rested || self.connect().is_err() {
                    return;
                }
            }
            let Some(socket) = &mut self.socket else { return };
            match socket.write(&self.buffer) {
                Ok(_) => return,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.socket = None,
            }
        }
        self.failed_at = Some(Instant::now());
    }
}

/// The facilities of the setting `syslog_facility`; any other name is `daemon`.
fn facility(name: &str) -> Facility {
    match name {
        "auth" | "authpriv" | "user" | "local0" | "local1" | "local2" | "local3" | "local4" | "local5" | "local6" | "local7" => {
            name.parse().unwrap_or(Facility::LOG_DAEMON)
        }
        _ => Facility::LOG_DAEMON,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::os::unix::net::UnixDatagram;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn sends_priority_time_and_ident_and_outlives_a_restart_of_the_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let options = SyslogOptions { ident: "pgbouncer".to_owned(), facility: "local3".to_owned() };
        let mut syslog = Syslog::at(Some(path.clone()), options);
        let pid = std::process::id();

        syslog.send("Jan  1 01:00:00", Severity::Warning, b"one");
        assert_eq!(received(&daemon), format!("<156>Jan  1 01:00:00 pgbouncer[{pid}]: one"));

        drop(daemon);
        std::fs::remove_file(&path).unwrap();
        syslog.send("Jan  1 01:00:00", Severity::Info, b"lost");
        let daemon = UnixDatagram::bind(&path).unwrap();
        syslog.failed_at = None;
        syslog.send("Jan  1 01:00:00", Severity::Critical, b"two");
        assert_eq!(received(&daemon), format!("<154>Jan  1 01:00:00 pgbouncer[{pid}]: two"));
    }

    #[test]
    fn a_daemon_that_does_not_read_stops_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let _daemon = UnixDatagram::bind(&path).unwrap();
        let options = SyslogOptions { ident: "pgbouncer".to_owned(), facility: "daemon".to_owned() };
        let mut syslog = Syslog::at(Some(path), options);
        for _ in 0..10_000 {
            syslog.send("Jan  1 01:00:00", Severity::Debug, &[b'x'; 2000]);
        }
    }

    #[test]
    fn an_unknown_facility_is_daemon() {
        assert_eq!(facility("authpriv") as u8, 10 << 3);
        for name in ["daemon", "", "LOCAL0", "kern", "nonsense"] {
            assert_eq!(facility(name) as u8, 3 << 3, "{name}");
        }
    }
}
