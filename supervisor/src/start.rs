//! Bringing a fleet up, in PgBouncer's order: configuration, user, already running?, background, descriptors, listeners, pidfile,
//! shared memory, workers.

use crate::adoption::{self, Adopted};
use crate::cli::Run;
use crate::control_dir::ControlDir;
use crate::dns::{self, Resolver};
use crate::engine::{self, Belongings, Engine, Parts, Setup, load};
use crate::gate::Gate;
use crate::listen::{self, Inherited, Keeper, Listeners, Tcp, Unix};
use crate::office::{Input, Office};
use crate::orphans::{Inboxes, Orphanage};
use crate::pidfile::{self, Pidfile};
use crate::{last_breath, logging, mock_secret, notify, privileges, remote, signals, stats, tls_watch, upgrade};
use crossbeam_channel::Sender;
use nix::sys::resource::{Resource, getrlimit};
use shared::config::{Config, Problems, Settings};
use shared::shm::Shm;
use shared::sys::process as limits;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// Runs a fleet in this process.
pub(crate) fn run(options: &Run) -> ExitCode {
    let Some(path) = &options.config else {
        eprintln!("pgfleet: no configuration file specified\nTry \"pgfleet --help\" for more information.");
        return ExitCode::FAILURE;
    };
    if options.reboot
        && let Some(status) = remote::reboot(path)
    {
        return status;
    }
    match bring_up(options, path) {
        Ok(status) => ExitCode::from(status),
        Err(line) => {
            last_breath::end_workers();
            shared::fatal!("{line}");
            ExitCode::FAILURE
        }
    }
}

/// Everything from reading the configuration to the end of the fleet. The error is the FATAL line.
fn bring_up(options: &Run, path: &Path) -> Result<u8, String> {
    let mut inherited = Inherited::take()?;
    let stderr = !options.quiet && !options.daemon;
    // Until the configuration says where, lines go to standard error: what is wrong with it must be seen.
    shared::log::init(shared::log::Options { stderr: true, verbose: options.verbose, ..Default::default() });
    let (config, problems) = load::first(path, options.verbose)?;
    let settings = &config.settings;
    privileges::drop_to(options.user.as_deref().or(settings.user.as_deref()))?;
    let control_dir = ControlDir::open(settings)?;
    let found = control_dir.as_ref().map(adoption::find).transpose()?.flatten();
    let passed_on = Unix::inherit(settings, &mut inherited)?;
    if passed_on.is_none() && found.is_none() {
        listen::check_running(settings)?;
    }
    if !settings.pidfile.is_empty() {
        pidfile::check(Path::new(&settings.pidfile), control_dir.as_ref().and_then(ControlDir::predecessor))?;
    }
    // Before standard error leads nowhere: what is wrong with the log must be seen somewhere.
    let log_file = logging::open(settings)?;
    if options.daemon {
        go_to_background(&config)?;
    } else if options.quiet {
        silence()?;
    }
    if let Some(control_dir) = &control_dir {
        control_dir.enter_pid()?;
    }
    logging::apply(settings, stderr, log_file.as_ref()).map_err(|error| format!("could not log: {error}"))?;
    raise_descriptors(&config);
    let warned = problems.warnings().map(ToString::to_string).collect();
    warn(&problems);
    let keeper = match inherited.is_activated() {
        true => Keeper::Manager,
        false if notify::has_store() => Keeper::Store,
        false => Keeper::Nobody,
    };
    let _pidfile = match settings.pidfile.as_str() {
        "" => None,
        file => {
            last_breath::remove_at_end(file.into());
            Some(Pidfile::create(Path::new(file))?)
        }
    };
    let image = std::env::current_exe().unwrap_or_default();
    let doors = control_dir.as_ref();
    let claimed = match (found, doors) {
        (Some(found), Some(control_dir)) => found.claim(control_dir)?,
        _ => None,
    };
    let setup = Setup { log_file, warned, stderr, verbose: options.verbose, image, control_dir };
    match claimed {
        Some(claimed) => {
            let adopted = adoption::put_together(claimed, config.path, passed_on, &mut inherited)?;
            drop(inherited);
            go_on(adopted, keeper, setup)
        }
        None => begin(config, passed_on, inherited, keeper, setup),
    }
}

/// A new fleet, from its listeners to its end.
fn begin(config: Config, passed_on: Option<Unix>, mut inherited: Inherited, keeper: Keeper, setup: Setup) -> Result<u8, String> {
    let settings = &config.settings;
    let (tcp, addresses) = Tcp::resolve_beside(settings, &inherited)?.open(settings.worker_count(), &mut inherited)?;
    drop(inherited);
    let mut unix = if passed_on.is_some() { passed_on } else { Unix::open_anew(settings)? };
    if keeper == Keeper::Nobody {
        if let Some(file) = unix.as_ref().and_then(Unix::file) {
            last_breath::remove_at_end(file);
        }
    } else if let Some(unix) = &mut unix {
        unix.keep();
    }
    let listeners = Listeners { tcp, addresses, unix, keeper, sinks: Vec::new() };
    let (shm, memory) = Shm::create().map_err(|error| format!("could not create shared memory: {error}"))?;
    let inboxes = Arc::new(Inboxes::default());
    let mut inbox_ends = Vec::new();
    for _ in 0..listeners.tcp.len() {
        let (receiving, sending) = engine::inbox().map_err(|error| format!("could not create an inbox: {error}"))?;
        inbox_ends.push(receiving);
        inboxes.add(sending);
    }
    let own = Belongings { memory, listeners, inbox_ends, inboxes };
    let parts = assemble(config, shm, own, setup, Resolver::start)?;
    let mock_secret = mock_secret::make()?;
    last_breath::on_panic();
    Ok(Engine::new(parts, mock_secret).start())
}

/// A fleet whose supervisor has died, to its end.
fn go_on(adopted: Adopted, keeper: Keeper, setup: Setup) -> Result<u8, String> {
    let Adopted { config, shm, memory, inbox_ends, inboxes, tcp, addresses, unix, rescued } = adopted;
    let file = unix.as_ref().and_then(Unix::file).filter(|_| keeper == Keeper::Nobody);
    let listeners = Listeners { tcp, addresses, unix, keeper, sinks: Vec::new() };
    let own = Belongings { memory, listeners, inbox_ends, inboxes };
    let parts = assemble(config, shm, own, setup, |_| Ok(Resolver::default()))?;
    let (engine, first) = Engine::rescue(parts, rescued)?;
    if let Some(file) = file {
        last_breath::remove_at_end(file);
    }
    last_breath::on_panic();
    Ok(engine.run(first))
}

/// How names will be looked up. It may start a thread, and so waits until signals are blocked.
type Names = fn(&Settings) -> Result<Resolver, String>;

/// What the fleet runs with, its threads among it. The error says which cannot be had.
pub(crate) fn assemble(config: Config, shm: Shm, own: Belongings, setup: Setup, names: Names) -> Result<Parts, String> {
    let (input, inputs) = crossbeam_channel::unbounded();
    let published = load::snapshot(&config).and_then(|snapshot| Ok((snapshot, threads(config, shm, &own, names, &input)?)));
    // With all that is to be gone on with still open.
    let (snapshot, office) = published.map_err(upgrade::give_up)?;
    Ok(Parts { office, inputs, input, snapshot, own, setup })
}

fn threads(config: Config, shm: Shm, own: &Belongings, names: Names, input: &Sender<Input>) -> Result<Arc<Office>, String> {
    let Belongings { listeners, inboxes, .. } = own;
    let failed = |what: &'static str| move |error: std::io::Error| format!("could not start the thread for {what}: {error}");
    signals::block().map_err(|error| format!("could not block signals: {error}"))?;
    let gate = Arc::new(Gate::default());
    let orphans = Orphanage::start(shm.clone(), Arc::clone(inboxes), Arc::clone(&gate), input.clone());
    let orphans = orphans.map_err(failed("dead workers' backends"))?;
    let mut rows = Vec::new();
    for slot in &listeners.tcp {
        rows.extend(slot.iter().zip(&listeners.addresses).map(|(fd, at)| (fd.as_raw_fd(), at.ip().to_string(), at.port())));
    }
    if let Some(unix) = &listeners.unix {
        rows.push((std::os::fd::AsFd::as_fd(unix).as_raw_fd(), "unix".to_owned(), config.settings.listen_port));
    }
    let names = names(&config.settings)?;
    let office = Arc::new(Office::new(Arc::new(config), input.clone(), gate, shm, orphans, names, rows));
    signals::listen(Arc::clone(&office)).map_err(failed("signals"))?;
    stats::start(Arc::clone(&office)).map_err(failed("statistics"))?;
    dns::start_zone_checks(Arc::clone(&office)).map_err(failed("DNS zones"))?;
    tls_watch::start(Arc::clone(&office)).map_err(failed("TLS files"))?;
    Ok(office)
}

/// -d. No thread has been started yet, so the fork loses nothing.
fn go_to_background(config: &Config) -> Result<(), String> {
    if config.settings.pidfile.is_empty() {
        return Err("daemon needs pidfile configured".to_owned());
    }
    if config.settings.logfile.is_empty() && !config.settings.syslog {
        return Err("daemon needs logging configured".to_owned());
    }
    // The working directory stays: relative paths of the configuration mean the same at every reload.
    nix::unistd::daemon(true, false).map_err(|error| format!("could not go to the background: {}", error.desc()))
}

/// -q: neither this process nor a worker writes to standard error.
fn silence() -> Result<(), String> {
    let nowhere = std::fs::OpenOptions::new().write(true).open("/dev/null").map_err(|error| format!("/dev/null: {error}"))?;
    nix::unistd::dup2_stderr(&nowhere).map_err(|error| format!("/dev/null: {}", error.desc()))
}

fn raise_descriptors(config: &Config) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_default();
    let clients = config.settings.max_client_conn;
    let servers: u64 = config.databases.values().map(|database| u64::from(config.pool_size(database, ""))).sum();
    let expected = u64::from(clients) + servers + 100;
    log::info!("kernel file descriptor limit: {soft} (hard: {hard}); max_client_conn: {clients}, max expected fd use: {expected}");
    if let Err(error) = limits::raise_descriptor_limit() {
        log::warn!("could not raise the file descriptor limit: {}", listen::reason(&error));
    }
}

fn warn(problems: &Problems) {
    for problem in problems.warnings() {
        log::warn!("{problem}");
    }
}
