//! The Unix listener: one socket that every worker accepts from.

use super::Inherited;
use crate::privileges;
use nix::unistd::chown;
use shared::config::Settings;
use shared::sys::guard;
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The listener. Dropping it removes its file, unless it is kept.
#[derive(Debug)]
pub(crate) struct Unix {
    pub(super) socket: Socket,
    pub(super) path: String,
    /// The service manager has it too: its file stays.
    pub(super) kept: bool,
}

/// Where the settings put the socket; `None` when there is to be none.
fn path(settings: &Settings) -> Option<String> {
    let folder = &settings.unix_socket_dir;
    (!folder.is_empty()).then(|| format!("{folder}/.s.PGSQL.{}", settings.listen_port))
}

/// `@name` stands for the abstract namespace, whose names begin with a zero byte and need no file.
fn address(path: &str) -> io::Result<SockAddr> {
    match path.strip_prefix('@') {
        Some(name) => SockAddr::unix(format!("\0{name}")),
        None => SockAddr::unix(path),
    }
}

/// Looks for a fleet, or a PostgreSQL, that has the socket already, and removes what a dead one left. The error is the FATAL line.
pub(crate) fn check_running(settings: &Settings) -> Result<(), String> {
    let Some(path) = path(settings) else { return Ok(()) };
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).and_then(|socket| socket.connect(&address(&path)?));
    match probe {
        Ok(()) => return Err("unix socket is in use, cannot continue".to_owned()),
        // A full backlog is a listener too.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Err("unix socket is in use, cannot continue".to_owned());
        }
        Err(_) => {}
    }
    if path.starts_with('@') {
        return Ok(());
    }
    if Path::new(&format!("{path}.lock")).exists() {
        return Err(format!("unix port {} is in use", settings.listen_port));
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("could not remove stale unix socket {path}: {}", super::reason(&error)))
        }
        _ => Ok(()),
    }
}

/// Connects to the fleet that listens there. `None`: the settings want no socket.
pub(crate) fn connect(settings: &Settings) -> Option<io::Result<Socket>> {
    let path = path(settings)?;
    let connected = Socket::new(Domain::UNIX, Type::STREAM, None).and_then(|socket| {
        socket.connect(&address(&path)?)?;
        Ok(socket)
    });
    Some(connected)
}

/// Its file, if there is one.
pub(crate) fn file(settings: &Settings) -> Option<PathBuf> {
    path(settings).filter(|path| !path.starts_with('@')).map(PathBuf::from)
}

impl Unix {
    /// Opens it, if the settings want one. The error is the FATAL line.
    pub(crate) fn open(settings: &Settings) -> Result<Option<Self>, String> {
        let Some(path) = path(settings) else { return Ok(None) };
        let failed = |error: io::Error| {
            log::warn!("cannot listen on unix:{path}: {}", super::reason(&error));
            "failed to create unix socket".to_owned()
        };
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).map_err(failed)?;
        socket.bind(&address(&path).map_err(failed)?).map_err(failed)?;
        let unix = Self { socket, path: path.clone(), kept: false };
        if let Some(file) = unix.file() {
            if !settings.unix_socket_group.is_empty() {
                let group = privileges::group(&settings.unix_socket_group)?;
                chown(&file, None, Some(group))
                    .map_err(|error| format!("chown(unix:{path}, {}): {}", settings.unix_socket_group, error.desc()))?;
            }
            fs::set_permissions(&file, fs::Permissions::from_mode(settings.unix_socket_mode)).map_err(failed)?;
        }
        unix.socket.listen(i32::try_from(settings.listen_backlog).unwrap_or(i32::MAX)).map_err(failed)?;
        log::info!("listening on unix:{path}");
        Ok(Some(unix))
    }

    /// The one that the service manager has passed on, if it has.
    pub(crate) fn inherit(settings: &Settings, inherited: &mut Inherited) -> Result<Option<Self>, String> {
        let wanted = path(settings);
        let Some(socket) = inherited.unix(wanted.as_deref()) else { return Ok(None) };
        let backlog = i32::try_from(settings.listen_backlog).unwrap_or(i32::MAX);
        let ready = socket.set_nonblocking(true).and_then(|()| socket.listen(backlog));
        ready.map_err(|error| format!("cannot listen on the unix socket that was passed on: {}", super::reason(&error)))?;
        log::info!("listening on the unix socket that was passed on");
        Ok(Some(Self { socket, path: wanted.unwrap_or_default(), kept: true }))
    }

    /// The one that workers hold whose supervisor has died; its file is there, and stays until it is this fleet's.
    pub(crate) fn adopt(socket: OwnedFd, settings: &Settings) -> Option<Self> {
        Some(Self { socket: socket.into(), path: path(settings)?, kept: true })
    }

    /// As [`Self::open`], where a dead fleet may have left its file.
    pub(crate) fn open_anew(settings: &Settings) -> Result<Option<Self>, String> {
        check_running(settings)?;
        Self::open(settings)
    }

    /// It ends with this fleet.
    pub(crate) fn own(&mut self) {
        self.kept = false;
    }

    /// It outlives this fleet.
    pub(crate) fn keep(&mut self) {
        self.kept = true;
    }

    /// Its file; none in the abstract namespace.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        (!self.path.starts_with('@')).then(|| PathBuf::from(&self.path))
    }
}

impl AsFd for Unix {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Unix {
    fn drop(&mut self) {
        // With a guard, another image may go on.
        if let Some(file) = self.file().filter(|_| !self.kept && !guard::is_armed()) {
            let _ = fs::remove_file(file);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn settings(folder: &str) -> Settings {
        Settings { unix_socket_dir: folder.to_owned(), unix_socket_mode: 0o750, ..Settings::default() }
    }

    #[test]
    fn opened_with_its_mode_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path().to_str().unwrap());
        check_running(&settings).unwrap();
        let unix = Unix::open(&settings).unwrap().unwrap();
        let file = unix.file().unwrap();
        assert_eq!(file, folder.path().join(".s.PGSQL.6432"));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o750);
        assert!(std::os::unix::net::UnixStream::connect(&file).is_ok());
        assert_eq!(check_running(&settings), Err("unix socket is in use, cannot continue".to_owned()));
        drop(unix);
        assert!(!file.exists());
    }

    #[test]
    fn a_stale_file_is_removed_and_a_lock_is_respected() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path().to_str().unwrap());
        let file = folder.path().join(".s.PGSQL.6432");
        drop(std::os::unix::net::UnixListener::bind(&file).unwrap());
        assert!(file.exists());
        check_running(&settings).unwrap();
        assert!(!file.exists());
        fs::write(folder.path().join(".s.PGSQL.6432.lock"), "1").unwrap();
        assert_eq!(check_running(&settings), Err("unix port 6432 is in use".to_owned()));
    }

    #[test]
    fn abstract_and_none() {
        let settings = settings(&format!("@pgfleet-test-{}", std::process::id()));
        check_running(&settings).unwrap();
        let unix = Unix::open(&settings).unwrap().unwrap();
        assert_eq!(unix.file(), None);
        assert!(check_running(&settings).is_err());
        assert!(Unix::open(&self::settings("")).unwrap().is_none());
    }

    #[test]
    fn a_folder_that_is_not_there() {
        assert_eq!(Unix::open(&settings("/no/such/folder")).unwrap_err(), "failed to create unix socket");
    }
}
