//! Idle servers on their way from worker to worker.
//!
//! The sender keeps a duplicate of the socket until the seat's word shows that the receiver has it. Should the message be lost, or the
//! receiver die with it, the sender takes the connection back; the word decides which of the two has it, never both. To a worker of another build goes a
//! token that decides instead ([`super::strangers`]).

use crate::clock::Instant;
use crate::pool::PoolIndex;
use crate::protocol::backend::Backend;
use crate::protocol::statements::StatementId;
use crate::server::{Server, ServerState};
use crate::socket::Conn;
use crate::worker::Worker;
use shared::control::{Lent, ServerSeats, ToInbox};
use shared::ids::{Owner, PoolId, Slot};
use shared::shm::Ticket;
use shared::sys::token::Token;
use shared::tls::Role;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// How long a receiver may take before its lender takes the connection back. One that is well reads its inbox at every turn of its loop.
pub(crate) const PATIENCE: Duration = Duration::from_millis(500);

/// Connections that were sent and not yet accepted.
#[derive(Default)]
pub(crate) struct Lends(Vec<InFlight>);

impl Lends {
    /// Whether none is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many descriptors they hold.
    pub(super) fn descriptors(&self) -> usize {
        self.0.iter().map(|flight| 1 + usize::from(flight.token.is_some())).sum()
    }

    /// The connections and their sockets.
    pub(super) fn sockets(&self) -> impl Iterator<Item = (ServerSeats, BorrowedFd<'_>)> {
        self.0.iter().map(|flight| (flight.lent.seats, flight.socket.as_fd()))
    }

    /// Whether a connection of this pool is under way.
    pub(crate) fn has_one_of(&self, pool: PoolId) -> bool {
        self.0.iter().any(|flight| flight.lent.seats.pool == pool)
    }
}

struct InFlight {
    lent: Lent,
    /// What its seat says here.
    ticket: Ticket,
    /// For a worker of another build.
    token: Option<Token>,
    socket: OwnedFd,
    to: Owner,
    since: Instant,
}

impl Worker {
    /// Sends a free server to another worker. False: that cannot be done, and it stays.
    pub(crate) fn lend(&mut self, index: usize, to: Slot) -> bool {
        let (true, Some((lent, ticket)), Ok(token)) = (self.may_lend_to(to), self.lendable(index, to), self.token_for(to)) else {
            self.keep(index);
            return false;
        };
        let seats = lent.seats;
        let Some((lent, socket)) = self.send_lent(index, to, lent, token.as_ref()) else {
            self.shm.cancel_lend(self.me, &seats, ticket);
            self.keep(index);
            return false;
        };
        let _ = self.servers[index].conn.deregister(self.poll.registry());
        self.forget_server(index);
        let to = Owner { slot: to, incarnation: self.shm.workers().get(to).incarnation };
        self.strangers.sent(to.slot);
        self.lends.0.push(InFlight { lent, ticket, token, socket, to, since: self.now });
        true
    }

    fn send_lent(&mut self, index: usize, to: Slot, lent: Box<Lent>, token: Option<&Token>) -> Option<(Lent, OwnedFd)> {
        let socket = match self.servers[index].conn.as_fd().try_clone_to_owned() {
            Ok(socket) => socket,
            Err(error) => {
                log::warn!(target: "process", "a server could not be lent: {error}");
                return None;
            }
        };
        let message = ToInbox::Lend(lent);
        let fds: Vec<_> = token.map(AsFd::as_fd).into_iter().chain([socket.as_fd()]).collect();
        let sent = self.send_inbox(to, &message, &fds);
        let ToInbox::Lend(lent) = message else { return None };
        sent.then_some((*lent, socket))
    }

    /// What is to be said of a server that is lent, whose seat is on its way from here on. `None`: it cannot be.
    fn lendable(&self, index: usize, to: Slot) -> Option<(Box<Lent>, Ticket)> {
        let server = &self.servers[index];
        // Half a message would be lost on the way.
        let mid_message = !server.conn.input.is_empty() || server.conn.is_backed_up() || server.back.is_mid_message();
        if mid_message { None } else { self.send_off(index, to).map(|(lent, ticket)| (Box::new(lent), ticket)) }
    }

    /// Puts a server's seats on the way and says all of it that is not in the middle of something. `None`: it has not logged in.
    pub(super) fn send_off(&self, index: usize, to: Slot) -> Option<(Lent, Ticket)> {
        let server = &self.servers[index];
        let pool = self.pools.get(server.pool);
        let (Some(params), Some(welcome)) = (&server.params, &pool.welcome) else { return None };
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let ticket = self.shm.begin_lend(self.me, &server.seats, to);
        let lent = Lent {
            from: self.me,
            id: server.id,
            seats: server.seats,
            ticket: (!self.is_stranger(to)).then_some(ticket),
            epoch: self.config.generation,
            reconnected: self.marks.reconnected(&pool.entry.name),
            backend_key: server.backend_key,
            greeting: welcome.parameters(),
            parameters: params.reported().map(owned).collect(),
            asked: params.asked().map(owned).collect(),
            statements: server.back.statements.in_order(),
            connected_at: server.connected_at.as_micros(),
            idle_since: server.since.as_micros(),
            used: server.used,
            address: server.address.clone(),
            host: server.host.to_string(),
            conn: server.conn.state(),
        };
        Some((lent, ticket))
    }

    /// A server that is free and stays: it serves whoever waits here, or is idle.
    fn keep(&mut self, index: usize) {
        let pool = self.servers[index].pool;
        self.keep_free(pool, index);
    }

    /// Another worker's server arrives.
    pub(crate) fn accept_lent(&mut self, lent: &Lent, mut fds: impl Iterator<Item = OwnedFd>) {
        let token = if lent.ticket.is_none() { fds.next().map(Token::from) } else { None };
        let Some(socket) = fds.next() else {
            return log::error!(target: "process", "a lent server came without its socket; its sender takes it back");
        };
        if let Some(pool) = self.pools.by_id(lent.seats.pool) {
            self.pools.get_mut(pool).borrow_answered(lent.from.slot);
        }
        if !token.is_none_or(|token| token.take()) || !self.claim_server(lent) {
            return;
        }
        if let Some(index) = self.take_over(lent, socket) {
            let pool_index = self.servers[index].pool;
            self.server_arrived(index);
            // There may be more where it came from.
            self.pools.get_mut(pool_index).exhausted = false;
            self.pump(pool_index);
        }
    }

    /// Takes over a server's seats. Whose a stranger's is has been decided by its token.
    pub(super) fn claim_server(&self, lent: &Lent) -> bool {
        match lent.ticket {
            Some(ticket) => self.shm.accept_lend(self.me, &lent.seats, ticket),
            None => self.shm.claim_server(lent.from, self.me, &lent.seats, lent.backend_key),
        }
    }

    /// A connection that nobody has accepted is ours again.
    fn take_back(&mut self, lent: &Lent, socket: OwnedFd) {
        if let Some(index) = self.take_over(lent, socket) {
            self.keep(index);
        }
    }

    /// A connection whose seats are ours goes into its pool.
    pub(super) fn take_over(&mut self, lent: &Lent, socket: OwnedFd) -> Option<usize> {
        let names = self.shm.pool_names(lent.seats.pool);
        let pool = self.pools.by_id(lent.seats.pool).or_else(|| {
            let (database, user) = names?;
            let entry = self.config.database(&database)?;
            self.find_pool(&entry, &user)
        });
        let Some(pool_index) = pool else {
            // Its database is gone from the configuration since.
            self.abandon(&Conn::new(socket), &lent.seats);
            return None;
        };
        let conn = match Conn::arrived(socket, Role::Client, &lent.conn) {
            Ok(conn) => conn,
            Err(conn) => {
                log::warn!(target: "process", "a lent server's TLS session could not be read");
                self.abandon(&conn, &lent.seats);
                return None;
            }
        };
        let pairs = || lent.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut params = self.interner.set(pairs());
        for (name, value) in &lent.asked {
            params = self.interner.ask(&params, name, value);
        }
        let mut back = Backend::default();
        lent.statements.iter().for_each(|id| back.statements.insert(StatementId(*id)));
        let close_reason = self.outdated(pool_index, lent);
        let pool = self.pools.get_mut(pool_index);
        // Its lender may not have known of a limit yet.
        let seats = self.shm.join_limits(self.me, &lent.seats, &pool.limits);
        let server = Server {
            conn,
            id: lent.id,
            pool: pool_index,
            seats,
            address: lent.address.clone(),
            host: lent.host.as_str().into(),
            state: ServerState::Idle,
            back,
            params: Some(params),
            backend_key: lent.backend_key,
            connected_at: Instant::from_micros(lent.connected_at),
            since: Instant::from_micros(lent.idle_since),
            last_activity: Instant::from_micros(lent.idle_since),
            close_reason,
            notices: Vec::new(),
            hidden_error: None,
            unserved: false,
            dedication: None,
            said_last_words: false,
            used: lent.used,
            was_reset: false,
            preparing: false,
            busy: false,
            cancels: 0,
            epoch: pool.epoch,
        };
        let index = self.adopt(server)?;
        self.tell_of_arrival(index);
        if self.pools.get(pool_index).welcome.is_none() && close_reason.is_none() {
            self.learn_welcome(pool_index, &lent.greeting);
        }
        Some(index)
    }

    /// Why a connection is not to be used here, if its lender had not heard yet of a reload, of a RECONNECT or of what a name means now.
    fn outdated(&self, index: PoolIndex, lent: &Lent) -> Option<&'static str> {
        let pool = self.pools.get(index);
        if lent.epoch < pool.reconnect_generation {
            return Some("database configuration changed");
        }
        let obsolete = lent.reconnected < self.marks.reconnected(&pool.entry.name) || pool.hosts.is_obsolete(&lent.address);
        obsolete.then_some("obsolete connection")
    }

    /// Ends a connection that has no place here.
    fn abandon(&mut self, conn: &Conn, seats: &ServerSeats) {
        conn.shutdown();
        self.give_up_seats(seats);
    }

    /// Whether that life of its slot goes on.
    pub(super) fn is_still(&self, worker: Owner) -> bool {
        self.shm.workers().get(worker.slot).incarnation == worker.incarnation
    }

    /// Looks which lends have arrived, and takes back those that never will. At the end of every turn: each that is under way holds a descriptor.
    pub(crate) fn settle_lends(&mut self) {
        if self.lends.0.is_empty() {
            return;
        }
        for flight in std::mem::take(&mut self.lends.0) {
            let InFlight { lent, ticket, token, to, since, .. } = &flight;
            let pending = match token {
                Some(token) => token.is_there(),
                None => self.shm.lend_pending(&lent.seats, *ticket),
            };
            if !pending {
                continue;
            }
            let (to, since) = (*to, *since);
            let waits = match token {
                Some(_) => self.waits_for_stranger(to.slot, since),
                // One that has died since may have read it.
                None => self.is_still(to) && self.is_responsive(to.slot) && self.now - since < PATIENCE,
            };
            if waits {
                self.lends.0.push(flight);
            } else if flight.token.is_none_or(|token| token.take())
                && self.shm.cancel_lend(self.me, &flight.lent.seats, flight.ticket)
            {
                self.take_back(&flight.lent, flight.socket);
            }
        }
    }
}
