//! Signs of life: who has been silent for too long, and what is done about it.
//!
//! A worker's loop turns at least ten times a second, and its heart beats with it. One that has not for a second is called `silent`, in the log and
//! in SHOW WORKERS; the other workers do without it from much earlier on, by the worker table. One that stays silent is killed.

use super::Fleet;
use super::event::{Moment, Pulse};
use super::lives::Life;
use log::Level;
use shared::ids::Slot;
use std::time::Duration;

/// A worker that has not polled its listeners after this long never will.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// A busy machine may keep a worker from turning its loop for some tenths of a second; this is worth a line in the log.
const SILENCE: Duration = Duration::from_secs(1);

impl Fleet {
    pub(super) fn tick_heartbeats(&mut self, pulses: &[Pulse]) {
        for slot in self.all() {
            let beat = pulses.get(slot.index()).and_then(|pulse| pulse.beat);
            match &self.slots[slot.index()].life {
                Life::Serving(process) => {
                    let last = beat.max(process.ready_at).unwrap_or(process.since);
                    self.heard(slot, last);
                }
                Life::Starting(process) if self.now.saturating_sub(process.since) > START_TIMEOUT => {
                    self.kill(slot, &format!("was not ready within {} s", START_TIMEOUT.as_secs()));
                }
                Life::Starting(_) | Life::Vacant { .. } => {}
            }
        }
    }

    /// A worker's heart has beaten last at `last`.
    fn heard(&mut self, slot: Slot, last: Moment) {
        let limit = self.rules.hang_timeout;
        let silence = self.now.saturating_sub(last);
        let Some(process) = self.slots[slot.index()].process_mut() else { return };
        let pid = process.pid;
        let before = std::mem::replace(&mut process.silent_since, (silence > SILENCE).then_some(last));
        if limit.is_some_and(|limit| silence > limit) {
            self.kill(slot, &format!("has not turned its loop for {} s (worker_hang_timeout)", silence.as_secs()));
        } else if silence > SILENCE && before.is_none() {
            let then = match limit {
                Some(limit) => format!("it is killed after worker_hang_timeout ({} s)", limit.as_secs_f32()),
                None => "worker_hang_timeout does not end it".to_owned(),
            };
            self.log(Level::Warn, format!("worker {slot} (pid {pid}) has not turned its loop for {} s; {then}", silence.as_secs()));
        } else if let Some(since) = before.filter(|_| silence <= SILENCE) {
            let silence = last.saturating_sub(since).as_secs_f32();
            self.log(Level::Info, format!("worker {slot} (pid {pid}) turns its loop again, after {silence:.1} s"));
        }
    }
}
