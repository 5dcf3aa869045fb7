//! SHOW LISTS: how many there are of everything.

use super::databases;
use super::merge::Rows;
use super::users;
use crate::console::encode::{Kind, Table, cell};
use crate::office::Office;

pub(super) fn table(office: &Office, rows: &Rows) -> Table {
    let config = office.config();
    let pools = rows.pools();
    let used: Vec<String> = pools.keys().map(|(database, _)| database.clone()).collect();
    let consoles = office.consoles().len() as u64;
    let (names, queries) = office.names.counts();
    let mut table = Table::new(&[("list", Kind::Text), ("items", Kind::Int4)]);
    for (list, items) in [
        // The console's database, user and pool count too.
        ("databases", databases::entries(&config, used.iter()).len() as u64 + 1),
        ("users", users::known(&config).len() as u64),
        ("peers", config.peers.len() as u64),
        ("pools", pools.len() as u64 + 1),
        ("peer_pools", rows.peers().len() as u64),
        ("free_clients", 0),
        ("used_clients", rows.sum(|rows| rows.used_clients) + consoles),
        ("login_clients", rows.sum(|rows| rows.login_clients)),
        ("free_servers", 0),
        ("used_servers", rows.sum(|rows| rows.used_servers)),
        ("dns_names", names as u64),
        ("dns_zones", office.names.zones().len() as u64),
        ("dns_queries", queries as u64),
        ("dns_pending", 0),
    ] {
        table.row(vec![cell(list), cell(items)]);
    }
    table
}
