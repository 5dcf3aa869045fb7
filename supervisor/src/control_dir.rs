//! The control directory: where a supervisor finds the workers of one that has crashed, and by which there is never a second fleet beside the first.
//!
//! It is the fleet's user's alone, and locked (flock) as long as the supervisor lives: the kernel gives the lock up whatever way that ends, and the
//! descriptor keeps it across an exec. The directory itself is what is locked, so that those who clear up /tmp leave it alone. It
//! may lie in a directory in which anybody can make anything; so it is opened once, looked at through the descriptor, and used by nothing else.

use crate::listen::reason;
use crate::luggage::{Arrived, Load, Place};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, OFlag, openat};
use nix::sys::signal::kill;
use nix::sys::stat::{FileStat, Mode, fstat, mkdirat};
use nix::unistd::{Pid, UnlinkatFlags, geteuid, unlinkat};
use serde::{Deserialize, Serialize};
use shared::config::Settings;
use shared::sys::guard;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The permissions of group and others.
const OPEN_TO_OTHERS: u32 = 0o077;

/// The file that names the supervisor.
const PID: &str = "pid";

/// How long a lock is waited for whose holder cannot be named: one that is ending or only beginning, or somebody who clears up.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);

/// Locked by this process. Dropped when the fleet has ended: it goes too, unless workers that live have their sockets in it.
#[derive(Debug)]
pub(crate) struct ControlDir {
    path: PathBuf,
    lock: Flock<OwnedFd>,
}

/// One that another image in this process goes on with.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeptControlDir {
    path: PathBuf,
    lock: Place,
}

impl KeptControlDir {
    /// Takes it from what has arrived; `None` if it is missing, or not ours any more.
    pub(crate) fn take(self, arrived: &mut Arrived) -> Option<ControlDir> {
        // It is this open file that is locked, so this asks for what is held already.
        let lock = Flock::lock(arrived.take(self.lock)?, FlockArg::LockExclusiveNonblock).ok()?;
        Some(ControlDir { path: self.path, lock })
    }
}

/// Where the settings want it, and whether they say so themselves.
fn place(settings: &Settings) -> Option<(PathBuf, bool)> {
    let folder = &settings.unix_socket_dir;
    match settings.control_dir.as_str() {
        "" if folder.is_empty() || folder.starts_with('@') => None,
        "" => Some((Path::new(folder).join(format!(".s.PGFLEET.{}", settings.listen_port)), false)),
        path => Some((path.into(), true)),
    }
}

/// Whether it is there and nobody's: the supervisor has died, and its workers may serve on.
pub(crate) fn is_deserted(settings: &Settings) -> bool {
    let directory = place(settings).and_then(|(path, _)| File::open(path).ok());
    directory.is_some_and(|directory| Flock::lock(directory, FlockArg::LockSharedNonblock).is_ok())
}

impl ControlDir {
    /// Makes it if it is not there, and locks it. `None`: there is to be none, or it cannot be where the sockets are. The error is the FATAL line.
    pub(crate) fn open(settings: &Settings) -> Result<Option<Self>, String> {
        let Some((path, wished_for)) = place(settings) else {
            log::info!("no control directory: should the supervisor crash, its workers cannot be adopted");
            return Ok(None);
        };
        match open(&path) {
            Ok(directory) => Self::locked(path, directory).map(Some),
            Err(Trouble::System(error)) if !wished_for => {
                let (path, error) = (path.display(), reason(&error));
                log::warn!("no control directory: {path}: {error}; should the supervisor crash, its workers cannot be adopted");
                Ok(None)
            }
            Err(Trouble::System(error)) => Err(format!("control_dir {}: {}", path.display(), reason(&error))),
            Err(Trouble::NotOurs(what)) => Err(format!(
                "control directory {}: {what}; it must be a directory of user {} with mode 0700: \
                 remove it if no fleet needs it, or set control_dir to another",
                path.display(),
                geteuid()
            )),
        }
    }

    fn locked(path: PathBuf, mut directory: OwnedFd) -> Result<Self, String> {
        let began = Instant::now();
        loop {
            let holder = match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
                Ok(lock) if is_at(&lock, &path) => return Ok(Self { path, lock }),
                // A fleet that was ending has removed it meanwhile.
                Ok(_) => None,
                Err((theirs, Errno::EWOULDBLOCK)) => pid(&theirs).filter(|pid| lives(*pid)),
                Err((_, error)) => {
                    return Err(format!("could not lock the control directory {}: {}", path.display(), error.desc()));
                }
            };
            if let Some(pid) = holder {
                return Err(format!("another fleet runs on this configuration: pid {pid}"));
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("the control directory {} is locked by another process", path.display()));
            }
            std::thread::sleep(PAUSE);
            directory = open(&path).map_err(|trouble| format!("control directory {}: {trouble}", path.display()))?;
        }
    }

    /// For another image in this process.
    pub(crate) fn keep<'a>(&'a self, load: &mut Load<'a>) -> KeptControlDir {
        KeptControlDir { path: self.path.clone(), lock: load.add(self.as_fd()) }
    }

    /// Who had the lock before, and has ended without taking its name away.
    pub(crate) fn predecessor(&self) -> Option<i32> {
        pid(&self.lock)
    }

    /// Names this process to those who find the lock taken.
    pub(crate) fn enter_pid(&self) -> Result<(), String> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(self.lock.as_fd(), PID, flags, Mode::from_bits_truncate(0o600)).map_err(io::Error::from);
        let written = file.and_then(|file| writeln!(File::from(file), "{}", std::process::id()));
        written.map_err(|error| format!("control directory {}: could not write {PID}: {}", self.path.display(), reason(&error)))
    }
}

/// The directory, with its lock: both outlive an exec if this descriptor does.
impl AsFd for ControlDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }
}

impl Drop for ControlDir {
    fn drop(&mut self) {
        // With a guard, another image may go on.
        if guard::is_armed() {
            return;
        }
        let _ = unlinkat(self.lock.as_fd(), PID, UnlinkatFlags::NoRemoveDir);
        // One that holds anything stays.
        if is_at(&self.lock, &self.path) {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// Why it cannot be had.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{}", reason(.0))]
    System(#[from] io::Error),
    #[error("{0}")]
    NotOurs(String),
}

/// Makes it if it is not there, and opens it if it is this user's alone.
fn open(path: &Path) -> Result<OwnedFd, Trouble> {
    match mkdirat(AT_FDCWD, path, Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(error) => return Err(io::Error::from(error).into()),
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let directory = openat(AT_FDCWD, path, flags, Mode::empty()).map_err(|error| match error {
        Errno::ELOOP | Errno::ENOTDIR => Trouble::NotOurs("no directory, or a symbolic link".to_owned()),
        Errno::EACCES => Trouble::NotOurs(whose(path)),
        error => io::Error::from(error).into(),
    })?;
    let FileStat { st_uid, st_mode, .. } = fstat(&directory).map_err(io::Error::from)?;
    if st_uid == geteuid().as_raw() && st_mode & OPEN_TO_OTHERS == 0 {
        Ok(directory)
    } else {
        Err(Trouble::NotOurs(described(st_uid, st_mode)))
    }
}

/// One that may not even be opened.
fn whose(path: &Path) -> String {
    fs::symlink_metadata(path).map_or_else(|error| reason(&error), |found| described(found.uid(), found.mode()))
}

fn described(uid: u32, mode: u32) -> String {
    format!("owner {uid}, mode {:04o}", mode & 0o7777)
}

/// Whether this directory is what stands at the path: one that was removed can be locked, too.
fn is_at(directory: &OwnedFd, path: &Path) -> bool {
    let there = fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()));
    fstat(directory).is_ok_and(|ours| there.is_ok_and(|there| there == (ours.st_dev, ours.st_ino)))
}

/// Whom the directory names.
fn pid(directory: &OwnedFd) -> Option<i32> {
    let file = openat(directory, PID, OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let mut text = String::new();
    File::from(file).take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok().filter(|pid| *pid > 0)
}

/// One that is dying holds the lock until the last of its threads has gone.
fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let is_dying = stat.rsplit(')').next().is_some_and(|rest| matches!(rest.trim_start().chars().next(), Some('Z' | 'X')));
    !is_dying && kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use tempfile::TempDir;

    fn settings() -> (TempDir, Settings, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { unix_socket_dir: folder.path().to_str().unwrap().to_owned(), ..Settings::default() };
        let path = folder.path().join(".s.PGFLEET.6432");
        (folder, settings, path)
    }

    #[test]
    fn made_for_its_user_alone_and_removed() {
        let (_folder, settings, path) = settings();
        let directory = ControlDir::open(&settings).unwrap().unwrap();
        directory.enter_pid().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(fs::read_to_string(path.join(PID)).unwrap(), format!("{}\n", std::process::id()));
        assert_eq!(directory.predecessor(), Some(std::process::id() as i32));
        drop(directory);
        assert!(!path.exists());
    }

    #[test]
    fn the_other_fleet_is_named() {
        let (_folder, settings, _) = settings();
        let first = ControlDir::open(&settings).unwrap().unwrap();
        first.enter_pid().unwrap();
        let refused = ControlDir::open(&settings).unwrap_err();
        assert_eq!(refused, format!("another fleet runs on this configuration: pid {}", std::process::id()));
        drop(first);
        ControlDir::open(&settings).unwrap().unwrap();
    }

    /// It has removed the directory that this one had opened already: a lock on that would keep nobody out.
    #[test]
    fn a_fleet_that_is_just_ending_is_waited_for() {
        let (_folder, settings, path) = settings();
        let first = ControlDir::open(&settings).unwrap().unwrap();
        let second = std::thread::spawn(move || ControlDir::open(&settings).unwrap().unwrap());
        std::thread::sleep(3 * PAUSE);
        drop(first);
        let second = second.join().unwrap();
        assert!(is_at(&second.lock, &path));
    }

    #[test]
    fn one_that_others_may_use_is_refused() {
        let (folder, settings, path) = settings();
        let refusal = || ControlDir::open(&settings).unwrap_err();
        fs::create_dir(&path).unwrap();
        for (mode, shown) in [(0o755, "mode 0755"), (0o770, "mode 0770"), (0o701, "mode 0701")] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let expected = format!("control directory {}: owner {}, {shown}; it must be", path.display(), geteuid());
            assert!(refusal().starts_with(&expected), "{}", refusal());
        }
        fs::remove_dir(&path).unwrap();
        symlink(folder.path(), &path).unwrap();
        assert!(refusal().contains("no directory, or a symbolic link"));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(refusal().contains("no directory, or a symbolic link"));
    }

    #[test]
    fn where_there_is_none() {
        let at = |folder: &str, own: &str| {
            let (unix_socket_dir, control_dir) = (folder.to_owned(), own.to_owned());
            ControlDir::open(&Settings { unix_socket_dir, control_dir, ..Settings::default() }).map(|found| found.is_some())
        };
        assert_eq!((at("", ""), at("@pgfleet", ""), at("/no/such/folder", "")), (Ok(false), Ok(false), Ok(false)));
        assert_eq!(
            at("", "/no/such/folder/at/all"),
            Err("control_dir /no/such/folder/at/all: No such file or directory".to_owned())
        );
        let own = tempfile::tempdir().unwrap();
        fs::set_permissions(own.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(at("", own.path().to_str().unwrap()), Ok(true));
    }
}
