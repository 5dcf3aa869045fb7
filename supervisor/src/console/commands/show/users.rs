//! SHOW USERS: every user the fleet knows, with the limits and counts of each.

use super::merge::{self, Rows};
use crate::console::encode::{Kind, Table, cell};
use crate::office::Office;
use shared::config::Config;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn table(office: &Office, rows: &Rows) -> Table {
    use Kind::{Int4, Text};
    let mut table = Table::new(&[
        ("name", Text),
        ("pool_size", Text),
        ("reserve_pool_size", Text),
        ("pool_mode", Text),
        ("max_user_connections", Int4),
        ("current_connections", Int4),
        ("max_user_client_connections", Int4),
        ("current_client_connections", Int4),
    ]);
    let config = office.config();
    let mut servers: BTreeMap<String, u32> = BTreeMap::new();
    for pool in rows.pools().values() {
        *servers.entry(pool.user.clone()).or_default() += merge::servers(pool);
    }
    let mut clients: BTreeMap<String, u32> = BTreeMap::new();
    let consoles: Vec<String> = office.consoles().values().map(|console| console.row.user.clone()).collect();
    for user in rows.connections().map(|row| row.user.clone()).chain(consoles) {
        *clients.entry(user).or_default() += 1;
    }
    for name in known(&config) {
        let user = config.users.get(&name);
        // Right-aligned text, empty when not set: PgBouncer's columns are so.
        let size = |size: Option<u32>| cell(size.map_or_else(String::new, |size| format!("{size:9}")));
        table.row(vec![
            cell(&name),
            size(user.and_then(|user| user.pool_size)),
            size(user.and_then(|user| user.reserve_pool_size)),
            user.and_then(|user| user.pool_mode).map(|mode| mode.word().to_owned()),
            cell(config.max_user_connections(&name)),
            cell(servers.get(&name).copied().unwrap_or(0)),
            cell(config.max_user_client_connections(&name)),
            cell(clients.get(&name).copied().unwrap_or(0)),
        ]);
    }
    table
}

/// Users of auth_file, of `[users]`, forced ones, and the console's own.
pub(super) fn known(config: &Config) -> BTreeSet<String> {
    let forced = config.databases.values().chain(&config.fallback).filter_map(|entry| entry.user.clone());
    let listed = config.secrets.keys().chain(config.users.keys()).cloned();
    listed.chain(forced).chain(std::iter::once("pgbouncer".to_owned())).collect()
}
