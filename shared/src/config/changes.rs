//! What a reload changes: compares the running configuration with a new one.

use super::{CONSOLE_DATABASES, Config, Database};
use crate::auth::Secret;
use std::collections::{BTreeSet, HashSet};

/// The difference between two configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Settings that take a new value.
    pub changed: Vec<&'static str>,
    /// Settings with another value that only a restart applies.
    pub needs_restart: Vec<&'static str>,
    /// Entries that are gone (`*`: the fallback entry); their clients are disconnected.
    pub dropped_databases: Vec<String>,
    /// Entries whose server connections must be opened anew: they lead elsewhere, or as someone else. `*` stands for every database
    /// derived from the fallback entry.
    pub reconnect_databases: Vec<String>,
    /// Entries that are new.
    pub added_databases: Vec<String>,
    /// Secrets of users that are nobody's any more.
    pub outdated_secrets: Vec<Secret>,
    /// Whether the rules of auth_hba_file, or the maps they refer to, say something else.
    pub access: bool,
}

impl Config {
    /// What would change if `new` replaced this configuration.
    pub fn changes(&self, new: &Config) -> Changes {
        let (reloadable, fixed): (Vec<_>, Vec<_>) = self.settings.differing(&new.settings).into_iter().partition(|s| s.reloadable);
        let of_logins =
            |name: &str| name.starts_with("server_tls") || ["server_channel_binding", "server_require_auth"].contains(&name);
        let logins = reloadable.iter().any(|s| of_logins(s.name)) || self.server_tls != new.server_tls;
        let mut changes = Changes {
            changed: reloadable.iter().map(|s| s.name).collect(),
            needs_restart: fixed.iter().map(|s| s.name).collect(),
            outdated_secrets: self.outdated_secrets(new),
            access: self.access != new.access,
            ..Changes::default()
        };
        let names: BTreeSet<&str> = self.entries().chain(new.entries()).map(|d| d.name.as_str()).collect();
        for name in names {
            let list = match (self.entry(name), new.entry(name)) {
                (Some(_), None) => &mut changes.dropped_databases,
                (None, Some(_)) => &mut changes.added_databases,
                (Some(old), Some(new)) if logins || leads_elsewhere(old, new) => &mut changes.reconnect_databases,
                _ => continue,
            };
            list.push(name.to_owned());
        }
        changes
    }

    /// Takes over from the running configuration what only a restart can change.
    pub fn keep_unchangeable(&mut self, running: &Config) {
        self.settings.keep_unchangeable(&running.settings);
    }

    fn outdated_secrets(&self, new: &Config) -> Vec<Secret> {
        let kept: HashSet<&Secret> = new.secrets.values().collect();
        self.secrets.values().filter(|secret| !kept.contains(secret)).cloned().collect()
    }

    /// Every entry, the fallback included.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Database> {
        self.databases.values().chain(&self.fallback).map(AsRef::as_ref)
    }

    fn entry(&self, name: &str) -> Option<&Database> {
        debug_assert!(!CONSOLE_DATABASES.contains(&name));
        if name == "*" { self.fallback.as_deref() } else { self.databases.get(name).map(AsRef::as_ref) }
    }
}

/// Whether connections opened by the old entry are wrong for the new one.
fn leads_elsewhere(old: &Database, new: &Database) -> bool {
    old.dbname != new.dbname
        || old.host != new.host
        || old.port != new.port
        || old.user != new.user
        || old.connect_query != new.connect_query
        || old.auth_dbname != new.auth_dbname
        || old.auth_query != new.auth_query
        || old.load_balance_hosts != new.load_balance_hosts
        || old.sslnegotiation != new.sslnegotiation
        || old.channel_binding != new.channel_binding
        || old.require_auth != new.require_auth
        || old.client_encoding != new.client_encoding
        || old.datestyle != new.datestyle
        || old.timezone != new.timezone
        || old.application_name != new.application_name
}
