//! A real fleet on a free port, in a temporary folder.
//!
//! A builder writes the configuration and starts the program; the value stops it. Whatever way a fleet ends, no process of it may be
//! left: every one carries a mark in its environment, and dropping the value checks that nobody with this mark still lives.

use crate::{Client, Port, Postgres, SOON, account, holds_within, process, program, wait_for, wait_until};
use nix::sys::signal::Signal;
use std::fmt::{Display, Write as _};
use std::fs::File;
use std::os::fd::RawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// When a server goes back to its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    /// When its client leaves.
    Session,
    /// When the transaction ends.
    Transaction,
}

impl PoolMode {
    /// As the configuration spells it.
    pub fn name(self) -> &'static str {
        match self {
            PoolMode::Session => "session",
            PoolMode::Transaction => "transaction",
        }
    }
}

/// What a fleet is to be like.
#[derive(Debug, Clone)]
pub struct Builder {
    workers: usize,
    settings: Vec<(String, String)>,
    databases: Vec<(String, String)>,
    users: Vec<(String, String)>,
    peers: Vec<(String, String)>,
    secrets: Vec<(String, String)>,
    files: Vec<(String, String)>,
    toml: bool,
}

impl Builder {
    fn new(server: &Postgres) -> Builder {
        let settings = [
            ("listen_addr", "127.0.0.1"),
            ("auth_type", "trust"),
            ("admin_users", "admin"),
            ("stats_users", "stats"),
            ("max_client_conn", "1000"),
            ("pool_mode", "transaction"),
        ];
        let secrets =
            [("app", "app-password"), ("other", "other-password"), ("admin", "admin-password"), ("stats", "stats-password")];
        let owned = |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Builder {
            workers: 2,
            settings: owned(&settings),
            databases: vec![("app".to_owned(), format!("host=127.0.0.1 port={}", server.port()))],
            users: Vec::new(),
            peers: Vec::new(),
            secrets: owned(&secrets),
            files: Vec::new(),
            toml: false,
        }
    }

    /// How many workers; 2 unless said.
    #[must_use]
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = count;
        self
    }

    /// Session or transaction pooling; transaction unless said.
    #[must_use]
    pub fn pool_mode(self, mode: PoolMode) -> Self {
        self.setting("pool_mode", mode.name())
    }

    /// Servers per pool.
    #[must_use]
    pub fn pool_size(self, size: usize) -> Self {
        self.setting("default_pool_size", size)
    }

    /// A line of the section `[pgbouncer]`; replaces one of the same name.
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "a number or a text, written at the call as it stands in the file")]
    pub fn setting(mut self, name: &str, value: impl Display) -> Self {
        set(&mut self.settings, name, value.to_string());
        self
    }

    /// A line of the section `[databases]`; replaces one of the same name.
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "as for `setting`")]
    pub fn database(mut self, name: &str, entry: impl Display) -> Self {
        set(&mut self.databases, name, entry.to_string());
        self
    }

    /// A line of the section `[users]`.
    #[must_use]
    pub fn user(mut self, name: &str, entry: &str) -> Self {
        set(&mut self.users, name, entry.to_owned());
        self
    }

    /// A line of the section `[peers]`.
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "as for `setting`")]
    pub fn peer(mut self, id: u16, entry: impl Display) -> Self {
        set(&mut self.peers, &id.to_string(), entry.to_string());
        self
    }

    /// A line of the auth_file.
    #[must_use]
    pub fn secret(mut self, user: &str, secret: &str) -> Self {
        set(&mut self.secrets, user, secret.to_owned());
        self
    }

    /// A file beside the configuration, which a setting names.
    #[must_use]
    pub fn file(mut self, name: &str, text: &str) -> Self {
        set(&mut self.files, name, text.to_owned());
        self
    }

    /// Whether the fleet reads the native TOML form of the configuration instead of pgbouncer.ini.
    #[must_use]
    pub fn toml(mut self, toml: bool) -> Self {
        self.toml = toml;
        self
    }

    /// Writes the configuration into a new folder without starting anything.
    pub fn write(self) -> Unstarted {
        let folder = account::folder();
        let port = Port::take();
        let unstarted = Unstarted { builder: self, folder, port };
        unstarted.write_files();
        unstarted
    }

    /// Starts the fleet and waits until it serves.
    #[track_caller]
    pub fn start(self) -> Fleet {
        self.write().start()
    }

    fn ini(&self, folder: &Path, port: u16) -> String {
        let mut text = "[databases]\n".to_owned();
        let section = |entries: &[(String, String)]| {
            let mut lines = String::new();
            for (name, value) in entries {
                let _ = writeln!(lines, "{name} = {value}");
            }
            lines
        };
        text += &section(&self.databases);
        let _ = write!(text, "\n[users]\n{}\n[peers]\n{}\n[pgbouncer]\n", section(&self.users), section(&self.peers));
        let _ = writeln!(text, "listen_port = {port}\nunix_socket_dir = {0}\nauth_file = {0}/userlist.txt", folder.display());
        if program::another().is_none() {
            let _ = writeln!(text, "workers = {}", self.workers);
        }
        text + &section(&self.settings)
    }
}

fn set(entries: &mut Vec<(String, String)>, name: &str, value: String) {
    entries.retain(|(existing, _)| existing != name);
    entries.push((name.to_owned(), value));
}

/// A fleet's folder with its configuration in it.
#[derive(Debug)]
pub struct Unstarted {
    builder: Builder,
    folder: TempDir,
    port: Port,
}

impl Unstarted {
    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The port that it would listen on.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.folder().join(if self.builder.toml { "pgfleet.toml" } else { "pgfleet.ini" })
    }

    fn write_files(&self) {
        let ini = self.builder.ini(self.folder(), self.port());
        replace(&self.folder().join("pgfleet.ini"), ini.as_bytes(), 0o644);
        for (name, text) in &self.builder.files {
            replace(&self.folder().join(name), text.as_bytes(), 0o600);
        }
        let mut secrets = String::new();
        for (user, secret) in &self.builder.secrets {
            let _ = writeln!(secrets, "\"{user}\" \"{secret}\"");
        }
        let secret_file = self.folder().join("userlist.txt");
        replace(&secret_file, secrets.as_bytes(), 0o600);
        if self.builder.toml {
            let converted = Command::new(program::binary()).arg("convert").arg(self.folder().join("pgfleet.ini")).output().unwrap();
            assert!(converted.status.success(), "convert: {}", program::stderr(&converted));
            replace(&self.config_path(), &converted.stdout, 0o644);
        }
    }

    /// A command that runs the program on this configuration as an ordinary user; its messages go to `log.txt`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.complete(account::server(Path::new(&program::under_test()[0])), arguments)
    }

    /// The same as the user who runs the tests, who is expected to be root.
    pub fn root_command(&self, arguments: &[&str]) -> Command {
        self.complete(Command::new(&program::under_test()[0]), arguments)
    }

    /// A command that passes these sockets on as a service manager does (sd_listen_fds(3)), under these names. They must survive an exec.
    pub fn command_with(&self, sockets: &[(RawFd, &str)]) -> Command {
        let moves: String = sockets.iter().zip(3..).fold(String::new(), |text, ((fd, _), to)| text + &format!("{to}<&{fd} "));
        let names: Vec<&str> = sockets.iter().map(|(_, name)| *name).collect();
        let exec = format!(
            "exec {moves}; LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={} exec \"$0\" \"$@\"",
            sockets.len(),
            names.join(":")
        );
        let mut command = account::server(Path::new("bash"));
        command.args(["-c", &exec, &program::under_test()[0]]);
        self.complete(command, &[])
    }

    /// A command whose processes may each have this many descriptors.
    pub fn command_with_descriptors(&self, most: usize) -> Command {
        let mut command = account::server(Path::new("bash"));
        command.args(["-c", &format!("ulimit -n {most}; exec \"$0\" \"$@\""), &program::under_test()[0]]);
        self.complete(command, &[])
    }

    fn complete(&self, mut command: Command, arguments: &[&str]) -> Command {
        let words = program::under_test();
        let log = File::options().create(true).append(true).open(self.folder().join("log.txt")).unwrap();
        command
            .args(&words[1..])
            .args(arguments)
            .arg(self.config_path())
            .env(MARK, self.mark())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        command
    }

    fn mark(&self) -> String {
        self.folder().display().to_string()
    }

    /// Starts the fleet and waits until it serves.
    #[track_caller]
    pub fn start(self) -> Fleet {
        let command = self.command(&[]);
        self.start_as(command)
    }

    /// Starts the fleet by a command of this value's and waits until it serves.
    #[track_caller]
    pub fn start_as(self, mut command: Command) -> Fleet {
        let process = command.spawn().unwrap();
        let mut fleet = Fleet { process, exit: None, files: self, may_be_left: false };
        wait_until("the fleet to start", SOON, || {
            assert!(fleet.has_ended().is_none(), "the fleet ended at once:\n{}", fleet.log());
            fleet.log().contains("process up")
        });
        fleet
    }
}

/// Writes a file that is whole at every moment: a reload may be reading it.
fn replace(file: &Path, content: &[u8], mode: u32) {
    let new = file.with_extension("new");
    std::fs::write(&new, content).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(mode)).unwrap();
    account::give(&new);
    std::fs::rename(&new, file).unwrap();
}

const MARK: &str = "PGFLEET_TEST_FLEET";

/// A running fleet.
#[derive(Debug)]
pub struct Fleet {
    process: Child,
    exit: Option<ExitStatus>,
    files: Unstarted,
    /// The case has killed the supervisor; its workers live on by design and are ended here.
    pub may_be_left: bool,
}

impl Fleet {
    /// A fleet in front of `server`, whose database `app` it offers to the users `app`, `other`, `admin` and `stats`.
    pub fn builder(server: &Postgres) -> Builder {
        Builder::new(server)
    }

    /// Its TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.files.port()
    }

    /// Its folder: configuration, Unix socket, `log.txt`.
    pub fn folder(&self) -> &Path {
        self.files.folder()
    }

    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.files.config_path()
    }

    /// How many workers it was given.
    pub fn worker_count(&self) -> usize {
        self.files.builder.workers
    }

    /// The supervisor's pid.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The workers' pids.
    pub fn workers(&self) -> Vec<u32> {
        process::children(self.pid())
    }

    /// Supervisor and workers.
    pub fn processes(&self) -> Vec<u32> {
        process::marked(&format!("{MARK}={}", self.files.mark()))
    }

    /// Waits until every worker runs and returns their pids.
    #[track_caller]
    pub fn all_workers(&self) -> Vec<u32> {
        if program::another().is_some() {
            return vec![self.pid()];
        }
        let workers = || Some(self.workers()).filter(|pids| pids.len() == self.worker_count());
        wait_for("all workers to run", SOON, workers)
    }

    /// Starts a fleet with the same configuration when this one has ended.
    #[track_caller]
    pub fn start_again(&mut self, build: impl FnOnce(&Unstarted) -> Command) {
        assert!(self.has_ended().is_some(), "it still runs");
        let before = self.logged("process up");
        (self.process, self.exit) = (build(&self.files).spawn().unwrap(), None);
        wait_until("the fleet to start again", SOON, || {
            assert!(self.has_ended().is_none(), "the fleet ended at once:\n{}", self.log());
            self.logged("process up") > before
        });
    }

    /// A command that runs the program on this fleet's configuration, as the user that the fleet runs as.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.files.command(arguments)
    }

    /// Sends the supervisor a signal.
    pub fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }

    /// All that has been logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("log.txt")).unwrap_or_default()
    }

    /// How many lines of the log hold `text`.
    pub fn logged(&self, text: &str) -> usize {
        self.log().lines().filter(|line| line.contains(text)).count()
    }

    /// Waits for a line that holds `text` and returns it.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) -> String {
        wait_for(&format!("the log to say {text:?}"), SOON, || {
            self.log().lines().find(|line| line.contains(text)).map(str::to_owned)
        })
    }

    /// The TCP port of each client that has begun to log in, and the pid of its worker, in the order of the log.
    pub fn logins(&self) -> Vec<(u16, u32)> {
        let login = |line: &str| {
            let (before, _) = line.split_once(" login attempt")?;
            let port = before.rsplit(':').next()?.parse().ok()?;
            Some((port, before.split('[').nth(1)?.split(']').next()?.parse().ok()?))
        };
        self.log().lines().filter_map(login).collect()
    }

    /// The worker (its pid) that accepted the client, which has begun to log in: whose log line names the client's port, the last one, since another client
    /// may have had that port before.
    #[track_caller]
    pub fn worker_of(&self, client: &Client) -> u32 {
        let port = client.local_port();
        let last = || self.logins().into_iter().rev().find(|(other, _)| *other == port);
        wait_for("a log line of the client's login", SOON, last).1
    }

    /// Logs in as `app` to the database `app` without a password.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::login(self.port(), "app", "app")
    }

    /// Opens clients until one is at the worker `pid`, and returns that one.
    #[track_caller]
    pub fn client_at(&self, pid: u32) -> Client {
        let mut others = Vec::new();
        wait_for("a client at a given worker", SOON, || {
            let client = self.client();
            if self.worker_of(&client) == pid {
                return Some(client);
            }
            others.push(client);
            None
        })
    }

    /// Logs in to the console as an administrator.
    #[track_caller]
    pub fn console(&self) -> Client {
        Client::login(self.port(), "admin", "pgbouncer")
    }

    /// A driver's settings for the database `app`.
    pub fn driver(&self) -> postgres::Config {
        let mut config = postgres::Config::new();
        config.host("127.0.0.1").port(self.port()).user("app").dbname("app").connect_timeout(SOON);
        config
    }

    /// The database `app` as a connection string for libpq.
    pub fn url(&self) -> String {
        format!("host=127.0.0.1 port={} user=app dbname=app sslmode=disable", self.port())
    }

    /// Changes a setting in the file; a reload puts it in force.
    #[allow(clippy::needless_pass_by_value, reason = "as for `setting`")]
    pub fn change(&mut self, name: &str, value: impl Display) {
        set(&mut self.files.builder.settings, name, value.to_string());
        self.files.write_files();
    }

    /// Has another number of workers from now on: in the file and by SIGHUP.
    pub fn resize(&mut self, workers: usize) {
        self.files.builder.workers = workers;
        self.files.write_files();
        self.signal(Signal::SIGHUP);
    }

    /// Has another number of workers when it is started the next time.
    pub fn change_workers(&mut self, workers: usize) {
        self.files.builder.workers = workers;
        self.files.write_files();
    }

    /// Takes a setting out of the file; a reload puts its default in force.
    pub fn unset(&mut self, name: &str) {
        self.files.builder.settings.retain(|(existing, _)| existing != name);
        self.files.write_files();
    }

    /// Changes a user's secret in the auth_file; a reload puts it in force.
    pub fn change_secret(&mut self, user: &str, secret: &str) {
        set(&mut self.files.builder.secrets, user, secret.to_owned());
        self.files.write_files();
    }

    /// Changes an entry of `[databases]` in the file; a reload puts it in force.
    #[allow(clippy::needless_pass_by_value, reason = "as for `setting`")]
    pub fn change_database(&mut self, name: &str, entry: impl Display) {
        set(&mut self.files.builder.databases, name, entry.to_string());
        self.files.write_files();
    }

    /// Takes an entry of `[databases]` out of the file; a reload puts that in force.
    pub fn remove_database(&mut self, name: &str) {
        self.files.builder.databases.retain(|(existing, _)| existing != name);
        self.files.write_files();
    }

    /// Changes an entry of `[peers]` in the file; a reload puts it in force.
    #[allow(clippy::needless_pass_by_value, reason = "as for `setting`")]
    pub fn change_peer(&mut self, id: u16, entry: impl Display) {
        set(&mut self.files.builder.peers, &id.to_string(), entry.to_string());
        self.files.write_files();
    }

    /// How the supervisor ended, if it has.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        if self.exit.is_none() {
            self.exit = self.process.try_wait().unwrap();
        }
        self.exit
    }

    /// Waits for the supervisor to end; no process of the fleet may be left then.
    #[track_caller]
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        let status = wait_for("the fleet to end", SOON, || self.has_ended());
        let left = self.processes();
        assert!(left.is_empty(), "processes {left:?} outlived the supervisor");
        status
    }

    /// Ends every process that is left, and says whether there was any.
    fn sweep(&mut self) -> bool {
        if self.has_ended().is_none() {
            self.signal(Signal::SIGQUIT);
            holds_within(Duration::from_secs(5), || self.has_ended().is_some());
        }
        // The kernel kills those who run PAM's modules as the supervisor ends; a busy machine takes a moment to.
        let left: Vec<u32> = self.processes().into_iter().filter(|&pid| !process::is_being_killed(pid)).collect();
        for &pid in &left {
            process::signal(pid, Signal::SIGKILL);
        }
        wait_until("killed processes to go", SOON, || {
            let _ = self.has_ended();
            self.processes().is_empty()
        });
        !left.is_empty()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let left = self.sweep();
        if std::thread::panicking() {
            process::print_tail("the fleet", &self.log(), 60);
        } else {
            assert!(!left || self.may_be_left, "processes of the fleet were left after SIGQUIT:\n{}", self.log());
            let log = self.log();
            assert!(!log.contains("panicked at"), "a process of the fleet panicked:\n{log}");
        }
    }
}

/// Runs a case with 1, 2 and 4 workers, in session and in transaction mode, one fleet after the other.
pub fn each_fleet(server: &Postgres, build: impl Fn(Builder) -> Builder, case: impl Fn(&mut Fleet, PoolMode)) {
    for mode in [PoolMode::Session, PoolMode::Transaction] {
        each_worker_count(server, |builder| build(builder.pool_mode(mode)), |fleet| case(fleet, mode));
    }
}

/// Runs a case with 1, 2 and 4 workers, one fleet after the other.
pub fn each_worker_count(server: &Postgres, build: impl Fn(Builder) -> Builder, case: impl Fn(&mut Fleet)) {
    for workers in [1, 2, 4] {
        let mut fleet = build(Fleet::builder(server).workers(workers)).start();
        // Shown only when the case fails: which fleet it was.
        println!("a fleet of {workers} workers, pool_mode {}", value_of(&fleet, "pool_mode"));
        case(&mut fleet);
    }
}

fn value_of<'a>(fleet: &'a Fleet, name: &str) -> &'a str {
    fleet.files.builder.settings.iter().find(|(existing, _)| existing == name).map_or("", |(_, value)| value)
}
