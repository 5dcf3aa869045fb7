//! RELOAD: answered when every worker goes by the new configuration, or none does.

use super::{Context, Reply};
use crate::fleet::Request;

pub(super) fn run(context: &Context<'_>) -> Reply {
    context.order(Request::Reload, "RELOAD")
}
