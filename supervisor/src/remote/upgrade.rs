//! `pgfleet upgrade`: gives UPGRADE at the console, and shows what the workers do until it is answered.

use super::restart::{EVERY, states};
use crate::cli;
use std::process::ExitCode;

/// Exit status 0: every worker runs the new binary.
pub(crate) fn run(options: &cli::Upgrade) -> ExitCode {
    match command(options) {
        Ok(command) => super::follow(&options.config, &command, EVERY, states, "upgraded"),
        Err(reason) => {
            eprintln!("pgfleet: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// The fleet's working directory is not this process's.
fn command(options: &cli::Upgrade) -> Result<String, String> {
    let Some(path) = &options.binary else { return Ok("UPGRADE".to_owned()) };
    let shown = path.display();
    let absolute = std::path::absolute(path).map_err(|error| format!("{shown}: {error}"))?;
    let text = absolute.to_str().ok_or_else(|| format!("{shown} is not UTF-8"))?;
    Ok(format!("UPGRADE '{}'", text.replace('\'', "''")))
}
