//! The console: admin sessions on the database `pgbouncer` (or `pgfleet`), served for the whole fleet whichever worker they came in by.
//!
//! The worker that accepted such a client authenticates it and passes it on; from then on a thread here owns it. A session asks the fleet's
//! thread and waits; nothing that a session does, or fails to do, holds up anybody else.

mod commands;
mod encode;
mod grammar;
mod parked;
mod receive;
mod serve;
mod session;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use parked::Parked;

use crate::fleet::{Answer, Event};
use crate::gate::Closed;
use crate::luggage::{Arrived, Luggage};
use crate::office::{Input, Office};
use crossbeam_channel::Receiver;
use serve::{Shared, lock};
use session::Session;
use shared::control::{ConnectionRow, ConsoleSession};
use shared::ids::{ConnectionId, Owner};
use socket2::SockRef;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A session as the rest of the supervisor sees it.
pub(crate) struct Console {
    /// As SHOW CLIENTS lists it.
    pub(crate) row: ConnectionRow,
    socket: Arc<OwnedFd>,
    killed: Arc<AtomicBool>,
    session: Shared,
}

impl Console {
    /// Ends it. Its thread, wherever it waits, finds that nothing more comes from the client.
    pub(crate) fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        let _ = SockRef::from(&self.socket).shutdown(Shutdown::Read);
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
pub(crate) fn admit(office: &Arc<Office>, client: ConsoleSession, socket: Option<OwnedFd>) {
    let seat = client.seat;
    let Some(socket) = socket else {
        office.shm.clients().leave(Owner::SUPERVISOR, seat);
        return;
    };
    let full = office.consoles().len() >= MOST;
    let Some(mut session) = Session::admit(client, socket) else {
        log::error!("a console session's TLS state could not be read");
        office.shm.clients().leave(Owner::SUPERVISOR, seat);
        return;
    };
    if full {
        session.refuse(office, "too many console sessions");
        office.shm.clients().leave(Owner::SUPERVISOR, seat);
        return;
    }
    session.greet();
    office.tell(Input::Event(Event::ConsoleOpened));
    start(office, session, None);
}

/// All sessions, for the next image. They stay as they are, but nothing goes on while the gate is closed.
pub(crate) fn park(office: &Office, _: &Closed<'_>, luggage: &mut Luggage) -> Vec<Parked> {
    let sessions: Vec<Shared> = office.consoles().values().map(|console| Arc::clone(&console.session)).collect();
    sessions.iter().map(|session| lock(session).park(office, luggage)).collect()
}

/// Goes on with a session that was parked; `answer` gives where the fleet's answer will arrive, if it owes one to this session.
pub(crate) fn resume(
    office: &Arc<Office>,
    parked: Parked,
    arrived: &mut Arrived,
    answer: impl FnOnce(ConnectionId) -> Option<Receiver<Answer>>,
) {
    let (id, seat, request_time) = (parked.id(), parked.seat(), parked.request_time());
    let Some(session) = Session::resume(office, parked, arrived, answer(id)) else {
        log::error!("console session C-{id} is closed: its connection could not be taken over");
        office.shm.clients().leave(Owner::SUPERVISOR, seat);
        office.tell(Input::Event(Event::ConsoleClosed));
        return;
    };
    start(office, session, Some(request_time));
}

/// Starts the thread of a session that the fleet knows of.
fn start(office: &Arc<Office>, session: Session, request_time: Option<u64>) {
    let mut row = session.row(office);
    row.request_time = request_time.unwrap_or(row.request_time);
    let (socket, killed) = (Arc::clone(session.stream.socket()), Arc::clone(&session.killed));
    let session = Arc::new(Mutex::new(session));
    let id = row.id;
    office.consoles().insert(id, Console { row, socket, killed, session: Arc::clone(&session) });
    let (to, of) = (Arc::clone(office), Arc::clone(&session));
    let serve = move || serve::run(&to, &of);
    if let Err(error) = std::thread::Builder::new().name("console".into()).spawn(serve) {
        log::error!("could not start a thread for a console session: {error}");
        lock(&session).leave(office);
    }
}
