//! `pgfleet drain`: gives DRAIN at the console, and shows how many clients are left until it is answered.

use super::session::Session;
use crate::{cli, listen};
use shared::config;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

/// How often clients are counted.
const EVERY: Duration = Duration::from_secs(1);

/// Exit status 0: no client is left, or UNDRAIN is done.
pub(crate) fn run(options: &cli::Drain) -> ExitCode {
    match drain(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            eprintln!("pgfleet: {line}");
            ExitCode::FAILURE
        }
    }
}

fn drain(options: &cli::Drain) -> Result<(), String> {
    let (config, problems) = config::read(&options.config);
    let settings = config.ok_or_else(|| problems.to_string())?.settings;
    let mut session = Session::open(&settings)?;
    let lost = |error: io::Error| format!("the fleet has ended, or its console does not answer: {}", listen::reason(&error));
    session.send(&command(options)).map_err(lost)?;
    let mut observer = Session::open(&settings)?;
    let mut shown = None;
    loop {
        if let Some(answer) = session.answer(Some(EVERY)).map_err(lost)? {
            return answer.error.map_or(Ok(()), Err).inspect(|()| say(if options.undo { "undone" } else { "drained" }));
        }
        observer.send("SHOW WORKERS").map_err(lost)?;
        let Some(workers) = observer.answer(None).map_err(lost)? else { continue };
        let clients: u64 = workers.column("clients").filter_map(|count| count.parse::<u64>().ok()).sum();
        if shown.replace(clients) != Some(clients) {
            say(&format!("clients left: {clients}"));
        }
    }
}

fn command(options: &cli::Drain) -> String {
    if options.undo {
        return "UNDRAIN".to_owned();
    }
    let option = |name: &str, value: Option<u32>| value.map_or(String::new(), |value| format!(" {name} {value}"));
    format!("DRAIN{}{}", option("RATE", options.rate), option("DEADLINE", options.deadline))
}

/// Whoever reads it may have gone: that is no reason to end.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
