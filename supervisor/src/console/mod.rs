//! The console: admin sessions on the database `pgbouncer` (or `pgfleet`), served for the whole fleet whichever worker they came in by.
//!
//! The worker that accepted such a client authenticates it and passes it on; from then on a thread here owns it. A session asks the fleet's
//! thread and waits; nothing that a session does, or fails to do, holds up anybody else.

mod commands;
mod encode;
mod grammar;
mod receive;
mod session;

use crate::fleet::Event;
use crate::office::{Input, Office};
use session::Session;
use shared::control::ConsoleSession;
use shared::ids::Owner;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The most sessions at a time.
const MOST: usize = 100;

/// Takes over a session from a worker.
pub(crate) fn admit(office: &Arc<Office>, greeting: ConsoleSession, socket: Option<OwnedFd>) {
    let seat = greeting.seat;
    let Some(socket) = socket else {
        office.shm.clients().leave(Owner::SUPERVISOR, seat);
        return;
    };
    let full = office.consoles().len() >= MOST;
    let mut session = Session::new(Arc::clone(office), greeting, socket);
    if full {
        session.refuse("too many console sessions");
        office.shm.clients().leave(Owner::SUPERVISOR, seat);
        return;
    }
    office.tell(Input::Event(Event::ConsoleOpened));
    let keeper = Arc::clone(office);
    let run = move || {
        session.run();
        let office = Arc::clone(session.office());
        drop(session);
        leave(&office, seat);
    };
    if let Err(error) = std::thread::Builder::new().name("console".into()).spawn(run) {
        log::error!("could not start a thread for a console session: {error}");
        leave(&keeper, seat);
    }
}

fn leave(office: &Office, seat: shared::ids::SeatIndex) {
    office.shm.clients().leave(Owner::SUPERVISOR, seat);
    office.tell(Input::Event(Event::ConsoleClosed));
}
