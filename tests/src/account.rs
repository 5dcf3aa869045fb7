//! Who runs the servers under test.
//!
//! PostgreSQL and the pooler both refuse to run as root, and tests are often run by root (containers). Then every server runs as an
//! ordinary user instead, in a folder that this user owns.

use nix::unistd::{Uid, User, chown};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// The ordinary user; `None` when the tests are run by one already.
fn ordinary() -> Option<User> {
    if !Uid::effective().is_root() {
        return None;
    }
    let named = std::env::var("PGFLEET_TEST_USER").ok();
    let candidates = named.as_deref().map_or_else(|| vec!["postgres", "nobody"], |name| vec![name]);
    let user = candidates.iter().find_map(|name| User::from_name(name).unwrap());
    Some(user.unwrap_or_else(|| panic!("none of the users {candidates:?} exists")))
}

/// The name of the user that runs the servers.
pub(crate) fn name() -> String {
    ordinary().unwrap_or_else(|| User::from_uid(Uid::effective()).unwrap().unwrap()).name
}

/// A command that runs `program` as the ordinary user and that is sent SIGQUIT should the test's thread end without having stopped it.
pub(crate) fn server(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]).arg(program);
    if let Some(user) = ordinary() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command
}

/// An empty folder that the ordinary user owns and everyone may enter.
pub(crate) fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("pgfleet-").tempdir().unwrap();
    give(folder.path());
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Makes `path` the ordinary user's.
pub(crate) fn give(path: &Path) {
    if let Some(user) = ordinary() {
        chown(path, Some(user.uid), Some(user.gid)).unwrap();
    }
}
