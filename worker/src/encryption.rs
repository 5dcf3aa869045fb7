//! What TLS takes besides the data: handshakes, of which only a few may hold up a turn of the loop, and expanded keys, which only
//! connections in use are to have.

use crate::socket::Conn;
use crate::worker::{Source, Worker};
use shared::config::Config;
use shared::shm::Shm;
use shared::tls::{self, Acceptor, Connector, ContextError, Tickets};
use std::collections::VecDeque;
use std::sync::Arc;

/// Steps of handshakes in one turn. One takes up to a millisecond, and data that has come meanwhile waits.
const STEPS_PER_TURN: usize = 4;

/// Connections that may keep their keys expanded: 1.5 KB each.
const MOST_WARM: usize = 256;

/// How many of these a tick looks at.
const LOOKED_AT: usize = 16;

/// How many are passed over, as they are in use, before one in use is taken.
const PASSED_OVER: usize = 4;

/// What handshakes are begun with under a configuration.
#[derive(Default)]
pub(crate) struct Contexts {
    /// `None`: there is no TLS with clients.
    pub(crate) acceptor: Option<Acceptor>,
    /// `None`: there is no TLS with servers.
    pub(crate) connector: Option<Connector>,
}

impl Contexts {
    pub(crate) fn new(shm: &Shm, config: &Config) -> Result<Self, ContextError> {
        let tickets = Arc::new(Tickets::new(shm.clone(), config));
        let acceptor = Acceptor::new(&config.settings, &config.client_tls, Some(tickets))?;
        let connector = Connector::new(&config.settings, &config.server_tls)?;
        if acceptor.is_some() || connector.is_some() {
            tls::gather_entropy();
        }
        Ok(Self { acceptor, connector })
    }
}

/// What handshakes are begun with, and those that have something to work on.
#[derive(Default)]
pub(crate) struct Encryption {
    /// A handshake that has begun goes on with what it has begun with.
    pub(crate) contexts: Contexts,
    queue: VecDeque<Source>,
}

impl Encryption {
    /// A handshake can go on. Whoever says so says it once.
    pub(crate) fn enqueue(&mut self, source: Source) {
        self.queue.push_back(source);
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }
}

impl Worker {
    /// At the end of a turn, when all data has been dealt with.
    pub(crate) fn work_off_handshakes(&mut self) {
        for _ in 0..STEPS_PER_TURN {
            match self.encryption.queue.pop_front() {
                Some(Source::Client(index)) => self.client_handshake(index),
                Some(Source::Server(index)) => self.server_handshake(index),
                Some(_) => {}
                None => break,
            }
        }
        while self.buffers.warm.len() > MOST_WARM {
            let used = (0..PASSED_OVER).all(|_| self.cool_down_next(false));
            if used {
                self.cool_down_next(true);
            }
        }
    }

    /// Connections that have not been used for some seconds have no expanded keys.
    pub(crate) fn cool_down(&mut self) {
        for _ in 0..LOOKED_AT.min(self.buffers.warm.len()) {
            self.cool_down_next(false);
        }
    }

    /// Looks at the connection that was looked at longest ago. True: it is in use and stays warm.
    fn cool_down_next(&mut self, at_once: bool) -> bool {
        let Some(token) = self.buffers.warm.pop_front() else { return false };
        let conn: Option<&mut Conn> = match Source::from(token) {
            Source::Client(index) => self.clients.get_mut(index).map(|client| &mut client.conn),
            Source::Server(index) => self.servers.get_mut(index).map(|server| &mut server.conn),
            _ => None,
        };
        let stays = conn.is_some_and(|conn| conn.cool_down(at_once));
        if stays {
            self.buffers.warm.push_back(token);
        }
        stays
    }
}
