//! What a reload changes, in words: a line for each thing, for the log and for whoever asked for the reload. Never a secret.

use super::{Changes, Config, Database, Effect, Kind, Peer, Setting};
use crate::auth::Secret;
use crate::tls;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The most names in one line.
const NAMES: usize = 20;

/// The most entries of one section that have a line of their own.
const ENTRIES: usize = 50;

/// What is different from what was in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// What takes effect.
    pub changed: Vec<String>,
    /// What does not as long as the fleet runs.
    pub needs_restart: Vec<String>,
}

impl Config {
    /// Tells how `new`, as it was read, differs from this configuration, by `changes` from this to it.
    pub fn news(&self, new: &Config, changes: &Changes) -> News {
        let mut news = News::default();
        self.settings_news(new, changes, &mut news);
        let lines = &mut news.changed;
        entries(lines, "databases", &self.named_databases(), &new.named_databases(), |old, new| old.differing(new));
        entries(lines, "users", &self.users, &new.users, |old, new| old.differing(new));
        entries(lines, "peers", &self.named_peers(), &new.named_peers(), |old, new| old.differing(new));
        self.file_news(new, lines);
        if !changes.reconnect_databases.is_empty() {
            let names = changes.reconnect_databases.iter().map(String::as_str).collect();
            lines.push(listed("server connections are replaced as they fall free, of databases", names));
        }
        news
    }

    fn named_databases(&self) -> BTreeMap<String, &Database> {
        self.entries().map(|entry| (entry.name.clone(), entry)).collect()
    }

    fn named_peers(&self) -> BTreeMap<String, &Peer> {
        self.peers.iter().map(|(id, peer)| (id.to_string(), peer)).collect()
    }

    fn settings_news(&self, new: &Config, changes: &Changes, news: &mut News) {
        let works = |name: &&&str| Setting::find(name).is_some_and(|setting| !matches!(setting.effect, Effect::Never(_)));
        for name in changes.changed.iter().filter(works) {
            news.changed.push(if Setting::find(name).is_some_and(|setting| setting.kind == Kind::Secret) {
                format!("{name}: another value")
            } else {
                format!("{name}: {}, was {}", shown(new, name), shown(self, name))
            });
        }
        for name in changes.needs_restart.iter().filter(works) {
            let (is, was) = (shown(new, name), shown(self, name));
            news.needs_restart
                .push(format!("{name}: {is} needs pgfleet to be stopped and started; until then {was} stays in force"));
        }
    }

    /// Files that other settings name.
    fn file_news(&self, new: &Config, lines: &mut Vec<String>) {
        come_and_gone(lines, "auth_file: users", &self.secrets, &new.secrets);
        let differs = |(name, secret): &(&String, &Secret)| new.secrets.get(*name).is_some_and(|new| new != *secret);
        let changed: Vec<&str> = self.secrets.iter().filter(differs).map(|(name, _)| name.as_str()).collect();
        if !changed.is_empty() {
            lines.push(listed("auth_file: users with another secret", changed));
        }
        if !self.access.has_rules_of(&new.access) {
            lines.push("auth_hba_file: the rules are others".to_owned());
        }
        if !self.access.has_maps_of(&new.access) {
            lines.push("auth_ident_file: the maps are others".to_owned());
        }
        for (side, old, new) in [("client", &self.client_tls, &new.client_tls), ("server", &self.server_tls, &new.server_tls)] {
            for (file, of) in TLS_FILES {
                if of(old) != of(new) {
                    lines.push(format!("{side}_tls_{file}: the file is another"));
                }
            }
        }
    }
}

type TlsFile = fn(&tls::Files) -> Option<&tls::Pem>;

/// What the names of the settings end in.
const TLS_FILES: [(&str, TlsFile); 3] = [
    ("ca_file", |files| files.authorities.as_ref()),
    ("cert_file", |files| files.certificate.as_ref()),
    ("key_file", |files| files.key.as_ref()),
];

/// A value on one line.
fn shown(config: &Config, setting: &str) -> String {
    match config.settings.value(setting) {
        None => "(unset)".to_owned(),
        Some(text) if text.is_empty() => "(empty)".to_owned(),
        Some(text) => text.replace(char::is_control, " "),
    }
}

/// A section's entries: those that have come and those that have gone in a line, and one for each whose keys differ.
fn entries<T>(
    lines: &mut Vec<String>,
    section: &str,
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    differing: impl Fn(&T, &T) -> Vec<&'static str>,
) {
    come_and_gone(lines, section, old, new);
    let changed = |(name, was)| Some((name, differing(was, new.get(name)?))).filter(|(_, keys)| !keys.is_empty());
    let changed: Vec<(&String, Vec<&str>)> = old.iter().filter_map(changed).collect();
    for (name, keys) in changed.iter().take(ENTRIES) {
        lines.push(format!("{section}.{name}: changed: {}", keys.join(", ")));
    }
    if let Some((_, more @ [_, ..])) = changed.split_at_checked(ENTRIES) {
        lines.push(format!("{section}: changed besides: {}", more.len()));
    }
}

/// Names that only one of the two has.
fn come_and_gone<T>(lines: &mut Vec<String>, what: &str, old: &BTreeMap<String, T>, new: &BTreeMap<String, T>) {
    for (verb, these, those) in [("added", new, old), ("removed", old, new)] {
        let names: Vec<&str> = these.keys().filter(|name| !those.contains_key(*name)).map(String::as_str).collect();
        if !names.is_empty() {
            lines.push(listed(&format!("{what} {verb}"), names));
        }
    }
}

/// `what: a, b, c`, cut short where there are many.
fn listed(what: &str, mut names: Vec<&str>) -> String {
    let more = names.len().saturating_sub(NAMES);
    names.truncate(NAMES);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{what}: {}{more}", names.join(", "))
}
