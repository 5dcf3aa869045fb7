//! DRAIN (ours): nobody is let in and every client is sent away between two transactions. Answered when none is left.

use super::{Reply, options};
use crate::fleet::Request;
use std::time::Duration;

/// `[RATE clients a second] [DEADLINE seconds]`. `None`: options that are not understood.
pub(super) fn run(words: &[String]) -> Option<Reply> {
    let [per_second, deadline] = options::numbers(words, ["rate", "deadline"])?;
    let deadline = deadline.map(|seconds| Duration::from_secs(seconds.into()));
    Some(Reply::order(Request::Drain { per_second, deadline }, "DRAIN"))
}
