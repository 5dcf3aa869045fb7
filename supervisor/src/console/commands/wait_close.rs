//! WAIT_CLOSE: answered when no server is in use that RECONNECT or a reload wants closed.

use super::{Context, Reply, names};
use crate::fleet::Request;

pub(super) fn run(context: &Context<'_>, database: Option<&str>) -> Result<Reply, Reply> {
    let scope = names::scope(context, database, "wait in")?;
    Ok(Reply::order(Request::WaitClose(scope), "WAIT_CLOSE"))
}
