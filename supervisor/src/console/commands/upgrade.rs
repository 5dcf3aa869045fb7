//! UPGRADE (ours): another binary takes the fleet over. Answered when every worker runs it.

use super::{Context, Reply};
use crate::fleet::Request;
use nix::unistd::{Uid, geteuid};
use shared::sys::peer::peer_credentials;
use std::path::Path;

/// An admin may have the installed binary take over. Which file the fleet is to execute only its own user may say, or root, on the Unix socket: who
/// may give orders at the console may not on that account run programs here.
pub(super) fn run(context: &Context<'_>, binary: Option<&str>) -> Reply {
    let binary = binary.map(Path::new);
    if binary.is_some_and(|path| !path.is_absolute()) {
        return Reply::error("the binary's path must be absolute");
    }
    if binary.is_some() && !is_own_user(context) {
        return Reply::error("a binary may be named on the Unix socket only, by the user that the fleet runs as");
    }
    Reply::order(Request::Upgrade(binary.map(Path::to_owned)), "UPGRADE")
}

fn is_own_user(context: &Context<'_>) -> bool {
    peer_credentials(context.socket).is_ok_and(|(pid, user, _)| {
        let user = Uid::from_raw(user);
        // A TCP peer has no process.
        pid != 0 && (user == geteuid() || user.is_root())
    })
}
