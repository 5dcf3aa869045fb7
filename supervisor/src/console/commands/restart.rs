//! RESTART: answered when every worker has been replaced by a new process, or when that has been given up.

use super::{Context, Reply};
use crate::fleet::Request;

pub(super) fn run(context: &Context<'_>) -> Reply {
    context.order(Request::Restart, "RESTART")
}
