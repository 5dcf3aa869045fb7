//! PAUSE, of the whole fleet or of one database.

use super::{Context, Reply, names};
use crate::fleet::Request;

/// Answered when PostgreSQL is quiet: no worker has a server in use there, no dead worker's backend is left.
pub(super) fn run(context: &Context<'_>, database: Option<&str>) -> Result<Reply, Reply> {
    let scope = names::scope(context, database, "pause")?;
    Ok(Reply::order(Request::Pause(scope), "PAUSE"))
}
