//! `pgfleet restart`: gives RESTART at the console, and shows what the workers do until it is answered.

use super::session::Session;
use crate::listen;
use shared::config;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// How often the workers are looked at.
const EVERY: Duration = Duration::from_millis(500);

/// Exit status 0: every worker has been replaced.
pub(crate) fn run(config: &Path) -> ExitCode {
    match restart(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            eprintln!("pgfleet: {line}");
            ExitCode::FAILURE
        }
    }
}

fn restart(config: &Path) -> Result<(), String> {
    let (config, problems) = config::read(config);
    let settings = config.ok_or_else(|| problems.to_string())?.settings;
    let mut session = Session::open(&settings)?;
    let lost = |error: io::Error| format!("the fleet has ended, or its console does not answer: {}", listen::reason(&error));
    session.send("RESTART").map_err(lost)?;
    let mut observer = Session::open(&settings)?;
    let mut shown = String::new();
    loop {
        if let Some(answer) = session.answer(Some(EVERY)).map_err(lost)? {
            return answer.error.map_or(Ok(()), Err).inspect(|()| say("restarted"));
        }
        observer.send("SHOW WORKERS").map_err(lost)?;
        let Some(workers) = observer.answer(None).map_err(lost)? else { continue };
        let mut states = BTreeMap::<&str, u32>::new();
        workers.column("state").for_each(|state| *states.entry(state).or_default() += 1);
        let line = states.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", ");
        if line != shown {
            say(&format!("workers: {line}"));
            shown = line;
        }
    }
}

/// Whoever reads it may have gone: that is no reason to end.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
