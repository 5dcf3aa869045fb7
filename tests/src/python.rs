//! Python drivers: small scripts in `tests/python/` that end with status 0 or say what went wrong.

use crate::Fleet;
use crate::lock::Lock;
use crate::program::{stderr, stdout, target_folder};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs `tests/python/NAME` with the fleet's port as its first argument; returns what it printed.
#[track_caller]
pub fn run(name: &str, fleet: &Fleet, arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(name);
    let output = Command::new(interpreter()).arg(script).arg(fleet.port().to_string()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{name}: {}\n{}", stdout(&output), stderr(&output));
    stdout(&output)
}

/// An interpreter with psycopg and asyncpg: the one that is named, else a virtual environment under `target/`, made on first use.
fn interpreter() -> PathBuf {
    if let Ok(named) = std::env::var("PGFLEET_PYTHON") {
        return named.into();
    }
    let target = target_folder();
    let _lock = Lock::wait(&target.join("python-venv.lock"));
    let folder = target.join("python-venv");
    let interpreter = folder.join("bin/python");
    let works =
        Command::new(&interpreter).args(["-c", "import psycopg, asyncpg"]).output().is_ok_and(|output| output.status.success());
    if !works {
        for command in [
            Command::new("python3").args(["-m", "venv"]).arg(&folder),
            Command::new(&interpreter).args(["-m", "pip", "install", "--quiet", "psycopg[binary]", "asyncpg"]),
        ] {
            let output = command.output().unwrap();
            assert!(output.status.success(), "preparing {}: {}", folder.display(), stderr(&output));
        }
    }
    interpreter
}
