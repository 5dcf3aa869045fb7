//! DISABLE: nobody can log in to a database any more; who is there stays.

use super::{Context, Reply, names};
use crate::fleet::Request;

pub(super) fn run(context: &Context<'_>, database: Option<&str>) -> Result<Reply, Reply> {
    let database = names::required(context, database, "disable")?;
    Ok(Reply::order(Request::Disable(database), "DISABLE"))
}
