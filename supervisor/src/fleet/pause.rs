//! PAUSE and RESUME of the whole fleet or of one database, by console or by signal.
//!
//! A PAUSE is answered when no worker has a server in use and no backend of a dead worker is left there: what PAUSE promises is that
//! PostgreSQL is quiet. A worker started meanwhile comes up paused. A database that is paused by name is resumed by name; the pause
//! of the whole fleet comes and goes apart from that.

use super::event::{Answer, AskId, Failure};
use super::orders::{Until, issued};
use super::{Fleet, shutdown::Phase};
use log::Level;
use shared::control::StopMode;
use shared::orders::{Order, Scope};

impl Fleet {
    pub(super) fn ask_pause(&mut self, ask: AskId, scope: Scope) {
        if scope == Scope::All && self.marks.all_paused {
            self.answer(ask, Answer::Failed(Failure::AlreadyPaused));
        } else if scope == Scope::All && self.cannot_resume() {
            // What could not be taken back is not begun.
            self.answer(ask, Answer::Failed(Failure::ShuttingDown));
        } else {
            self.log(Level::Info, issued("PAUSE", &scope));
            self.pause(scope, Some(ask));
        }
    }

    pub(super) fn pause_by_signal(&mut self) {
        if self.marks.all_paused {
            self.log(Level::Info, "got SIGUSR1, but already paused/suspended");
        } else if self.cannot_resume() {
            self.log(Level::Info, "got SIGUSR1 while shutting down, ignoring");
        } else {
            self.log(Level::Info, "got SIGUSR1, pausing all activity");
            self.pause(Scope::All, None);
        }
    }

    fn pause(&mut self, scope: Scope, ask: Option<AskId>) {
        self.order(Order::Pause(scope.clone()), Until::Quiet(scope), ask);
    }

    pub(super) fn ask_resume(&mut self, ask: AskId, scope: Scope) {
        let failure = match &scope {
            Scope::All if self.cannot_resume() => Some(Failure::ShuttingDown),
            Scope::All if !self.marks.all_paused => Some(Failure::NotPaused),
            Scope::Database(name) if !self.marks.paused.contains(name) => Some(Failure::DatabaseNotPaused(name.clone())),
            _ => None,
        };
        if let Some(failure) = failure {
            self.answer(ask, Answer::Failed(failure));
        } else {
            self.log(Level::Info, issued("RESUME", &scope));
            self.resume(scope, Some(ask));
        }
    }

    pub(super) fn resume_by_signal(&mut self) {
        let shutting_down = !matches!(self.phase, Phase::Running);
        if self.cannot_resume() || (shutting_down && !self.marks.all_paused) {
            self.log(Level::Info, "got SIGUSR2 while shutting down, ignoring");
        } else if self.marks.all_paused {
            self.log(Level::Info, "got SIGUSR2, continuing from PAUSE");
            self.resume(Scope::All, None);
        } else {
            self.log(Level::Info, "got SIGUSR2, but not paused/suspended");
        }
    }

    pub(super) fn resume(&mut self, scope: Scope, ask: Option<AskId>) {
        self.end_pauses(&scope);
        self.order(Order::Resume(scope), Until::Done, ask);
    }

    /// Transactions are waited for, or nothing any more: no query may begin again. While clients are waited for, they must be able to go on.
    fn cannot_resume(&self) -> bool {
        matches!(self.phase, Phase::Ending { .. } | Phase::Draining(StopMode::WaitForServers))
    }
}
