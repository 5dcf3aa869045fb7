//! A session arrives from another worker.

use super::state::{Linked, Place, State};
use crate::client::accept::ACCEPT_RESERVE;
use crate::client::greeting::Owed;
use crate::client::replication::Dedication;
use crate::client::{Client, ClientSeats, ClientState, Ending, Link, Session};
use crate::clock::Instant;
use crate::pool::PoolIndex;
use crate::socket::Conn;
use crate::worker::{Life, Worker};
use shared::control::{MovedSession, Replication, ToInbox};
use shared::encoding::decode_named;
use shared::ids::{LimitId, SeatIndex};
use shared::shm::Limit;
use shared::sys::token::Token;
use shared::tls::Role;
use shared::wire::report::sqlstate;
use std::os::fd::OwnedFd;

/// Why a session is not taken over.
enum Refusal {
    /// This worker has begun to leave since the sender looked, or has no more room for clients if they are to get servers, or somebody waits for
    /// the end of the session's transaction.
    NotNow,
    Cannot(String),
}

impl Worker {
    /// Takes a session over, or tells its sender that it cannot be done.
    pub(in crate::fleet) fn session_arrives(&mut self, moved: &MovedSession, mut fds: impl Iterator<Item = OwnedFd>) {
        let MovedSession { from, seat, ticket, .. } = *moved;
        let token = if ticket.is_none() { fds.next().map(Token::from) } else { None };
        match self.take_session(moved, token, fds.next(), fds.next()) {
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
    fn take_session(
        &mut self,
        moved: &MovedSession,
        token: Option<Token>,
        client: Option<OwnedFd>,
        server: Option<OwnedFd>,
    ) -> Result<(), Refusal> {
        let cannot = |why: &str| Refusal::Cannot(why.to_owned());
        let client = client.ok_or_else(|| cannot("it came without its socket"))?;
        if self.life != Life::Serving || !self.has_spare_descriptors(ACCEPT_RESERVE) {
            return Err(Refusal::NotNow);
        }
        let mut state: State = decode_named(&moved.state.0).map_err(|error| cannot(&error.to_string()))?;
        if matches!(state.place, Place::Linked(_)) != server.is_some() {
            return Err(cannot("it came without its server"));
        }
        let pool = self.pool_of(&state, token.is_some()).ok_or_else(|| cannot("its database is gone"))?;
        if server.is_some() && self.pools.get(pool).paused {
            return Err(Refusal::NotNow);
        }
        let conn = Conn::arrived(client, Role::Server, &state.conn).map_err(|_| cannot("its TLS session cannot be read"))?;
        let Some(seat) = self.claim_client(moved, token, state.key) else {
            // Its sender was quicker, or has died.
            return Ok(());
        };
        let place = std::mem::replace(&mut state.place, Place::Idle);
        let (seats, missing) = self.seats_moved(moved, seat, &state, pool);
        let mut client = self.restored(seats, state, conn, pool);
        match (place, server) {
            (Place::Linked(linked), Some(socket)) => self.arrive_linked(client, pool, *linked, socket),
            (Place::Queued { since, notified }, _) => {
                if let Some(index) = self.admit_moved(client, pool, None) {
                    self.enqueue_moved(index, pool, Instant::from_micros(since), notified);
                }
            }
            (Place::Ungreeted { parameters }, _) => {
                if let Some(session) = client.session_mut() {
                    let owed = if session.replication == Replication::None {
                        Owed::Welcome(parameters)
                    } else {
                        Owed::Replication(parameters)
                    };
                    session.owed = Some(Box::new(owed));
                }
                self.ungreeted_arrives(client, pool);
            }
            _ => drop(self.admit_moved(client, pool, None)),
        }
        if let Some(name) = missing
            && let Some(index) = self.by_seat.get(&seat).copied()
        {
            let text = format!("client connections exceeded ({name})");
            self.close_client(index, &Ending::Fatal(sqlstate::TOO_MANY_CONNECTIONS, text));
        }
        Ok(())
    }

    /// Takes over the client's seat.
    fn claim_client(&self, moved: &MovedSession, token: Option<Token>, key: [u8; 8]) -> Option<SeatIndex> {
        let clients = self.shm.clients();
        match (moved.ticket, token) {
            (Some(ticket), _) => clients.accept(self.me, moved.seat, ticket).then_some(moved.seat),
            (None, Some(token)) if token.take() => clients.claim(moved.from, self.me, moved.seat, key),
            (None, _) => None,
        }
    }

    /// `strange`: what the sender calls by a number may be another pool here.
    fn pool_of(&mut self, state: &State, strange: bool) -> Option<PoolIndex> {
        let (database, user) = if strange {
            state.pool_name.clone()
        } else {
            if let Some(pool) = self.pools.by_id(state.pool) {
                return (!self.pools.get(pool).gone).then_some(pool);
            }
            self.shm.pool_names(state.pool)?
        };
        let entry = self.config.database(&database)?;
        self.find_pool_of(&entry, &user)
    }

    /// The client as it was, without a server.
    fn restored(&mut self, seats: ClientSeats, state: State, conn: Conn, pool: PoolIndex) -> Client {
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

    /// The seats of limits of clients go with the client. Also the setting whose seat there is no more, if there is one.
    fn seats_moved(
        &self,
        moved: &MovedSession,
        client: SeatIndex,
        state: &State,
        pool: PoolIndex,
    ) -> (ClientSeats, Option<&'static str>) {
        let most = (
            self.config.max_db_client_connections(&self.pools.get(pool).entry),
            self.config.max_user_client_connections(&state.user),
        );
        let database = self.seat_moved(moved, state.database_seat, most.0, Limit::DatabaseClients(&state.database));
        let user = self.seat_moved(moved, state.user_seat, most.1, Limit::UserClients(&state.user));
        let missing = match (&database, &user) {
            (Err(()), _) => Some("max_db_client_connections"),
            (_, Err(())) => Some("max_user_client_connections"),
            _ => None,
        };
        (ClientSeats { client, database: database.unwrap_or(None), user: user.unwrap_or(None) }, missing)
    }

    /// One of them. If its sender has died since this worker accepted the client, the seat was freed with its others, and the client needs another:
    /// the error says that somebody was quicker. One that a stranger took after the census has no shadow here: the client gets another, beyond the limit if
    /// need be.
    fn seat_moved(
        &self,
        moved: &MovedSession,
        seat: Option<(LimitId, SeatIndex)>,
        most: u32,
        limit: Limit<'_>,
    ) -> Result<Option<(LimitId, SeatIndex)>, ()> {
        let Some((there, seat)) = seat else { return Ok(None) };
        if self.shm.has_limit(there) && self.shm.seats(there).give(moved.from, seat, self.me) {
            return Ok(Some((there, seat)));
        }
        if most == 0 {
            return Ok(None);
        }
        let (here, most) = match moved.ticket {
            Some(_) => (Some(there), most as usize),
            None => (self.shm.limit(limit), 0),
        };
        let taken = here.and_then(|here| Some((here, self.shm.seats(here).take(self.me, most)?)));
        taken.map(Some).ok_or(())
    }

    fn arrive_linked(&mut self, client: Client, pool: PoolIndex, linked: Linked, socket: OwnedFd) {
        let Linked { server: lent, back, last_activity, outdated, dedicated } = linked;
        let (id, replication) = (client.id, client.session().map(|session| session.replication).unwrap_or_default());
        let server = if self.claim_server(&lent) { self.take_over(&lent, socket) } else { None };
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use shared::config::Config;
    use shared::control::SessionState;
    use shared::ids::{Incarnation, Owner, Slot};

    /// The client would have gone on without one, and the limit would have let in one too many.
    #[test]
    fn a_seat_that_has_died_with_its_sender_is_taken_anew_or_missed() {
        let worker = Worker::alone(Config::default());
        let from = Owner { slot: Slot(7), incarnation: Incarnation(77) };
        let ticket = worker.shm.clients().take(from, 1).and_then(|seat| worker.shm.clients().send(from, seat, Slot(0)));
        let moved = MovedSession { from, seat: SeatIndex(0), ticket, state: SessionState(Vec::new()) };
        let seat_moved = |seat, most| worker.seat_moved(&moved, seat, most, Limit::UserClients("u"));
        let limit = worker.shm.limit(Limit::DatabaseClients("d")).unwrap();
        let seats = worker.shm.seats(limit);
        let index = seats.take(from, 1).unwrap();
        assert_eq!(seat_moved(Some((limit, index)), 1), Ok(Some((limit, index))), "it is given");
        assert!(seats.leave(worker.me, index));
        let seat = Some((limit, seats.take(from, 1).unwrap()));
        worker.shm.bury(from);
        assert!(seat_moved(seat, 1).unwrap().is_some());
        assert_eq!(seats.in_use(), 1);
        assert_eq!(seat_moved(seat, 1), Err(()), "somebody was quicker");
        assert_eq!((seat_moved(seat, 0), seat_moved(None, 1)), (Ok(None), Ok(None)));
    }
}
