//! A server's bytes on their way to its client.

use super::{Server, ServerState};
use crate::client::{Client, ClientState, Ending, Link};
use crate::protocol::backend::{self, HiddenError, Rare, Relayed, Reset};
use crate::socket::Read;
use crate::worker::{READ_BYTES, READS_PER_TURN, Source, Worker};
use shared::config::PoolMode;
use shared::wire::encode;
use shared::wire::header::HEADER_BYTES;

impl Worker {
    /// The server's socket has bytes, or has ended (`closed`: it sends no more).
    pub(crate) fn server_readable(&mut self, index: usize, closed: bool) {
        let Some(server) = self.servers.get_mut(index) else { return };
        server.conn.readable = true;
        server.conn.hung_up |= closed;
        let mut buffer = std::mem::take(&mut self.read_buffer);
        for _ in 0..READS_PER_TURN {
            if !self.may_read_server(index) || !self.read_server(index, &mut buffer) {
                break;
            }
        }
        self.read_buffer = buffer;
        if self.servers.get(index).is_some_and(|s| s.conn.readable) && self.may_read_server(index) {
            self.again.push(Source::Server(index));
        }
    }

    /// Nothing is read from a server whose client's socket is full: PostgreSQL is held back by the kernel then.
    fn may_read_server(&self, index: usize) -> bool {
        let Some(server) = self.servers.get(index) else { return false };
        match server.state {
            ServerState::Dead => false,
            ServerState::Login(_) => !server.awaits_handshake(),
            ServerState::Linked(client) => !self.clients[client].conn.is_backed_up(),
            _ => true,
        }
    }

    /// Reads once. True: there may be more.
    fn read_server(&mut self, index: usize, buffer: &mut Vec<u8>) -> bool {
        let server = &mut self.servers[index];
        let held = server.conn.input.len();
        if held > 0 {
            if buffer.len() < held + READ_BYTES {
                buffer.resize(held + READ_BYTES, 0);
            }
            buffer[..held].copy_from_slice(&server.conn.input);
        }
        let n = match server.conn.read(&mut buffer[held..], &mut self.buffers) {
            Read::Full(n) | Read::Drained(n) => n,
            Read::Blocked => return false,
            Read::End | Read::Broken => {
                self.server_ended(index);
                return false;
            }
        };
        if held > 0 {
            self.buffers.give(std::mem::take(&mut server.conn.input));
        }
        server.last_activity = self.now;
        self.server_input(index, &buffer[..held + n]);
        if buffer.len() > READ_BYTES {
            buffer.truncate(READ_BYTES);
            buffer.shrink_to_fit();
        }
        self.servers.get(index).is_some_and(|s| s.conn.readable)
    }

    fn server_input(&mut self, index: usize, data: &[u8]) {
        match self.servers[index].state {
            ServerState::Linked(client) => self.relay(index, client, data),
            ServerState::Setting(_)
            | ServerState::Resetting
            | ServerState::Checking
            | ServerState::Idle
            | ServerState::BeingCanceled => self.listen(index, data),
            ServerState::Looking(ref looking) if !looking.is_asking() => self.listen(index, data),
            ServerState::Looking(_) => {
                let taken = self.lookup_input(index, data);
                if let Some(server) = self.servers.get_mut(index) {
                    server.conn.keep(&data[taken..], &mut self.buffers);
                }
            }
            ServerState::Login(_) => {
                let taken = self.server_login_input(index, data);
                if let Some(server) = self.servers.get_mut(index) {
                    server.conn.keep(&data[taken..], &mut self.buffers);
                }
            }
            ServerState::Connecting | ServerState::Closing | ServerState::Dead => {}
        }
    }

    /// Passes a server's answers on to its client.
    #[inline]
    fn relay(&mut self, index: usize, client_index: usize, data: &[u8]) {
        let server = &mut self.servers[index];
        let Client { conn, state: ClientState::Session(session), .. } = &mut self.clients[client_index] else { return };
        let held_back = session.front.is_held_back();
        let Relayed { to_client, consumed, seen, violation } = backend::relay(
            &mut server.back,
            Some(&mut session.front),
            self.config.settings.max_packet_size,
            data,
            &mut self.scratch,
        );
        let stats = &mut self.pools.get_mut(session.pool).stats;
        stats.bytes_sent += to_client.len() as u64;
        stats.query_count += u64::from(seen.queries_ended);
        stats.xact_count += u64::from(seen.transactions_ended);
        if seen.queries_ended > 0 {
            // What was sent along with it has its own time from here on.
            let next = server.back.requests.is_waiting().then_some(self.now);
            if let Some(start) = std::mem::replace(&mut session.query_start, next) {
                stats.query_time_us += (self.now - start).as_micros() as u64;
            }
            if seen.transactions_ended > 0 {
                let next = if server.back.status == b'I' { next } else { Some(self.now) };
                if let Some(start) = std::mem::replace(&mut session.transaction_start, next) {
                    stats.xact_time_us += (self.now - start).as_micros() as u64;
                }
            }
        }
        let sent = conn.send(to_client, &mut self.buffers);
        let unread = conn.readable || held_back;
        if consumed < data.len() {
            server.conn.keep(&data[consumed..], &mut self.buffers);
        }
        server.said_last_words |= seen.last_words;
        if let Some(rare) = seen.rare {
            let again = rare.settle(&mut server.back, &mut session.front, &mut self.statements);
            if server.conn.send(&again, &mut self.buffers).is_err() {
                server.conn.readable = true;
                self.again.push(Source::Server(index));
            }
            self.values_reported(index, Some(client_index), *rare);
        }
        if let Some(text) = violation {
            return self.server_broke(index, text);
        }
        if sent.is_err() {
            return self.close_client(client_index, &Ending::Silent("client unexpected eof"));
        }
        if unread {
            // It was not read while too much was outstanding.
            self.again.push(Source::Client(client_index));
        }
        self.release_if_done(index, client_index);
        if seen.transactions_ended > 0 && self.marks.draining {
            self.part_if_idle(client_index);
        }
    }

    /// A server's turn that no event brings: it may have more to read, or its client may have left nothing to wait for.
    pub(crate) fn server_again(&mut self, index: usize) {
        let Some(server) = self.servers.get_mut(index) else { return };
        if let ServerState::Linked(client) = server.state
            && std::mem::take(&mut server.unserved)
        {
            self.forward_kept(client, index);
            if !self.servers.get(index).is_some_and(|s| s.conn.readable || s.back.is_free()) {
                return;
            }
        }
        let Some(server) = self.servers.get(index) else { return };
        // What is kept and is more than the beginning of a message is still to be forwarded.
        if let ServerState::Linked(client) = server.state
            && self.clients[client].conn.input.len() < HEADER_BYTES
        {
            self.release_if_done(index, client);
        }
        if self.servers.get(index).is_some_and(|s| s.conn.readable) {
            self.server_readable(index, false);
        }
    }

    /// In transaction mode a server goes back when it owes nothing and is in no transaction.
    #[inline]
    pub(crate) fn release_if_done(&mut self, index: usize, client_index: usize) {
        let server = &self.servers[index];
        let Some(session) = self.clients[client_index].session() else { return };
        if !server.back.is_free() || server.unserved || server.conn.is_backed_up() || session.front.is_mid_message() {
            return;
        }
        let mode = session.mode(self.pools.get(session.pool).mode);
        if session.reset.is_some() && self.restore_startup(index, client_index) {
            return;
        }
        if mode != PoolMode::Session {
            self.unlink(index, client_index);
            self.server_released(index);
        } else if self.servers[index].close_reason.is_some() && self.config.settings.server_fast_close {
            self.close_with_client(index, client_index);
        }
    }

    /// Client and server part.
    pub(crate) fn unlink(&mut self, index: usize, client_index: usize) {
        self.servers[index].state = ServerState::Idle;
        let client = &mut self.clients[client_index];
        if let Some(session) = client.session_mut() {
            session.link = Link::None;
            session.query_start = None;
            session.transaction_start = None;
            if client.conn.readable || !client.conn.input.is_empty() {
                self.again.push(Source::Client(client_index));
            }
        }
    }

    /// What a server says when it serves no client: answers to our own queries, and what it says unasked.
    fn listen(&mut self, index: usize, data: &[u8]) {
        let server = &mut self.servers[index];
        let Relayed { consumed, seen, violation, .. } =
            backend::relay(&mut server.back, None, self.config.settings.max_packet_size, data, &mut self.scratch);
        if consumed < data.len() {
            server.conn.keep(&data[consumed..], &mut self.buffers);
        }
        let stray = seen.stray_error && server.client().is_none();
        if stray {
            server.said_last_words |= seen.last_words;
            server.close_reason = Some("idle server got dirty");
        }
        let hidden_error = seen.rare.and_then(|mut rare| {
            let error = rare.hidden_error.take();
            self.values_reported(index, None, *rare);
            error
        });
        if stray {
            log::warn!("{} got packet 'E' from server when not linked", self.server_prefix(index));
        }
        if let Some(text) = violation {
            return self.server_broke(index, text);
        }
        let server = &mut self.servers[index];
        if let Some(error) = hidden_error {
            server.hidden_error = Some(Box::new(error));
        }
        if seen.hidden_ended {
            let error = server.hidden_error.take();
            self.hidden_query_ended(index, error.as_deref());
        }
    }

    /// The pooler's own query has been answered.
    fn hidden_query_ended(&mut self, index: usize, error: Option<&HiddenError>) {
        let server = &mut self.servers[index];
        match server.state {
            ServerState::Setting(client) if error.is_some() || server.back.status != b'I' => {
                self.setting_failed(index, client, error);
            }
            ServerState::Setting(client) => {
                server.state = ServerState::Linked(client);
                self.values_set(index, client);
                self.forward_kept(client, index);
            }
            ServerState::Looking(_) => self.lookup_values_set(index, error.is_none()),
            ServerState::Resetting if error.is_some() || server.back.status != b'I' => {
                self.close_server(index, "reset query failed");
            }
            ServerState::Resetting => self.server_free(index),
            ServerState::Checking if error.is_some() || server.back.status != b'I' => self.check_failed(index),
            ServerState::Checking => self.check_passed(index),
            _ => {}
        }
    }

    /// A server has its client's values. Those that it spells otherwise, or that the client does not know of yet, the client is told.
    fn values_set(&mut self, index: usize, client_index: usize) {
        let Client { conn, state: ClientState::Session(session), .. } = &mut self.clients[client_index] else { return };
        let Some(params) = &mut self.servers[index].params else { return };
        *params = self.interner.adopt(params, &session.params);
        if session.owed.is_none() && !params.same(&session.params) {
            let mut told = Vec::new();
            for (name, value) in params.reported().filter(|(name, value)| session.params.get(name) != Some(value)) {
                encode::parameter_status(&mut told, name, value);
            }
            // A socket that is broken is found out when it is read.
            let _ = conn.send(&told, &mut self.buffers);
        }
        session.set_params(params.clone());
    }

    /// PostgreSQL does not take a client's values. One that has not been greeted hears what a connection of its own would have heard.
    fn setting_failed(&mut self, index: usize, client: usize, error: Option<&HiddenError>) {
        if let Some(HiddenError { severity, message, .. }) = error {
            log::error!("{} varcache_apply failed: {severity}: {message}", self.server_prefix(index));
        }
        let ending = match (self.clients[client].session(), error) {
            (Some(session), Some(error)) if session.owed.is_some() => Ending::Relayed(error.code.clone(), error.message.clone()),
            _ => Ending::violation("invalid server parameter"),
        };
        // What cannot be set back would fail for everybody: such a server is of no use.
        let server = &self.servers[index];
        let has_others_values = server.params.as_ref().is_some_and(|params| params.asked().next().is_some());
        if server.back.status == b'I' && !has_others_values {
            self.unlink(index, client);
            self.close_client(client, &ending);
            self.server_released(index);
        } else {
            self.close_client(client, &ending);
        }
    }

    /// A command has set parameters back to the server's defaults: nobody's values are set there any more.
    fn reset_seen(&mut self, index: usize, client: Option<usize>, reset: Reset) {
        let name = match &reset {
            Reset::All => None,
            Reset::One(name) => Some(name.as_str()),
        };
        if let Some(params) = &mut self.servers[index].params {
            *params = self.interner.forget_asked(params, name);
        }
        if let Some(session) = client.and_then(|client| self.clients[client].session_mut())
            && session.startup.is_some()
        {
            session.reset = Some(Box::new(reset));
        }
    }

    /// RESET goes back to what the client asked for at startup, as on a connection of its own. True: that is being set, nothing else can
    /// be done meanwhile.
    fn restore_startup(&mut self, index: usize, client: usize) -> bool {
        let Some(session) = self.clients[client].session_mut() else { return false };
        let (Some(reset), Some(startup)) = (session.reset.take(), &session.startup) else { return false };
        let covers = |name: &str| match &*reset {
            Reset::All => true,
            Reset::One(one) => one.eq_ignore_ascii_case(name),
        };
        let server = &mut self.servers[index];
        let Some(have) = &server.params else { return false };
        let mut wanted = have.clone();
        for (name, value) in startup.reported().filter(|(name, _)| covers(name)) {
            wanted = self.interner.with(&wanted, name, value);
        }
        wanted = self.interner.adopt(&wanted, &session.params);
        let Some(sql) = have.difference(&wanted) else { return false };
        server.state = ServerState::Setting(client);
        if server.send_hidden(&sql, &mut self.buffers).is_err() {
            server.conn.readable = true;
            self.again.push(Source::Server(index));
        }
        true
    }

    /// The server's values have changed, and those of the client that it serves.
    fn values_reported(&mut self, index: usize, client: Option<usize>, rare: Rare) {
        for (name, value) in rare.parameters.iter().filter(|(name, _)| crate::params::is_tracked(name)) {
            let server = &mut self.servers[index];
            if let Some(params) = &mut server.params {
                *params = self.interner.with(params, name, value);
            }
            if let Some(session) = client.and_then(|c| self.clients[c].session_mut()) {
                let params = self.interner.with(&session.params, name, value);
                session.set_params(params);
            }
        }
        // While values are being set it is the end that counts: a failure sets nothing back.
        if let Some(reset) = rare.reset
            && !matches!(self.servers[index].state, ServerState::Setting(_) | ServerState::Looking(_))
        {
            self.reset_seen(index, client, reset);
        }
    }
}

impl Server {
    /// Sends a query of our own, whose answer is swallowed.
    pub(crate) fn send_hidden(&mut self, sql: &str, buffers: &mut crate::socket::Buffers) -> Result<(), nix::errno::Errno> {
        let mut message = Vec::with_capacity(sql.len() + 6);
        shared::wire::encode::query(&mut message, sql);
        self.back.requests.push(crate::protocol::outstanding::Request::HiddenQuery);
        self.conn.send(&message, buffers)
    }
}
