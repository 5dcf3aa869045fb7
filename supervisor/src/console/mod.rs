//! The console: admin sessions on the database `pgbouncer` (or `pgfleet`), served for the whole fleet whichever worker they came in by.
//!
//! The worker that accepted such a client authenticates it and passes it on; from then on a thread here owns it. A session asks the fleet's
//! thread and waits; nothing that a session does, or fails to do, holds up anybody else.

mod commands;
mod encode;
mod grammar;
mod receive;
mod session;
mod stream;

use crate::fleet::Event;
use crate::office::{Input, Office};
use session::Session;
use shared::control::{ConnectionRow, ConsoleSession};
use shared::ids::Owner;
use socket2::Socket;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A session as the rest of the supervisor sees it.
pub(crate) struct Console {
    /// As SHOW CLIENTS lists it.
    pub(crate) row: ConnectionRow,
    socket: Arc<Socket>,
    killed: Arc<AtomicBool>,
}

impl Console {
    /// Ends it. Its thread, wherever it waits, finds that nothing more comes from the client.
    pub(crate) fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        let _ = self.socket.shutdown(Shutdown::Read);
    }
}

/// A cancel request with a session's key: what it waits for is given up. The lowest two bits are not part of the key.
pub(crate) fn cancel(office: &Office, key: [u8; 8]) {
    let key = u64::from_be_bytes(key);
    let session = office.consoles().iter().find(|(_, console)| (console.row.cancel_key ^ key) >> 2 == 0).map(|(id, _)| *id);
    if let Some(session) = session {
        office.tell(Input::Cancel(session));
    }
}

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
    let Some(mut session) = Session::new(Arc::clone(office), greeting, socket) else {
        log::error!("a console session's TLS state could not be read");
        office.shm.clients().leave(Owner::SUPERVISOR, seat);
        return;
    };
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
