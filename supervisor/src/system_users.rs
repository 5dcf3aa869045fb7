//! Names of the operating system's users for the workers, looked up here because NSS may ask a server for them.

use crate::control::Control;
use nix::unistd::{Uid, User};
use shared::control::ToWorker;

/// Looks `uid` up in a thread and tells the worker that asked. A worker asks for one user once at a time.
pub(crate) fn name(uid: u32, from: &Control) {
    let answer_to = from.clone();
    let thread = std::thread::Builder::new()
        .name("nss".into())
        .spawn(move || answer_to.answer(&ToWorker::UserNamed { uid, name: look_up(uid) }));
    if let Err(error) = thread {
        from.answer(&ToWorker::UserNamed { uid, name: Err(format!("no thread for the look-up: {error}")) });
    }
}

fn look_up(uid: u32) -> Result<String, String> {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => Ok(user.name),
        Ok(None) => Err("there is no such user".to_owned()),
        Err(error) => Err(error.desc().to_owned()),
    }
}
