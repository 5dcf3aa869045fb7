//! The configuration: one table of settings, read from TOML or from PgBouncer's files.
//!
//! [`load`] reads everything a fleet needs (the file, what it includes, the files of authentication) and gives a [`Config`] or every problem there is;
//! nothing half-read is ever in force. The supervisor loads, publishes a snapshot of the bytes, and workers read that; a
//! `Config` is never changed once published. The rows of the table are in [`table`], the keys of entries in `entries`.

mod auth_files;
mod build;
mod changes;
mod choices;
mod connstr;
mod convert;
mod document;
mod entries;
mod field;
mod ini;
mod kind;
mod native;
mod news;
mod problem;
mod reference;
mod resolve;
mod settings;
mod snapshot;
mod support;
mod table;
mod tls_files;
mod userlist;
mod words;

#[cfg(test)]
mod tests;

pub use auth_files::reread;
pub use changes::Changes;
pub use choices::{
    AuthType, ChannelBinding, LoadBalanceHosts, PoolMode, SYSLOG_FACILITIES, SslMode, SslNegotiation, StartupParameters,
};
pub use entries::{DATABASE_KEYS, Database, PEER_KEYS, Peer, USER_KEYS, UserSettings};
pub use kind::Kind;
pub use news::News;
pub use problem::{Problem, Problems, Severity};
pub use reference::{reference, sample};
pub use resolve::{CONSOLE_DATABASES, MAX_DATABASE_NAME, MAX_USER_NAME};
pub use settings::{Effect, Group, Key, SetError, Setting};
pub use snapshot::SnapshotError;
pub use support::{refused, refused_by_rules};
pub use table::{MAX_CLIENTS, Settings, TABLE};
pub use words::Words;

use crate::auth::Secret;
use crate::auth::hba::Access;
use crate::tls::Files;
use build::Built;
use problem::At;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The file it was loaded from.
    pub path: PathBuf,
    /// Counts the configurations that a supervisor has published; 0 as loaded.
    pub generation: u64,
    /// The settings.
    pub settings: Settings,
    /// `[databases]`, without `*`.
    pub databases: BTreeMap<String, Arc<Database>>,
    /// The entry `*`, which serves every name that has none of its own.
    pub fallback: Option<Arc<Database>>,
    /// `[users]`.
    pub users: BTreeMap<String, Arc<UserSettings>>,
    /// The users of auth_file and their secrets.
    pub secrets: BTreeMap<String, Secret>,
    /// The rules of auth_hba_file and the maps of auth_ident_file.
    pub access: Access,
    /// `[peers]`.
    pub peers: BTreeMap<u16, Peer>,
    /// What the files of the `client_tls_*` settings hold.
    pub client_tls: Files,
    /// What the files of the `server_tls_*` settings hold.
    pub server_tls: Files,
}

/// Loads the configuration of `path`: TOML when its name ends in `.toml`, else PgBouncer's syntax. The error holds every problem.
pub fn load(path: &Path) -> Result<Config, Problems> {
    let (config, problems) = read(path);
    config.ok_or(problems)
}

/// Every problem of the configuration of `path`, warnings included.
pub fn check(path: &Path) -> Problems {
    read(path).1
}

/// [`load`] and [`check`] in one: there is a configuration when no problem is an error.
pub fn read(path: &Path) -> (Option<Config>, Problems) {
    let mut problems = Problems::default();
    let document = document(path, &mut problems);
    let mut built = build::build(&document, path, &mut problems);
    support::check(&built, &document, &mut problems);
    let Built { config, places } = &mut built;
    let whole = At::whole(&config.path);
    let place = |setting: &str| places.get(setting).unwrap_or(&whole).clone();
    let secretive = auth_files::read(config, place, &mut problems);
    if let Some((name, message)) = refused_by_rules(config) {
        problems.error(&place(name), name, message);
    }
    tls_files::load(&mut built, &mut problems);
    support::check_permissions(&secretive, &built, &document, &mut problems);
    problems.sort();
    ((!problems.has_errors()).then_some(built.config), problems)
}

/// The configuration of `path` as TOML. What is not supported yet is converted all the same.
pub fn to_toml(path: &Path) -> Result<String, Problems> {
    let mut problems = Problems::default();
    let document = document(path, &mut problems);
    build::build(&document, path, &mut problems);
    problems.sort();
    if problems.has_errors() { Err(problems) } else { Ok(convert::to_toml(&document)) }
}

fn document(path: &Path, problems: &mut Problems) -> document::Document {
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("toml")) {
        native::read(path, problems)
    } else {
        ini::read(path, problems)
    }
}
