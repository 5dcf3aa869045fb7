//! PAUSE and RESUME of the whole fleet, by console or by signal.
//!
//! A PAUSE is answered when no worker has a server in use and no backend of a dead worker is left: what PAUSE promises is that
//! PostgreSQL is quiet. A worker started meanwhile comes up paused.

use super::event::{Answer, AskId, Failure};
use super::{Fleet, shutdown::Phase};
use log::Level;
use shared::control::{StopMode, ToWorker};
use shared::ids::Slot;
use std::collections::BTreeSet;

/// A pause that is not complete yet.
#[derive(Debug)]
pub(super) struct Pausing {
    round: u32,
    waiting: BTreeSet<Slot>,
    asks: Vec<AskId>,
}

impl Fleet {
    pub(super) fn ask_pause(&mut self, ask: AskId) {
        if self.paused {
            self.answer(ask, Answer::Failed(Failure::AlreadyPaused));
            return;
        }
        self.log(Level::Info, "PAUSE command issued");
        self.pause(Some(ask));
    }

    pub(super) fn pause_by_signal(&mut self) {
        if self.paused {
            self.log(Level::Info, "got SIGUSR1, but already paused/suspended");
        } else {
            self.log(Level::Info, "got SIGUSR1, pausing all activity");
            self.pause(None);
        }
    }

    fn pause(&mut self, ask: Option<AskId>) {
        self.paused = true;
        self.pause_round = self.pause_round.wrapping_add(1);
        let round = self.pause_round;
        self.broadcast(&ToWorker::Pause { paused: true, round });
        self.pausing = Some(Pausing { round, waiting: self.live().into_iter().collect(), asks: ask.into_iter().collect() });
        self.check_paused();
    }

    pub(super) fn ask_resume(&mut self, ask: AskId) {
        if matches!(self.phase, Phase::Ending { .. } | Phase::Draining(StopMode::WaitForServers)) {
            self.answer(ask, Answer::Failed(Failure::ShuttingDown));
        } else if self.paused {
            self.log(Level::Info, "RESUME command issued");
            self.resume();
            self.answer(ask, Answer::Done);
        } else {
            self.answer(ask, Answer::Failed(Failure::NotPaused));
        }
    }

    pub(super) fn resume_by_signal(&mut self) {
        if !matches!(self.phase, Phase::Running) {
            self.log(Level::Info, "got SIGUSR2 while shutting down, ignoring");
        } else if self.paused {
            self.log(Level::Info, "got SIGUSR2, continuing from PAUSE");
            self.resume();
        } else {
            self.log(Level::Info, "got SIGUSR2, but not paused/suspended");
        }
    }

    /// A PAUSE that still waits is over too: it gets its answer, so that no session hangs.
    fn resume(&mut self) {
        self.paused = false;
        self.broadcast(&ToWorker::Pause { paused: false, round: self.pause_round });
        for ask in self.pausing.take().into_iter().flat_map(|pausing| pausing.asks) {
            self.answer(ask, Answer::Done);
        }
    }

    /// An answer to a PAUSE that has been taken back meanwhile says nothing about this one.
    pub(super) fn worker_paused(&mut self, slot: Slot, round: u32) {
        if self.pausing.as_ref().is_some_and(|pausing| pausing.round == round) {
            self.left_pause(slot);
        }
    }

    pub(super) fn left_pause(&mut self, slot: Slot) {
        if let Some(pausing) = &mut self.pausing {
            pausing.waiting.remove(&slot);
            self.check_paused();
        }
    }

    pub(super) fn check_paused(&mut self) {
        if self.orphans == 0
            && let Some(pausing) = self.pausing.take_if(|pausing| pausing.waiting.is_empty())
        {
            for ask in pausing.asks {
                self.answer(ask, Answer::Done);
            }
        }
    }
}
