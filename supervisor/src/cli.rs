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
    /// Have the fleet that runs now go on with this binary, and leave; start one if none runs
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
    /// Send the clients of the running fleet away, each between two transactions; exit status 0 when none is left
    Drain(Drain),
    /// Replace every worker of the running fleet by a new process, one after the other; no client notices
    Restart(Restart),
    /// Have another binary take the running fleet over; no client notices
    Upgrade(Upgrade),
    /// A worker; only the supervisor starts it
    #[command(hide = true)]
    Worker,
    /// Runs PAM's modules; only the supervisor starts it
    #[command(hide = true)]
    PamHelper,
    /// Says whether this binary can take a fleet over; only the supervisor starts it
    #[command(hide = true)]
    Preflight,
}

/// `pgfleet upgrade`.
#[derive(Debug, clap::Args)]
pub(crate) struct Upgrade {
    /// The configuration that the fleet runs on
    pub(crate) config: PathBuf,
    /// The binary; without it what is now where the running one was found
    #[arg(long, value_name = "PATH")]
    pub(crate) binary: Option<PathBuf>,
}

/// `pgfleet drain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Drain {
    /// The configuration that the fleet runs on
    pub(crate) config: PathBuf,
    /// How many idle clients are sent away in a second; without it 100, or as many as the deadline wants
    #[arg(long, value_name = "N/s", value_parser = per_second)]
    pub(crate) rate: Option<u32>,
    /// After so many seconds the rest is cut off, and the exit status is 1; without it all are waited for
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(crate) deadline: Option<u32>,
    /// Let clients in again instead
    #[arg(long, conflicts_with_all = ["rate", "deadline"])]
    pub(crate) undo: bool,
}

/// `pgfleet restart`.
#[derive(Debug, clap::Args)]
pub(crate) struct Restart {
    /// The configuration that the fleet runs on
    pub(crate) config: PathBuf,
    /// How long sessions that cannot move, those that wait for a paused pool say, may hold up each worker, until they are cut off; without it: for ever
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(crate) deadline: Option<u32>,
}

fn per_second(text: &str) -> Result<u32, String> {
    count(text.strip_suffix("/s").unwrap_or(text))
}

fn seconds(text: &str) -> Result<u32, String> {
    count(text.strip_suffix('s').unwrap_or(text))
}

fn count(digits: &str) -> Result<u32, String> {
    digits.parse().ok().filter(|count| *count > 0).ok_or_else(|| "must be a whole number from 1".to_owned())
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
    fn drains() {
        for (words, expected) in [
            ("drain a.ini", (None, None, false)),
            ("drain a.ini --rate 20/s --deadline 30", (Some(20), Some(30), false)),
            ("drain --rate 20 --deadline 30s a.ini", (Some(20), Some(30), false)),
            ("drain --undo a.ini", (None, None, true)),
        ] {
            let Some(Command::Drain(drain)) = parse(words).command else { panic!("{words}") };
            assert_eq!((drain.rate, drain.deadline, drain.undo), expected, "{words}");
            assert_eq!(drain.config.as_os_str(), "a.ini");
        }
        for wrong in ["", "a.ini --rate 0", "a.ini --rate x", "a.ini --deadline -1", "a.ini --undo --rate 5"] {
            let words = ["pgfleet", "drain"].into_iter().chain(wrong.split_whitespace());
            assert!(Cli::try_parse_from(words).is_err(), "{wrong}");
        }
    }

    #[test]
    fn restarts() {
        for (words, expected) in [("restart a.ini", None), ("restart --deadline 30s a.ini", Some(30))] {
            let Some(Command::Restart(restart)) = parse(words).command else { panic!("{words}") };
            assert_eq!((restart.config.as_os_str(), restart.deadline), ("a.ini".as_ref(), expected), "{words}");
        }
        assert!(Cli::try_parse_from(["pgfleet", "restart", "a.ini", "--deadline", "0"]).is_err());
    }

    #[test]
    fn a_file_named_like_a_command() {
        let cli = parse("./check");
        assert!(cli.command.is_none());
        assert_eq!(cli.run.config, Some("./check".into()));
    }
}
