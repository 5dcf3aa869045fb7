//! Averages: a snapshot of the fleet's totals each stats_period, and the line that it leads to.

use crate::engine::now;
use crate::fleet::{Answer, Moment, Request};
use crate::notify;
use crate::office::Office;
use serde::{Deserialize, Serialize};
use shared::control::{PoolRow, ReportKind};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Totals by database.
pub(crate) type Totals = BTreeMap<String, PoolRow>;

/// What averages and the line start from.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<Kept>);

/// The same while another image takes the place of this one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Kept {
    /// The last two snapshots: averages run from the older one.
    snapshots: Option<(Snapshot, Snapshot)>,
    /// What the last line told: when, and the sum over all databases.
    told: Option<(Moment, PoolRow)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Snapshot {
    at: Moment,
    totals: Totals,
}

impl History {
    /// The totals that averages start from, and how long ago that was.
    pub(crate) fn base(&self) -> (Totals, Duration) {
        match &self.kept().snapshots {
            Some((older, _)) => (older.totals.clone(), now().saturating_sub(older.at)),
            None => (Totals::new(), Duration::ZERO),
        }
    }

    /// For the next image.
    pub(crate) fn park(&self) -> Kept {
        self.kept().clone()
    }

    /// Goes on with what was parked.
    pub(crate) fn resume(&self, kept: Kept) {
        *self.kept() = kept;
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long ago the last line was told. The first call begins the first period.
    fn silence(&self) -> Duration {
        let mut kept = self.kept();
        let (at, _) = kept.told.get_or_insert_with(|| (now(), PoolRow::default()));
        now().saturating_sub(*at)
    }

    fn is_new(&self) -> bool {
        self.kept().told.is_none()
    }

    /// The first period begins with these: workers that were adopted have counted before.
    fn begin(&self, totals: &Totals) {
        self.kept().told = Some((now(), sum(totals)));
    }

    /// Takes the totals as they are now; returns the line.
    fn push(&self, totals: Totals) -> String {
        let mut kept = self.kept();
        let now = now();
        let sum = sum(&totals);
        let (told_at, told) = kept.told.replace((now, sum.clone())).unwrap_or_else(|| (now, PoolRow::default()));
        let new = Snapshot { at: now, totals };
        let older = kept.snapshots.take().map_or_else(|| new.clone(), |(_, newer)| newer);
        kept.snapshots = Some((older, new));
        line(&told, &sum, now.saturating_sub(told_at))
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

fn sum(totals: &Totals) -> PoolRow {
    let mut sum = PoolRow::default();
    for row in totals.values() {
        crate::fleet::add_counters(&mut sum, row);
    }
    sum
}

/// What all workers have counted.
fn count(office: &Office) -> Option<Totals> {
    match office.ask(Request::Report(ReportKind::Pools), None).recv() {
        Ok(Answer::Rows { live, retired, removed, .. }) => {
            Some(totals(live.iter().flat_map(|(_, rows)| &rows.pools).chain(&retired).chain(&removed)))
        }
        _ => None,
    }
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
    if office.history.is_new()
        && let Some(totals) = count(office)
    {
        office.history.begin(&totals);
    }
    loop {
        // The period may change under way: it is looked at often, the fleet is not asked before it is over.
        std::thread::sleep(Duration::from_secs(1));
        let settings = &office.config().settings;
        if settings.stats_period.is_zero() || office.history.silence() < settings.stats_period {
            continue;
        }
        let Some(totals) = count(office) else { continue };
        let line = office.history.push(totals);
        notify::status(&line);
        if settings.log_stats {
            log::info!("{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use shared::encoding::{decode_named, encode_named};

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

    #[test]
    fn averages_and_the_line_go_on_in_the_next_image() {
        let counted = |xact_count| Totals::from([("db".to_owned(), PoolRow { xact_count, ..PoolRow::default() })]);
        let history = History::default();
        history.silence();
        history.push(counted(10));
        history.push(counted(30));
        let kept = history.park();
        let next = History::default();
        next.silence();
        next.resume(decode_named(&encode_named(&[], &kept).unwrap()).unwrap());
        assert_eq!(next.park(), kept);
        let (base, elapsed) = next.base();
        assert_eq!((base, elapsed > Duration::ZERO), (counted(10), true));
        next.push(counted(70));
        assert_eq!(next.base().0, counted(30), "the snapshot before the last one");
        assert_eq!(next.park().told.unwrap().1.xact_count, 70);
    }
}
