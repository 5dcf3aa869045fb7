//! A logged-in client's bytes on their way to a server.

use super::{Client, ClientState, Ending, Link, Session};
use crate::params::Params;
use crate::protocol::frontend::{self, Forwarded, Need, Rules, Stop};
use crate::protocol::statements::Scope;
use crate::socket::Read;
use crate::worker::{READS_PER_TURN, Source, Worker};
use shared::config::PoolMode;
use shared::control::Replication;
use shared::wire::{encode, header};

impl Worker {
    /// The client's socket takes more again.
    pub(crate) fn client_writable(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(index) else { return };
        if !client.conn.is_backed_up() {
            return;
        }
        if matches!(client.state, ClientState::Closing) {
            return self.closing_client(index);
        }
        match client.conn.flush(&mut self.buffers) {
            Err(_) => self.close_client(index, &Ending::Silent("client unexpected eof")),
            Ok(false) => {}
            Ok(true) => {
                let link = client.session().map(|s| s.link);
                if client.conn.readable {
                    self.again.push(Source::Client(index));
                }
                if let Some(Link::Linked(server)) = link
                    && self.servers[server].conn.readable
                {
                    self.again.push(Source::Server(server));
                }
            }
        }
    }

    /// The client's socket has bytes, or has ended (`closed`: the peer sends no more).
    pub(crate) fn client_readable(&mut self, index: usize, closed: bool) {
        let Some(client) = self.clients.get_mut(index) else { return };
        client.conn.readable = true;
        client.conn.hung_up |= closed;
        let mut buffer = std::mem::take(&mut self.read_buffer);
        for _ in 0..READS_PER_TURN {
            if !self.may_read_client(index) || !self.read_client(index, &mut buffer) {
                break;
            }
        }
        self.read_buffer = buffer;
        if self.clients.get(index).is_some_and(|c| c.conn.readable) && self.may_read_client(index) {
            self.again.push(Source::Client(index));
        }
    }

    /// Nothing of the client's is read while it waits for a server or its server's socket is full: it is the kernel that holds it back then.
    fn may_read_client(&self, index: usize) -> bool {
        let Some(client) = self.clients.get(index) else { return false };
        match &client.state {
            ClientState::Login(login) => !login.awaits_handshake() && (client.conn.hung_up || !login.is_parked()),
            ClientState::Closing => true,
            ClientState::Dead => false,
            ClientState::Session(session) => match session.link {
                Link::None if session.owed.is_some() => client.conn.hung_up,
                Link::None => !client.conn.is_backed_up(),
                // One that has gone gives its place up.
                Link::Waiting(_) => client.conn.hung_up,
                Link::Linked(server) => {
                    let server = &self.servers[server];
                    server.takes_queries()
                        && !session.front.is_held_back()
                        && !server.conn.is_backed_up()
                        && !client.conn.is_backed_up()
                        && server.back.requests.has_room()
                }
            },
        }
    }

    /// Reads once. True: there may be more.
    fn read_client(&mut self, index: usize, buffer: &mut Vec<u8>) -> bool {
        let client = &mut self.clients[index];
        if matches!(client.state, ClientState::Closing) {
            self.read_buffer.resize(4096, 0);
            self.closing_client(index);
            return false;
        }
        if client.session().is_some_and(|s| s.owed.is_some() || matches!(s.link, Link::Waiting(_))) {
            return self.look_for_end(index, buffer);
        }
        if client.conn.input.len() >= crate::worker::READ_BYTES {
            return self.read_long_message(index);
        }
        let held = client.conn.input.len();
        if held > 0 {
            // The beginning of a message comes before its end.
            if buffer.len() < held + crate::worker::READ_BYTES {
                buffer.resize(held + crate::worker::READ_BYTES, 0);
            }
            buffer[..held].copy_from_slice(&client.conn.input);
        }
        let n = match client.conn.read(&mut buffer[held..], &mut self.buffers) {
            Read::Full(n) | Read::Drained(n) => n,
            Read::Blocked if held > 0 => 0,
            Read::Blocked => return false,
            Read::End | Read::Broken => {
                self.close_client(index, &Ending::Silent("client unexpected eof"));
                return false;
            }
        };
        if held > 0 {
            self.buffers.give(std::mem::take(&mut client.conn.input));
        }
        client.last_request = self.now;
        self.client_input(index, &buffer[..held + n]);
        if buffer.len() > crate::worker::READ_BYTES {
            buffer.truncate(crate::worker::READ_BYTES);
            buffer.shrink_to_fit();
        }
        self.clients.get(index).is_some_and(|c| c.conn.readable)
    }

    /// A message that must be seen whole is longer than the read buffer: it grows where it is, and is looked at when it is all there.
    fn read_long_message(&mut self, index: usize) -> bool {
        let client = &mut self.clients[index];
        let mut message = std::mem::take(&mut client.conn.input);
        let held = message.len();
        message.resize(held + crate::worker::READ_BYTES, 0);
        let n = match client.conn.read(&mut message[held..], &mut self.buffers) {
            Read::Full(n) | Read::Drained(n) => n,
            Read::Blocked => 0,
            Read::End | Read::Broken => {
                self.close_client(index, &Ending::Silent("client unexpected eof"));
                return false;
            }
        };
        message.truncate(held + n);
        client.last_request = self.now;
        match header::peek(&message, u32::MAX) {
            header::Peek::Header(header) if message.len() < header.total => client.conn.input = message,
            _ => self.client_input(index, &message),
        }
        self.clients.get(index).is_some_and(|c| c.conn.readable)
    }

    /// A waiting client's peer has sent its last byte: what it sent is kept, and at the end it loses its place.
    fn look_for_end(&mut self, index: usize, buffer: &mut [u8]) -> bool {
        const MOST_KEPT: usize = 1024 * 1024;
        let client = &mut self.clients[index];
        match client.conn.read(buffer, &mut self.buffers) {
            Read::Full(n) | Read::Drained(n) if client.conn.input.len() + n <= MOST_KEPT => {
                client.conn.keep(&buffer[..n], &mut self.buffers);
                true
            }
            Read::Blocked => false,
            _ => {
                self.close_client(index, &Ending::Silent("client unexpected eof"));
                false
            }
        }
    }

    /// Deals with what a client has sent, from the first byte not dealt with before.
    pub(super) fn client_input(&mut self, index: usize, data: &[u8]) {
        match &self.clients[index].state {
            ClientState::Session(_) => self.session_input(index, data),
            ClientState::Login(_) => {
                let taken = self.login_input(index, data);
                if let Some(Client { state: ClientState::Login(login), .. }) = self.clients.get(index)
                    && let Some(admin) = login.for_console()
                {
                    return self.hand_to_console(index, admin, &data[taken..]);
                }
                if let Some(client) = self.clients.get_mut(index)
                    && !matches!(client.state, ClientState::Closing | ClientState::Dead)
                {
                    client.conn.keep(&data[taken..], &mut self.buffers);
                    // Greeted meanwhile, it may have asked its first question in the same breath.
                    if taken < data.len() && client.session().is_some() {
                        self.again.push(Source::Client(index));
                    }
                }
            }
            ClientState::Closing | ClientState::Dead => {}
        }
    }

    /// A session's input: finds it a server, or forwards to the one it has.
    pub(crate) fn session_input(&mut self, index: usize, data: &[u8]) {
        let Client { conn, state: ClientState::Session(session), .. } = &mut self.clients[index] else { return };
        if let Link::Linked(server) = session.link {
            return self.forward(index, server, data);
        }
        let rules = rules(&self.config, session.mode(self.pools.get(session.pool).mode));
        self.replies.clear();
        let need = frontend::need(&mut session.front, rules, data, &mut self.replies);
        if !self.replies.is_empty() && conn.send(&self.replies, &mut self.buffers).is_err() {
            return self.close_client(index, &Ending::Silent("client unexpected eof"));
        }
        match need {
            Need::Nothing(at) => conn.keep(&data[at..], &mut self.buffers),
            Need::Terminate => self.close_client(index, &Ending::Silent("client close request")),
            Need::BadHeader(at) => self.bad_header(index, &data[at..]),
            Need::Server(at) => {
                session.query_start = Some(self.now);
                session.transaction_start = Some(self.now);
                match self.acquire(index) {
                    Some(server) if self.servers[server].takes_queries() => self.forward(index, server, &data[at..]),
                    _ => {
                        if let Some(client) = self.clients.get_mut(index)
                            && client.session().is_some()
                        {
                            client.conn.keep(&data[at..], &mut self.buffers);
                        }
                    }
                }
            }
        }
    }

    /// Sends on what a linked client has sent.
    pub(crate) fn forward(&mut self, index: usize, server_index: usize, data: &[u8]) {
        let Client { conn, state: ClientState::Session(session), .. } = &mut self.clients[index] else { return };
        let server = &mut self.servers[server_index];
        let pool = self.pools.get_mut(session.pool);
        let rules = rules(&self.config, session.mode(pool.mode));
        if session.query_start.is_none() {
            session.query_start = Some(self.now);
            session.transaction_start.get_or_insert(self.now);
        }
        self.replies.clear();
        let Forwarded { to_server, consumed, stop, counts } = frontend::forward(
            &mut session.front,
            server.back.side(),
            &mut self.statements,
            rules,
            data,
            &mut self.scratch,
            &mut self.replies,
        );
        // A client that is not read any more cannot say Flush or Sync: what it asked for would never be answered.
        let flush = !server.back.requests.has_room();
        pool.stats.bytes_received += to_server.len() as u64;
        pool.stats.client_parse_count += u64::from(counts.client_parses);
        pool.stats.server_parse_count += u64::from(counts.server_parses);
        pool.stats.bind_count += u64::from(counts.binds);
        server.last_activity = self.now;
        let mut sent = server.conn.send(to_server, &mut self.buffers);
        if flush && !session.front.is_mid_message() {
            sent = sent.and_then(|()| server.conn.send(encode::FLUSH, &mut self.buffers));
        }
        let answered = conn.send(&self.replies, &mut self.buffers);
        match stop {
            // What waits is looked at again when the server has answered.
            Stop::No | Stop::Wait => {
                if consumed < data.len() {
                    conn.keep(&data[consumed..], &mut self.buffers);
                }
            }
            Stop::Enough => {
                conn.keep(&data[consumed..], &mut self.buffers);
                // What is kept is looked at again when the server's socket has taken what was sent.
                conn.readable = true;
                self.again.push(Source::Client(index));
            }
            Stop::Terminate => return self.close_client(index, &Ending::Silent("client close request")),
            Stop::Violation(text) => return self.close_client(index, &Ending::violation(text)),
            Stop::BadHeader => return self.bad_header(index, &data[consumed..]),
        }
        if sent.is_err() {
            // Whatever it said last may still be readable.
            server.conn.readable = true;
            self.again.push(Source::Server(server_index));
        } else if server.back.is_free() {
            // What was sent asks for no answer that could end the link.
            self.again.push(Source::Server(server_index));
        } else if answered.is_err() {
            self.close_client(index, &Ending::Silent("client unexpected eof"));
        }
    }

    fn bad_header(&mut self, index: usize, bytes: &[u8]) {
        let text = format!("bad packet header: '{}'", header::hex_prefix(bytes));
        self.close_client(index, &Ending::violation(text));
    }

    /// What a client sent before it had a server goes to the one it has now.
    pub(crate) fn forward_kept(&mut self, index: usize, server: usize) {
        if self.clients[index].session().is_some_and(|s| s.owed.is_some()) {
            return self.greet_linked(index, server);
        }
        let kept = std::mem::take(&mut self.clients[index].conn.input);
        if kept.is_empty() {
            // Nothing was asked: the server may be free again.
            self.again.push(Source::Server(server));
        } else {
            self.forward(index, server, &kept);
            self.buffers.give(kept);
        }
        // More may have come while it waited.
        if self.clients.get(index).is_some_and(|c| c.conn.readable) {
            self.again.push(Source::Client(index));
        }
    }
}

/// What holds for the clients of a pool of this mode.
fn rules(config: &shared::config::Config, mode: PoolMode) -> Rules {
    let settings = &config.settings;
    let max_statements = if mode == PoolMode::Session { 0 } else { settings.max_prepared_statements as usize };
    Rules {
        max_packet: settings.max_packet_size,
        max_statements,
        reuse_unnamed: settings.reuse_unnamed_statements && max_statements > 0,
        refuse_simple: settings.disable_pqexec,
    }
}

impl Session {
    /// Its values are others now: what its statements mean may be another thing, too.
    pub(crate) fn set_params(&mut self, params: Params) {
        self.params = params;
        let value = |name| self.params.value(name).unwrap_or("");
        self.front.scope = Scope::new(&self.who.database, value("search_path"), value("role"));
    }

    /// The pool mode as it holds for this client.
    #[inline]
    pub(crate) fn mode(&self, pool: PoolMode) -> PoolMode {
        if self.replication == Replication::None { pool } else { PoolMode::Session }
    }

    /// The server it is linked to.
    pub(crate) fn server(&self) -> Option<usize> {
        match self.link {
            Link::Linked(server) => Some(server),
            _ => None,
        }
    }
}
