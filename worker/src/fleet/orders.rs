//! What console commands have this worker do, and when it has been done.
//!
//! Most orders are done at once. PAUSE and WAIT_CLOSE are done when the last server concerned is in use no more: they are owed until then, and
//! looked at ten times a second.

use crate::client::Ending;
use crate::pool::PoolIndex;
use crate::server::{Server, ServerState};
use crate::worker::Worker;
use shared::control::ToSupervisor;
use shared::ids::ConnectionId;
use shared::orders::{Order, Outcome, PoolName, Scope};
use shared::wire::report::sqlstate;

/// An order that waits for servers.
pub(crate) struct Owed {
    number: u32,
    wait: Wait,
}

/// Which servers.
#[derive(Debug, PartialEq, Eq)]
enum Wait {
    /// All of these databases.
    Quiet(Scope),
    /// Those of them that are to be closed.
    Closed(Scope),
}

/// What of a server matters here.
struct View<'a> {
    database: &'a str,
    in_use: bool,
    close_needed: bool,
}

impl Wait {
    fn is_held_up_by(&self, server: &View<'_>) -> bool {
        match self {
            Wait::Quiet(scope) => server.in_use && scope.holds(server.database),
            Wait::Closed(scope) => server.in_use && server.close_needed && scope.holds(server.database),
        }
    }
}

impl Worker {
    /// Carries out an order of the supervisor's.
    pub(super) fn obey(&mut self, number: u32, order: Order) {
        self.marks.obey(number, &order);
        // It may be given again.
        self.last_order = self.last_order.max(number);
        let outcome = match order {
            Order::Pause(scope) => {
                self.apply_pauses();
                return self.owe(number, Wait::Quiet(scope));
            }
            Order::WaitClose(scope) => return self.owe(number, Wait::Closed(scope)),
            Order::Resume(scope) => {
                let taken_back = Wait::Quiet(scope);
                self.owed.retain(|owed| owed.wait != taken_back);
                self.apply_pauses();
                Outcome::Done
            }
            Order::Disable(_) | Order::Enable(_) | Order::Drain | Order::Undrain => Outcome::Done,
            Order::Reconnect(scope) => {
                self.reconnect(&scope);
                Outcome::Done
            }
            Order::Kill(databases) => {
                self.apply_pauses();
                self.kill_databases(&databases);
                Outcome::Done
            }
            Order::KillClient(id) if self.kill_client(id) => Outcome::Done,
            Order::KillClient(_) => Outcome::NotFound,
            Order::Forget(names) => self.forget_pools(names),
        };
        self.control.send(&ToSupervisor::Done { number, outcome }, &[]);
    }

    fn owe(&mut self, number: u32, wait: Wait) {
        self.owed.push(Owed { number, wait });
        self.settle_orders();
    }

    /// Reports the orders that wait for no server any more.
    pub(crate) fn settle_orders(&mut self) {
        for owed in std::mem::take(&mut self.owed) {
            if self.holds_up(&owed.wait) {
                self.owed.push(owed);
            } else {
                self.control.send(&ToSupervisor::Done { number: owed.number, outcome: Outcome::Done }, &[]);
            }
        }
    }

    fn holds_up(&self, wait: &Wait) -> bool {
        self.servers.iter().map(|(_, server)| server).chain(self.moves.servers()).any(|server| {
            let pool = self.pools.get(server.pool);
            wait.is_held_up_by(&View {
                database: &pool.entry.name,
                in_use: server.is_in_use(),
                close_needed: server.close_reason.is_some() || server.epoch != pool.epoch,
            })
        })
    }

    /// Every pool is paused or not as the marks say. Where queries may go on, clients that waited look for servers.
    pub(super) fn apply_pauses(&mut self) {
        let mut changed = Vec::new();
        for index in self.pools.indices() {
            let pool = self.pools.get_mut(index);
            let paused = self.marks.is_paused(&pool.entry.name);
            if std::mem::replace(&mut pool.paused, paused) != paused {
                changed.push((index, paused));
            }
        }
        // Only now: a seat that falls free here is not for a pool that is to be paused as well.
        for (index, paused) in changed {
            if paused {
                self.close_unused_servers(|pool| pool == index, "pause mode");
            } else {
                self.pools.get_mut(index).exhausted = false;
                self.pump(index);
            }
        }
    }

    /// Closes servers that nobody uses, those still logging in included.
    pub(crate) fn close_unused_servers(&mut self, of: impl Fn(PoolIndex) -> bool, reason: &'static str) {
        use ServerState::{Checking, Connecting, Idle, Login};
        let is_unused = |server: &Server| matches!(server.state, Idle | Checking | Connecting | Login(_)) && of(server.pool);
        let unused: Vec<usize> = self.servers.iter().filter(|(_, s)| is_unused(s)).map(|(index, _)| index).collect();
        for server in unused {
            self.close_server(server, reason);
        }
    }

    fn reconnect(&mut self, scope: &Scope) {
        self.pools.welcomes.retain(|(database, _), _| !scope.holds(database));
        for index in self.pools.indices() {
            if !scope.holds(&self.pools.get(index).entry.name) {
                continue;
            }
            self.pools.get_mut(index).welcome = None;
            let logging_in = |s: &Server| s.pool == index && matches!(s.state, ServerState::Connecting | ServerState::Login(_));
            let logging_in: Vec<usize> = self.servers.iter().filter(|(_, s)| logging_in(s)).map(|(server, _)| server).collect();
            for server in logging_in {
                self.close_server(server, "connect string changed");
            }
            self.retire_servers(index, "database configuration changed", "close_needed");
            self.pools.get_mut(index).exhausted = false;
            self.pump(index);
        }
    }

    fn kill_databases(&mut self, databases: &[String]) {
        let ending = Ending::Fatal(sqlstate::ADMIN_SHUTDOWN, "database removed".to_owned());
        for index in self.pools.indices() {
            if databases.contains(&self.pools.get(index).entry.name) {
                self.drop_pool_clients(index, &ending);
            }
        }
    }

    fn forget_pools(&mut self, names: Vec<PoolName>) -> Outcome {
        let (mut counted, mut kept) = (Vec::new(), Vec::new());
        for name in names {
            let Some(index) = self.pools.find(&name.0, &name.1) else { continue };
            if self.is_referred_to(index) {
                kept.push(name);
            } else {
                counted.push(self.pool_row(index));
                self.forget_pool(index);
            }
        }
        Outcome::Forgotten { counted, kept }
    }

    /// Whether a client, a server or a message under way has to do with the pool.
    fn is_referred_to(&self, index: PoolIndex) -> bool {
        let pool = self.pools.get(index);
        let clients = pool.clients > 0 || pool.waiting > 0 || !pool.to_greet.is_empty();
        // One that is filled without clients is empty only for as long as its server is away.
        let filled = pool.least > 0 && pool.entry.user.is_some();
        clients
            || filled
            || !pool.borrows.is_empty()
            || self.lends.has_one_of(pool.id)
            || self.moves.has_one_of(index)
            || self.servers.iter().any(|(_, server)| server.pool == index)
            || self.carriers.iter().any(|(_, carrier)| carrier.concerns(index))
    }

    /// False: there is no such client, or it is ending already.
    fn kill_client(&mut self, id: ConnectionId) -> bool {
        self.recall(|client| client.id == id);
        let found = self.clients.iter().find(|(_, client)| client.id == id && client.is_alive()).map(|(index, _)| index);
        if let Some(client) = found {
            self.close_client(client, &Ending::Fatal(sqlstate::ADMIN_SHUTDOWN, "admin forced disconnect".to_owned()));
        }
        found.is_some() || self.kill_asker(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_up_what() {
        let app = || Scope::Database("app".into());
        let view = |database, in_use, close_needed| View { database, in_use, close_needed };
        for (wait, server, held_up) in [
            (Wait::Quiet(Scope::All), view("app", true, false), true),
            (Wait::Quiet(Scope::All), view("app", false, true), false),
            (Wait::Quiet(app()), view("app", true, false), true),
            (Wait::Quiet(app()), view("other", true, false), false),
            (Wait::Closed(Scope::All), view("app", true, false), false),
            (Wait::Closed(Scope::All), view("app", true, true), true),
            (Wait::Closed(app()), view("app", true, true), true),
            (Wait::Closed(app()), view("app", false, true), false),
            (Wait::Closed(app()), view("other", true, true), false),
        ] {
            assert_eq!(wait.is_held_up_by(&server), held_up, "{wait:?} {}", server.database);
        }
    }
}
