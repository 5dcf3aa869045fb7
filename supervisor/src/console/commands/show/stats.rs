//! SHOW STATS, STATS_TOTALS, STATS_AVERAGES and TOTALS, from one list of counters.

use super::merge::Rows;
use crate::console::encode::{Kind, Table, cell};
use crate::office::Office;
use crate::stats::{Totals, per_second};
use shared::control::PoolRow;
use std::borrow::Cow;
use std::time::Duration;

/// One counter: its names in the four tables and how its average is made.
struct Counter {
    /// SHOW STATS: behind `total_`.
    total: &'static str,
    /// SHOW STATS: behind `avg_`.
    average: &'static str,
    /// SHOW STATS_TOTALS, and SHOW STATS_AVERAGES unless `average_alone` says otherwise.
    alone: &'static str,
    average_alone: &'static str,
    /// SHOW TOTALS: behind `total_` and `avg_`.
    sum: &'static str,
    value: fn(&PoolRow) -> u64,
    /// What a time is divided by; the others by the seconds.
    each: Option<fn(&PoolRow) -> u64>,
}

const fn counter(names: [&'static str; 5], value: fn(&PoolRow) -> u64, each: Option<fn(&PoolRow) -> u64>) -> Counter {
    let [total, average, alone, average_alone, sum] = names;
    Counter { total, average, alone, average_alone, sum, value, each }
}

const fn plain(name: &'static str, value: fn(&PoolRow) -> u64, each: Option<fn(&PoolRow) -> u64>) -> Counter {
    counter([name; 5], value, each)
}

static COUNTERS: [Counter; 12] = [
    plain("server_assignment_count", |row| row.server_assignment_count, None),
    plain("xact_count", |row| row.xact_count, None),
    plain("query_count", |row| row.query_count, None),
    counter(["received", "recv", "bytes_received", "bytes_received", "client_bytes"], |row| row.bytes_received, None),
    counter(["sent", "sent", "bytes_sent", "bytes_sent", "server_bytes"], |row| row.bytes_sent, None),
    plain("xact_time", |row| row.xact_time_us, Some(|row| row.xact_count)),
    plain("query_time", |row| row.query_time_us, Some(|row| row.query_count)),
    plain("wait_time", |row| row.wait_time_us, Some(|row| row.server_assignment_count)),
    counter(
        ["client_parse_count", "client_parse_count", "client_parse_count", "avg_client_parse_count", "ps_client_parse_count"],
        |row| row.client_parse_count,
        None,
    ),
    counter(
        ["server_parse_count", "server_parse_count", "server_parse_count", "avg_server_parse_count", "ps_server_parse_count"],
        |row| row.server_parse_count,
        None,
    ),
    counter(["bind_count", "bind_count", "bind_count", "avg_bind_count", "ps_bind_count"], |row| row.bind_count, None),
    counter(
        ["client_login_count", "client_login_count", "client_login_count", "avg_client_login_count", "client_login_count"],
        |row| row.client_login_count,
        None,
    ),
];

impl Counter {
    fn average(&self, before: &PoolRow, after: &PoolRow, elapsed: Duration) -> u64 {
        let gained = |count: fn(&PoolRow) -> u64| count(after).saturating_sub(count(before));
        match self.each {
            Some(each) => gained(self.value).checked_div(gained(each)).unwrap_or(0),
            None => per_second(gained(self.value), elapsed),
        }
    }
}

/// The totals of one database now and where its averages start.
struct Line {
    database: String,
    before: PoolRow,
    now: PoolRow,
}

fn lines(office: Option<&Office>, rows: &Rows) -> (Vec<Line>, Duration) {
    let (mut base, elapsed) = office.map(|office| office.history.base()).unwrap_or_default();
    let mut totals = rows.totals();
    let present = rows.databases();
    totals.retain(|database, _| present.contains(database.as_str()));
    totals.entry("pgbouncer".to_owned()).or_default();
    let line = |(database, now): (String, PoolRow)| {
        let before = base.remove(&database).unwrap_or_default();
        Line { database, before, now }
    };
    (totals.into_iter().map(line).collect(), elapsed)
}

/// `database`, then these counters.
fn table(names: impl Iterator<Item = Cow<'static, str>>) -> Table {
    Table::with_columns(std::iter::once(("database".into(), Kind::Text)).chain(names.map(|name| (name, Kind::Numeric))))
}

pub(super) fn stats(office: &Office, rows: &Rows) -> Table {
    let totals = COUNTERS.iter().map(|counter| format!("total_{}", counter.total).into());
    let mut table = table(totals.chain(COUNTERS.iter().map(|counter| format!("avg_{}", counter.average).into())));
    let (lines, elapsed) = lines(Some(office), rows);
    for line in lines {
        let mut cells = vec![cell(&line.database)];
        cells.extend(COUNTERS.iter().map(|counter| cell((counter.value)(&line.now))));
        cells.extend(COUNTERS.iter().map(|counter| cell(counter.average(&line.before, &line.now, elapsed))));
        table.row(cells);
    }
    table
}

pub(super) fn totals(rows: &Rows) -> Table {
    let mut table = table(COUNTERS.iter().map(|counter| counter.alone.into()));
    for line in lines(None, rows).0 {
        let values = COUNTERS.iter().map(|counter| cell((counter.value)(&line.now)));
        table.row(std::iter::once(cell(&line.database)).chain(values).collect());
    }
    table
}

pub(super) fn averages(office: &Office, rows: &Rows) -> Table {
    let mut table = table(COUNTERS.iter().map(|counter| counter.average_alone.into()));
    let (lines, elapsed) = lines(Some(office), rows);
    for line in lines {
        let values = COUNTERS.iter().map(|counter| cell(counter.average(&line.before, &line.now, elapsed)));
        table.row(std::iter::once(cell(&line.database)).chain(values).collect());
    }
    table
}

/// SHOW TOTALS: all databases together, those that are no more included, a counter a row.
pub(super) fn sums(office: &Office, rows: &Rows) -> Table {
    let mut table = Table::new(&[("name", Kind::Text), ("value", Kind::Numeric)]);
    let (base, elapsed) = office.history.base();
    let sum = |totals: &Totals| {
        totals.values().fold(PoolRow::default(), |mut sum, row| {
            crate::fleet::add_counters(&mut sum, row);
            sum
        })
    };
    let (before, now) = (sum(&base), sum(&rows.totals()));
    for counter in &COUNTERS {
        table.row(vec![cell(format!("total_{}", counter.sum)), cell((counter.value)(&now))]);
    }
    for counter in &COUNTERS {
        table.row(vec![cell(format!("avg_{}", counter.sum)), cell(counter.average(&before, &now, elapsed))]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_by_second_or_by_thing() {
        let before = PoolRow { query_count: 10, query_time_us: 100, ..PoolRow::default() };
        let after = PoolRow { query_count: 30, query_time_us: 500, ..PoolRow::default() };
        let average = |name: &str| {
            let counter = COUNTERS.iter().find(|counter| counter.total == name);
            counter.map(|counter| counter.average(&before, &after, Duration::from_secs(4)))
        };
        assert_eq!(average("query_count"), Some(5));
        assert_eq!(average("query_time"), Some(20));
        assert_eq!(average("xact_time"), Some(0));
    }

    #[test]
    fn names_of_show_stats_totals() {
        let table = totals(&Rows::default());
        let names: Vec<&str> = table.columns.iter().map(|(name, _)| name.as_ref()).collect();
        assert_eq!(names[..5], ["database", "server_assignment_count", "xact_count", "query_count", "bytes_received"]);
        assert_eq!(names.len(), 13);
    }
}
