//! SHOW VERSION and SHOW STATE.

use super::super::Context;
use crate::console::encode::{Kind, Table, cell};

/// Begins as PgBouncer's does, since tools compare it.
pub(super) fn version() -> Table {
    let mut table = Table::new(&[("version", Kind::Text)]);
    table.row(vec![cell(format!("PgBouncer 1.26.1 ({})", crate::NAME))]);
    table
}

pub(super) fn state(context: &Context<'_>) -> Option<Table> {
    let paused = context.marks()?.all_paused;
    let mut table = Table::new(&[("key", Kind::Text), ("value", Kind::Text)]);
    for (key, value) in [("active", !paused), ("paused", paused), ("suspended", false)] {
        table.row(vec![cell(key), cell(if value { "yes" } else { "no" })]);
    }
    Some(table)
}
