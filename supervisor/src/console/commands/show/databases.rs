//! SHOW DATABASES: every entry and what is in force for it.

use super::merge::{self, Rows};
use crate::console::encode::{Kind, Table, cell};
use crate::office::Office;
use shared::config::{Config, Database};
use shared::orders::Marks;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) fn table(office: &Office, rows: &Rows, marks: &Marks) -> Table {
    use Kind::{Int4, Text};
    let mut table = Table::new(&[
        ("name", Text),
        ("host", Text),
        ("port", Int4),
        ("database", Text),
        ("force_user", Text),
        ("pool_size", Int4),
        ("min_pool_size", Int4),
        ("reserve_pool_size", Int4),
        ("server_lifetime", Int4),
        ("pool_mode", Text),
        ("load_balance_hosts", Text),
        ("max_connections", Int4),
        ("current_connections", Int4),
        ("max_client_connections", Int4),
        ("current_client_connections", Int4),
        ("paused", Int4),
        ("disabled", Int4),
    ]);
    let config = office.config();
    let mut counts: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for pool in rows.pools().values() {
        let (servers, clients) = counts.entry(pool.database.clone()).or_default();
        *servers += merge::servers(pool);
        *clients += merge::clients(pool);
    }
    let mut named = entries(&config, counts.keys().chain(&marks.paused).chain(&marks.disabled));
    // What `*` stands for is not shown while nobody uses it.
    named.retain(|name, _| {
        let used = counts.get(name).is_some_and(|(servers, clients)| servers + clients > 0);
        config.databases.contains_key(name) || used || marks.paused.contains(name) || marks.disabled.contains(name)
    });
    named.insert("pgbouncer".to_owned(), None);
    counts.insert("pgbouncer".to_owned(), (0, office.consoles().len() as u32));
    for (name, entry) in named {
        let (servers, clients) = counts.get(&name).copied().unwrap_or_default();
        table.row(match entry {
            Some(entry) => row(&config, &entry, servers, clients, marks),
            None => console(&config, clients),
        });
    }
    table
}

/// The entries of the configuration, and those that `*` stands in for and that have been used.
pub(super) fn entries<'a>(config: &Config, used: impl Iterator<Item = &'a String>) -> BTreeMap<String, Option<Arc<Database>>> {
    let configured = config.databases.iter().map(|(name, entry)| (name.clone(), Arc::clone(entry)));
    let automatic = used.filter_map(|name| Some((name.clone(), config.database(name)?)));
    configured.chain(automatic).map(|(name, entry)| (name, Some(entry))).collect()
}

fn row(config: &Config, entry: &Database, servers: u32, clients: u32, marks: &Marks) -> Vec<Option<String>> {
    let user = entry.user.as_deref().unwrap_or_default();
    vec![
        cell(&entry.name),
        entry.host.clone(),
        cell(entry.port),
        cell(entry.server_database()),
        entry.user.clone(),
        cell(config.pool_size(entry, user)),
        cell(config.min_pool_size(entry)),
        cell(config.reserve_pool_size(entry, user)),
        cell(config.server_lifetime(entry).as_secs()),
        entry.pool_mode.map(|mode| mode.word().to_owned()),
        (entry.hosts().count() > 1).then(|| entry.load_balance_hosts.word().to_owned()),
        cell(config.max_db_connections(entry)),
        cell(servers),
        cell(config.max_db_client_connections(entry)),
        cell(clients),
        cell(u8::from(marks.paused.contains(&entry.name))),
        cell(u8::from(marks.disabled.contains(&entry.name))),
    ]
}

/// The console's own row, as PgBouncer has it.
fn console(config: &Config, clients: u32) -> Vec<Option<String>> {
    let settings = &config.settings;
    vec![
        cell("pgbouncer"),
        None,
        cell(settings.listen_port),
        cell("pgbouncer"),
        cell("pgbouncer"),
        cell(2),
        cell(0),
        cell(settings.reserve_pool_size),
        cell(settings.server_lifetime.as_secs()),
        cell("statement"),
        None,
        cell(settings.max_db_connections),
        cell(0),
        cell(settings.max_db_client_connections),
        cell(clients),
        cell(0),
        cell(0),
    ]
}
