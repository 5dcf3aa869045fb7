//! The `log` crate's logger: composes a line outside any lock, then writes it to each sink.

use super::line::Line;
use super::stamp;
use super::syslog::{Severity, Syslog};
use super::{Options, PROCESS};
use crate::ids::Slot;
use ::log::{Level, LevelFilter, Log, Metadata, Record};
use nix::errno::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError, RwLock};

/// The target of [`crate::fatal!`].
const FATAL: &str = "fatal";

/// This project's crates; what others log below LOG is theirs, not the operator's.
const OURS: [&str; 3] = ["shared", "worker", "pgfleet"];

/// The process's logger.
pub(super) static LOGGER: Logger = Logger::new();

pub(super) struct Logger {
    sinks: RwLock<Sinks>,
}

struct Sinks {
    stderr: bool,
    file: Option<OwnedFd>,
    syslog: Option<Mutex<Syslog>>,
    worker: Option<Slot>,
}

/// The most verbose level at a setting of `verbose`.
pub(super) fn most_verbose(verbose: u8) -> LevelFilter {
    match verbose {
        0 => LevelFilter::Info,
        1 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    }
}

impl Logger {
    /// Writes nowhere.
    const fn new() -> Self {
        Self { sinks: RwLock::new(Sinks { stderr: false, file: None, syslog: None, worker: None }) }
    }

    /// Writes where `options` says from now on.
    pub(super) fn replace(&self, options: Options) {
        let Options { stderr, verbose: _, file, syslog, worker } = options;
        // Connected before the lock is taken; what was there is closed after it is given back.
        let mut sinks = Sinks { stderr, file, syslog: syslog.map(|options| Mutex::new(Syslog::new(options))), worker };
        std::mem::swap(&mut *self.sinks.write().unwrap_or_else(PoisonError::into_inner), &mut sinks);
    }

    /// Writes to this file, or to none, from now on.
    pub(super) fn set_file(&self, mut file: Option<OwnedFd>) {
        std::mem::swap(&mut self.sinks.write().unwrap_or_else(PoisonError::into_inner).file, &mut file);
    }

    fn worker(&self) -> Option<Slot> {
        self.sinks.read().unwrap_or_else(PoisonError::into_inner).worker
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= ::log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) || is_foreign_chatter(record) {
            return;
        }
        let (name, severity) = level_of(record);
        let worker = if matches!(record.target(), PROCESS | FATAL) { self.worker() } else { None };
        stamp::now(|stamp, milliseconds| {
            let compose = |prefix: std::fmt::Arguments<'_>| Line::new(stamp, milliseconds, name, prefix, *record.args());
            let line = match worker {
                Some(slot) => compose(format_args!("worker {slot}: ")),
                None => compose(format_args!("")),
            };
            let sinks = self.sinks.read().unwrap_or_else(PoisonError::into_inner);
            if sinks.stderr {
                write(&io::stderr(), line.whole());
            }
            if let Some(file) = &sinks.file {
                write(file, line.whole());
            }
            if let Some(syslog) = &sinks.syslog {
                syslog.lock().unwrap_or_else(PoisonError::into_inner).send(&stamp.syslog, severity, line.message());
            }
        });
    }

    fn flush(&self) {}
}

/// PgBouncer's name of the level, and syslog's severity.
fn level_of(record: &Record<'_>) -> (&'static str, Severity) {
    match record.level() {
        Level::Error if record.target() == FATAL => ("FATAL", Severity::Critical),
        Level::Error => ("ERROR", Severity::Error),
        Level::Warn => ("WARNING", Severity::Warning),
        Level::Info => ("LOG", Severity::Info),
        Level::Debug => ("DEBUG", Severity::Debug),
        Level::Trace => ("NOISE", Severity::Debug),
    }
}

fn is_foreign_chatter(record: &Record<'_>) -> bool {
    let crate_name = record.module_path().map(|path| path.split_once("::").map_or(path, |(name, _)| name));
    record.level() > Level::Info && crate_name.is_some_and(|name| !OURS.contains(&name))
}

/// One write(2); a signal before its first byte is no reason to lose the line, anything else is.
fn write(sink: &impl AsFd, line: &[u8]) {
    while nix::unistd::write(sink, line) == Err(Errno::EINTR) {}
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::log::open_file;
    use std::fs;
    use std::path::Path;

    fn logger(path: &Path, worker: Option<Slot>) -> Logger {
        // The facade's filter is the process's; these tests want everything.
        ::log::set_max_level(LevelFilter::Trace);
        let logger = Logger::new();
        logger.replace(Options { file: Some(open_file(path).unwrap()), worker, ..Options::default() });
        logger
    }

    fn log(logger: &Logger, level: Level, target: &str, module: &str, text: &str) {
        let mut record = Record::builder();
        logger.log(&record.level(level).target(target).module_path(Some(module)).args(format_args!("{text}")).build());
    }

    /// The lines of a file after their time and process id.
    fn lines(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|line| line.split_once("] ").unwrap().1.to_owned()).collect()
    }

    #[test]
    fn levels_have_pgbouncers_names() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let logger = logger(&path, None);
        for level in [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace] {
            log(&logger, level, "worker::client", "worker::client", "x");
        }
        log(&logger, Level::Error, "fatal", "pgfleet", "x");
        assert_eq!(lines(&path), ["ERROR x", "WARNING x", "LOG x", "DEBUG x", "NOISE x", "FATAL x"]);
    }

    #[test]
    fn a_worker_names_itself_except_on_lines_of_a_connection() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let logger = logger(&path, Some(Slot(3)));
        log(&logger, Level::Info, "process", "worker", "a");
        log(&logger, Level::Error, "fatal", "worker", "b");
        log(&logger, Level::Info, "worker::client", "worker::client", "C-0x1: c");
        assert_eq!(lines(&path), ["LOG worker 3: a", "FATAL worker 3: b", "LOG C-0x1: c"]);
    }

    #[test]
    fn other_crates_are_heard_from_log_upwards_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let logger = logger(&path, None);
        log(&logger, Level::Trace, "mio::poll", "mio::poll", "registering");
        log(&logger, Level::Debug, "mio", "mio", "registering");
        log(&logger, Level::Warn, "mio::poll", "mio::poll", "heard");
        assert_eq!(lines(&path), ["WARNING heard"]);
    }

    #[test]
    fn the_file_can_be_replaced_and_taken_away() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (directory.path().join("first"), directory.path().join("second"));
        let logger = logger(&first, None);
        log(&logger, Level::Info, "x", "worker", "1");
        logger.set_file(Some(open_file(&second).unwrap()));
        log(&logger, Level::Info, "x", "worker", "2");
        logger.set_file(None);
        log(&logger, Level::Info, "x", "worker", "3");
        assert_eq!((lines(&first), lines(&second)), (vec!["LOG 1".to_owned()], vec!["LOG 2".to_owned()]));
    }

    #[test]
    fn a_sink_that_fails_is_passed_over() {
        let full: OwnedFd = fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into();
        let logger = Logger::new();
        logger.replace(Options { file: Some(full), ..Options::default() });
        log(&logger, Level::Error, "x", "worker", "lost");
    }

    /// Several writers with descriptors of their own, as the workers of a fleet have: no line is torn.
    #[test]
    fn lines_of_several_writers_do_not_mix() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::thread::scope(|scope| {
            for writer in 0..4_u8 {
                let path = &path;
                scope.spawn(move || {
                    let logger = logger(path, None);
                    for _ in 0..200 {
                        let letter = char::from(b'a' + writer);
                        log(&logger, Level::Info, "x", "worker", &letter.to_string().repeat(500 + usize::from(writer)));
                    }
                });
            }
        });
        let lines = lines(&path);
        assert_eq!(lines.len(), 800);
        for line in lines {
            let text = line.strip_prefix("LOG ").unwrap();
            let letter = text.chars().next().unwrap();
            assert!(text.chars().all(|c| c == letter) && text.len() == 500 + usize::from(letter as u8 - b'a'), "{line}");
        }
    }

    #[test]
    fn verbose_chooses_the_level() {
        assert_eq!([0, 1, 2, 9].map(most_verbose), [LevelFilter::Info, LevelFilter::Debug, LevelFilter::Trace, LevelFilter::Trace]);
    }
}
