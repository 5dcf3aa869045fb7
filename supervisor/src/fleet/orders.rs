//! Orders of the console on their way through the workers, and when each is answered.
//!
//! An order goes to every worker that has a process and is waited for until each has done it or died. A worker started meanwhile begins with what
//! the orders so far have left behind ([`Marks`](shared::orders::Marks)), and has no client or server yet that an order could be about: it is not
//! waited for. So a death never leaves a session waiting, and no order is lost on a successor.

use super::Fleet;
use super::event::{Answer, AskId, Failure, Moment};
use super::idle::Leaving;
use super::shutdown::Phase;
use serde::{Deserialize, Serialize};
use shared::control::ToWorker;
use shared::ids::{ConnectionId, Slot};
use shared::orders::{Order, Outcome, Scope};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Workers that have nothing to wait for answer within this.
const PROMPT: Duration = Duration::from_millis(250);

/// How many databases one message names: it has to fit into a datagram.
const NAMES: usize = 1000;

/// Orders under way.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Orders {
    last: u32,
    open: Vec<Open>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Open {
    number: u32,
    until: Until,
    waiting: BTreeSet<Slot>,
    ask: Option<AskId>,
    /// When the workers were told.
    #[serde(default)]
    since: Moment,
    /// How often.
    #[serde(default)]
    rounds: u32,
    /// A worker has been leaving meanwhile.
    #[serde(default)]
    moved: bool,
}

impl Open {
    /// What to tell the workers again, if sessions may have moved past it: one that goes from a worker that has not looked to one that has is seen
    /// by neither. Asked again, both have looked while it was on one side, unless it moves again in the very moment.
    fn again(&self, now: Moment) -> Option<Order> {
        let prompt = self.rounds > 1 && now.saturating_sub(self.since) < PROMPT;
        if !self.moved || prompt {
            return None;
        }
        let moves = matches!(self.until, Until::Found { .. } | Until::Closed(_));
        self.until.order().filter(|_| moves)
    }
}

impl Until {
    /// What to tell workers who owe no answer any more. `None`: what they have been told they have done by the time they hear of anything else.
    fn order(&self) -> Option<Order> {
        match self {
            Self::Quiet(scope) => Some(Order::Pause(scope.clone())),
            Self::Closed(scope) => Some(Order::WaitClose(scope.clone())),
            Self::Found { id, found: false } => Some(Order::KillClient(*id)),
            Self::Forgotten(leaving) => Some(Order::Forget(leaving.names())),
            Self::Found { .. } | Self::Done | Self::Reconnected(_) | Self::Undrained => None,
        }
    }
}

/// What an order waits for, besides every worker's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Until {
    /// Nothing.
    Done,
    /// As `Done`; until then a worker may still tell of connections from before.
    Reconnected(Scope),
    /// PAUSE: the end of dead workers' backends there. It is over, too, when it is taken back.
    Quiet(Scope),
    /// WAIT_CLOSE: the same.
    Closed(Scope),
    /// KILL_CLIENT: whether a worker had the client.
    Found {
        /// Whom.
        id: ConnectionId,
        /// So far.
        found: bool,
    },
    /// UNDRAIN: the listeners open when every worker lets clients in.
    Undrained,
    /// The fleet's own: pools that nobody uses are removed.
    Forgotten(Leaving),
}

/// Backends that outlived their worker, by database.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Orphans(BTreeMap<String, usize>);

impl Orphans {
    pub(super) fn add(&mut self, database: String) {
        *self.0.entry(database).or_default() += 1;
    }

    pub(super) fn remove(&mut self, database: &str) {
        if let Some(count) = self.0.get_mut(database) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(database);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn any(&self, scope: &Scope) -> bool {
        self.0.keys().any(|database| scope.holds(database))
    }
}

impl Orders {
    /// None is under way, and there have been so many.
    pub(super) fn after(last: u32) -> Self {
        Self { last, open: Vec::new() }
    }

    /// Whether what this worker says of `database` may be from before a RECONNECT.
    pub(super) fn outdated(&self, slot: Slot, database: &str) -> bool {
        self.open.iter().any(|order| match &order.until {
            Until::Reconnected(scope) => scope.holds(database) && order.waiting.contains(&slot),
            _ => false,
        })
    }
}

/// `PAUSE command issued`, `PAUSE 'app' command issued`.
pub(super) fn issued(verb: &str, scope: &Scope) -> String {
    match scope {
        Scope::All => format!("{verb} command issued"),
        Scope::Database(name) => format!("{verb} '{name}' command issued"),
    }
}

impl Fleet {
    /// Sends an order to all workers; `ask` is answered when it is done.
    pub(super) fn order(&mut self, order: Order, until: Until, ask: Option<AskId>) {
        self.give(order, until, ask, 1);
        self.check_orders();
    }

    fn give(&mut self, order: Order, until: Until, ask: Option<AskId>, rounds: u32) {
        self.orders.last += 1;
        let number = self.orders.last;
        self.marks.obey(number, &order);
        self.broadcast(&ToWorker::Order { number, order });
        let waiting = self.live().into_iter().collect();
        let (since, moved) = (self.now, self.someone_leaves());
        self.orders.open.push(Open { number, until, waiting, ask, since, rounds, moved });
    }

    /// Whether a worker leaves.
    fn someone_leaves(&self) -> bool {
        self.slots.iter().any(|slot| slot.process().is_some_and(|process| process.leaving))
    }

    /// DISABLE.
    pub(super) fn ask_disable(&mut self, ask: AskId, database: String) {
        self.log(log::Level::Info, format!("DISABLE '{database}' command issued"));
        self.order(Order::Disable(database), Until::Done, Some(ask));
    }

    /// ENABLE.
    pub(super) fn ask_enable(&mut self, ask: AskId, database: String) {
        self.log(log::Level::Info, format!("ENABLE '{database}' command issued"));
        self.order(Order::Enable(database), Until::Done, Some(ask));
    }

    /// RECONNECT: what servers say at their start is to be learned anew.
    pub(super) fn ask_reconnect(&mut self, ask: AskId, scope: Scope) {
        self.log(log::Level::Info, issued("RECONNECT", &scope));
        self.welcomes.retain(|(database, _), _| !scope.holds(database));
        self.order(Order::Reconnect(scope.clone()), Until::Reconnected(scope), Some(ask));
    }

    /// WAIT_CLOSE.
    pub(super) fn ask_wait_close(&mut self, ask: AskId, scope: Scope) {
        self.log(log::Level::Info, issued("WAIT_CLOSE", &scope));
        self.order(Order::WaitClose(scope.clone()), Until::Closed(scope), Some(ask));
    }

    /// KILL, of one database or of all that have pools: `databases`.
    pub(super) fn ask_kill(&mut self, ask: AskId, scope: &Scope, databases: &[String]) {
        if self.marks.all_paused {
            self.answer(ask, Answer::Failed(Failure::AlreadyPaused));
            return;
        }
        self.log(log::Level::Info, issued("KILL", scope));
        // Workers do what they are told in order: with the last part all is done.
        let mut parts = databases.chunks(NAMES).peekable();
        if parts.peek().is_none() {
            self.answer(ask, Answer::Done);
        }
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            self.order(Order::Kill(part.to_vec()), Until::Done, last.then_some(ask));
        }
    }

    /// KILL_CLIENT. Only the worker that has the client knows it.
    pub(super) fn ask_kill_client(&mut self, ask: AskId, id: ConnectionId) {
        self.order(Order::KillClient(id), Until::Found { id, found: false }, Some(ask));
    }

    /// Nobody can be paused, killed or connected anew in a fleet that is ending.
    pub(super) fn refuses_orders(&mut self, ask: AskId) -> bool {
        let ending = matches!(self.phase, Phase::Ending { .. });
        if ending {
            self.answer(ask, Answer::Failed(Failure::ShuttingDown));
        }
        ending
    }

    pub(super) fn order_done(&mut self, slot: Slot, number: u32, outcome: Outcome) {
        let Some(open) = self.orders.open.iter_mut().find(|open| open.number == number) else { return };
        if !open.waiting.remove(&slot) {
            return;
        }
        match (&mut open.until, outcome) {
            (Until::Found { found, .. }, outcome) => *found |= outcome == Outcome::Done,
            (Until::Forgotten(leaving), Outcome::Forgotten { counted, kept }) => {
                leaving.keep(&kept);
                let entries = &self.rules.entries;
                self.reports.remove(slot, &counted, |database| !entries.contains_key(database));
            }
            _ => {}
        }
        self.check_orders();
    }

    /// A worker is gone, and with it all that an order could be about.
    pub(super) fn left_orders(&mut self, slot: Slot, was_leaving: bool) {
        for open in &mut self.orders.open {
            open.waiting.remove(&slot);
            open.moved |= was_leaving;
        }
        self.check_orders();
    }

    /// Another version was told of what workers had done, and may have taken it with it: they forget what they owe when this one speaks to them again, and
    /// are asked anew.
    pub(super) fn give_again(&mut self) {
        let live: BTreeSet<Slot> = self.live().into_iter().collect();
        let mut again = Vec::new();
        for open in &mut self.orders.open {
            let order = open.until.order();
            open.waiting = if order.is_some() { live.clone() } else { BTreeSet::new() };
            again.extend(order.map(|order| ToWorker::Order { number: open.number, order }));
        }
        for message in &again {
            self.broadcast(message);
        }
        self.check_orders();
    }

    /// Answers every order that waits for nothing any more.
    pub(super) fn check_orders(&mut self) {
        let orphans = &self.orphans;
        let over = |open: &Open| {
            let held_up = matches!(&open.until, Until::Quiet(scope) | Until::Closed(scope) if orphans.any(scope));
            open.waiting.is_empty() && !held_up
        };
        let done: Vec<Open> = self.orders.open.extract_if(.., |open| over(open)).collect();
        let (leaving, mut given) = (self.someone_leaves(), false);
        for mut open in done {
            open.moved |= leaving;
            if let Some(order) = open.again(self.now) {
                self.give(order, open.until, open.ask, open.rounds + 1);
                given = true;
                continue;
            }
            let Open { until, ask, .. } = open;
            let found = !matches!(until, Until::Found { found: false, .. });
            let answer = if found { Answer::Done } else { Answer::Failed(Failure::ClientNotFound) };
            match until {
                Until::Forgotten(leaving) => self.forgotten(&leaving),
                Until::Undrained => self.open_listeners(),
                _ => {}
            }
            if let Some(ask) = ask {
                self.answer(ask, answer);
            }
        }
        if given {
            // There may be nobody left to wait for.
            self.check_orders();
        }
    }

    /// PAUSEs of this scope are taken back: those that still wait have their answer, so that no session hangs.
    pub(super) fn end_pauses(&mut self, scope: &Scope) {
        let ended = Until::Quiet(scope.clone());
        let asks: Vec<AskId> = self.orders.open.extract_if(.., |open| open.until == ended).filter_map(|open| open.ask).collect();
        for ask in asks {
            self.answer(ask, Answer::Done);
        }
    }

    /// The user of a session that waits for its PAUSE or WAIT_CLOSE has thought better of it. A pause does not outlive that.
    pub(super) fn cancelled(&mut self, ask: AskId) {
        let waits = |open: &Open| open.ask == Some(ask) && matches!(open.until, Until::Quiet(_) | Until::Closed(_));
        let Some(at) = self.orders.open.iter().position(waits) else {
            if self.upgrade_cancelled(ask) {
                return;
            }
            self.restart_cancelled(ask);
            return self.drain_cancelled(ask);
        };
        let open = self.orders.open.remove(at);
        self.answer(ask, Answer::Failed(Failure::Cancelled));
        if let Until::Quiet(scope) = open.until {
            self.log(log::Level::Info, "PAUSE was cancelled, continuing");
            self.resume(scope, None);
        }
    }
}
