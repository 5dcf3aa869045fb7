//! An upgrade to a build whose messages or shared memory are others: its workers and those of the build before cannot work as one pool, so they do so side by
//! side for as short as can be.
//!
//! Before the new build is executed the old workers freeze (`worker/src/fleet/strangers.rs`): they serve on, and take nothing new. When the canary is ready it accepts
//! from all listeners, and as many workers are started at once as there were. When these are ready all old ones leave together: a frozen worker's clients
//! can be given no server that it does not have itself, so none is to wait for its turn. One that lives on, since PAUSE holds back the end of a
//! transaction say, keeps its seats; the upgrade is done when it has left.

use super::event::Moment;
use super::lives::{Life, SlotState};
use super::upgrade::{Stage, Upgrade};
use super::{Action, Fleet};
use serde::{Deserialize, Serialize};
use shared::control::ToWorker;
use shared::ids::{Incarnation, MAX_WORKERS, Slot};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long workers may take to freeze. They accept no client meanwhile.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// How long the last of the new workers is waited for.
const CREW_PATIENCE: Duration = Duration::from_secs(10);

/// Workers of the build before, and how far they are.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Strangers {
    /// Since when they have been told to freeze.
    pub(super) frozen_since: Option<Moment>,
    /// Those that have.
    frozen: BTreeSet<Slot>,
    /// Those that are to leave.
    old: BTreeMap<Slot, Incarnation>,
}

impl Fleet {
    fn strangers(&self) -> Option<&Strangers> {
        self.upgrade.as_ref()?.strangers.as_ref()
    }

    /// Whether all workers may be left to another build as they are. If not, they are told to freeze.
    pub(super) fn is_frozen(&mut self) -> bool {
        let (live, now) = (self.live(), self.now);
        let Some(strangers) = self.upgrade.as_mut().and_then(|upgrade| upgrade.strangers.as_mut()) else { return true };
        if strangers.frozen_since.is_none() {
            strangers.frozen_since = Some(now);
            self.broadcast(&ToWorker::Freeze);
            return false;
        }
        live.iter().all(|slot| strangers.frozen.contains(slot))
    }

    /// A worker takes nothing new any more.
    pub(super) fn froze(&mut self, slot: Slot) {
        if let Some(strangers) = self.upgrade.as_mut().and_then(|upgrade| upgrade.strangers.as_mut()) {
            strangers.frozen.insert(slot);
            self.try_leap();
        }
    }

    /// A worker starts on that slot, whatever its predecessor has said.
    pub(super) fn not_frozen(&mut self, slot: Slot) {
        if let Some(strangers) = self.upgrade.as_mut().and_then(|upgrade| upgrade.strangers.as_mut()) {
            strangers.frozen.remove(&slot);
        }
    }

    /// A successor that is ready while the others freeze does so, too.
    pub(super) fn freeze_successor(&mut self, slot: Slot) {
        let leaps = self.upgrade.as_ref().is_some_and(|upgrade| upgrade.stage == Stage::Leap);
        if leaps && self.strangers().is_some_and(|strangers| strangers.frozen_since.is_some()) {
            self.send(slot, ToWorker::Freeze);
        }
    }

    /// Nothing comes of it: all serve as before.
    pub(super) fn thaw(&mut self, upgrade: &Upgrade) {
        if upgrade.strangers.as_ref().is_some_and(|strangers| strangers.frozen_since.is_some()) {
            self.broadcast(&ToWorker::Thaw);
        }
    }

    /// The canary is ready. True: it is beside workers of another build, and they are all replaced together.
    pub(super) fn canary_leads(&mut self, canary: Slot) -> bool {
        let (now, others) = (self.now, self.live().into_iter().filter(|slot| *slot != canary));
        let old = others.filter_map(|slot| Some((slot, self.slots[slot.index()].incarnation()?))).collect();
        let Some(upgrade) = &mut self.upgrade else { return false };
        let Some(strangers) = &mut upgrade.strangers else { return false };
        strangers.old = old;
        (upgrade.stage, upgrade.since) = (Stage::Crew, now);
        self.restart = None;
        // Should there be no supervisor from here on, they stay frozen: clients are the others' now.
        for slot in self.old_ones() {
            self.send(slot, ToWorker::Strangers { slots: 1 << canary.0 });
        }
        self.members = BTreeSet::from([canary]);
        // Those that have died meanwhile have no successors of their own.
        for slot in self.slots.iter_mut().filter(|slot| matches!(slot.life, Life::Vacant { .. })) {
            *slot = SlotState::default();
        }
        self.settle_listening();
        self.recruit();
        self.crew_ready();
        true
    }

    /// Starts as many workers as there are to be, as far as there are slots.
    pub(super) fn recruit(&mut self) {
        if !self.is_replacing_all() {
            return;
        }
        while self.members.len() < self.wanted {
            let vacant = |slot: &Slot| {
                !self.members.contains(slot) && matches!(self.slots[slot.index()].life, Life::Vacant { start_at: None })
            };
            match self.all().find(vacant) {
                Some(slot) => {
                    self.members.insert(slot);
                    self.spawn(slot);
                }
                None if self.slots.len() < MAX_WORKERS => return self.out.push(Action::AddSlot),
                None => return,
            }
        }
    }

    /// Whether workers of the build before are there.
    pub(super) fn has_strangers(&self) -> bool {
        let leapt = |upgrade: &Upgrade| !matches!(upgrade.stage, Stage::Preflight | Stage::Leap);
        self.upgrade.as_ref().is_some_and(|upgrade| upgrade.strangers.is_some() && leapt(upgrade))
    }

    /// Whether the canary is ready, and the others follow.
    fn is_replacing_all(&self) -> bool {
        let follow = self.upgrade.as_ref().is_some_and(|upgrade| matches!(upgrade.stage, Stage::Crew | Stage::Farewell));
        follow && self.is_running()
    }

    /// Whether they are not to leave yet.
    pub(super) fn holds_strangers(&self) -> bool {
        self.upgrade.as_ref().is_some_and(|upgrade| upgrade.stage == Stage::Crew)
    }

    /// Lets the old workers go when all new ones are ready, or have had their time; later ones are made known to who is still there.
    pub(super) fn crew_ready(&mut self) {
        if !self.is_replacing_all() {
            return;
        }
        let now = self.now;
        let serving = |slot: &&Slot| self.slots[slot.index()].serving();
        let ready: Vec<Slot> = self.members.iter().filter(serving).copied().collect();
        let complete = ready.len() == self.members.len() && (ready.len() >= self.wanted || self.slots.len() == MAX_WORKERS);
        let Some(upgrade) = &mut self.upgrade else { return };
        if upgrade.stage == Stage::Crew && !complete && now.saturating_sub(upgrade.since) < CREW_PATIENCE {
            return;
        }
        upgrade.stage = Stage::Farewell;
        let slots = ready.iter().fold(0, |slots, slot| slots | 1_u64 << slot.0);
        for slot in self.old_ones() {
            self.send(slot, ToWorker::Strangers { slots });
        }
        self.settle_listening();
        self.dismiss();
        self.strangers_left();
    }

    /// Workers of the build before that are still there.
    fn old_ones(&self) -> Vec<Slot> {
        let old = self.strangers().into_iter().flat_map(|strangers| &strangers.old);
        old.filter(|(slot, life)| self.slots[slot.index()].incarnation() == Some(**life)).map(|(slot, _)| *slot).collect()
    }

    /// The upgrade is done when none of them is there and all that are to be have been started.
    pub(super) fn strangers_left(&mut self) {
        let farewell = self.upgrade.as_ref().is_some_and(|upgrade| upgrade.stage == Stage::Farewell);
        if farewell && self.old_ones().is_empty() {
            self.recruit();
            if self.members.len() >= self.wanted {
                self.upgraded();
                self.next_change();
            }
        }
    }

    pub(super) fn tick_strangers(&mut self) {
        if self.holds_strangers() {
            self.crew_ready();
        }
    }
}
