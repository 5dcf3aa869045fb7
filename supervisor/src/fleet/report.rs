//! Rows for the console from all workers, and what dead workers had counted.
//!
//! The last counters that each worker reported are kept; when it dies they join the retired ones, so that a total which was shown
//! once never shrinks.

use super::Fleet;
use super::event::{Answer, AskId, Moment};
use log::Level;
use shared::control::{PoolRow, ReportKind, ReportRows, ToWorker};
use shared::ids::Slot;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a worker may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the counters are fetched without anybody asking, so that a death loses little.
const SAMPLE_EVERY: Duration = Duration::from_secs(10);

/// Reports under way and counters kept.
#[derive(Debug, Default)]
pub(super) struct Reports {
    last_id: u32,
    open: Vec<Gather>,
    latest: BTreeMap<Slot, Vec<PoolRow>>,
    retired: BTreeMap<(String, String), PoolRow>,
    sampled: Moment,
}

#[derive(Debug)]
struct Gather {
    id: u32,
    /// `None`: the fleet's own sample.
    ask: Option<AskId>,
    waiting: BTreeSet<Slot>,
    rows: Vec<(Slot, ReportRows)>,
    deadline: Moment,
}

impl Reports {
    /// The fleet starts: there is nothing to sample yet.
    pub(super) fn begin(&mut self, now: Moment) {
        self.sampled = now;
    }

    /// A worker is gone: nobody waits for its rows, its counters retire.
    pub(super) fn left(&mut self, slot: Slot) {
        for gather in &mut self.open {
            gather.waiting.remove(&slot);
            // Rows that arrived before the death stand for connections that are gone, and its counters retire just below.
            gather.rows.retain(|(from, _)| *from != slot);
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
        self.reports.last_id = self.reports.last_id.wrapping_add(1);
        let id = self.reports.last_id;
        let waiting: BTreeSet<Slot> = self.all().filter(|slot| self.slots[slot.index()].serving()).collect();
        for &slot in &waiting {
            self.send(slot, ToWorker::Report { id, what });
        }
        self.reports.open.push(Gather { id, ask, waiting, rows: Vec::new(), deadline: self.now + PATIENCE });
    }

    pub(super) fn reported(&mut self, slot: Slot, id: u32, rows: ReportRows) {
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
            if gather.deadline <= self.now {
                silent.append(&mut gather.waiting);
            }
        }
        for slot in silent {
            self.log(Level::Warn, format!("worker {slot} did not report within {} s", PATIENCE.as_secs()));
        }
        self.finish_reports();
        if self.now.saturating_sub(self.reports.sampled) >= SAMPLE_EVERY && self.reports.open.is_empty() {
            self.reports.sampled = self.now;
            self.gather(None, ReportKind::Pools);
            self.finish_reports();
        }
    }

    /// Answers every report that nobody is waited for any more.
    pub(super) fn finish_reports(&mut self) {
        while let Some(at) = self.reports.open.iter().position(|gather| gather.waiting.is_empty()) {
            let gather = self.reports.open.swap_remove(at);
            let Some(ask) = gather.ask else { continue };
            let mut live = gather.rows;
            live.sort_by_key(|(slot, _)| *slot);
            let retired = self.reports.retired.values().cloned().collect();
            self.answer(ask, Answer::Rows { live, retired });
        }
    }
}
