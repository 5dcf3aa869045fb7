//! A session's thread: it waits, and lets the session go on whenever there is something to do.

use super::commands::{self, Context};
use super::session::{Session, Wait};
use crate::office::Office;
use crossbeam_channel::Select;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often it is looked whether a client that is not listened to has left, or was killed.
pub(super) const LOOK: Duration = Duration::from_millis(500);

/// A session that its thread and whoever parks it have in common. It is locked inside the gate only, or when that is closed.
pub(super) type Shared = Arc<Mutex<Session>>;

/// Serves the client to its end.
pub(super) fn run(office: &Arc<Office>, session: &Shared) {
    let (socket, id, admin) = {
        let session = lock(session);
        (Arc::clone(session.stream.socket()), session.client.id, session.client.admin)
    };
    loop {
        let wait = {
            let _pass = office.gate.enter();
            lock(session).advance(office)
        };
        match wait {
            Wait::Input => wait_for(&socket, PollFlags::POLLIN, PollTimeout::NONE),
            Wait::Room => wait_for(&socket, PollFlags::POLLOUT, PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::MAX)),
            Wait::Answer(answer) => {
                let mut select = Select::new();
                select.recv(&answer);
                // It is not taken here: it must not be lost when the session is parked.
                let _ = select.ready_timeout(LOOK);
            }
            Wait::Reply(command) => {
                let reply = commands::run(&Context { office, admin, socket: &socket, session: id }, &command);
                let _pass = office.gate.enter();
                lock(session).take_up(office, reply);
            }
            Wait::Over => return,
        }
    }
}

pub(super) fn lock(session: &Shared) -> MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait_for(socket: &OwnedFd, what: PollFlags, how_long: PollTimeout) {
    // A signal, or nothing yet: the session looks itself.
    let _ = poll(&mut [PollFd::new(socket.as_fd(), what)], how_long);
}
