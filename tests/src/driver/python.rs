//! psycopg and asyncpg: an interpreter that is named, else a virtual environment under `target/`, made on first use.

use super::{prepare, source};
use crate::lock::Lock;
use crate::program::target_folder;
use std::path::PathBuf;
use std::process::Command;

const DRIVERS: [&str; 2] = ["psycopg[binary]", "asyncpg"];

pub(super) fn command(program: &str) -> Command {
    let mut command = Command::new(interpreter());
    command.arg("-B").arg(source("python").join(program));
    command
}

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
        prepare(Command::new("python3").args(["-m", "venv"]).arg(&folder));
        prepare(Command::new(&interpreter).args(["-m", "pip", "install", "--quiet"]).args(DRIVERS));
    }
    interpreter
}
