//! ENABLE: takes DISABLE back.

use super::{Context, Reply, names};
use crate::fleet::Request;

pub(super) fn run(context: &Context<'_>, database: Option<&str>) -> Result<Reply, Reply> {
    if let Some(name) = database
        && !names::is_known(context, name)
    {
        return Err(names::no_such(name));
    }
    let database = names::required(context, database, "enable")?;
    Ok(Reply::order(Request::Enable(database), "ENABLE"))
}
