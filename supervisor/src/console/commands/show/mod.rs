//! SHOW: what the fleet is and does. One item, one file; rows are merged over all workers, so that a key stands in one row.

mod config;
mod connections;
mod databases;
mod dns;
mod fds;
mod help;
mod lists;
mod mem;
mod merge;
mod peers;
mod pools;
mod small;
mod stats;
mod users;
mod workers;

use super::{Context, Reply};
use crate::console::encode::{Kind, Table, cell};
use crate::fleet::{Answer, Request};
use merge::Rows;
use shared::control::ReportKind;
use shared::orders::Marks;

/// Parameters that drivers ask for at connect, and PgBouncer's answers.
const FAKES: [(&str, &str); 5] = [
    ("client_encoding", "UTF-8"),
    ("default_transaction_isolation", "read committed"),
    ("standard_conforming_strings", "on"),
    ("datestyle", "ISO"),
    ("timezone", "GMT"),
];

/// The answer for a parameter that drivers ask for, by its name in lower case.
pub(super) fn fake(name: &str) -> Option<(&'static str, &'static str)> {
    FAKES.into_iter().find(|(known, _)| *known == name)
}

/// `None`: there is no such item.
pub(super) fn run(context: &Context<'_>, item: &str) -> Option<Reply> {
    let item = item.to_ascii_lowercase();
    let office = context.office;
    if let Some((name, value)) = fake(&item) {
        let mut table = Table::new(&[(name, Kind::Text)]);
        table.row(vec![cell(value)]);
        return Some(Reply::Table(table));
    }
    let table = match item.as_str() {
        "help" => return Some(help::run()),
        "fds" if !context.admin => return Some(Reply::error("admin access needed")),
        "version" => Some(small::version()),
        "state" => small::state(context),
        "config" => Some(config::table(&office.config())),
        "databases" => {
            context.marks().zip(context.rows(ReportKind::Pools)).map(|(marks, rows)| databases::table(office, &rows, &marks))
        }
        "pools" => context.rows(ReportKind::Pools).map(|rows| pools::table(office, &rows)),
        "clients" => context.rows(ReportKind::Clients).map(|rows| connections::clients(office, &rows)),
        "servers" => context.rows(ReportKind::Servers).map(|rows| connections::servers(&rows)),
        "sockets" | "active_sockets" => {
            let busy_only = item == "active_sockets";
            context.rows(ReportKind::Sockets).map(|rows| connections::sockets(office, &rows, busy_only))
        }
        "mem" => context.rows(ReportKind::Memory).map(|rows| mem::table(&rows)),
        "users" => context.rows(ReportKind::Clients).map(|rows| users::table(office, &rows)),
        "lists" => context.rows(ReportKind::Pools).map(|rows| lists::table(office, &rows)),
        "stats" => context.rows(ReportKind::Pools).map(|rows| stats::stats(office, &rows)),
        "stats_totals" => context.rows(ReportKind::Pools).map(|rows| stats::totals(&rows)),
        "stats_averages" => context.rows(ReportKind::Pools).map(|rows| stats::averages(office, &rows)),
        "totals" => context.rows(ReportKind::Pools).map(|rows| stats::sums(office, &rows)),
        "workers" => workers::table(context),
        "peers" => Some(peers::peers(&office.config())),
        "peer_pools" => context.rows(ReportKind::Pools).map(|rows| peers::pools(&rows)),
        "dns_hosts" => Some(dns::hosts(office)),
        "dns_zones" => Some(dns::zones(office)),
        "fds" => fds::table(context),
        _ => return None,
    };
    Some(table.map_or(Reply::Gone, Reply::Table))
}

impl Context<'_> {
    /// What is paused and disabled; `None`: nobody is there to take it.
    pub(super) fn marks(&self) -> Option<Marks> {
        match self.ask(Request::State)? {
            Answer::State(marks) => Some(marks),
            _ => None,
        }
    }

    /// The rows of all workers; `None`: nobody is there to take them.
    pub(super) fn rows(&self, what: ReportKind) -> Option<Rows> {
        match self.ask(Request::Report(what))? {
            Answer::Rows { live, retired, removed, forgotten } => Some(Rows { live, retired, removed, forgotten }),
            _ => None,
        }
    }
}
