//! Which worker accepts from which slot's listeners: at every moment somebody does, or no client could tell why nobody answers.
//!
//! A slot's own worker does, or, when the slot is to have none or waits for its next one, that of a slot that stays: the new one is asked first
//! and must have said that it accepts before the old one is told to close its copies. The listeners themselves are never closed (see [`crate::listen`]).

use super::Fleet;
use super::event::Moment;
use super::lives::Life;
use super::shutdown::Phase;
use serde::{Deserialize, Serialize};
use shared::control::ToWorker;
use shared::ids::Slot;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long after it could not a worker is asked again to accept from a slot's listeners.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Who accepts from a slot's listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listening {
    /// The slot whose workers do.
    by: Slot,
    /// The slot whose worker has been asked to and has not said that it does.
    next: Option<Slot>,
    /// It could not, for want of descriptors; asked again then.
    ask_again: Option<Moment>,
    /// The slot came without listeners: there is nothing to accept from.
    none: bool,
}

impl Listening {
    /// The worker of this slot does.
    pub(super) fn at(slot: Slot) -> Self {
        Self { by: slot, next: None, ask_again: None, none: false }
    }

    #[cfg(test)]
    pub(super) fn by(self) -> Slot {
        self.by
    }

    /// It has none.
    pub(super) fn none(slot: Slot) -> Self {
        Self { none: true, ..Self::at(slot) }
    }

    fn concerns(self, slot: Slot) -> bool {
        !self.none && (self.by == slot || self.next == Some(slot))
    }
}

impl Fleet {
    /// Sets in motion what has to change hands.
    pub(super) fn settle_listening(&mut self) {
        for of in self.all() {
            let who = self.rightful_listener(of);
            let Listening { by, next, none, .. } = self.listening[of.index()];
            if none || next.unwrap_or(by) == who {
                continue;
            }
            if let Some(next) = next {
                self.tell_listener(next, ToWorker::Unlisten { of });
            }
            let next = (by != who).then_some(who);
            self.listening[of.index()] = Listening { by, next, ask_again: None, none };
            // A worker that starts has its own slot's from the beginning.
            if let Some(next) = next.filter(|next| *next != of || self.slots[of.index()].serving()) {
                self.tell_listener(next, listen(of));
            }
        }
    }

    /// Who is to accept from the listeners of `of`: its own worker, else that of one certain slot that stays; where that one has none
    /// either, whoever does it already or the next that serves.
    fn rightful_listener(&self, of: Slot) -> Slot {
        let first = self.home(of);
        if !self.is_backing_off(first) {
            return first;
        }
        let Listening { by, next, .. } = self.listening[of.index()];
        let present = next.unwrap_or(by);
        if self.stays(present) && self.slots[present.index()].process().is_some() {
            return present;
        }
        let behind = self.members.range(first..).skip(1);
        let others = behind.chain(self.members.range(..first));
        others.copied().find(|slot| self.slots[slot.index()].serving()).unwrap_or(first)
    }

    /// Whose the listeners of `of` are by right: its own worker's; where there is to be none, they go to who has the fewest.
    fn home(&self, of: Slot) -> Slot {
        if self.stays(of) {
            return of;
        }
        let has = |slot: &Slot| (*slot, usize::from(!self.listening[slot.index()].none));
        let mut loads: BTreeMap<Slot, usize> = self.members.iter().map(has).collect();
        for orphaned in self.all().filter(|slot| !self.stays(*slot) && !self.listening[slot.index()].none) {
            let Some((heir, load)) = loads.iter_mut().min_by_key(|(_, load)| **load) else { break };
            if orphaned == of {
                return *heir;
            }
            *load += 1;
        }
        of
    }

    /// Whether the slot's workers die in a loop and the next one is not there yet.
    fn is_backing_off(&self, slot: Slot) -> bool {
        matches!(self.slots[slot.index()].life, Life::Vacant { start_at: Some(at) } if at > self.now)
    }

    /// A worker is started: it has its slot's own listeners from the beginning.
    pub(super) fn join_listening(&mut self, slot: Slot) {
        for of in self.all().filter(|of| *of != slot) {
            let listening = &mut self.listening[of.index()];
            if listening.concerns(slot) {
                listening.ask_again = None;
                self.send(slot, listen(of));
            }
        }
    }

    /// The worker of `slot` accepts from the listeners of `of`. Whoever did before need not any more.
    pub(super) fn listens(&mut self, slot: Slot, of: Slot) {
        let Some(listening) = self.listening.get_mut(of.index()) else { return };
        if listening.next != Some(slot) || !matches!(self.phase, Phase::Running) {
            return;
        }
        let before = std::mem::replace(listening, Listening::at(slot)).by;
        self.tell_listener(before, ToWorker::Unlisten { of });
        self.dismiss();
    }

    /// The worker of `slot` cannot accept from the listeners of `of` now: they stay with whoever has them until it can.
    pub(super) fn cannot_listen(&mut self, slot: Slot, of: Slot) {
        if let Some(listening) = self.listening.get_mut(of.index())
            && listening.next == Some(slot)
        {
            listening.ask_again = Some(self.now + ASK_AGAIN);
        }
    }

    pub(super) fn tick_listening(&mut self) {
        for of in self.all() {
            let listening = &mut self.listening[of.index()];
            if let Listening { next: Some(next), ask_again: Some(at), .. } = *listening
                && at <= self.now
            {
                listening.ask_again = None;
                self.tell_listener(next, listen(of));
            }
        }
    }

    /// Whether another worker than its own accepts from the slot's listeners.
    pub(super) fn is_relieved(&self, slot: Slot) -> bool {
        !self.listening[slot.index()].concerns(slot)
    }

    /// Whether the slot's own worker has been asked to accept from its listeners, and has not said that it does.
    pub(super) fn is_recalled(&self, slot: Slot) -> bool {
        self.listening[slot.index()].next == Some(slot)
    }

    /// A slot that has no process now is asked when it has one.
    pub(super) fn tell_listener(&mut self, slot: Slot, message: ToWorker) {
        if self.slots[slot.index()].process().is_some() {
            self.send(slot, message);
        }
    }
}

/// The engine adds the descriptors and counts them.
fn listen(of: Slot) -> ToWorker {
    ToWorker::Listen { of, listeners: 0, unix_listeners: 0 }
}
