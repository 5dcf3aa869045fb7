//! Drivers of other languages, through programs in `tests/python`, `tests/node` and `tests/java`. Such a program is given a port as its
//! first argument, knows nothing of poolers, and prints what it found; it ends with status 0 or says what went wrong.
//!
//! What the drivers need is installed on first use, where a package manager of the language can do it without root. A driver that
//! cannot be had fails the case.

mod java;
mod node;
mod python;

use crate::program::{stderr, stdout};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs a program by its file name (`mixed_asyncpg.py`, `mixed.js`, `Mixed.java`) against a port; returns what it printed.
#[track_caller]
pub fn run(program: &str, port: u16, arguments: &[&str]) -> String {
    let (name, extension) = program.rsplit_once('.').unwrap();
    let mut command = match extension {
        "py" => python::command(program),
        "js" => node::command(program),
        "java" => java::command(name),
        _ => panic!("{program}: no language has this extension"),
    };
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("PG") && !key.starts_with("PGFLEET")) {
        command.env_remove(key);
    }
    let output = command.arg(port.to_string()).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{}", stdout(&output), stderr(&output));
    stdout(&output)
}

fn source(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
}

/// Runs a step of an installation.
#[track_caller]
fn prepare(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}\n{}", stdout(&output), stderr(&output));
}
