//! node-postgres: a folder of modules that is named, else one under `target/`, filled on first use.

use super::{prepare, source};
use crate::lock::Lock;
use crate::program::target_folder;
use std::path::PathBuf;
use std::process::Command;

const DRIVERS: [&str; 3] = ["pg@8", "pg-cursor@2", "pg-copy-streams@7"];

pub(super) fn command(program: &str) -> Command {
    let mut command = Command::new("node");
    // The driver's own cancel() uses what it calls deprecated.
    command.arg("--no-deprecation").arg(source("node").join(program)).env("NODE_PATH", modules());
    command
}

fn modules() -> PathBuf {
    if let Ok(named) = std::env::var("PGFLEET_NODE_PATH") {
        return named.into();
    }
    let target = target_folder();
    let _lock = Lock::wait(&target.join("node.lock"));
    let folder = target.join("node");
    let modules = folder.join("node_modules");
    if !modules.join(".package-lock.json").exists() {
        std::fs::create_dir_all(&folder).unwrap();
        let install = ["install", "--silent", "--no-audit", "--no-fund", "--no-package-lock", "--prefix"];
        prepare(Command::new("npm").args(install).arg(&folder).args(DRIVERS));
    }
    modules
}
