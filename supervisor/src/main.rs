//! `pgfleet`: the supervisor of a fleet of workers, and the command line to it.
//!
//! [`start`] brings the fleet up in PgBouncer's order, [`engine`] runs it: one thread turns what happens into events for the sans-IO
//! state machine in [`fleet`] and carries out its decisions. [`console`] answers admin sessions, [`remote`] opens one to a
//! fleet that runs. This binary is also the worker's: the
//! supervisor executes its own image with the hidden argument `worker`.
#![forbid(unsafe_code)]

mod adoption;
mod asks;
mod auth;
mod cli;
mod console;
mod control;
mod control_dir;
mod dns;
mod engine;
mod estate;
mod fleet;
mod gate;
mod last_breath;
mod listen;
mod logging;
mod luggage;
mod mock_secret;
mod notify;
mod office;
mod orphans;
mod parlour;
mod pidfile;
mod privileges;
mod process;
mod remote;
mod signals;
mod start;
mod stats;
mod system_users;
mod tls_watch;
mod upgrade;

use clap::Parser;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Our name and version.
const NAME: &str = shared::NAME;

fn main() -> ExitCode {
    // Before anything else: an image that goes on has its guard first.
    if let Some(arguments) = upgrade::Arguments::from_words(std::env::args().skip(1)) {
        return upgrade::resume(&arguments);
    }
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to standard output with status 0; PgBouncer's status for a bad command line is 1.
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    match cli.command {
        Some(cli::Command::Worker) => worker(),
        Some(cli::Command::PamHelper) => auth::pam_helper(),
        Some(cli::Command::Preflight) => upgrade::answer_preflight(),
        Some(cli::Command::Check { config }) => check(&config),
        Some(cli::Command::Convert { config }) => convert(&config),
        Some(cli::Command::Drain(drain)) => remote::drain(&drain),
        Some(cli::Command::Restart(options)) => remote::restart(&options),
        Some(cli::Command::Upgrade(upgrade)) => remote::upgrade(&upgrade),
        None if cli.run.version => {
            println!("{NAME}");
            ExitCode::SUCCESS
        }
        None => start::run(&cli.run),
    }
}

fn worker() -> ExitCode {
    // Else `exe`, after the link it was started from, in what top and pgrep show.
    let _ = shared::sys::process::set_name("pgfleet worker");
    match shared::sys::process::take_control() {
        Ok(control) => worker::run(control),
        Err(error) => {
            eprintln!("pgfleet: `worker` is started by the supervisor only: no control socket: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints every problem of a configuration.
fn check(config: &Path) -> ExitCode {
    let problems = shared::config::check(config);
    let mut out = std::io::stdout().lock();
    for problem in &problems {
        let word = match problem.severity {
            shared::config::Severity::Error => "error",
            shared::config::Severity::Warning => "warning",
        };
        if writeln!(out, "{word}: {problem}").is_err() {
            return ExitCode::FAILURE;
        }
    }
    if problems.has_errors() {
        ExitCode::FAILURE
    } else {
        let _ = writeln!(out, "{}: the configuration can be used", config.display());
        ExitCode::SUCCESS
    }
}

/// Prints a pgbouncer.ini as TOML.
fn convert(config: &Path) -> ExitCode {
    match shared::config::to_toml(config) {
        Ok(toml) => {
            print!("{toml}");
            ExitCode::SUCCESS
        }
        Err(problems) => {
            eprintln!("{problems}");
            ExitCode::FAILURE
        }
    }
}
