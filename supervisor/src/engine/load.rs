//! Reading a configuration and making it ready to be published, away from the fleet's thread: files may be slow.

use super::NewSlot;
use crate::logging;
use crate::office::{Candidate, Input};
use crossbeam_channel::Sender;
use shared::config::{self, Config, Problems, SetError, Setting};
use shared::sys::memfd;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// PgBouncer's words.
const TLS_NOT_RELOADED: &str = "TLS configuration could not be reloaded, keeping old configuration";

/// What the fleet runs on while a configuration is read.
#[derive(Debug)]
pub(super) struct Ground {
    /// The configuration in force.
    pub(super) running: Arc<Config>,
    /// The addresses that the fleet listens on.
    pub(super) addresses: Vec<SocketAddr>,
    /// How many slots there are, with a worker or without.
    pub(super) slots: usize,
    /// How many -v.
    pub(super) verbose: u8,
}

/// What to read.
#[derive(Debug)]
pub(crate) enum Source {
    /// The file again.
    File,
    /// The running configuration with one setting changed.
    Set(String, String),
    /// The running configuration, for its log file's sake.
    Reopen,
    /// The running configuration with the files of its TLS settings as they are now.
    TlsFiles,
}

/// Reads in a thread and reports to the fleet's.
pub(super) fn aside(input: Sender<Input>, ground: Ground, generation: u64, source: Source) -> std::io::Result<()> {
    let run = move || {
        let outcome = match source {
            Source::File => reload(&ground, generation),
            Source::Set(key, value) => set(&ground, generation, &key, &value),
            Source::Reopen => reopen(&ground, generation),
            Source::TlsFiles => tls_files(&ground, generation),
        };
        let _ = input.send(Input::Loaded(outcome.map(Box::new)));
    };
    std::thread::Builder::new().name("loader".into()).spawn(run)?;
    Ok(())
}

/// The configuration that a start uses. The error is the FATAL line; each problem has been logged before.
pub(crate) fn first(path: &Path, verbose: u8) -> Result<(Config, Problems), String> {
    let (config, problems) = config::read(path);
    for problem in problems.errors() {
        log::error!("{problem}");
    }
    let mut config = config.ok_or_else(|| {
        let only_tls = problems.errors().all(|problem| problem.setting.contains("_tls"));
        if only_tls { "TLS setup failed" } else { "cannot load config file" }
    })?;
    config.generation = 1;
    config.path = absolute(path);
    with_verbose(&mut config, verbose);
    Ok((config, problems))
}

/// A path that still leads there should the working directory change.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The command line's -v count where the file says nothing.
fn with_verbose(config: &mut Config, verbose: u8) {
    if config.settings.verbose == 0 {
        config.settings.verbose = verbose.into();
    }
}

fn reload(ground: &Ground, generation: u64) -> Result<Candidate, String> {
    let running = &*ground.running;
    let path = running.settings.conffile.as_deref().map_or_else(|| running.path.clone(), PathBuf::from);
    let (config, problems) = config::read(&path);
    let Some(mut config) = config else {
        let mut lines: Vec<String> = problems.errors().map(ToString::to_string).collect();
        if problems.errors().any(|problem| problem.setting.contains("_tls")) {
            lines.push(TLS_NOT_RELOADED.to_owned());
        }
        return Err(format!("config file loading failed\n{}", lines.join("\n")));
    };
    with_verbose(&mut config, ground.verbose);
    config.path = absolute(&path);
    let warnings: Vec<String> = problems.warnings().map(ToString::to_string).collect();
    candidate(ground, generation, config, warnings)
}

fn set(ground: &Ground, generation: u64, key: &str, value: &str) -> Result<Candidate, String> {
    let running = &*ground.running;
    let mut config = running.clone();
    match config.settings.set(key, value) {
        Ok(()) => {}
        Err(SetError::Unknown) => return Err(format!("unknown parameter: {key}")),
        Err(SetError::Invalid(wanted)) => {
            let value = Setting::find(key).map_or(value, |setting| setting.kind.shown(value));
            return Err(format!("invalid value \"{value}\" for parameter {key}: must be {wanted}"));
        }
    }
    if let Some((name, why)) = config::refused(&config.settings).into_iter().next() {
        return Err(format!("{name}: {why}"));
    }
    let problems = config::reread(&mut config, key);
    if let Some(problem) = problems.errors().next() {
        return Err(problem.to_string());
    }
    if let Some((name, why)) = config::refused_by_rules(&config) {
        return Err(format!("{name}: {why}"));
    }
    if key.contains("_tls") {
        read_tls_files(&mut config, running, "TLS settings could not be applied, still using old configuration")?;
    }
    candidate(ground, generation, config, Vec::new())
}

/// The configuration in force with what stands in its TLS files now.
fn tls_files(ground: &Ground, generation: u64) -> Result<Candidate, String> {
    let running = &*ground.running;
    let mut config = running.clone();
    read_tls_files(&mut config, running, TLS_NOT_RELOADED)?;
    candidate(ground, generation, config, Vec::new())
}

/// Reads the files anew; the error is each thing that is wrong, and what follows from that.
fn read_tls_files(config: &mut Config, running: &Config, outcome: &str) -> Result<(), String> {
    config.read_tls_files(running).map_err(|errors| {
        let lines = errors.iter().map(ToString::to_string);
        lines.chain([outcome.to_owned()]).collect::<Vec<_>>().join("\n")
    })
}

/// The configuration in force once more, with its log file opened anew.
fn reopen(ground: &Ground, generation: u64) -> Result<Candidate, String> {
    candidate(ground, generation, Config::clone(&ground.running), Vec::new())
}

/// Makes a configuration that was read ready to be put in force in place of the running one.
fn candidate(ground: &Ground, generation: u64, mut config: Config, warnings: Vec<String>) -> Result<Candidate, String> {
    let changes = ground.running.changes(&config);
    let news = ground.running.news(&config, &changes);
    config.keep_unchangeable(&ground.running);
    config.generation = generation;
    let log_file = logging::open(&config.settings)?;
    let snapshot = snapshot(&config)?;
    let workers = config.settings.worker_count();
    let more = workers.saturating_sub(ground.slots);
    let new_slots = (0..more).map(|_| NewSlot::prepare(&ground.addresses)).collect::<Result<_, _>>();
    let new_slots = new_slots.map_err(|error| format!("workers: no {more} more than {}: {error}", ground.slots))?;
    Ok(Candidate { config: Arc::new(config), snapshot, log_file, warnings, changes, news, workers, new_slots })
}

/// The configuration as workers receive it.
pub(crate) fn snapshot(config: &Config) -> Result<std::os::fd::OwnedFd, String> {
    let bytes = config.to_bytes().map_err(|error| error.to_string())?;
    memfd::create_sealed("pgfleet-config", &bytes).map_err(|error| format!("could not publish the configuration: {error}"))
}
