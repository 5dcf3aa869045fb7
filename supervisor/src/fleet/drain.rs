//! A drain: nobody is let in, and every client is sent away between two transactions.
//!
//! A client whose transaction ends is sent away by its worker at once. Those that are idle go at a pace that holds for the whole fleet: with each
//! tick every worker is told how many of its idle ones may go. A little before the deadline all go that are in no transaction (the last
//! call), so that none begins one only to be cut off in it; at the deadline the rest is cut off.
//!
//! Meanwhile the port is closed, without resetting who has connected already (see [`crate::listen`]). The drained fleet keeps its workers
//! and its Unix socket, for the console, until it is stopped, or until UNDRAIN opens the port again.

use super::Fleet;
use super::event::{Action, Answer, AskId, Failure, Moment, Pulse};
use super::orders::Until;
use super::pace::{Pace, share};
use super::shutdown::Phase;
use log::Level;
use serde::{Deserialize, Serialize};
use shared::control::{Parting, StopMode, ToWorker};
use shared::ids::Slot;
use shared::orders::Order;
use std::collections::BTreeMap;
use std::time::Duration;

/// How many idle clients go in a second, unless the operator says or the deadline wants more.
const PER_SECOND: u32 = 100;

/// How long connections that have begun may take until they can be accepted.
const SETTLE: Duration = Duration::from_secs(1);

/// How long somebody may wait to be accepted, by a worker that hangs say, until the port is closed all the same.
const PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Drain {
    since: Moment,
    /// What the operator wants.
    per_second: Option<u32>,
    /// Known with the first tick.
    pace: Option<Pace>,
    deadline: Option<Moment>,
    stage: Stage,
    doors: Doors,
    /// Each worker's idle clients and its others, as far as it has said how many.
    remaining: BTreeMap<Slot, (u32, u32)>,
    asks: Vec<AskId>,
    /// How many workers a reload wants meanwhile.
    pub(super) workers: Option<usize>,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    /// Who is idle goes in turn.
    Paced,
    /// Nobody begins a transaction any more.
    LastCall,
    /// No client is left, or the rest was cut off.
    Over,
}

/// The TCP listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Doors {
    /// Nobody comes any more; those that wait are let in.
    Sealed { since: Moment },
    /// They listen no more.
    Shut,
}

impl Drain {
    /// When the last call is: a fifth of the time before the deadline, within bounds.
    fn last_call(&self) -> Option<Moment> {
        let deadline = self.deadline?;
        let time = deadline.saturating_sub(self.since);
        let before = (time / 5).clamp(Duration::from_secs(1), Duration::from_secs(10)).min(time / 2);
        Some(deadline.saturating_sub(before))
    }

    /// The pace for so many clients: all that are idle are to have had their turn by half of the time there is.
    fn begin_pace(&mut self, clients: u32, now: Moment) {
        let half = self.deadline.map(|deadline| (deadline.saturating_sub(now) / 2).as_secs_f64().max(0.25));
        let needed = half.map_or(0, |half| (f64::from(clients) / half).ceil() as u32);
        self.pace = Some(Pace::new(self.per_second.unwrap_or(PER_SECOND.max(needed)), now));
    }
}

impl Fleet {
    pub(super) fn ask_drain(&mut self, ask: AskId, per_second: Option<u32>, deadline: Option<Duration>) {
        if !matches!(self.phase, Phase::Running | Phase::Draining(StopMode::WaitForClients)) {
            self.answer(ask, Answer::Failed(Failure::ShuttingDown));
            return;
        }
        if self.may_roll_back() {
            // The image before has no listeners that are sealed.
            return self.answer(ask, Answer::Failed(Failure::Upgrading));
        }
        let rate = per_second.map_or(String::new(), |rate| format!(", rate {rate}/s"));
        let limit = deadline.map_or(String::new(), |limit| format!(", deadline {} s", limit.as_secs()));
        self.log(Level::Info, format!("DRAIN command issued{rate}{limit}"));
        self.begin_drain(Some(ask), per_second, deadline);
    }

    /// Begins, or goes on in another way.
    pub(super) fn begin_drain(&mut self, ask: Option<AskId>, per_second: Option<u32>, limit: Option<Duration>) {
        let (now, open) = (self.now, self.is_running() && !(ask.is_none() && self.rules.listeners_stay));
        let fresh = self.drain.is_none();
        let drain = self.drain.get_or_insert_with(|| Drain {
            since: now,
            per_second: None,
            pace: None,
            deadline: None,
            stage: Stage::Paced,
            // A fleet that is on its way out has none any more.
            doors: if open { Doors::Sealed { since: now } } else { Doors::Shut },
            remaining: BTreeMap::new(),
            asks: Vec::new(),
            workers: None,
        });
        (drain.since, drain.stage, drain.pace, drain.per_second) = (now, Stage::Paced, None, per_second);
        drain.deadline = limit.map(|limit| now + limit);
        drain.asks.extend(ask);
        if fresh && open {
            self.out.push(Action::SealListeners);
        }
        if fresh {
            self.order(Order::Drain, Until::Done, None);
        }
    }

    /// UNDRAIN.
    pub(super) fn ask_undrain(&mut self, ask: AskId) {
        if !self.is_running() {
            self.answer(ask, Answer::Failed(Failure::ShuttingDown));
        } else if self.drain.is_none() {
            self.answer(ask, Answer::Failed(Failure::NotDraining));
        } else {
            self.log(Level::Info, "UNDRAIN command issued");
            self.undrain(Some(ask));
        }
    }

    fn undrain(&mut self, ask: Option<AskId>) {
        let Some(drain) = self.drain.take() else { return };
        for waiting in drain.asks {
            self.answer(waiting, Answer::Failed(Failure::Undrained));
        }
        self.order(Order::Undrain, Until::Undrained, ask);
        if let Some(workers) = drain.workers {
            self.resize(workers);
        }
    }

    /// Every worker lets clients in again.
    pub(super) fn open_listeners(&mut self) {
        if self.drain.is_none() && self.is_running() {
            self.out.push(Action::OpenListeners);
        }
    }

    /// The user of a session that waits for its DRAIN has thought better of it. A fleet on its way out stays so.
    pub(super) fn drain_cancelled(&mut self, ask: AskId) {
        let Some(drain) = &mut self.drain else { return };
        let Some(at) = drain.asks.iter().position(|waiting| *waiting == ask) else { return };
        drain.asks.swap_remove(at);
        self.answer(ask, Answer::Failed(Failure::Cancelled));
        if self.is_running() {
            self.log(Level::Info, "DRAIN was cancelled, letting clients in again");
            self.undrain(None);
        }
    }

    /// The listeners are the next fleet's, and so is who waits at them: this one lets go of its copies.
    pub(super) fn stop_listening(&mut self) {
        self.out.push(Action::CloseListeners);
        for of in self.all() {
            self.broadcast(&ToWorker::Unlisten { of });
        }
    }

    /// The fleet is on its way out, and its listeners are closed with that.
    pub(super) fn listeners_closed(&mut self) {
        if let Some(drain) = &mut self.drain {
            drain.doors = Doors::Shut;
        }
    }

    /// Workers of a drained fleet that is on its way out leave when their clients have, not before the port is closed.
    pub(super) fn stop_drained(&mut self) {
        let shut = self.drain.as_ref().is_some_and(|drain| drain.doors == Doors::Shut);
        if shut && matches!(self.phase, Phase::Draining(StopMode::WaitForClients)) {
            self.broadcast(&ToWorker::Stop(StopMode::WaitForClients));
            self.check_finished();
        }
    }

    pub(super) fn remaining(&mut self, slot: Slot, idle: u32, others: u32) {
        if let Some(drain) = &mut self.drain {
            drain.remaining.insert(slot, (idle, others));
        }
    }

    pub(super) fn left_drain(&mut self, slot: Slot) {
        if let Some(drain) = &mut self.drain {
            drain.remaining.remove(&slot);
        }
    }

    pub(super) fn tick_drain(&mut self, pulses: &[Pulse], backlog: bool) {
        self.tick_doors(backlog);
        let (now, live) = (self.now, self.live());
        let ending = matches!(self.phase, Phase::Ending { .. });
        let Some(drain) = &mut self.drain else { return };
        if ending || drain.stage == Stage::Over {
            return;
        }
        let clients = |slot: &Slot| pulses.get(slot.index()).map_or(0, |pulse| pulse.holds.clients);
        let total: u32 = live.iter().map(clients).sum();
        if total == 0 && drain.doors == Doors::Shut {
            return self.drained(None);
        }
        if drain.deadline.is_some_and(|deadline| deadline <= now) {
            // Those that are reading their last message are there, and are not cut off.
            let left = live
                .iter()
                .map(|slot| drain.remaining.get(slot).map_or_else(|| clients(slot), |(idle, others)| idle + others))
                .sum();
            return self.drained(Some(left));
        }
        if drain.last_call().is_some_and(|moment| moment <= now) {
            drain.stage = Stage::LastCall;
            self.broadcast(&ToWorker::Part(Parting::Outside));
            return;
        }
        if drain.pace.is_none() {
            drain.begin_pace(total, now);
        }
        let turns = drain.pace.as_mut().map_or(0, |pace| pace.turns(now));
        let idle =
            live.iter().map(|slot| (*slot, drain.remaining.get(slot).map_or_else(|| clients(slot), |(idle, _)| *idle))).collect();
        let shares = share(turns, &idle);
        // Those that have none to send away say whether they have idle clients.
        for (slot, turns) in shares.into_iter().filter(|(slot, _)| clients(slot) > 0) {
            self.send(slot, ToWorker::Part(Parting::Idle(turns)));
        }
    }

    /// Sealed listeners are shut when nobody waits at them any more.
    fn tick_doors(&mut self, backlog: bool) {
        let now = self.now;
        if let Some(drain) = &mut self.drain
            && let Doors::Sealed { since } = drain.doors
            && now.saturating_sub(since) >= if backlog { PATIENCE } else { SETTLE }
        {
            drain.doors = Doors::Shut;
            self.out.push(Action::ShutListeners);
            self.stop_drained();
        }
    }

    /// It is over: nobody is left, or the deadline has come for so many.
    fn drained(&mut self, cut_off: Option<u32>) {
        let Some(drain) = &mut self.drain else { return };
        drain.stage = Stage::Over;
        let asks = std::mem::take(&mut drain.asks);
        for ask in asks {
            self.answer(ask, cut_off.map_or(Answer::Done, |clients| Answer::Failed(Failure::CutOff(clients))));
        }
        match cut_off {
            None => self.log(Level::Info, "drained: no client is left"),
            Some(clients) => {
                self.log(Level::Warn, format!("not drained at the deadline, clients cut off: {clients}"));
                if self.is_running() {
                    self.broadcast(&ToWorker::Part(Parting::All));
                } else {
                    self.end(0);
                }
            }
        }
    }
}
