//! A session arrives from another worker.

use super::state::{Linked, Place, State};
use crate::client::replication::Dedication;
use crate::client::{Client, ClientSeats, ClientState, Link, Session};
use crate::clock::Instant;
use crate::pool::PoolIndex;
use crate::socket::Conn;
use crate::worker::{Life, Worker};
use shared::control::{MovedSession, ToInbox};
use shared::encoding::decode_named;
use shared::ids::{LimitId, Owner, SeatIndex};
use shared::tls::Role;
use std::os::fd::OwnedFd;

/// Why a session is not taken over.
enum Refusal {
    /// This worker has begun to leave since the sender looked, or somebody waits for the end of the session's transaction.
    NotNow,
    Cannot(String),
}

impl Worker {
    /// Takes a session over, or tells its sender that it cannot be done.
    pub(in crate::fleet) fn session_arrives(&mut self, moved: &MovedSession, mut fds: impl Iterator<Item = OwnedFd>) {
        let MovedSession { from, seat, ticket, .. } = *moved;
        match self.take_session(moved, fds.next(), fds.next()) {
            Ok(()) => {}
            Err(refusal) => {
                if let Refusal::Cannot(why) = refusal {
                    log::warn!(target: "process", "a session of worker {} cannot go on here: {why}", from.slot);
                }
                self.send_inbox(from.slot, &ToInbox::NotTaken { seat, ticket }, &[]);
            }
        }
    }

    /// The error says why nothing has been taken over.
    fn take_session(&mut self, moved: &MovedSession, client: Option<OwnedFd>, server: Option<OwnedFd>) -> Result<(), Refusal> {
        let cannot = |why: &str| Refusal::Cannot(why.to_owned());
        let client = client.ok_or_else(|| cannot("it came without its socket"))?;
        if self.life != Life::Serving {
            return Err(Refusal::NotNow);
        }
        let mut state: State = decode_named(&moved.state.0).map_err(|error| cannot(&error.to_string()))?;
        if matches!(state.place, Place::Linked(_)) != server.is_some() {
            return Err(cannot("it came without its server"));
        }
        let pool = self.pool_of(&state).ok_or_else(|| cannot("its database is gone"))?;
        if server.is_some() && self.pools.get(pool).paused {
            return Err(Refusal::NotNow);
        }
        let conn = Conn::arrived(client, Role::Server, &state.conn).map_err(|_| cannot("its TLS session cannot be read"))?;
        if !self.shm.clients().accept(self.me, moved.seat, moved.ticket) {
            // Its sender was quicker, or has died.
            return Ok(());
        }
        let place = std::mem::replace(&mut state.place, Place::Idle);
        let client = self.restored(moved, state, conn, pool);
        match (place, server) {
            (Place::Linked(linked), Some(socket)) => self.arrive_linked(client, pool, *linked, socket),
            (Place::Queued { since, notified }, _) => {
                if let Some(index) = self.admit_moved(client, pool, None) {
                    self.enqueue_moved(index, pool, Instant::from_micros(since), notified);
                }
            }
            _ => drop(self.admit_moved(client, pool, None)),
        }
        Ok(())
    }

    fn pool_of(&mut self, state: &State) -> Option<PoolIndex> {
        if let Some(pool) = self.pools.by_id(state.pool) {
            return (!self.pools.get(pool).gone).then_some(pool);
        }
        let (database, user) = self.shm.pool_names(state.pool)?;
        let entry = self.config.database(&database)?;
        self.find_pool_of(&entry, &user)
    }

    /// The client as it was, without a server.
    fn restored(&mut self, moved: &MovedSession, state: State, conn: Conn, pool: PoolIndex) -> Client {
        let seats = ClientSeats {
            client: moved.seat,
            database: self.seat_moved(moved.from, state.database_seat),
            user: self.seat_moved(moved.from, state.user_seat),
        };
        let params = state.params.intern(&mut self.interner);
        let startup = state.startup.map(|startup| startup.intern(&mut self.interner));
        let mut session = Session {
            pool,
            who: self.pools.identity(state.database, state.user),
            seats,
            key: state.key,
            params: params.clone(),
            startup,
            replication: state.replication,
            front: state.front.restore(&mut self.statements),
            link: Link::None,
            owed: None,
            reset: None,
            query_start: state.query_start.map(Instant::from_micros),
            transaction_start: state.transaction_start.map(Instant::from_micros),
        };
        session.set_params(params);
        Client {
            conn,
            id: state.id,
            peer: (&state.peer).into(),
            connected_at: Instant::from_micros(state.connected_at),
            last_request: Instant::from_micros(state.last_request),
            state: ClientState::Session(session),
        }
    }

    /// The seat of a limit of clients goes with the client. `None` if its sender has died a moment ago, and the seat with it.
    fn seat_moved(&self, from: Owner, seat: Option<(LimitId, SeatIndex)>) -> Option<(LimitId, SeatIndex)> {
        seat.filter(|(limit, seat)| self.shm.seats(*limit).give(from, *seat, self.me))
    }

    fn arrive_linked(&mut self, client: Client, pool: PoolIndex, linked: Linked, socket: OwnedFd) {
        let Linked { server: lent, back, last_activity, outdated, dedicated } = linked;
        let (id, replication) = (client.id, client.session().map(|session| session.replication).unwrap_or_default());
        let server = if self.shm.accept_lend(self.me, &lent.seats, lent.ticket) { self.take_over(&lent, socket) } else { None };
        let Some(index) = server else {
            // Its sender has died a moment ago, and its server with it.
            if let Some(session) = client.session() {
                self.leave_client_seats(&session.seats);
            }
            return;
        };
        let server = &mut self.servers[index];
        back.restore(&mut server.back, &mut self.statements);
        server.last_activity = Instant::from_micros(last_activity);
        server.busy = true;
        if outdated {
            server.close_reason.get_or_insert("database configuration changed");
        }
        server.dedication = dedicated.map(|parameters| Box::new(Dedication { client: 0, id, replication, parameters }));
        self.admit_moved(client, pool, Some(index));
    }
}
