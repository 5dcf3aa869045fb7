//! The fleet is drained: clients are sent away, each of them between two transactions, and nobody is let in.
//!
//! One whose transaction ends goes at once. Who is idle goes when the supervisor says so, which keeps the pace for the whole fleet; who waits for a
//! server is served first. A session keeps its server in session mode, and is idle when that has answered everything and is in no transaction.

use crate::client::{Client, ClientState, Ending, Link};
use crate::server::Server;
use crate::worker::Worker;
use shared::control::{Parting, ToSupervisor};
use shared::wire::report::sqlstate;
use std::time::Duration;

/// How long after its accept a client in login is taken for one that never logs in. Until then it may want the console.
const LOGIN: Duration = Duration::from_secs(5);

/// What a client does, as far as it matters to a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// Nothing: it may go at any time.
    Nothing,
    /// It has asked for something that has not begun.
    Asking,
    /// It is in a transaction.
    Working,
    /// It has only just come, perhaps for the console.
    Arriving,
    /// It has been sent away already.
    Leaving,
}

impl Worker {
    /// The supervisor says who is to go.
    pub(super) fn part(&mut self, parting: Parting) {
        let (mut turns, mut idle, mut others) = (0, 0, 0);
        let parts = |doing: Doing, turns: &mut u32| match parting {
            Parting::Idle(most) => doing == Doing::Nothing && *turns < most,
            Parting::Outside => matches!(doing, Doing::Nothing | Doing::Asking),
            Parting::All => !matches!(doing, Doing::Arriving | Doing::Leaving),
        };
        for index in 0..self.clients.capacity() {
            let Some(client) = self.clients.get(index) else { continue };
            let doing = self.doing(client);
            if parts(doing, &mut turns) {
                turns += 1;
                self.send_away(index);
            } else if doing == Doing::Nothing {
                idle += 1;
            } else if doing != Doing::Leaving {
                others += 1;
            }
        }
        self.control.send(&ToSupervisor::Remaining { gone: turns, idle, others }, &[]);
    }

    /// A client's transaction has ended. One that keeps its server may have gone on with its next one already.
    pub(crate) fn part_if_idle(&mut self, index: usize) {
        if self.clients.get(index).is_some_and(|client| self.doing(client) == Doing::Nothing) {
            self.send_away(index);
        }
    }

    fn send_away(&mut self, index: usize) {
        self.close_client(index, &Ending::Fatal(sqlstate::ADMIN_SHUTDOWN, "server shutting down".to_owned()));
    }

    fn doing(&self, client: &Client) -> Doing {
        let session = match &client.state {
            ClientState::Session(session) => session,
            ClientState::Login(_) if self.now - client.connected_at < LOGIN => return Doing::Arriving,
            ClientState::Login(_) => return Doing::Nothing,
            ClientState::Closing | ClientState::Dead => return Doing::Leaving,
        };
        match session.link {
            _ if session.owed.is_some() => Doing::Asking,
            Link::Waiting(_) => Doing::Asking,
            Link::Linked(server) if session.front.is_mid_message() || !is_at_rest(&self.servers[server]) => Doing::Working,
            Link::Linked(_) if client.conn.is_backed_up() => Doing::Working,
            Link::None | Link::Linked(_) => Doing::Nothing,
        }
    }
}

/// Whether the server owes its client nothing: it is in no transaction, or sends what has no end, between two messages.
fn is_at_rest(server: &Server) -> bool {
    let whole = server.takes_queries() && !server.unserved && !server.conn.is_backed_up();
    whole && (server.back.is_free() || server.back.streaming && !server.back.is_mid_message())
}
