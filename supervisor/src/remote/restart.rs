//! `pgfleet restart`: gives RESTART at the console, and shows what the workers do until it is answered.

use super::session::Answer;
use crate::cli;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

/// How often the workers are looked at.
pub(super) const EVERY: Duration = Duration::from_millis(500);

/// Exit status 0: every worker has been replaced.
pub(crate) fn run(options: &cli::Restart) -> ExitCode {
    let deadline = options.deadline.map_or(String::new(), |seconds| format!(" DEADLINE {seconds}"));
    super::follow(&options.config, &format!("RESTART{deadline}"), EVERY, states, "restarted")
}

pub(super) fn states(workers: &Answer) -> String {
    let mut states = BTreeMap::<&str, u32>::new();
    workers.column("state").for_each(|state| *states.entry(state).or_default() += 1);
    let states: Vec<_> = states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    format!("workers: {}", states.join(", "))
}
