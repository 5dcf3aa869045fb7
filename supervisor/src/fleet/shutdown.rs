//! The end, in PgBouncer's three forms, and the signals that ask for it.
//!
//! Whatever the form, the supervisor leaves only when no worker is left: workers that do not end by themselves are killed.

use super::Fleet;
use super::event::{Action, Answer, AskId, Moment, Notice, Signal};
use log::Level;
use serde::{Deserialize, Serialize};
use shared::control::{StopMode, ToWorker};
use shared::ids::Slot;
use std::time::Duration;

/// How long a worker that was told to stop at once may take.
const GRACE: Duration = Duration::from_secs(2);

/// How far the fleet is on its way out.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Phase {
    /// Not at all.
    Running,
    /// Until the clients have left, or the transactions have ended.
    Draining(StopMode),
    /// At once; workers that are left at `kill_at` are killed. Then exit with `status`.
    Ending { kill_at: Moment, status: u8 },
}

impl Fleet {
    pub(super) fn signal(&mut self, signal: Signal) {
        match signal {
            Signal::Hup => {
                self.log(Level::Info, "got SIGHUP, re-reading config");
                self.reload_by_signal();
            }
            Signal::Usr1 => self.pause_by_signal(),
            Signal::Usr2 => self.resume_by_signal(),
            Signal::Quit => {
                self.log(Level::Info, "got SIGQUIT, fast exit");
                self.end(0);
            }
            Signal::Term if self.is_running() && self.rules.drain_timeout.is_some() => self.drain_and_end(),
            Signal::Term | Signal::Int => {
                let (name, first, mode) = if signal == Signal::Term {
                    ("SIGTERM", "waiting for all clients disconnect", StopMode::WaitForClients)
                } else {
                    ("SIGINT", "waiting for all servers connections to be released", StopMode::WaitForServers)
                };
                if matches!(self.phase, Phase::Running) {
                    self.log(Level::Info, format!("got {name}, shutting down, {first}"));
                    self.wind_down(mode);
                } else {
                    self.log(Level::Info, format!("got {name} while shutting down, fast exit"));
                    self.end(0);
                }
            }
        }
    }

    pub(super) fn ask_shutdown(&mut self, ask: AskId, mode: StopMode) {
        match mode {
            StopMode::Immediate => {
                self.log(Level::Info, "SHUTDOWN command issued");
                // No answer: the session sees its connection end, as with PgBouncer.
                self.end(0);
            }
            StopMode::WaitForClients | StopMode::WaitForServers => {
                let form = if mode == StopMode::WaitForClients { "WAIT_FOR_CLIENTS" } else { "WAIT_FOR_SERVERS" };
                self.log(Level::Info, format!("SHUTDOWN {form} command issued"));
                self.answer(ask, Answer::Done);
                self.wind_down(mode);
            }
        }
    }

    fn wind_down(&mut self, mode: StopMode) {
        if matches!(self.phase, Phase::Ending { .. }) {
            return;
        }
        if self.is_running() {
            self.out.push(Action::Notify(Notice::Stopping));
            self.out.push(Action::CloseListeners);
            self.listeners_closed();
        }
        self.drained.clear();
        self.phase = Phase::Draining(mode);
        self.broadcast(&ToWorker::Stop(mode));
        self.check_finished();
    }

    /// SIGTERM with shutdown_drain_timeout: every client is sent away between two transactions, and who is left then is cut off.
    fn drain_and_end(&mut self) {
        let limit = self.rules.drain_timeout.unwrap_or_default();
        self.log(Level::Info, format!("got SIGTERM, shutting down, draining for at most {} s", limit.as_secs_f64()));
        self.out.push(Action::Notify(Notice::Stopping));
        if self.rules.listeners_stay {
            self.stop_listening();
        }
        self.begin_drain(None, None, Some(limit));
        self.phase = Phase::Draining(StopMode::WaitForClients);
        self.stop_drained();
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running)
    }

    /// The start has failed: say so and leave with status 1.
    pub(super) fn fail(&mut self, why: &str) {
        self.out.push(Action::Fatal(why.to_owned()));
        self.end(1);
    }

    /// Ends the fleet at once. Asked again while it is ending, what is left is killed without waiting.
    pub(super) fn end(&mut self, status: u8) {
        if matches!(self.phase, Phase::Ending { .. }) {
            self.kill_all();
            return;
        }
        if matches!(self.phase, Phase::Running) {
            self.out.push(Action::Notify(Notice::Stopping));
            self.out.push(Action::CloseListeners);
        }
        self.phase = Phase::Ending { kill_at: self.now + GRACE, status };
        self.broadcast(&ToWorker::Stop(StopMode::Immediate));
        self.check_finished();
    }

    pub(super) fn tick_shutdown(&mut self) {
        if matches!(self.phase, Phase::Ending { kill_at, .. } if kill_at <= self.now) {
            self.kill_all();
        }
    }

    /// A worker's last server is gone. Its clients stay until no worker has one: then the fleet ends as a whole.
    pub(super) fn worker_drained(&mut self, slot: Slot) {
        self.drained.insert(slot);
        self.check_finished();
    }

    /// Leaves when nothing is left to wait for.
    pub(super) fn check_finished(&mut self) {
        let live = self.live();
        if !live.is_empty() {
            let servers_gone = self.orphans.is_empty() && live.iter().all(|slot| self.drained.contains(slot));
            if matches!(self.phase, Phase::Draining(StopMode::WaitForServers)) && servers_gone {
                self.log(Level::Info, "server connections dropped, exiting");
                self.end(0);
            }
            return;
        }
        match self.phase {
            Phase::Ending { status, .. } => self.out.push(Action::Exit(status)),
            Phase::Draining(StopMode::WaitForServers) if self.orphans.is_empty() => {
                self.log(Level::Info, "server connections dropped, exiting");
                self.out.push(Action::Exit(0));
            }
            Phase::Draining(StopMode::WaitForClients) if self.consoles == 0 => {
                self.log(Level::Info, "client connections dropped, exiting");
                self.out.push(Action::Exit(0));
            }
            Phase::Draining(_) | Phase::Running => {}
        }
    }
}
