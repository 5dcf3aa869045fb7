//! The end of a client, whatever it was doing.

use super::{Client, ClientSeats, ClientState, Link};
use crate::socket::Read;
use crate::worker::{Source, Worker};
use shared::control::Replication;
use shared::wire::report::{self, sqlstate};
use std::time::Duration;

/// How long a client that was sent its last message may take to close; until then what it sends is read and dropped, since closing with
/// unread bytes would reset the connection and the client might never see the message.
const LINGER: Duration = Duration::from_secs(1);

/// Why a client ends, and what it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It is told nothing; the reason is for the log.
    Silent(&'static str),
    /// It gets a FATAL of this SQLSTATE and text.
    Fatal(&'static str, String),
    /// As `Fatal`, with an SQLSTATE that came from PostgreSQL.
    Relayed(String, String),
    /// It has been told already: PostgreSQL's own last words have been passed on, or an alert was sent.
    Told(&'static str),
}

impl Ending {
    pub(crate) fn violation(text: impl Into<String>) -> Self {
        Ending::Fatal(sqlstate::PROTOCOL_VIOLATION, text.into())
    }

    fn reason(&self) -> &str {
        match self {
            Ending::Silent(text) | Ending::Told(text) => text,
            Ending::Fatal(_, text) | Ending::Relayed(_, text) => text,
        }
    }
}

impl Worker {
    /// Ends a client. Its server, if it has one, is released or closed as what it was doing demands.
    pub(crate) fn close_client(&mut self, index: usize, ending: &Ending) {
        if self.clients.get(index).is_none_or(|c| matches!(c.state, ClientState::Closing | ClientState::Dead)) {
            return;
        }
        self.log_ending(index, ending);
        let client = &mut self.clients[index];
        let id = client.id;
        let state = std::mem::replace(&mut client.state, ClientState::Closing);
        match state {
            ClientState::Session(session) => {
                self.by_seat.remove(&session.seats.client);
                self.leave_client_seats(&session.seats);
                match session.link {
                    Link::Linked(server) => self.client_left(server, session.front.is_mid_message()),
                    Link::Waiting(_) => self.waiter_left(session.pool),
                    Link::None if session.replication != Replication::None => self.candidate_left(session.pool, id),
                    Link::None => {}
                }
                self.pools.get_mut(session.pool).clients -= 1;
            }
            ClientState::Login(login) => self.login_ended(index, id, &login),
            ClientState::Closing | ClientState::Dead => {}
        }
        let client = &mut self.clients[index];
        let message = match ending {
            // An alert says why.
            Ending::Silent(_) => client.conn.tls_failure().map(|_| Vec::new()),
            Ending::Told(_) => Some(Vec::new()),
            Ending::Fatal(code, text) => Some(fatal(code, text)),
            Ending::Relayed(code, text) => Some(fatal(code, text)),
        };
        let told = message.is_some_and(|message| client.conn.send(&message, &mut self.buffers).is_ok());
        if told {
            if !client.conn.is_backed_up() {
                client.conn.shutdown_write(&mut self.buffers);
            }
            self.closing_deadlines.push_back((self.now + LINGER, index, client.id));
            // What it sent before may be unread already: no further edge would tell.
            client.conn.readable = true;
            self.again.push(Source::Client(index));
        } else {
            client.conn.close_notify(&mut self.buffers);
            self.drop_client(index);
        }
    }

    fn log_ending(&self, index: usize, ending: &Ending) {
        let settings = &self.config.settings;
        let client = &self.clients[index];
        // A probe that connects and goes is nothing to report.
        let is_probe =
            matches!(&client.state, ClientState::Login(login) if login.is_untouched()) && matches!(ending, Ending::Silent(_));
        if is_probe {
            return;
        }
        if let Some(failure) = client.conn.tls_failure() {
            log::warn!("{} TLS error: {failure}", client.prefix(settings.listen_port));
        }
        if settings.log_disconnections {
            let age = (self.now - client.connected_at).as_secs();
            log::info!("{} closing because: {} (age={age}s)", client.prefix(settings.listen_port), ending.reason());
        }
        if settings.log_pooler_errors && matches!(ending, Ending::Fatal(..) | Ending::Relayed(..)) {
            log::warn!("{} pooler error: {}", client.prefix(settings.listen_port), ending.reason());
        }
    }

    pub(crate) fn leave_client_seats(&self, seats: &ClientSeats) {
        for (limit, seat) in seats.database.into_iter().chain(seats.user) {
            self.shm.seats(limit).leave(self.me, seat);
        }
        self.shm.clients().leave(self.me, seats.client);
    }

    /// Lets go of a client's socket.
    pub(crate) fn drop_client(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let _ = client.conn.deregister(self.poll.registry());
        self.forget_client(index);
    }

    /// A closing client can be read or written: go on until it has everything and has closed.
    pub(super) fn closing_client(&mut self, index: usize) {
        let Client { conn, .. } = &mut self.clients[index];
        if conn.is_backed_up() {
            match conn.flush(&mut self.buffers) {
                Ok(true) => conn.shutdown_write(&mut self.buffers),
                Ok(false) => {}
                Err(_) => return self.drop_client(index),
            }
        }
        match self.clients[index].conn.discard(&mut self.read_buffer) {
            // However much it sends, it has one read a turn, until its time is up.
            Read::Full(_) | Read::Drained(_) => self.again.push(Source::Client(index)),
            Read::Blocked => {}
            Read::End | Read::Broken => self.drop_client(index),
        }
    }

    /// Cuts off clients whose time is up: login, last message, idle.
    pub(crate) fn expire_clients(&mut self) {
        while let Some(&(deadline, index, id)) = self.login_deadlines.front()
            && deadline <= self.now
        {
            self.login_deadlines.pop_front();
            let Some(client) = self.clients.get(index).filter(|client| client.id == id) else { continue };
            let text = match &client.state {
                ClientState::Login(login) if !login.awaits_server() => "client_login_timeout",
                ClientState::Login(_) => "client_login_timeout (server down)",
                ClientState::Session(session) if session.owed.is_some() => "client_login_timeout (server down)",
                _ => continue,
            };
            self.close_client(index, &Ending::violation(text));
        }
        while let Some(&(deadline, index, id)) = self.closing_deadlines.front()
            && deadline <= self.now
        {
            self.closing_deadlines.pop_front();
            if self.clients.get(index).is_some_and(|c| c.id == id && matches!(c.state, ClientState::Closing)) {
                self.drop_client(index);
            }
        }
        while let Some((index, id)) = self.idle_timers.due(self.now) {
            self.expire_idle(index, id);
        }
    }

    /// client_idle_timeout: looks again when the client would have been idle long enough.
    fn expire_idle(&mut self, index: usize, id: shared::ids::ConnectionId) {
        let Some(client) = self.clients.get(index).filter(|c| c.id == id) else { return };
        let Some(session) = client.session() else { return };
        let Some(timeout) = self.config.client_idle_timeout(&session.who.user) else { return };
        let deadline = client.last_request + timeout;
        if session.link == Link::None && deadline <= self.now {
            self.close_client(index, &Ending::violation("client_idle_timeout"));
        } else {
            self.idle_timers.arm(if deadline > self.now { deadline } else { self.now + timeout }, (index, id));
        }
    }
}

fn fatal(code: &str, text: &str) -> Vec<u8> {
    let mut message = Vec::new();
    report::fatal(&mut message, code, text);
    message
}
