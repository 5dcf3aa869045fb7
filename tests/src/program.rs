//! Programs that the cases run: the one under test, psql and pgbench.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The workspace's target folder, found from where the running test program lies (`target/PROFILE/deps/`).
pub fn target_folder() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    exe.ancestors().nth(3).expect("a test program lies in target/PROFILE/deps").to_path_buf()
}

/// The program under test and the arguments that come before all others.
pub(crate) fn under_test() -> Vec<String> {
    another().unwrap_or_else(|| vec![binary().to_str().unwrap().to_owned()])
}

/// A whole command line of another pooler on which the cases are tried (`PGFLEET_TEST_COMMAND`): it has neither workers nor our settings.
pub(crate) fn another() -> Option<Vec<String>> {
    std::env::var("PGFLEET_TEST_COMMAND").ok().map(|words| words.split_whitespace().map(str::to_owned).collect())
}

/// The `pgfleet` program.
pub fn binary() -> PathBuf {
    let path = std::env::var("PGFLEET_BINARY")
        .map_or_else(|_| std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("pgfleet"), PathBuf::from);
    assert!(path.exists(), "{} is not there: run `cargo build -p pgfleet` first", path.display());
    path
}

/// An ignored test of the program that runs, in a process of its own that belongs to the user of the servers and ends with this thread.
pub fn ignored_test(name: &str) -> Command {
    let mut command = crate::account::server(&std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored"]).stdout(Stdio::null());
    command
}

/// Another `pgfleet`, whose messages and shared memory are others.
pub fn other_binary() -> PathBuf {
    let path = binary().with_file_name("pgfleet-other");
    assert!(path.exists(), "{} is not there: run scripts/lib/other-build.sh first", path.display());
    path
}

/// One of PostgreSQL's own client programs, its environment free of connection settings.
pub fn postgres_program(name: &str) -> Command {
    let mut command = Command::new(crate::postgres_server::programs().join(name));
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("PG") && !key.starts_with("PGFLEET")) {
        command.env_remove(key);
    }
    command.env("PGCONNECT_TIMEOUT", "30").stdin(Stdio::null());
    command
}

/// Runs psql with `sql` against `url`; `Ok` is what it printed, unaligned, `Err` what it complained of.
pub fn psql(url: &str, sql: &str) -> Result<String, String> {
    let output = postgres_program("psql").args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", sql]).output().unwrap();
    if output.status.success() { Ok(stdout(&output)) } else { Err(stderr(&output)) }
}

/// What a program printed, without the last line break.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// What a program complained of.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim_end().to_owned()
}

/// How long a load of the routine test run lasts.
pub fn load_seconds() -> u32 {
    std::env::var("PGFLEET_TEST_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}
