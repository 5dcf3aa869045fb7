//! RESUME, of the whole fleet or of one database that was paused by name.

use super::{Context, Reply, names};
use crate::fleet::Request;
use shared::orders::Scope;

pub(super) fn run(context: &Context<'_>, database: Option<&str>) -> Result<Reply, Reply> {
    let scope = match database {
        None => Scope::All,
        Some(name) if names::is_known(context, name) => Scope::Database(name.to_owned()),
        Some(name) => return Err(names::no_such(name)),
    };
    Ok(Reply::order(Request::Resume(scope), "RESUME"))
}
