//! `pgfleet upgrade`: gives UPGRADE at the console, and shows what the workers do until it is answered.

use super::restart::{EVERY, states};
use crate::{cli, control_dir, listen};
use std::path::Path;
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

/// `-R`, PgBouncer's way: the fleet that runs on `config` goes on with this very binary. `None`: there is none, and one is to be started.
pub(crate) fn reboot(config: &Path) -> Option<ExitCode> {
    // What is wrong with it the start says.
    let settings = shared::config::read(config).0?.settings;
    match listen::connect(&settings) {
        // Workers accept without a supervisor, too.
        Some(Ok(_)) if control_dir::is_deserted(&settings) => return None,
        Some(Ok(_)) => {}
        Some(Err(_)) => return None,
        None => {
            eprintln!("pgfleet: unix_socket_dir is empty: a running fleet cannot be told");
            return Some(ExitCode::FAILURE);
        }
    }
    Some(match std::env::current_exe() {
        Ok(binary) => run(&cli::Upgrade { config: config.to_owned(), binary: Some(binary) }),
        Err(error) => {
            eprintln!("pgfleet: this binary cannot be found: {error}");
            ExitCode::FAILURE
        }
    })
}

/// The fleet's working directory is not this process's.
fn command(options: &cli::Upgrade) -> Result<String, String> {
    let Some(path) = &options.binary else { return Ok("UPGRADE".to_owned()) };
    let shown = path.display();
    let absolute = std::path::absolute(path).map_err(|error| format!("{shown}: {error}"))?;
    let text = absolute.to_str().ok_or_else(|| format!("{shown} is not UTF-8"))?;
    Ok(format!("UPGRADE '{}'", text.replace('\'', "''")))
}
