//! Rows for the console from all workers, and what dead workers had counted.
//!
//! The last counters that each worker reported are kept; when it dies they join the retired ones, so that a total which was shown
//! once never shrinks.

use super::Fleet;
use super::event::{Answer, AskId, Moment};
use log::Level;
use serde::{Deserialize, Serialize};
use shared::control::{PoolRow, ReportKind, ReportRows, ToWorker};
use shared::ids::Slot;
use shared::orders::PoolName;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a worker may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the counters are fetched without anybody asking, so that a death loses little.
const SAMPLE_EVERY: Duration = Duration::from_secs(10);

/// Reports under way and counters kept.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Reports {
    last_id: u32,
    open: Vec<Gather>,
    latest: BTreeMap<Slot, Vec<PoolRow>>,
    retired: BTreeMap<PoolName, PoolRow>,
    /// What removed pools had counted, by database; under no name: those of databases that are no more.
    removed: BTreeMap<String, PoolRow>,
    /// Removed pools that have not come back.
    forgotten: BTreeSet<PoolName>,
    sampled: Moment,
}

#[derive(Debug, Serialize, Deserialize)]
struct Gather {
    id: u32,
    /// `None`: the fleet's own sample.
    ask: Option<AskId>,
    waiting: BTreeSet<Slot>,
    /// Workers to be asked when those have answered.
    #[serde(default)]
    then: BTreeSet<Slot>,
    what: ReportKind,
    rows: Vec<(Slot, ReportRows)>,
    deadline: Moment,
    /// Somebody has not answered in time.
    silent: bool,
}

impl Reports {
    /// The fleet starts: there is nothing to sample yet.
    pub(super) fn begin(&mut self, now: Moment) {
        self.sampled = now;
    }

    /// A worker is gone: nobody waits for its rows, its counters retire.
    pub(super) fn left(&mut self, slot: Slot, handed_over: bool) {
        for gather in &mut self.open {
            gather.waiting.remove(&slot);
            gather.then.remove(&slot);
            // Rows that arrived before the death stand for connections that are gone, unless it has handed them over. Its counters retire just below.
            gather.rows.retain(|(from, _)| handed_over || *from != slot);
            for (_, rows) in gather.rows.iter_mut().filter(|(from, _)| *from == slot) {
                rows.pools.clear();
            }
        }
        for row in self.latest.remove(&slot).unwrap_or_default() {
            let key = (row.database.clone(), row.user.clone());
            let total = self.retired.entry(key).or_insert_with(|| PoolRow {
                database: row.database.clone(),
                user: row.user.clone(),
                ..PoolRow::default()
            });
            add_counters(total, &row);
        }
    }

    pub(super) fn retired(&self) -> &BTreeMap<PoolName, PoolRow> {
        &self.retired
    }

    /// A worker has removed these pools. What it reported of them before is not counted beside what they had counted in the end.
    pub(super) fn remove(&mut self, slot: Slot, counted: &[PoolRow], goes: impl Fn(&str) -> bool) {
        let is_removed = |row: &PoolRow| counted.iter().any(|gone| gone.database == row.database && gone.user == row.user);
        self.latest.entry(slot).or_default().retain(|row| !is_removed(row));
        for gather in &mut self.open {
            for (_, rows) in gather.rows.iter_mut().filter(|(from, _)| *from == slot) {
                rows.pools.retain(|row| !is_removed(row));
            }
        }
        for row in counted {
            self.add_removed(row, goes(&row.database));
        }
    }

    /// A pool is gone from all workers.
    pub(super) fn forget(&mut self, name: &PoolName, database_goes: bool) {
        if let Some(row) = self.retired.remove(name) {
            self.add_removed(&row, database_goes);
        }
        self.forgotten.insert(name.clone());
    }

    fn add_removed(&mut self, row: &PoolRow, database_goes: bool) {
        let database = if database_goes { String::new() } else { row.database.clone() };
        let total = self.removed.entry(database.clone()).or_insert_with(|| PoolRow { database, ..PoolRow::default() });
        add_counters(total, row);
    }
}

/// Adds `row`'s counters, not its gauges, to `total`'s.
pub(crate) fn add_counters(total: &mut PoolRow, row: &PoolRow) {
    total.server_assignment_count += row.server_assignment_count;
    total.xact_count += row.xact_count;
    total.query_count += row.query_count;
    total.bytes_received += row.bytes_received;
    total.bytes_sent += row.bytes_sent;
    total.xact_time_us += row.xact_time_us;
    total.query_time_us += row.query_time_us;
    total.wait_time_us += row.wait_time_us;
    total.client_parse_count += row.client_parse_count;
    total.server_parse_count += row.server_parse_count;
    total.bind_count += row.bind_count;
    total.client_login_count += row.client_login_count;
}

impl Fleet {
    pub(super) fn ask_report(&mut self, ask: AskId, what: ReportKind) {
        self.gather(Some(ask), what);
        self.finish_reports();
    }

    fn gather(&mut self, ask: Option<AskId>, what: ReportKind) {
        // 0 is a leaving worker's last report, which nobody has asked for.
        self.reports.last_id = self.reports.last_id.checked_add(1).unwrap_or(1);
        let id = self.reports.last_id;
        let serving = self.all().filter(|slot| self.slots[slot.index()].serving());
        // Sessions move from workers that leave to those that stay: asked in this order, none is missed.
        let leaves = |slot: &Slot| self.slots[slot.index()].process().is_some_and(|process| process.leaving);
        let (waiting, then) = serving.partition(leaves);
        let deadline = self.now + PATIENCE;
        self.reports.open.push(Gather { id, ask, waiting, then, what, rows: Vec::new(), deadline, silent: false });
        let waiting = self.reports.open.last().map_or_else(BTreeSet::new, |gather| gather.waiting.clone());
        for slot in waiting {
            self.send(slot, ToWorker::Report { id, what });
        }
        self.go_on_gathering();
    }

    /// Asks the workers that stay where those that leave have answered.
    fn go_on_gathering(&mut self) {
        for at in 0..self.reports.open.len() {
            let gather = &mut self.reports.open[at];
            if !gather.waiting.is_empty() {
                continue;
            }
            gather.waiting = std::mem::take(&mut gather.then);
            let (id, what, waiting) = (gather.id, gather.what, gather.waiting.clone());
            for slot in waiting {
                self.send(slot, ToWorker::Report { id, what });
            }
        }
    }

    pub(super) fn reported(&mut self, slot: Slot, id: u32, rows: ReportRows) {
        for row in &rows.pools {
            self.reports.forgotten.remove(&(row.database.clone(), row.user.clone()));
        }
        self.reports.latest.insert(slot, rows.pools.clone());
        if let Some(gather) = self.reports.open.iter_mut().find(|gather| gather.id == id)
            && gather.waiting.remove(&slot)
        {
            gather.rows.push((slot, rows));
        }
        self.finish_reports();
    }

    pub(super) fn tick_reports(&mut self) {
        let mut silent = BTreeSet::new();
        for gather in &mut self.reports.open {
            if gather.deadline <= self.now && !gather.waiting.is_empty() {
                gather.silent = true;
                silent.append(&mut gather.waiting);
                // Those behind it have their own time.
                gather.deadline = self.now + PATIENCE;
            }
        }
        for slot in silent {
            self.log(Level::Warn, format!("worker {slot} did not report within {} s", PATIENCE.as_secs()));
        }
        self.finish_reports();
        let every = self.rules.shortest_idle().map_or(SAMPLE_EVERY, |limit| SAMPLE_EVERY.min(limit / 4));
        if self.now.saturating_sub(self.reports.sampled) >= every && self.reports.open.is_empty() {
            self.reports.sampled = self.now;
            self.gather(None, ReportKind::Pools);
            self.finish_reports();
        }
    }

    /// Answers every report that nobody is waited for any more.
    pub(super) fn finish_reports(&mut self) {
        self.go_on_gathering();
        while let Some(at) = self.reports.open.iter().position(|gather| gather.waiting.is_empty()) {
            let gather = self.reports.open.swap_remove(at);
            let mut live = gather.rows;
            let Some(ask) = gather.ask else {
                if !gather.silent {
                    self.look_for_idle_pools(&live);
                }
                continue;
            };
            live.sort_by_key(|(slot, _)| *slot);
            let Reports { retired, removed, forgotten, .. } = &self.reports;
            let (retired, removed) = (retired.values().cloned().collect(), removed.values().cloned().collect());
            let rows = Answer::Rows { live, retired, removed, forgotten: forgotten.clone() };
            self.answer(ask, rows);
        }
    }
}
