//! Becoming an ordinary user: `user` or -u, before anything is opened. A fleet never runs as root.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Gid, User, geteuid, getuid, setgid, setgroups, setuid};

/// Becomes `user` if one is given. The error is the FATAL line.
pub(crate) fn drop_to(user: Option<&str>) -> Result<(), String> {
    if let Some(name) = user.filter(|name| !name.is_empty()) {
        become_user(name)?;
    }
    if getuid().is_root() || geteuid().is_root() {
        return Err("pgfleet should not run as root".to_owned());
    }
    Ok(())
}

/// As root: becomes whoever owns this file. The error is a line for the user.
pub(crate) fn become_owner(file: &Path) -> Result<(), String> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let failed = |error: String| format!("could not become the owner of {}: {error}", file.display());
    let owner = std::fs::metadata(file).map_err(|error| failed(error.to_string()))?.uid();
    let user = User::from_uid(owner.into()).map_err(|error| failed(error.desc().to_owned()))?;
    let gid = user.map_or(Gid::from_raw(owner), |user| user.gid);
    let change = setgroups(&[gid]).and_then(|()| setgid(gid)).and_then(|()| setuid(owner.into()));
    change.map_err(|error| failed(error.desc().to_owned()))
}

fn become_user(name: &str) -> Result<(), String> {
    let user = match User::from_name(name) {
        Ok(Some(user)) => user,
        Ok(None) => return Err(format!("could not find user '{name}'")),
        Err(error) => return Err(format!("could not find user '{name}': {}", error.desc())),
    };
    if getuid() == user.uid && geteuid() == user.uid {
        return Ok(());
    }
    let failed = |what: &str, error: nix::Error| format!("could not change to user '{name}': {what}: {}", error.desc());
    // Group first: after setuid nothing of this is allowed any more.
    setgroups(&[user.gid]).map_err(|error| failed("setgroups", error))?;
    setgid(user.gid).map_err(|error| failed("setgid", error))?;
    setuid(user.uid).map_err(|error| failed("setuid", error))?;
    if (getuid(), geteuid(), nix::unistd::getgid()) != (user.uid, user.uid, user.gid) {
        return Err(format!("could not change to user '{name}'"));
    }
    Ok(())
}

/// A group by name or number, for `unix_socket_group`.
pub(crate) fn group(name: &str) -> Result<Gid, String> {
    match nix::unistd::Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid),
        Ok(None) => name.parse().map(Gid::from_raw).map_err(|_| format!("could not find group '{name}'")),
        Err(error) => Err(format!("could not find group '{name}': {}", error.desc())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_user_is_named() {
        assert_eq!(drop_to(Some("no_such_user_here")), Err("could not find user 'no_such_user_here'".to_owned()));
    }

    #[test]
    fn groups_by_name_and_number() {
        assert_eq!(group("root"), Ok(Gid::from_raw(0)));
        assert_eq!(group("12345"), Ok(Gid::from_raw(12345)));
        assert_eq!(group("no_such_group"), Err("could not find group 'no_such_group'".to_owned()));
    }
}
