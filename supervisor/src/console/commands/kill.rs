//! KILL: a database, or every database that has pools, is paused, and its clients and servers are closed.

use super::{Context, Reply, names};
use crate::fleet::Request;
use shared::control::ReportKind;
use shared::orders::Scope;
use std::collections::BTreeSet;

pub(super) fn run(context: &Context<'_>, database: Option<&str>) -> Result<Reply, Reply> {
    let scope = names::scope(context, database, "kill")?;
    let databases = match &scope {
        Scope::Database(name) => vec![name.clone()],
        Scope::All => {
            let Some(rows) = context.rows(ReportKind::Pools) else { return Ok(Reply::Gone) };
            let names: BTreeSet<String> = rows.pool_names(&context.office.shm).map(|(database, _)| database).collect();
            names.into_iter().collect()
        }
    };
    Ok(Reply::order(Request::Kill(scope, databases), "KILL"))
}
