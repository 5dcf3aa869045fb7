//! A new configuration, in two phases: every worker prepares it, and only when all have, every worker puts it in force.
//!
//! Until the commit the old generation is what a successor starts with (and is then asked to prepare the new one); from the commit
//! on it is the new one. A worker that dies or is killed for its silence is simply no longer waited for: its successor takes its
//! place. One refusal abandons the candidate everywhere.

use super::event::{Action, Answer, AskId, Changed, Failure, Loaded, Moment, Notice};
use super::{Fleet, shutdown::Phase};
use log::Level;
use serde::{Deserialize, Serialize};
use shared::config::News;
use shared::control::ToWorker;
use shared::ids::Slot;
use std::collections::BTreeSet;
use std::time::Duration;

/// A worker that has not answered a phase after this long is taken for hung.
const PHASE_TIMEOUT: Duration = Duration::from_secs(10);

/// One that takes longer than this is named.
const PROMPT: Duration = Duration::from_secs(1);

/// What changes the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Change {
    /// The file, read again.
    File,
    /// One setting, until the next reload.
    Set(String, String),
    /// The same again with its log file opened anew, after a file that was refused.
    Reopen,
    /// What the files of the TLS settings hold.
    TlsFiles,
}

/// One change and who waits for it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    change: Change,
    asks: Vec<AskId>,
    /// What it changes, when that is known.
    #[serde(skip)]
    news: News,
}

impl Job {
    fn new(change: Change, ask: Option<AskId>) -> Self {
        Self { change, asks: ask.into_iter().collect(), news: News::default() }
    }
}

/// Where a change stands.
#[derive(Debug, Default)]
enum Stage {
    #[default]
    Idle,
    Loading(Job),
    Preparing(Job, Box<Loaded>, Waiting),
    Committing(Job, u64, Waiting),
}

#[derive(Debug)]
struct Waiting {
    slots: BTreeSet<Slot>,
    since: Moment,
    /// Whether the log says who is waited for.
    told: bool,
}

/// The change under way and those behind it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Reload {
    /// No image is left while there is one.
    #[serde(skip)]
    stage: Stage,
    queue: Vec<Job>,
}

impl Reload {
    /// No configuration is on its way.
    pub(super) fn is_still(&self) -> bool {
        matches!(self.stage, Stage::Idle) && self.queue.is_empty()
    }

    /// Whether what this worker says may still be about the old configuration.
    pub(super) fn outdated(&self, slot: Slot) -> bool {
        matches!(&self.stage, Stage::Committing(_, _, waiting) if waiting.slots.contains(&slot))
    }
}

impl Fleet {
    /// RELOAD.
    pub(super) fn ask_reload(&mut self, ask: AskId) {
        self.log(Level::Info, "RELOAD command issued");
        self.request(Change::File, Some(ask));
    }

    /// SET.
    pub(super) fn ask_set(&mut self, ask: AskId, key: String, value: String) {
        self.request(Change::Set(key, value), Some(ask));
    }

    /// SIGHUP.
    pub(super) fn reload_by_signal(&mut self) {
        self.request(Change::File, None);
    }

    /// Somebody has replaced a certificate.
    pub(super) fn reload_tls_files(&mut self) {
        self.request(Change::TlsFiles, None);
    }

    pub(super) fn request(&mut self, change: Change, ask: Option<AskId>) {
        if matches!(self.phase, Phase::Ending { .. }) {
            if let Some(ask) = ask {
                self.answer(ask, Answer::Failed(Failure::ShuttingDown));
            }
            return;
        }
        // The file is read once for all that asked while another change was under way, unless they asked for something else in between.
        match self.reload.queue.last_mut().filter(|job| change == Change::File && job.change == Change::File) {
            Some(job) => job.asks.extend(ask),
            None => self.reload.queue.push(Job::new(change, ask)),
        }
        self.next_change();
    }

    pub(super) fn next_change(&mut self) {
        // Workers of another build would not understand it.
        let waits = self.may_roll_back() || self.has_strangers();
        if !matches!(self.reload.stage, Stage::Idle) || self.reload.queue.is_empty() || waits {
            return;
        }
        let job = self.reload.queue.remove(0);
        self.out.push(match &job.change {
            Change::File => Action::Load,
            Change::Set(key, value) => Action::LoadSet(key.clone(), value.clone()),
            Change::Reopen => Action::LoadReopen,
            Change::TlsFiles => Action::LoadTlsFiles,
        });
        if job.change == Change::File && self.up && matches!(self.phase, Phase::Running) {
            self.out.push(Action::Notify(Notice::Reloading));
        }
        self.reload.stage = Stage::Loading(job);
    }

    /// The file was read: phase one, or the end of it.
    pub(super) fn loaded(&mut self, outcome: Result<Loaded, String>) {
        let Stage::Loading(mut job) = std::mem::take(&mut self.reload.stage) else { return };
        match outcome {
            Err(problems) => {
                let problems: Vec<String> = problems.lines().map(str::to_owned).collect();
                for line in &problems {
                    self.log(Level::Error, line);
                }
                // Whatever the file says: the log is opened anew, or what rotated it waits for ever.
                if job.change == Change::File {
                    self.reload.queue.insert(0, Job::new(Change::Reopen, None));
                }
                self.finish(job, Err(problems));
            }
            Ok(mut loaded) => {
                job.news = std::mem::take(&mut loaded.news);
                let generation = loaded.generation;
                self.broadcast(&ToWorker::Prepare { generation, log_file: false });
                let waiting = self.waiting();
                self.reload.stage = Stage::Preparing(job, Box::new(loaded), waiting);
                self.advance();
            }
        }
    }

    pub(super) fn prepared(&mut self, slot: Slot, generation: u64) {
        if let Stage::Preparing(_, loaded, waiting) = &mut self.reload.stage
            && loaded.generation == generation
        {
            waiting.slots.remove(&slot);
            self.advance();
        }
    }

    pub(super) fn committed(&mut self, slot: Slot, generation: u64) {
        if let Stage::Committing(_, current, waiting) = &mut self.reload.stage
            && *current == generation
        {
            waiting.slots.remove(&slot);
            self.advance();
        }
    }

    pub(super) fn refused(&mut self, slot: Slot, generation: u64, reason: &str) {
        match std::mem::take(&mut self.reload.stage) {
            Stage::Preparing(job, loaded, _) if loaded.generation == generation => {
                let line = format!("worker {slot} cannot use the new configuration: {reason}");
                self.log(Level::Error, line.clone());
                self.broadcast(&ToWorker::Abandon { generation });
                self.out.push(Action::Discard);
                self.finish(job, Err(vec![line]));
            }
            other => self.reload.stage = other,
        }
    }

    /// A new worker was started with the generation in force; in phase one it has to prepare the candidate like the others.
    pub(super) fn join_reload(&mut self, slot: Slot) {
        if let Stage::Preparing(_, loaded, waiting) = &mut self.reload.stage {
            waiting.slots.insert(slot);
            let generation = loaded.generation;
            self.send(slot, ToWorker::Prepare { generation, log_file: false });
        }
    }

    /// A worker is gone and no longer waited for. Its successor, if one starts at once, has not been asked for yet: it is started
    /// with what is in force then.
    pub(super) fn left_reload(&mut self, slot: Slot) {
        match &mut self.reload.stage {
            Stage::Preparing(_, _, waiting) | Stage::Committing(_, _, waiting) => {
                waiting.slots.remove(&slot);
                self.advance();
            }
            Stage::Idle | Stage::Loading(_) => {}
        }
    }

    pub(super) fn tick_reload(&mut self) {
        let (Stage::Preparing(job, _, waiting) | Stage::Committing(job, _, waiting)) = &mut self.reload.stage else { return };
        let waited = self.now.saturating_sub(waiting.since);
        let late = if waited >= PHASE_TIMEOUT { waiting.slots.clone() } else { BTreeSet::new() };
        if waited >= PROMPT && !std::mem::replace(&mut waiting.told, true) {
            let what = if matches!(job.change, Change::Set(..)) { "SET" } else { "RELOAD" };
            let process =
                |slot: &Slot| self.slots[slot.index()].process().map(|process| format!("worker {slot} (pid {})", process.pid));
            let processes: Vec<String> = waiting.slots.iter().filter_map(process).collect();
            self.log(Level::Warn, format!("{what} waits for {}", processes.join(", ")));
        }
        for slot in late {
            self.kill(slot, &format!("did not answer a reload within {} s", PHASE_TIMEOUT.as_secs()));
        }
    }

    fn waiting(&self) -> Waiting {
        Waiting { slots: self.live().into_iter().collect(), since: self.now, told: false }
    }

    /// Goes on to the next phase when nobody is waited for.
    fn advance(&mut self) {
        match std::mem::take(&mut self.reload.stage) {
            Stage::Preparing(job, loaded, waiting) if waiting.slots.is_empty() => {
                self.out.push(Action::Adopt);
                self.broadcast(&ToWorker::Commit { generation: loaded.generation });
                self.rules = loaded.rules.clone();
                self.marks.forget(loaded.dropped.iter());
                match &loaded.changed {
                    Changed::All => self.welcomes.clear(),
                    Changed::Entries(names) => self.welcomes.retain(|(database, _), _| !names.contains(database)),
                }
                for secret in &loaded.outdated_secrets {
                    self.keys.forget(secret);
                }
                let waiting = self.waiting();
                self.reload.stage = Stage::Committing(job, loaded.generation, waiting);
                self.resize(loaded.workers);
                self.advance();
            }
            Stage::Committing(job, _, waiting) if waiting.slots.is_empty() => self.finish(job, Ok(())),
            other => self.reload.stage = other,
        }
    }

    /// The change is in force, or not for these reasons.
    fn finish(&mut self, job: Job, outcome: Result<(), Vec<String>>) {
        let Job { change, asks, mut news } = job;
        if change == Change::File && news == News::default() {
            news.changed.push("nothing has changed".to_owned());
        }
        match (&change, &outcome) {
            (Change::File, Ok(())) => self.log(Level::Info, "RELOAD done, the new configuration is in force"),
            (Change::File, Err(_)) => self.log(Level::Error, "RELOAD failed, the configuration in force stays as it was"),
            (Change::TlsFiles, Ok(())) => {
                self.log(Level::Info, "files of the TLS settings have changed, what they hold now is in force");
            }
            (Change::Set(..) | Change::Reopen | Change::TlsFiles, _) => {}
        }
        if outcome.is_ok() {
            for line in &news.changed {
                self.log(Level::Info, line);
            }
            for line in &news.needs_restart {
                self.log(Level::Warn, line);
            }
        }
        if change == Change::File && self.up && matches!(self.phase, Phase::Running) {
            self.out.push(Action::Notify(Notice::Ready));
        }
        let answer = match outcome {
            Ok(()) => Answer::InForce(news),
            Err(reasons) if matches!(change, Change::Set(..)) => Answer::Failed(Failure::Set(reasons)),
            Err(reasons) => Answer::Failed(Failure::Reload(reasons)),
        };
        for ask in asks {
            self.answer(ask, answer.clone());
        }
        self.reload.stage = Stage::Idle;
        self.next_change();
    }
}
