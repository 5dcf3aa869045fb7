//! Names of the operating system's users for the workers, looked up here because NSS may ask a server for them.

use crate::asks::Owed;
use nix::unistd::{Uid, User};
use shared::control::ToWorker;
use std::sync::{Arc, Mutex, PoisonError};

/// Looks `uid` up in a thread and tells the worker that asked. A worker asks for one user once at a time.
pub(crate) fn name(uid: u32, owed: Owed) {
    // Whoever comes first takes it: the thread, or this one if there is no thread.
    let owed = Arc::new(Mutex::new(Some(owed)));
    let answer = move |owed: &Mutex<Option<Owed>>, name| {
        let owed = owed.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(owed) = owed {
            owed.answer(&ToWorker::UserNamed { uid, name });
        }
    };
    let taken = Arc::clone(&owed);
    let thread = std::thread::Builder::new().name("nss".into()).spawn(move || answer(&taken, look_up(uid)));
    if let Err(error) = thread {
        answer(&owed, Err(format!("no thread for the look-up: {error}")));
    }
}

fn look_up(uid: u32) -> Result<String, String> {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => Ok(user.name),
        Ok(None) => Err("there is no such user".to_owned()),
        Err(error) => Err(error.desc().to_owned()),
    }
}
