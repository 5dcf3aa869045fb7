//! The command line: PgBouncer's options and a configuration file, or one of our commands.
//!
//! A configuration file that is named like a command is given with its directory (`./check`).

use clap::{ArgAction, Parser, Subcommand};
use std::path::PathBuf;

/// What was asked for on the command line.
#[derive(Debug, Parser)]
#[command(
    name = "pgfleet",
    about = "A PostgreSQL connection pooler for a whole host: one supervisor, N workers, one set of limits",
    args_conflicts_with_subcommands = true,
    disable_version_flag = true,
    disable_help_subcommand = true,
    subcommand_negates_reqs = true
)]
pub(crate) struct Cli {
    /// How to run the fleet.
    #[command(flatten)]
    pub(crate) run: Run,
    /// Something else.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Running the fleet.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools)] // these are PgBouncer's switches
pub(crate) struct Run {
    /// Run in the background; needs `pidfile` and either `logfile` or `syslog`
    #[arg(short, long)]
    pub(crate) daemon: bool,
    /// Log nothing to standard error
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Take over from the fleet that runs now
    #[arg(short = 'R', long)]
    pub(crate) reboot: bool,
    /// Log more; may be repeated
    #[arg(short, long, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Become this user when started as root
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Print the version and leave
    #[arg(short = 'V', long)]
    pub(crate) version: bool,
    /// The configuration: TOML if it ends in .toml, else pgbouncer.ini
    #[arg(value_name = "CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

/// Commands other than running.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print every problem of a configuration; exit status 1 if it cannot be used
    Check {
        /// The configuration
        config: PathBuf,
    },
    /// Print a pgbouncer.ini as TOML
    Convert {
        /// The pgbouncer.ini
        config: PathBuf,
    },
    /// A worker; only the supervisor starts it
    #[command(hide = true)]
    Worker,
    /// Runs PAM's modules; only the supervisor starts it
    #[command(hide = true)]
    PamHelper,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(words: &str) -> Cli {
        Cli::try_parse_from(std::iter::once("pgfleet").chain(words.split_whitespace())).unwrap()
    }

    #[test]
    fn definition_is_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn pgbouncers_options() {
        let cli = parse("-d -q -v -v -u postgres /etc/pgfleet.toml");
        let run = cli.run;
        assert!(run.daemon && run.quiet && !run.reboot);
        assert_eq!((run.verbose, run.user.as_deref()), (2, Some("postgres")));
        assert_eq!(run.config, Some("/etc/pgfleet.toml".into()));
        assert!(cli.command.is_none());
        assert!(parse("-V").run.version);
        assert_eq!(parse("-dqvv x.ini").run.verbose, 2);
        assert!(parse("--reboot x.ini").run.reboot);
    }

    #[test]
    fn commands() {
        assert!(matches!(parse("check a.ini").command, Some(Command::Check { config }) if config.as_os_str() == "a.ini"));
        assert!(matches!(parse("convert a.ini").command, Some(Command::Convert { .. })));
        assert!(matches!(parse("worker").command, Some(Command::Worker)));
    }

    #[test]
    fn a_file_named_like_a_command() {
        let cli = parse("./check");
        assert!(cli.command.is_none());
        assert_eq!(cli.run.config, Some("./check".into()));
    }
}
