//! `pgfleet drain`: gives DRAIN at the console, and shows how many clients are left until it is answered.

use super::session::Answer;
use crate::cli;
use std::process::ExitCode;
use std::time::Duration;

/// How often clients are counted.
const EVERY: Duration = Duration::from_secs(1);

/// Exit status 0: no client is left, or UNDRAIN is done.
pub(crate) fn run(options: &cli::Drain) -> ExitCode {
    let done = if options.undo { "undone" } else { "drained" };
    super::follow(&options.config, &command(options), EVERY, clients_left, done)
}

fn clients_left(workers: &Answer) -> String {
    let clients: u64 = workers.column("clients").filter_map(|count| count.parse::<u64>().ok()).sum();
    format!("clients left: {clients}")
}

fn command(options: &cli::Drain) -> String {
    if options.undo {
        return "UNDRAIN".to_owned();
    }
    let option = |name: &str, value: Option<u32>| value.map_or(String::new(), |value| format!(" {name} {value}"));
    format!("DRAIN{}{}", option("RATE", options.rate), option("DEADLINE", options.deadline))
}
