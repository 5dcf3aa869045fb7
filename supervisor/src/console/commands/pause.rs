//! PAUSE and RESUME of the whole fleet.

use super::{Context, Reply};
use crate::fleet::Request;

/// Answered when PostgreSQL is quiet: no worker has a server in use, no dead worker's backend is left.
pub(super) fn pause(context: &Context<'_>) -> Reply {
    context.order(Request::Pause, "PAUSE")
}

pub(super) fn resume(context: &Context<'_>) -> Reply {
    context.order(Request::Resume, "RESUME")
}
