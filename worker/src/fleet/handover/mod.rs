//! Sessions on their way to another worker: clients with all that belongs to them, and with the server that they are linked to.
//!
//! The client's seat decides whose a session is. The sender puts it in transit, keeps the session as it is, sockets and all, and stops touching
//! it; the receiver takes the seat over by compare-and-swap, and everything else follows: the server's seats, the seats of limits, the place
//! in the queue. If the receiver never does, or says that it cannot, the sender takes the seat back and goes on. So at every moment at most one worker
//! reads and writes, and whichever of the two dies, the session is the other's or ends with the one that had it.
//!
//! A worker of another build has another region; there a token decides in place of the seat ([`super::strangers`]).
//!
//! A session moves in whatever it is doing, a query or a COPY under way included, except while the pooler itself does something for it: sets
//! its values, cancels its query, greets it.

mod arrive;
mod state;

use super::lend::PATIENCE;
use crate::cancel::Asker;
use crate::client::greeting::Owed;
use crate::client::{Client, ClientState, Ending, Link};
use crate::clock::Instant;
use crate::pool::{PoolIndex, Waiter};
use crate::server::{Server, ServerState};
use crate::worker::{Life, Source, TICK, Worker};
use shared::control::{Lent, MovedSession, Replication, SessionState, ToInbox};
use shared::encoding::encode_named;
use shared::ids::{Owner, PoolId, SeatIndex, Slot};
use shared::shm::Ticket;
use shared::sys::token::Token;
use state::{Linked, Place, State};
use std::os::fd::AsFd;
use std::time::Duration;

/// Sessions sent in one turn.
const SENT_PER_TURN: usize = 32;

/// Clients looked at in one turn.
const SEEN_PER_TURN: usize = 256;

/// Sessions under way at once.
const MOST_UNDER_WAY: usize = 64;

/// How long a worker waits for those that it has sent before it sends more.
pub(crate) const PACE: Duration = Duration::from_millis(1);

/// Sessions that were sent and not yet taken over.
#[derive(Default)]
pub(crate) struct Moves {
    under_way: Vec<Move>,
    /// Where among the clients to look next.
    next: usize,
    /// One could not be handed over: the next are tried then.
    not_before: Instant,
    /// Cancel requests, with their keys, for clients that are on their way here.
    pub(crate) expected: Vec<([u8; 8], Asker)>,
}

impl Moves {
    pub(crate) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Whether a session of this pool is under way.
    pub(super) fn has_one_of(&self, pool: PoolIndex) -> bool {
        self.under_way.iter().any(|moved| moved.client.session().is_some_and(|session| session.pool == pool))
    }

    /// Servers that go with them.
    pub(super) fn servers(&self) -> impl Iterator<Item = &Server> {
        self.under_way.iter().filter_map(|moved| Some(&moved.server.as_ref()?.server))
    }

    /// How many descriptors they hold.
    pub(super) fn descriptors(&self) -> usize {
        self.under_way.iter().map(|moved| 1 + usize::from(moved.server.is_some()) + usize::from(moved.token.is_some())).sum()
    }
}

/// A session that was sent: what it was here, should it have to go on here.
struct Move {
    client: Client,
    server: Option<SentServer>,
    /// Its place in the queue.
    queued: Option<Waiter>,
    /// What its seat says here.
    ticket: Ticket,
    /// For a worker of another build.
    token: Option<Token>,
    to: Owner,
    since: Instant,
    refused: bool,
}

/// The server of a session that was sent.
struct SentServer {
    server: Server,
    lent: Lent,
    ticket: Ticket,
}

impl Move {
    /// The right to take it over, as its receiver is told.
    fn right(&self) -> Option<Ticket> {
        self.token.is_none().then_some(self.ticket)
    }

    fn seat(&self) -> Option<SeatIndex> {
        Some(self.client.session()?.seats.client)
    }

    /// What its receiver is told.
    fn message(&self, from: Owner, pool: PoolId, names: (String, String)) -> Option<ToInbox> {
        let session = self.client.session()?;
        let place = match (&self.server, &self.queued) {
            _ if let Some(Owed::Welcome(parameters) | Owed::Replication(parameters)) = session.owed.as_deref() => {
                Place::Ungreeted { parameters: parameters.clone() }
            }
            (Some(SentServer { server, lent, .. }), _) => Place::Linked(Linked::of(server, lent.clone())),
            (None, Some(waiter)) => Place::Queued { since: waiter.since.as_micros(), notified: waiter.notified },
            (None, None) => Place::Idle,
        };
        match encode_named(&[], &State::of(&self.client, session, pool, names, place)) {
            Ok(state) => {
                let (seat, ticket, state) = (session.seats.client, self.right(), SessionState(state));
                Some(ToInbox::Session(Box::new(MovedSession { from, seat, ticket, state })))
            }
            Err(error) => {
                log::error!(target: "process", "a session could not be handed over: {error}");
                None
            }
        }
    }
}

impl Worker {
    /// At the end of a turn: looks which sessions have arrived, and if this worker leaves, sends more.
    pub(crate) fn hand_sessions_over(&mut self) {
        self.settle_moves();
        if !self.moves.expected.is_empty() {
            self.cancel_arrived();
        }
        if self.life != Life::Leaving || self.clients.is_empty() || self.now < self.moves.not_before {
            return;
        }
        let mut heirs = self.heirs_of_clients();
        let (mut seen, mut sent) = (0, 0);
        while seen < SEEN_PER_TURN && sent < SENT_PER_TURN && self.moves.under_way.len() < MOST_UNDER_WAY {
            let Some((heir, clients)) = heirs.iter_mut().min_by_key(|(_, clients)| *clients) else { return };
            seen += 1;
            let index = self.moves.next;
            self.moves.next = if index + 1 < self.clients.capacity() { index + 1 } else { 0 };
            if self.strangers.are_coming() && self.pass_untouched(index, *heir) || !self.can_move(index) {
                continue;
            }
            if !self.send_session(index, *heir) {
                // Its inbox is full, or something is wrong with the session.
                self.moves.not_before = self.now + TICK;
                return;
            }
            *clients += 1;
            sent += 1;
        }
    }

    /// Workers that stay, and how many clients each has.
    fn heirs_of_clients(&self) -> Vec<(Slot, u32)> {
        if self.strangers.are_coming() {
            return self.heirs();
        }
        let clients = |(slot, _)| (slot, self.shm.workers().get(slot).clients);
        self.heirs().into_iter().map(clients).collect()
    }

    /// Whether another worker could go on with this client.
    fn can_move(&self, index: usize) -> bool {
        let Some(Client { conn, id, state, .. }) = self.clients.get(index) else { return false };
        let session = match state {
            ClientState::Session(session) => session,
            // Who waits here for a server would wait for ever: there will be no more of them.
            ClientState::Login(login) => return self.strangers.are_coming() && login.awaits_welcome() && conn.is_open(),
            _ => return false,
        };
        if let Some(Owed::Replication(_)) = session.owed.as_deref() {
            let mut candidates = self.pools.get(session.pool).candidates.iter();
            let waits = candidates.any(|candidate| candidate.waiter.id == *id && !candidate.opening);
            return self.strangers.are_coming() && waits && conn.is_open();
        }
        let quiet = session.owed.is_none() && session.reset.is_none() && conn.is_open();
        quiet
            && match session.link {
                Link::None | Link::Waiting(_) => true,
                // Who waits for a transaction's end, waits for it where it is.
                Link::Linked(server) => !self.pools.get(session.pool).paused && self.servers[server].can_move(),
            }
    }

    /// Sends a session that can move. False: it stays.
    fn send_session(&mut self, index: usize, to: Slot) -> bool {
        let Some(moved) = self.set_aside(index, to) else { return false };
        let pool = moved.client.session().map(|session| self.pools.get(session.pool));
        let message = pool.and_then(|pool| moved.message(self.me, pool.id, (pool.entry.name.clone(), pool.user.clone())));
        let sockets = [Some(&moved.client.conn), moved.server.as_ref().map(|sent| &sent.server.conn)];
        let sockets = sockets.into_iter().flatten().map(AsFd::as_fd);
        let sockets: Vec<_> = moved.token.as_ref().map(AsFd::as_fd).into_iter().chain(sockets).collect();
        let sent = message.is_some_and(|message| self.send_inbox(to, &message, &sockets));
        if sent {
            self.strangers.sent(to);
            self.moves.under_way.push(moved);
        } else {
            self.bring_back(moved);
        }
        sent
    }

    /// Takes a session out of everything here, with its seats on their way.
    fn set_aside(&mut self, index: usize, to: Slot) -> Option<Move> {
        let client = self.clients.get(index)?;
        let token = self.token_for(to).ok()?;
        if matches!(client.state, ClientState::Login(_)) {
            self.prepare_ungreeted(index);
        }
        let client = self.clients.get(index)?;
        let (id, session) = (client.id, client.session()?);
        let is_candidate = matches!(session.owed.as_deref(), Some(Owed::Replication(_)));
        let (seat, pool, link) = (session.seats.client, session.pool, session.link);
        let ticket = self.shm.clients().send(self.me, seat, to)?;
        let server = match session.server() {
            None => None,
            Some(server) => {
                let Some((lent, ticket)) = self.send_off(server, to) else {
                    self.shm.clients().take_back(self.me, seat, ticket);
                    return None;
                };
                Some(SentServer { server: self.servers.remove(server), lent, ticket })
            }
        };
        let mut client = self.clients.remove(index);
        let _ = client.conn.deregister(self.poll.registry());
        client.conn.cool_down(true);
        let server = server.map(|mut sent| {
            let _ = sent.server.conn.deregister(self.poll.registry());
            sent.server.conn.cool_down(true);
            sent
        });
        self.by_seat.remove(&seat);
        if is_candidate {
            self.candidate_left(pool, id);
        }
        let place = self.pools.get_mut(pool);
        place.clients -= 1;
        let mut queued = None;
        if matches!(link, Link::Waiting(_)) {
            let at = place.waiters.iter().position(|waiter| waiter.client == index && waiter.id == id);
            queued = at.and_then(|at| place.waiters.remove(at));
            self.waiter_left(pool);
        }
        let to = Owner { slot: to, incarnation: self.shm.workers().get(to).incarnation };
        Some(Move { client, server, queued, ticket, token, to, since: self.now, refused: false })
    }

    /// Looks which sessions have arrived, and goes on with those that never will.
    fn settle_moves(&mut self) {
        for moved in std::mem::take(&mut self.moves.under_way) {
            let Some(seat) = moved.seat() else { continue };
            let pending = match &moved.token {
                Some(token) => token.is_there(),
                None => self.shm.clients().is_on_its_way(seat, moved.ticket),
            };
            if !pending {
                continue;
            }
            let waits = !moved.refused
                && match moved.token {
                    Some(_) => self.waits_for_stranger(moved.to.slot, moved.since),
                    None => self.is_still(moved.to) && self.is_responsive(moved.to.slot) && self.now - moved.since < PATIENCE,
                };
            if waits {
                self.moves.under_way.push(moved);
            } else {
                self.moves.not_before = self.now + TICK;
                self.bring_back(moved);
            }
        }
    }

    /// The receiver cannot go on with a session.
    pub(super) fn session_refused(&mut self, seat: SeatIndex, ticket: Option<Ticket>) {
        if let Some(moved) = self.moves.under_way.iter_mut().find(|moved| moved.seat() == Some(seat) && moved.right() == ticket) {
            moved.refused = true;
        }
    }

    /// Goes on with sessions under way, unless their receivers are quicker: whoever looks for one here or, after that, there finds it once.
    pub(crate) fn recall(&mut self, wanted: impl Fn(&Client) -> bool) {
        let (recalled, others) = std::mem::take(&mut self.moves.under_way).into_iter().partition(|moved| wanted(&moved.client));
        self.moves.under_way = others;
        let recalled: Vec<Move> = recalled;
        for moved in recalled {
            self.bring_back(moved);
        }
    }

    /// Goes on with a session that was sent, unless its receiver was quicker.
    fn bring_back(&mut self, moved: Move) {
        let Move { client, server, queued, ticket, token, .. } = moved;
        let Some(session) = client.session() else { return };
        let (seats, pool) = (session.seats, session.pool);
        if !token.is_none_or(|token| token.take()) || !self.shm.clients().take_back(self.me, seats.client, ticket) {
            return;
        }
        let server = match server {
            None => None,
            Some(SentServer { server, lent, ticket }) => {
                self.shm.cancel_lend(self.me, &lent.seats, ticket);
                match self.adopt(server) {
                    Some(server) => Some(server),
                    None => return self.leave_client_seats(&seats),
                }
            }
        };
        if client.session().is_some_and(|session| session.owed.is_some()) {
            return self.ungreeted_arrives(client, pool);
        }
        let Some(index) = self.admit_moved(client, pool, server) else { return };
        if let Some(waiter) = queued {
            self.enqueue_moved(index, pool, waiter.since, waiter.notified);
        }
        if self.pools.get(pool).gone {
            self.close_client(index, &Ending::violation("database removed"));
        }
    }

    /// A client that waits for its greeting is this worker's.
    fn ungreeted_arrives(&mut self, client: Client, pool: PoolIndex) {
        if client.session().is_some_and(|session| session.replication == Replication::None) {
            return self.admit_ungreeted(client);
        }
        if let Some(index) = self.admit_moved(client, pool, None) {
            self.await_connection(index, pool);
        }
    }

    /// A session that is this worker's takes its place among the clients. `None`: its socket cannot be watched, and it ends.
    fn admit_moved(&mut self, mut client: Client, pool: PoolIndex, server: Option<usize>) -> Option<usize> {
        let (seats, id, last_request) = (client.session()?.seats, client.id, client.last_request);
        let timeout = client.session().and_then(|session| self.config.client_idle_timeout(&session.who.user));
        if let Some(session) = client.session_mut() {
            session.link = server.map_or(Link::None, Link::Linked);
        }
        let Ok(index) = self.add_client(client) else {
            if let Some(server) = server {
                self.close_server(server, "its client's socket could not be watched");
            }
            return None;
        };
        if let Some(timeout) = timeout {
            self.idle_timers.arm(last_request + timeout, (index, id));
        }
        self.by_seat.insert(seats.client, index);
        self.pools.get_mut(pool).clients += 1;
        // What has been read and not dealt with makes no edge.
        self.again.push(Source::Client(index));
        if let Some(server) = server {
            let server_index = server;
            let server = &mut self.servers[server_index];
            server.state = ServerState::Linked(index);
            if let Some(dedication) = &mut server.dedication {
                dedication.client = index;
            }
            self.again.push(Source::Server(server_index));
        }
        Some(index)
    }
}
