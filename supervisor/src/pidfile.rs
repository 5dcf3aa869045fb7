//! The pidfile: one line with the supervisor's process id, there as long as the fleet runs.

use nix::sys::signal::kill;
use nix::unistd::Pid;
use shared::sys::guard;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// The file that this process wrote; dropping it removes it.
#[derive(Debug)]
pub(crate) struct Pidfile(PathBuf);

impl Pidfile {
    /// Writes the file, which must not be there. The error is the FATAL line.
    pub(crate) fn create(path: &Path) -> Result<Self, String> {
        let failed = |error: std::io::Error| {
            if error.kind() == ErrorKind::AlreadyExists {
                format!("pidfile '{}' exists, another instance running?", path.display())
            } else {
                format!("could not write pidfile '{}': {error}", path.display())
            }
        };
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
        let written = Self(path.to_owned());
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(written)
    }
}

impl Pidfile {
    /// The one that an image before this one has written, in the same process.
    pub(crate) fn written(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // With a guard, another image may go on.
        if !guard::is_armed() {
            let _ = fs::remove_file(&self.0);
        }
    }
}

/// Looks for a fleet that runs already and removes what a dead one has left. That `predecessor` does not run is known, though its number may still
/// be taken: by itself until it is reaped, or by another process. The error is the FATAL line.
pub(crate) fn check(path: &Path, predecessor: Option<i32>) -> Result<(), String> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("could not open pidfile '{}': {error}", path.display())),
    };
    let dead = match text.trim().parse::<i32>() {
        Ok(pid) if pid > 0 => predecessor == Some(pid) || kill(Pid::from_raw(pid), None) == Err(nix::Error::ESRCH),
        _ => false,
    };
    if !dead {
        return Err(format!("pidfile '{}' exists, another instance running?", path.display()));
    }
    log::info!("stale pidfile, removing");
    fs::remove_file(path).map_err(|error| format!("could not remove stale pidfile '{}': {error}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn created_once_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let first = Pidfile::create(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        let error = Pidfile::create(&path).unwrap_err();
        assert_eq!(error, format!("pidfile '{}' exists, another instance running?", path.display()));
        assert!(check(&path, None).is_err(), "we are alive");
        drop(first);
        assert!(!path.exists());
        assert!(check(&path, None).is_ok());
    }

    #[test]
    fn a_predecessor_s_is_removed_though_its_number_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        fs::write(&path, format!("{}\n", std::process::id())).unwrap();
        assert!(check(&path, Some(1)).is_err());
        check(&path, Some(std::process::id() as i32)).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_dead_ones_is_removed_and_garbage_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        fs::write(&path, "2147483646\n").unwrap();
        check(&path, None).unwrap();
        assert!(!path.exists());
        for garbage in ["", "x", "0", "-1"] {
            fs::write(&path, garbage).unwrap();
            assert!(check(&path, Some(1)).is_err(), "{garbage:?}");
        }
    }
}
