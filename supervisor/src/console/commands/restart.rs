//! RESTART (ours): answered when every worker has been replaced by a new process, or when that has been given up.

use super::{Reply, options};
use crate::fleet::Request;
use std::time::Duration;

/// `[DEADLINE seconds]`. `None`: options that are not understood.
pub(super) fn run(words: &[String]) -> Option<Reply> {
    let [deadline] = options::numbers(words, ["deadline"])?;
    let deadline = deadline.map(|seconds| Duration::from_secs(seconds.into()));
    Some(Reply::order(Request::Restart { deadline }, "RESTART"))
}
