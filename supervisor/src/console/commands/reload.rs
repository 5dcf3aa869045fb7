//! RELOAD: answered when every worker goes by the new configuration, or none does.

use super::Reply;
use crate::fleet::Request;

pub(super) fn run() -> Reply {
    Reply::order(Request::Reload, "RELOAD")
}
