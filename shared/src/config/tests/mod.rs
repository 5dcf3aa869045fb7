//! Tests of the configuration as a whole: every row, both file formats, resolution, reload, and the documents made from the tables.
#![allow(clippy::unwrap_used)]

mod access;
mod documents;
mod files;
mod include;
mod reload;
mod resolution;
mod rows;
mod tls;

use super::{Config, Problems};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tempfile::TempDir;

/// A folder with files.
struct Folder(TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            std::fs::write(folder.path(name), text).unwrap();
            std::fs::set_permissions(folder.path(name), std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self, name: &str) -> Result<Config, Problems> {
        super::load(&self.path(name))
    }

    /// The problems, one a line, without the folder.
    fn check(&self, name: &str) -> Vec<String> {
        let problems = super::check(&self.path(name)).to_string();
        problems.replace(&format!("{}/", self.0.path().display()), "").lines().map(str::to_owned).collect()
    }
}

/// Loads one pgbouncer.ini.
fn ini(text: &str) -> Result<Config, Problems> {
    Folder::new(&[("pgbouncer.ini", text)]).load("pgbouncer.ini")
}

/// The problems of one pgbouncer.ini.
fn ini_problems(text: &str) -> Vec<String> {
    Folder::new(&[("pgbouncer.ini", text)]).check("pgbouncer.ini")
}

/// Loads one TOML file.
fn toml(text: &str) -> Result<Config, Problems> {
    Folder::new(&[("pgfleet.toml", text)]).load("pgfleet.toml")
}

/// The problems of one TOML file.
fn toml_problems(text: &str) -> Vec<String> {
    Folder::new(&[("pgfleet.toml", text)]).check("pgfleet.toml")
}
