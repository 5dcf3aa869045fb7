//! Users that auth_query knows: a login waits in the queue of the pool that looks them up, as a client would, and is given a server for
//! one query.
//!
//! The pool is that of auth_user in the authentication database. Its server gets its own parameter values back first, so that nothing that a client has set
//! has a bearing on the query (CVE-2025-12819), and is free for others when it has answered, whatever has become of the login. Whoever
//! asks gets an answer to a query that began after it came.

mod exchange;
mod rules;

pub(crate) use exchange::Found;
pub(crate) use rules::{Lookup, Refusal};

use crate::client::Ending;
use crate::pool::PoolIndex;
use crate::server::ServerState;
use crate::worker::{Life, Source, Worker};
use exchange::{self as messages, Trouble};
use shared::control::StopMode;
use shared::ids::ConnectionId;
use shared::wire::header::{self, HEADER_BYTES, Header, Peek};
use shared::wire::report::sqlstate;
use std::time::Duration;

/// The longest message that is read from auth_query's server, in bytes.
const LONGEST_MESSAGE: u32 = 1024 * 1024;

/// How long a query goes on whose login has gone.
const ABANDONED: Duration = Duration::from_secs(5);

/// A server that looks a user up.
pub(crate) struct Looking {
    /// The login that waits for it.
    client: usize,
    id: ConnectionId,
    /// `None`: the server gets its own values back first.
    exchange: Option<messages::Exchange>,
}

impl Looking {
    /// Our query runs, not one that sets parameters.
    pub(crate) fn is_asking(&self) -> bool {
        self.exchange.is_some()
    }
}

impl Worker {
    /// Finds a server for a login that waits to hear who its user is.
    pub(crate) fn look_up(&mut self, client: usize, pool: PoolIndex) -> Result<(), Ending> {
        if self.life == Life::Stopping(StopMode::WaitForServers) {
            return Err(Ending::Fatal(sqlstate::ADMIN_SHUTDOWN, "server shutting down".to_owned()));
        }
        if !self.pools.get(pool).paused {
            if let Some(server) = self.take_idle(pool) {
                self.begin_lookup(client, server);
                return Ok(());
            }
            if let Some(text) = self.failing(pool) {
                return Err(Ending::violation(text));
            }
        }
        self.enqueue_login(client, pool);
        Ok(())
    }

    /// A server is there for the login's query.
    pub(crate) fn begin_lookup(&mut self, client: usize, index: usize) {
        let waited = self.login_served(client);
        let (server, id) = (&mut self.servers[index], self.clients[client].id);
        let pool = self.pools.get_mut(server.pool);
        pool.stats.wait_time_us += waited.as_micros() as u64;
        pool.stats.server_assignment_count += 1;
        let own = pool.welcome.as_ref().map(|welcome| &welcome.tracked);
        let restore = server.params.as_ref().zip(own).and_then(|(have, own)| have.difference(own));
        server.state = ServerState::Looking(Box::new(Looking { client, id, exchange: None }));
        server.used = true;
        server.said_last_words = false;
        server.preparing = true;
        server.since = self.now;
        if !server.busy {
            server.busy = true;
            self.shm.set_busy(&server.seats, true);
        }
        match restore {
            Some(sql) => {
                if server.send_hidden(&sql, &mut self.buffers).is_err() {
                    self.read_end(index);
                }
            }
            None => self.ask_for_user(index),
        }
    }

    /// The server has its own values again, or not.
    pub(crate) fn lookup_values_set(&mut self, index: usize, worked: bool) {
        let server = &mut self.servers[index];
        let own = self.pools.get(server.pool).welcome.clone();
        if !worked || server.back.status != b'I' {
            return self.close_server(index, "var change failed");
        }
        if let Some((params, own)) = server.params.as_mut().zip(own) {
            *params = self.interner.adopt(params, &own.tracked);
        }
        self.ask_for_user(index);
    }

    fn ask_for_user(&mut self, index: usize) {
        let ServerState::Looking(looking) = &mut self.servers[index].state else { return };
        looking.exchange = Some(messages::Exchange::default());
        let asked = self.clients.get(looking.client).filter(|client| client.id == looking.id).and_then(|client| client.looked_up());
        let Some((query, user)) = asked else { return self.lookup_over(index) };
        let mut out = Vec::new();
        messages::ask(&mut out, query, user);
        if self.servers[index].conn.send(&out, &mut self.buffers).is_err() {
            self.read_end(index);
        }
    }

    /// What the server said last is still to be read.
    fn read_end(&mut self, index: usize) {
        self.servers[index].conn.readable = true;
        self.again.push(Source::Server(index));
    }

    /// Deals with what a server that looks somebody up has sent; gives how much of it is done with.
    pub(crate) fn lookup_input(&mut self, index: usize, data: &[u8]) -> usize {
        let mut at = 0;
        while let ServerState::Looking(looking) = &mut self.servers[index].state
            && let Some(exchange) = &mut looking.exchange
        {
            let (tag, body, total) = match header::peek(&data[at..], LONGEST_MESSAGE) {
                Peek::NeedMore => break,
                Peek::Bad => {
                    self.close_server(index, "bad pkt header");
                    break;
                }
                Peek::Header(Header { tag, total }) => match data[at..].get(HEADER_BYTES..total) {
                    Some(body) => (tag, body, total),
                    None => break,
                },
            };
            at += total;
            match exchange.take(tag, body) {
                messages::Step::More => {}
                messages::Step::Parameter(name, value) => self.lookup_parameter(index, name, value),
                messages::Step::Done(outcome, status) => self.lookup_done(index, outcome, status),
                messages::Step::Broken => self.close_server(index, "unexpected response from auth_query"),
            }
        }
        at
    }

    fn lookup_parameter(&mut self, index: usize, name: &[u8], value: &[u8]) {
        let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value)) else { return };
        if let Some(params) = self.servers[index].params.as_mut().filter(|_| crate::params::is_tracked(name)) {
            *params = self.interner.with(params, name, value);
        }
    }

    fn lookup_done(&mut self, index: usize, outcome: Result<Option<Found>, Trouble>, status: u8) {
        let server = &mut self.servers[index];
        let ServerState::Looking(looking) = std::mem::replace(&mut server.state, ServerState::Idle) else { return };
        server.preparing = false;
        let counts = &mut self.pools.get_mut(server.pool).stats;
        let time = (self.now - server.since).as_micros() as u64;
        (counts.query_count, counts.xact_count) = (counts.query_count + 1, counts.xact_count + 1);
        (counts.query_time_us, counts.xact_time_us) = (counts.query_time_us + time, counts.xact_time_us + time);
        if let Err(trouble) = &outcome {
            log::error!("{} S: {trouble}", self.server_prefix(index));
        }
        if status == b'I' {
            self.server_free(index);
        } else {
            self.close_server(index, "auth_query has left a transaction open");
        }
        self.user_looked_up(looking.client, looking.id, outcome.map_err(|_| ()));
    }

    /// Nobody waits for the answer, and the question was not asked yet.
    fn lookup_over(&mut self, index: usize) {
        let server = &mut self.servers[index];
        server.state = ServerState::Idle;
        server.preparing = false;
        self.server_free(index);
    }

    /// The connection has ended: its login gets no answer.
    pub(crate) fn lookup_lost(&mut self, looking: &Looking) {
        self.user_looked_up(looking.client, looking.id, Err(()));
    }

    /// A query that takes longer than query_timeout, or whose login has gone a while ago, ends with its connection.
    pub(crate) fn expire_lookup(&mut self, index: usize) {
        let server = &self.servers[index];
        let ServerState::Looking(looking) = &server.state else { return };
        let time = self.now - server.since;
        let gone = self.clients.get(looking.client).is_none_or(|client| client.id != looking.id || client.looked_up().is_none());
        if self.config.query_timeout(&self.pools.get(server.pool).user).is_some_and(|limit| time > limit) {
            self.close_server(index, "query timeout");
        } else if gone && time > ABANDONED {
            self.close_server(index, "client disconnected with query in progress");
        }
    }
}
