//! RECONNECT: servers are closed as they fall free, new ones are opened when somebody needs one.

use super::{Context, Reply, names};
use crate::fleet::Request;

pub(super) fn run(context: &Context<'_>, database: Option<&str>) -> Result<Reply, Reply> {
    let scope = names::scope(context, database, "reconnect")?;
    Ok(Reply::order(Request::Reconnect(scope), "RECONNECT"))
}
