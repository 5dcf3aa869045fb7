//! RESTART: answered when every worker has been replaced by a new process, or when that has been given up.

use super::Reply;
use crate::fleet::Request;

pub(super) fn run() -> Reply {
    Reply::order(Request::Restart, "RESTART")
}
