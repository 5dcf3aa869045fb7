//! Another image takes the fleet over, in the supervisor's own process, and replaces its workers one by one.
//!
//! First the new binary is asked, as a process beside this one, whether it can go on from here. Then everything stands still for a moment: what has
//! arrived is dealt with, what the fleet is made of is written down, and the process executes the new binary, which goes on with
//! [`Event::Resumed`]. Its first worker is the canary: should it not become ready, nothing has changed hands yet, and the old binary takes the
//! fleet back. From then on it is a restart like any other, unless the messages or the shared memory of the two builds differ ([`super::strangers`]).

use super::event::{Action, Answer, AskId, Failure, Heir, Moment, Resumed};
use super::strangers::{self, Strangers};
use super::{Fleet, shutdown::Phase};
use log::Level;
use serde::{Deserialize, Serialize};
use shared::control::ToWorker;
use std::path::PathBuf;
use std::time::Duration;

/// How long a moment is waited for in which no configuration is on its way.
const PATIENCE: Duration = Duration::from_secs(30);

/// An upgrade under way.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Upgrade {
    /// Who asked, unless it was cancelled.
    ask: Option<AskId>,
    pub(super) since: Moment,
    pub(super) stage: Stage,
    /// The messages or the shared memory of the two builds differ.
    #[serde(default)]
    pub(super) strangers: Option<Strangers>,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    /// The new binary is asked whether it can.
    Preflight,
    /// It can, and is executed as soon as everything stands still.
    Leap,
    /// The new image's first worker starts.
    Canary,
    /// The other workers are replaced.
    Rest,
    /// Those of a build that is strange to them all start together.
    Crew,
    /// The workers of the build before leave.
    Farewell,
}

impl Fleet {
    /// UPGRADE, to the binary at a path or to what is now where this one was started from.
    pub(super) fn ask_upgrade(&mut self, ask: AskId, binary: Option<PathBuf>) {
        let refusal = if self.upgrade.is_some() {
            Some(Failure::Upgrading)
        } else if self.restart.is_some() {
            Some(Failure::Restarting)
        } else if self.drain.is_some() || !matches!(self.phase, Phase::Running) {
            Some(Failure::ShuttingDown)
        } else if !self.up {
            Some(Failure::Upgrade("the fleet is only starting".to_owned()))
        } else {
            None
        };
        if let Some(failure) = refusal {
            return self.answer(ask, Answer::Failed(failure));
        }
        self.log(Level::Info, "UPGRADE command issued");
        self.upgrade = Some(Upgrade { ask: Some(ask), since: self.now, stage: Stage::Preflight, strangers: None });
        self.out.push(Action::Preflight(binary));
    }

    /// The new binary has said what it is, or why it cannot go on.
    pub(super) fn preflighted(&mut self, outcome: Result<Heir, String>) {
        let Some(upgrade) = self.upgrade.as_mut().filter(|upgrade| upgrade.stage == Stage::Preflight) else { return };
        match outcome {
            Ok(Heir { name, strange }) => {
                upgrade.strangers = strange.then(Strangers::default);
                (upgrade.stage, upgrade.since) = (Stage::Leap, self.now);
                self.log(Level::Info, format!("UPGRADE: {name} can take over"));
                self.try_leap();
            }
            Err(reason) => self.upgrade_failed(reason),
        }
    }

    pub(super) fn try_leap(&mut self) {
        let leaps = self.upgrade.as_ref().is_some_and(|upgrade| upgrade.stage == Stage::Leap);
        if leaps && self.reload.is_still() && self.is_frozen() {
            self.out.push(Action::StandStill);
        }
    }

    /// All that had arrived has been dealt with.
    pub(super) fn stands_still(&mut self) {
        let leaps = self.upgrade.as_ref().is_some_and(|upgrade| upgrade.stage == Stage::Leap);
        let still =
            self.is_frozen() && self.reload.is_still() && self.drain.is_none() && self.restart.is_none() && self.is_running();
        if leaps && still {
            self.out.push(Action::Leap);
        }
    }

    /// Another image goes on with the fleet, or this one again.
    pub(super) fn resumed(&mut self, how: Resumed) {
        match how {
            Resumed::New => {
                let Some(upgrade) = &mut self.upgrade else { return };
                (upgrade.stage, upgrade.since) = (Stage::Canary, self.now);
                let line = format!("UPGRADE: {} has taken over, its first worker starts", self.name);
                self.log(Level::Info, line);
                self.begin_restart(None, None);
            }
            Resumed::Back(reason) => {
                // What they were told meanwhile this image may not know of.
                self.broadcast(&ToWorker::Adopted { marks: self.marks.clone() });
                self.give_again();
                self.upgrade_failed(reason);
            }
        }
    }

    /// The image before may come back: what it could not go on with is not begun.
    pub(super) fn may_roll_back(&self) -> bool {
        self.upgrade.as_ref().is_some_and(|upgrade| upgrade.stage == Stage::Canary)
    }

    /// The canary is ready: no way back is needed any more.
    pub(super) fn canary_ready(&mut self) {
        if let Some(upgrade) = self.upgrade.as_mut().filter(|upgrade| upgrade.stage == Stage::Canary) {
            upgrade.stage = Stage::Rest;
            self.out.push(Action::Settle);
            self.log(Level::Info, "UPGRADE: the first worker is ready, there is no way back from here");
            self.next_change();
        }
    }

    /// All workers are the new image's.
    pub(super) fn upgraded(&mut self) {
        // There was nobody to be replaced.
        self.canary_ready();
        let Some(upgrade) = self.upgrade.take() else { return };
        let line = format!("UPGRADE done, {} serves", self.name);
        self.log(Level::Info, line);
        if let Some(ask) = upgrade.ask {
            self.answer(ask, Answer::Done);
        }
    }

    /// No more workers are replaced.
    pub(super) fn upgrade_stopped(&mut self, why: String, replaced: usize, left: usize) {
        if self.may_roll_back() && self.is_running() {
            // The old image tells whoever asked.
            return self.out.push(Action::RollBack(why));
        }
        self.canary_ready();
        self.upgrade_failed(format!("{why}; workers of {}: {replaced}, of the version before: {left}", self.name));
    }

    fn upgrade_failed(&mut self, reason: String) {
        let Some(upgrade) = self.upgrade.take() else { return };
        self.thaw(&upgrade);
        self.log(Level::Error, format!("UPGRADE failed: {reason}"));
        if let Some(ask) = upgrade.ask {
            self.answer(ask, Answer::Failed(Failure::Upgrade(reason)));
        }
        self.next_change();
    }

    /// Whoever asked wants no more of it. True: it was about this.
    pub(super) fn upgrade_cancelled(&mut self, ask: AskId) -> bool {
        let Some(upgrade) = self.upgrade.as_mut().filter(|upgrade| upgrade.ask == Some(ask)) else { return false };
        upgrade.ask = None;
        match upgrade.stage {
            Stage::Preflight | Stage::Leap => {
                if let Some(upgrade) = self.upgrade.take() {
                    self.thaw(&upgrade);
                }
                self.log(Level::Info, "UPGRADE was cancelled");
            }
            // A frozen worker cannot stay.
            Stage::Canary | Stage::Crew | Stage::Farewell if upgrade.strangers.is_some() => {
                self.log(Level::Info, "UPGRADE cannot be cancelled any more and goes on");
            }
            Stage::Canary | Stage::Rest | Stage::Crew | Stage::Farewell => {
                self.replace_no_more();
                self.log(Level::Info, "UPGRADE was cancelled; the other workers stay");
            }
        }
        self.answer(ask, Answer::Failed(Failure::Cancelled));
        true
    }

    pub(super) fn tick_upgrade(&mut self) {
        let Some(upgrade) = self.upgrade.as_ref().filter(|upgrade| upgrade.stage == Stage::Leap) else { return };
        let freezes = upgrade.strangers.as_ref().and_then(|strangers| strangers.frozen_since);
        if freezes.is_some_and(|since| self.now.saturating_sub(since) > strangers::PATIENCE) {
            self.upgrade_failed("a worker does not come to rest".to_owned());
        } else if self.now.saturating_sub(upgrade.since) > PATIENCE {
            self.upgrade_failed("a configuration is still on its way".to_owned());
        } else {
            self.try_leap();
        }
    }

    /// The fleet is on its way out: it ends as what it is.
    pub(super) fn abandon_upgrade(&mut self) {
        let before_leap = |upgrade: &Upgrade| matches!(upgrade.stage, Stage::Preflight | Stage::Leap);
        if self.upgrade.as_ref().is_some_and(before_leap) {
            self.upgrade_failed("the fleet is shutting down".to_owned());
        }
    }
}
