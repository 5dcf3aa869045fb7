//! SHOW CLIENTS and SHOW SERVERS: one row for each connection, whichever worker has it.

use super::merge::Rows;
use crate::console::encode::{Kind, Table, cell};
use crate::office::Office;
use jiff::{Timestamp, tz::TimeZone};
use shared::control::{Buffered, ConnectionRow, Replication};

pub(super) fn clients(office: &Office, rows: &Rows) -> Table {
    let mut all: Vec<ConnectionRow> = rows.connections().cloned().collect();
    all.extend(office.consoles().values().map(|console| console.row.clone()));
    let order = ["active", "idle", "waiting", "active_cancel_req", "waiting_cancel_req"];
    table("C", all, &order)
}

pub(super) fn servers(rows: &Rows) -> Table {
    let order = ["active", "idle", "used", "tested", "new", "active_cancel", "being_canceled"];
    table("S", rows.connections().cloned().collect(), &order)
}

/// SHOW SOCKETS, or with `busy_only` SHOW ACTIVE_SOCKETS: those with bytes in their buffers. Columns of PgBouncer's buffers whose counterpart is
/// another have what comes closest: what is read is looked at from its first byte on.
pub(super) fn sockets(office: &Office, rows: &Rows, busy_only: bool) -> Table {
    let mut all: Vec<ConnectionRow> = rows.connections().cloned().collect();
    all.extend(office.consoles().values().map(|console| ConnectionRow { state: "cl_active".to_owned(), ..console.row.clone() }));
    all.retain(|row| !busy_only || row.buffered != Buffered::default());
    let order = ["cl_active", "cl_waiting", "sv_active", "sv_idle", "sv_tested", "sv_login", "cl_login"];
    sort(&mut all, &order);
    let buffers = ["recv_pos", "pkt_pos", "pkt_remain", "send_pos", "send_remain", "pkt_avail", "send_avail"];
    let columns = COLUMNS.into_iter().chain(buffers.map(|name| (name, Kind::Int4)));
    let mut table = Table::with_columns(columns.map(|(name, kind)| (name.into(), kind)));
    for row in &all {
        let Buffered { received, still_to_come, sent, unsent } = row.buffered;
        let mut all_cells = cells(if row.state.starts_with("cl") { "C" } else { "S" }, row);
        all_cells.extend([received, 0, still_to_come, sent, 0, received, unsent].map(cell));
        table.row(all_cells);
    }
    table
}

/// By pool, within a pool by state in the order given.
fn table(kind: &str, mut all: Vec<ConnectionRow>, order: &[&str]) -> Table {
    sort(&mut all, order);
    let mut table = Table::new(&COLUMNS);
    for row in &all {
        table.row(cells(kind, row));
    }
    table
}

fn sort(all: &mut [ConnectionRow], order: &[&str]) {
    let place = |state: &str| order.iter().position(|known| *known == state).unwrap_or(order.len());
    all.sort_by(|a, b| {
        let key = |row: &ConnectionRow| (place(&row.state), row.id);
        (&a.database, &a.user).cmp(&(&b.database, &b.user)).then_with(|| key(a).cmp(&key(b)))
    });
}

const COLUMNS: [(&str, Kind); 21] = {
    use Kind::{Int4, Text};
    [
        ("type", Text),
        ("user", Text),
        ("database", Text),
        ("replication", Text),
        ("state", Text),
        ("addr", Text),
        ("port", Int4),
        ("local_addr", Text),
        ("local_port", Int4),
        ("connect_time", Text),
        ("request_time", Text),
        ("wait", Int4),
        ("wait_us", Int4),
        ("close_needed", Int4),
        ("ptr", Text),
        ("link", Text),
        ("remote_pid", Int4),
        ("tls", Text),
        ("application_name", Text),
        ("prepared_statements", Int4),
        ("id", Int4),
    ]
};

fn cells(kind: &str, row: &ConnectionRow) -> Vec<Option<String>> {
    let replication = match row.replication {
        Replication::None => "none",
        Replication::Logical => "logical",
        Replication::Physical => "physical",
    };
    vec![
        cell(kind),
        cell(&row.user),
        cell(&row.database),
        cell(replication),
        cell(&row.state),
        cell(&row.addr),
        cell(row.port),
        cell(&row.local_addr),
        cell(row.local_port),
        cell(time(row.connect_time)),
        cell(time(row.request_time)),
        cell(row.wait_us / 1_000_000),
        cell(row.wait_us % 1_000_000),
        cell(u8::from(row.close_needed)),
        cell(row.id),
        cell(row.link.map_or_else(String::new, |link| link.to_string())),
        cell(row.remote_pid),
        cell(&row.tls),
        cell(&row.application_name),
        cell(row.prepared_statements),
        cell(row.id.0),
    ]
}

/// Local time, to the second.
fn time(microseconds: u64) -> String {
    let moment = Timestamp::from_microsecond(microseconds as i64).unwrap_or_default();
    moment.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}
