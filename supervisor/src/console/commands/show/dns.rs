//! SHOW DNS_HOSTS and SHOW DNS_ZONES.

use crate::console::encode::{Kind, Table, cell};
use crate::office::Office;

pub(super) fn hosts(office: &Office) -> Table {
    let mut table = Table::new(&[("hostname", Kind::Text), ("ttl", Kind::Int8), ("addrs", Kind::Text)]);
    for (host, left, addresses) in office.names.known() {
        let addresses: Vec<String> = addresses.iter().map(|address| format!("{address}:0")).collect();
        table.row(vec![cell(host), cell(left.as_secs()), cell(addresses.join(","))]);
    }
    table
}

pub(super) fn zones(office: &Office) -> Table {
    let mut table = Table::new(&[("zonename", Kind::Text), ("serial", Kind::Int8), ("count", Kind::Int4)]);
    for (zone, serial, count) in office.names.zones() {
        table.row(vec![cell(zone), cell(serial), cell(count)]);
    }
    table
}
