//! Averages: a snapshot of the fleet's totals each stats_period, and the line that it leads to.

use crate::fleet::{Answer, Request};
use crate::notify;
use crate::office::Office;
use shared::control::{PoolRow, ReportKind};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Totals by database.
pub(crate) type Totals = BTreeMap<String, PoolRow>;

/// The last two snapshots: averages run from the older one.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<Option<(Snapshot, Snapshot)>>);

#[derive(Debug, Clone)]
struct Snapshot {
    at: Instant,
    totals: Totals,
}

impl History {
    /// The totals that averages start from, and how long ago that was.
    pub(crate) fn base(&self) -> (Totals, Duration) {
        let snapshots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*snapshots {
            Some((older, _)) => (older.totals.clone(), older.at.elapsed()),
            None => (Totals::new(), Duration::ZERO),
        }
    }

    fn push(&self, totals: Totals) {
        let mut snapshots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = Snapshot { at: Instant::now(), totals };
        let older = snapshots.take().map_or_else(|| new.clone(), |(_, newer)| newer);
        *snapshots = Some((older, new));
    }
}

/// Sums each database's pools over all workers.
pub(crate) fn totals<'a>(rows: impl Iterator<Item = &'a PoolRow>) -> Totals {
    let mut totals = Totals::new();
    for row in rows {
        let total = totals.entry(row.database.clone()).or_default();
        total.database.clone_from(&row.database);
        crate::fleet::add_counters(total, row);
    }
    totals
}

/// What a second of the time between two totals brought: sums and rates as the line prints them.
pub(crate) fn line(before: &PoolRow, after: &PoolRow, elapsed: Duration) -> String {
    let rate = |count: fn(&PoolRow) -> u64| per_second(count(after).saturating_sub(count(before)), elapsed);
    let mean = |time: fn(&PoolRow) -> u64, count: fn(&PoolRow) -> u64| {
        time(after).saturating_sub(time(before)).checked_div(count(after).saturating_sub(count(before))).unwrap_or(0)
    };
    format!(
        "stats: {} xacts/s, {} queries/s, {} client parses/s, {} server parses/s, {} binds/s, {} client logins/s, \
         in {} B/s, out {} B/s, xact {} us, query {} us, wait {} us",
        rate(|row| row.xact_count),
        rate(|row| row.query_count),
        rate(|row| row.client_parse_count),
        rate(|row| row.server_parse_count),
        rate(|row| row.bind_count),
        rate(|row| row.client_login_count),
        rate(|row| row.bytes_received),
        rate(|row| row.bytes_sent),
        mean(|row| row.xact_time_us, |row| row.xact_count),
        mean(|row| row.query_time_us, |row| row.query_count),
        mean(|row| row.wait_time_us, |row| row.server_assignment_count),
    )
}

/// `count` things in `elapsed`, by the second.
pub(crate) fn per_second(count: u64, elapsed: Duration) -> u64 {
    let elapsed = elapsed.as_micros();
    let rate = (u128::from(count) * 1_000_000).checked_div(elapsed).unwrap_or(0);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// Takes the snapshots from a thread of its own.
pub(crate) fn start(office: Arc<Office>) -> io::Result<()> {
    std::thread::Builder::new().name("stats".into()).spawn(move || run(&office))?;
    Ok(())
}

fn run(office: &Office) {
    let mut before = (PoolRow::default(), Instant::now());
    let mut last = Instant::now();
    loop {
        // The period may change under way: it is looked at often, the fleet is not asked before it is over.
        std::thread::sleep(Duration::from_secs(1));
        let settings = &office.config().settings;
        if settings.stats_period.is_zero() || last.elapsed() < settings.stats_period {
            continue;
        }
        last = Instant::now();
        let Ok(Answer::Rows { live, retired, removed, .. }) = office.ask(Request::Report(ReportKind::Pools), None).recv() else {
            continue;
        };
        let totals = totals(live.iter().flat_map(|(_, rows)| &rows.pools).chain(&retired).chain(&removed));
        let mut sum = PoolRow::default();
        for row in totals.values() {
            crate::fleet::add_counters(&mut sum, row);
        }
        office.history.push(totals);
        let line = line(&before.0, &sum, before.1.elapsed());
        before = (sum, Instant::now());
        notify::status(&line);
        if settings.log_stats {
            log::info!("{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_pgbouncers() {
        let before = PoolRow { xact_count: 10, query_count: 10, ..PoolRow::default() };
        let after = PoolRow {
            xact_count: 30,
            query_count: 50,
            bytes_received: 2000,
            bytes_sent: 4000,
            xact_time_us: 2000,
            query_time_us: 400,
            wait_time_us: 90,
            server_assignment_count: 3,
            client_login_count: 4,
            ..PoolRow::default()
        };
        assert_eq!(
            line(&before, &after, Duration::from_secs(2)),
            "stats: 10 xacts/s, 20 queries/s, 0 client parses/s, 0 server parses/s, 0 binds/s, 2 client logins/s, \
             in 1000 B/s, out 2000 B/s, xact 100 us, query 10 us, wait 30 us"
        );
    }

    #[test]
    fn nothing_counted_divides_by_nothing() {
        let none = PoolRow::default();
        assert!(line(&none, &none, Duration::ZERO).starts_with("stats: 0 xacts/s"));
    }
}
