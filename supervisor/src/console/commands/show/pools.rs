//! SHOW POOLS: one row for each pool there has been, whichever workers know it.

use super::merge::Rows;
use crate::console::encode::{Kind, Table, cell};
use crate::office::Office;
use shared::config::Config;
use shared::control::PoolRow;

pub(super) fn table(office: &Office, rows: &Rows) -> Table {
    let mut columns = vec![("database", Kind::Text), ("user", Kind::Text)];
    columns.extend(
        [
            "cl_active",
            "cl_waiting",
            "cl_active_cancel_req",
            "cl_waiting_cancel_req",
            "sv_active",
            "sv_active_cancel",
            "sv_being_canceled",
            "sv_idle",
            "sv_used",
            "sv_tested",
            "sv_login",
            "maxwait",
            "maxwait_us",
        ]
        .map(|name| (name, Kind::Int4)),
    );
    columns.extend([("pool_mode", Kind::Text), ("load_balance_hosts", Kind::Text)]);
    let mut table = Table::new(&columns);
    let mut pools = rows.pools();
    for names in rows.pool_names(&office.shm) {
        pools.entry(names).or_default();
    }
    let consoles = PoolRow { cl_active: office.consoles().len() as u32, ..PoolRow::default() };
    pools.insert(("pgbouncer".to_owned(), "pgbouncer".to_owned()), consoles);
    let config = office.config();
    for ((database, user), pool) in pools {
        table.row(row(&config, &database, &user, &pool));
    }
    table
}

fn row(config: &Config, database: &str, user: &str, pool: &PoolRow) -> Vec<Option<String>> {
    let entry = config.database(database);
    let mode =
        entry.as_ref().map_or(if database == "pgbouncer" { "statement" } else { config.settings.pool_mode.word() }, |entry| {
            config.pool_mode(entry, user).word()
        });
    let balance = entry.filter(|entry| entry.hosts().count() > 1).map(|entry| entry.load_balance_hosts.word().to_owned());
    let mut cells = vec![cell(database), cell(user)];
    cells.extend(
        [
            pool.cl_active,
            pool.cl_waiting,
            pool.cl_active_cancel_req,
            pool.cl_waiting_cancel_req,
            pool.sv_active,
            pool.sv_active_cancel,
            pool.sv_being_canceled,
            pool.sv_idle,
            pool.sv_used,
            pool.sv_tested,
            pool.sv_login,
        ]
        .map(cell),
    );
    cells.extend([cell(pool.maxwait_us / 1_000_000), cell(pool.maxwait_us % 1_000_000), cell(mode), balance]);
    cells
}
