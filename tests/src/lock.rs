//! Locks between the processes of a test run: nextest gives every case one of its own.

use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::path::Path;

/// A locked file; unlocked when dropped or when the process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Waits until nobody else holds the lock of this file.
    pub(crate) fn wait(path: &Path) -> Lock {
        Self::get(path, FlockArg::LockExclusive).unwrap_or_else(|| panic!("could not lock {}", path.display()))
    }

    /// Takes the lock if nobody holds it.
    pub(crate) fn attempt(path: &Path) -> Option<Lock> {
        Self::get(path, FlockArg::LockExclusiveNonblock)
    }

    fn get(path: &Path, how: FlockArg) -> Option<Lock> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).ok()?;
        Flock::lock(file, how).ok().map(|file| Lock { _file: file })
    }
}
