//! A real PostgreSQL on a free port, in a temporary folder.
//!
//! `initdb` takes seconds, so it is done once a machine, into a template under `target/`, with the roles and the database every case
//! uses; a test copies the template and starts the copy, which takes a quarter of a second. Dropping the value stops the server.

use crate::lock::Lock;
use crate::{Port, SOON, account, process, wait_until};
use nix::sys::signal::Signal;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use tempfile::TempDir;

/// The database of nearly every case, and the role that it belongs to.
const ROLES: &str = "
create role app login; create database app owner app;
create role other login; grant all on database app to other;
set password_encryption = md5; create role md5_user login password 'md5-password';
set password_encryption = 'scram-sha-256'; create role scram_user login password 'scram-password';
create role plain_user login password 'plain-password';
create role rejected_user login;
";

/// How a client of PostgreSQL itself proves who it is, by role.
const HBA: &str = "
host all plain_user    all password
host all md5_user      all md5
host all scram_user    all scram-sha-256
host all rejected_user all reject
host  all all all trust
local all all     trust
";

const SETTINGS: &str = "
fsync = off
full_page_writes = off
synchronous_commit = off
max_connections = 300
max_wal_size = 4GB
autovacuum = off
log_checkpoints = off
listen_addresses = '127.0.0.1'
";

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    port: Arc<Port>,
    process: Child,
    home: TempDir,
    programs: PathBuf,
}

impl Postgres {
    /// Starts one with the settings that suit tests.
    pub fn start() -> Postgres {
        Self::start_with("")
    }

    /// Starts one with further lines of `postgresql.conf`.
    pub fn start_with(settings: &str) -> Postgres {
        Self::start_on(Arc::new(Port::take()), settings, programs())
    }

    /// Starts one of the newest version there is, with further lines of `postgresql.conf`.
    pub fn start_newest(settings: &str) -> Postgres {
        Self::start_on(Arc::new(Port::take()), settings, newest_programs())
    }

    /// Starts another one with the same port number, for cases in which an entry lists several hosts. `settings` must tell them apart: another
    /// listen_addresses.
    #[must_use]
    pub fn start_beside(&self, settings: &str) -> Postgres {
        Self::start_on(Arc::clone(&self.port), settings, self.programs.clone())
    }

    fn start_on(port: Arc<Port>, settings: &str, programs: PathBuf) -> Postgres {
        let home = account::folder();
        let data = home.path().join("data");
        copy_folder(&template(&programs), &data);
        let sockets = home.path().display();
        let own = format!("port = {}\nunix_socket_directories = '{sockets}'\n{settings}\n", port.number());
        std::fs::write(data.join("postgresql.auto.conf"), own).unwrap();
        let process = launch(&programs, &data);
        let server = Postgres { port, process, home, programs };
        server.wait_until_it_answers();
        server
    }

    /// Its TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The folder of its Unix socket.
    pub fn socket_dir(&self) -> &Path {
        self.home.path()
    }

    /// A direct connection of the superuser to the database `app`.
    pub fn admin(&self) -> postgres::Client {
        self.try_admin().unwrap()
    }

    fn try_admin(&self) -> Result<postgres::Client, postgres::Error> {
        self.admin_config().connect(postgres::NoTls)
    }

    /// How to connect as [`Postgres::admin`] does.
    pub fn admin_config(&self) -> postgres::Config {
        let mut config = postgres::Config::new();
        config.host_path(self.home.path()).port(self.port()).user("postgres").dbname("app").application_name("harness");
        config
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("data/log.txt")).unwrap()
    }

    /// Stops the postmaster where it is: the kernel goes on taking connections, and nobody answers them. Backends run on.
    pub fn freeze(&self) {
        process::signal(self.process.id(), Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        process::signal(self.process.id(), Signal::SIGCONT);
    }

    /// Stops the server as `pg_ctl stop -m fast` does.
    pub fn stop(&mut self) {
        process::signal(self.process.id(), Signal::SIGINT);
        self.process.wait().unwrap();
    }

    /// Starts the stopped server again, same port, same data.
    pub fn start_again(&mut self) {
        self.process = launch(&self.programs, &self.home.path().join("data"));
        self.wait_until_it_answers();
    }

    fn wait_until_it_answers(&self) {
        wait_until("PostgreSQL to answer", SOON, || self.try_admin().is_ok());
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        process::signal(self.process.id(), Signal::SIGQUIT);
        // A frozen one would never hear of it.
        self.thaw();
        let _ = self.process.wait();
        if std::thread::panicking() {
            process::print_tail("PostgreSQL", &self.log(), 20);
        }
    }
}

/// The folder with `initdb`, `postgres`, `psql` and `pgbench`.
pub(crate) fn programs() -> PathBuf {
    if let Ok(folder) = std::env::var("PGFLEET_PG_BIN") {
        return folder.into();
    }
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
    let newest = debian.filter(|bin| bin.join("initdb").exists()).max_by_key(|bin| {
        let version = bin.parent().and_then(Path::file_name).and_then(|name| name.to_str()?.parse::<u32>().ok());
        version.unwrap_or(0)
    });
    newest.unwrap_or_else(|| {
        let output = Command::new("pg_config").arg("--bindir").output().expect("no PostgreSQL found: set PGFLEET_PG_BIN");
        String::from_utf8(output.stdout).unwrap().trim().into()
    })
}

/// The same folder of the newest version there is; what is installed may be some years old.
pub(crate) fn newest_programs() -> PathBuf {
    std::env::var("PGFLEET_NEWEST_PG_BIN").map_or_else(
        |_| {
            let folder = crate::program::target_folder().join("cache/postgresql-newest/usr/lib/postgresql");
            let versions = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            let bin = versions.map(|entry| entry.path().join("bin")).next();
            let missing = "this test needs the newest PostgreSQL: scripts/test unpacks it from Debian's newest suite if that can be installed";
            bin.unwrap_or_else(|| panic!("{missing}, or set PGFLEET_NEWEST_PG_BIN; {} is not there", folder.display()))
        },
        PathBuf::from,
    )
}

fn launch(programs: &Path, data: &Path) -> Child {
    let log = File::options().create(true).append(true).open(data.join("log.txt")).unwrap();
    account::server(&programs.join("postgres"))
        .arg("-D")
        .arg(data)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// The prepared data folder, made by whichever test comes first. Its name tells what is in it, so that a change makes a new one.
fn template(programs: &Path) -> PathBuf {
    let version = Command::new(programs.join("postgres")).arg("--version").output().unwrap().stdout;
    let text = format!("{}{ROLES}{HBA}{SETTINGS}{}", String::from_utf8(version).unwrap(), account::name());
    let digest = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let folder = crate::program::target_folder().join("test-postgres");
    std::fs::create_dir_all(&folder).unwrap();
    let ready = folder.join(format!("{digest:016x}"));
    let _lock = Lock::wait(&folder.join("lock"));
    if !ready.exists() {
        let work = account::folder();
        let data = work.path().join("data");
        initialise(programs, &data);
        let unfinished = folder.join("unfinished");
        let _ = std::fs::remove_dir_all(&unfinished);
        copy_folder(&data, &unfinished);
        std::fs::rename(unfinished, &ready).unwrap();
    }
    ready
}

fn initialise(programs: &Path, data: &Path) {
    let initdb = account::server(&programs.join("initdb"))
        .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--wal-segsize=4", "-D"])
        .arg(data)
        .output()
        .unwrap();
    assert!(initdb.status.success(), "initdb: {}", String::from_utf8_lossy(&initdb.stderr));
    std::fs::write(data.join("pg_hba.conf"), HBA).unwrap();
    let mut conf = std::fs::read_to_string(data.join("postgresql.conf")).unwrap();
    conf.push_str(SETTINGS);
    std::fs::write(data.join("postgresql.conf"), conf).unwrap();
    // One statement a line in single-user mode.
    let mut child = account::server(&programs.join("postgres"))
        .args(["--single", "-j", "-D"])
        .arg(data)
        .arg("postgres")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let statements = ROLES.replace(';', ";\n\n");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), statements.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !errors.contains("ERROR"), "preparing the template: {errors}");
}

fn copy_folder(from: &Path, to: &Path) {
    let status = Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to).status().unwrap();
    assert!(status.success(), "cp -a {} {}", from.display(), to.display());
}
