//! Commands to a fleet that runs, from another process: a console session over its Unix socket, as the user that it runs as.
//!
//! Such a user needs no password there, and whoever is root becomes that user first.

mod drain;
mod restart;
mod session;
mod upgrade;

pub(crate) use drain::run as drain;
pub(crate) use restart::run as restart;
pub(crate) use upgrade::{reboot, run as upgrade};

use crate::listen;
use session::{Answer, Session};
use shared::config;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Gives `command` at the console of the fleet that runs on `config`. Until it is answered, `line` of SHOW WORKERS is printed, looked at this often, when
/// it is another; and in the end what it has said, and `done`. Exit status 1, with the reason on standard error, if it has failed.
fn follow(config: &Path, command: &str, every: Duration, line: impl Fn(&Answer) -> String, done: &str) -> ExitCode {
    match followed(config, command, every, line) {
        Ok(notices) => {
            for line in &notices {
                say(line);
            }
            say(done);
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("pgfleet: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn followed(config: &Path, command: &str, every: Duration, line: impl Fn(&Answer) -> String) -> Result<Vec<String>, String> {
    let (config, problems) = config::read(config);
    let settings = config.ok_or_else(|| problems.to_string())?.settings;
    let mut session = Session::open(&settings)?;
    let lost = |error: io::Error| format!("the fleet has ended, or its console does not answer: {}", listen::reason(&error));
    session.send(command).map_err(lost)?;
    let mut observer = Session::open(&settings)?;
    let (mut shown, mut asked) = (String::new(), false);
    loop {
        if let Some(answer) = session.answer(Some(every)).map_err(lost)? {
            return answer.error.map_or(Ok(answer.notices), Err);
        }
        if !std::mem::replace(&mut asked, true) {
            observer.send("SHOW WORKERS").map_err(lost)?;
        }
        // Whatever becomes of that, the command's answer is what is waited for.
        let Some(workers) = observer.answer(Some(every)).map_err(lost)? else { continue };
        asked = false;
        let line = line(&workers);
        if line != shown {
            say(&line);
            shown = line;
        }
    }
}

/// Whoever reads it may have gone: that is no reason to end.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
