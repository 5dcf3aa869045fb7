//! Turns a [`Document`] into a [`Config`]: every name must be known, every value of its kind and within bounds.

use super::document::{Document, Entry, Given, Item};
use super::kind::Kind;
use super::problem::{At, Problems};
use super::resolve::{CONSOLE_DATABASES, MAX_DATABASE_NAME, MAX_USER_NAME};
use super::settings::{Effect, Key, SetError, Setting};
use super::{Config, Database, Peer, Settings, TABLE, UserSettings};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// An entry whose keys are a table's.
pub(super) trait Keyed {
    /// The table.
    const KEYS: &'static [Key];

    /// Gives one key a value in PgBouncer's text form.
    fn set(&mut self, name: &str, text: &str) -> Result<(), SetError>;
}

/// A configuration, and where its settings were set.
pub(super) struct Built {
    pub(super) config: Config,
    pub(super) places: BTreeMap<&'static str, At>,
}

impl Built {
    /// Where a setting was set; the whole file when it was not.
    pub(super) fn place(&self, setting: &str) -> At {
        self.places.get(setting).cloned().unwrap_or_else(|| At::whole(&self.config.path))
    }
}

/// Builds the configuration that `document`, read from `path`, describes.
pub(super) fn build(document: &Document, path: &Path, problems: &mut Problems) -> Built {
    let mut config = Config { path: path.to_owned(), ..Config::default() };
    let places = settings(&mut config.settings, &document.settings, problems);
    config.settings.conffile.get_or_insert_with(|| path.display().to_string());
    for entry in &document.databases {
        database(&mut config, entry, problems);
    }
    for entry in &document.users {
        let place = format!("users.{}", entry.name);
        if entry.name.len() > MAX_USER_NAME {
            problems.error(&entry.at, &place, "username too long");
        }
        let user = fill(UserSettings::new(entry.name.clone()), entry, &place, "unrecognized user parameter", problems);
        if config.users.insert(entry.name.clone(), Arc::new(user)).is_some() {
            problems.warn(&entry.at, place, REPEATED);
        }
    }
    for entry in &document.peers {
        peer(&mut config, entry, problems);
    }
    Built { config, places }
}

const REPEATED: &str = "stands here again; what stood before does not count";

fn settings(settings: &mut Settings, items: &[Item], problems: &mut Problems) -> BTreeMap<&'static str, At> {
    let mut places = BTreeMap::new();
    for item in items {
        let Some(setting) = Setting::find(&item.key) else {
            problems.error(&item.at, &item.key, unknown_setting(&item.key));
            continue;
        };
        let mut scratch = Settings::default();
        let target = if item.void { &mut scratch } else { &mut *settings };
        assign(item, &setting.kind, setting.name, |text| target.set(setting.name, text), problems);
        if !item.void {
            note_effect(setting.effect, &item.at, setting.name, problems);
            if places.insert(setting.name, item.at.clone()).is_some() {
                problems.warn(&item.at, setting.name, REPEATED);
            }
        }
    }
    places
}

fn unknown_setting(name: &str) -> String {
    let entry_key = |table: &[Key]| table.iter().any(|k| k.name == name);
    let hint = if entry_key(Database::KEYS) && nearest_name(name, TABLE.iter().map(|s| s.name), 1).is_none() {
        "; it is a key of a database entry".to_owned()
    } else {
        nearest(name, TABLE.iter().map(|s| s.name))
    };
    format!("unknown parameter: pgbouncer/{name}{hint}")
}

fn database(config: &mut Config, entry: &Entry, problems: &mut Problems) {
    let name = entry.name.as_str();
    let place = format!("databases.{name}");
    if name.is_empty() || name.len() > MAX_DATABASE_NAME {
        problems.error(&entry.at, &place, format!("too long db name, or none: a name has 1 to {MAX_DATABASE_NAME} bytes"));
    }
    if CONSOLE_DATABASES.contains(&name) {
        problems.error(&entry.at, &place, format!("database name \"{name}\" is reserved: it is the console's"));
        return;
    }
    let database = Arc::new(fill(Database::new(name.to_owned()), entry, &place, "unrecognized connection parameter", problems));
    let before = if name == "*" { config.fallback.replace(database) } else { config.databases.insert(name.to_owned(), database) };
    if before.is_some() {
        problems.warn(&entry.at, place, REPEATED);
    }
}

fn peer(config: &mut Config, entry: &Entry, problems: &mut Problems) {
    let place = format!("peers.{}", entry.name);
    let Some(id) = entry.name.parse::<u16>().ok().filter(|id| *id > 0) else {
        problems.error(&entry.at, place, "ids of peers must be a number larger than 0 and at most 65535");
        return;
    };
    let peer = fill(Peer::new(id), entry, &place, "unrecognized peer parameter", problems);
    if peer.host.is_none() {
        problems.error(&entry.at, &place, format!("host was not provided for peer {id}"));
    }
    if config.peers.insert(id, peer).is_some() {
        problems.warn(&entry.at, place, REPEATED);
    }
}

/// The key's name in the table: PgBouncer knows one of them by two.
pub(super) fn canonical(key: &str) -> &str {
    if key == "reserve_pool" { "reserve_pool_size" } else { key }
}

/// Whether the value leaves the key unset: PgBouncer's -1 in entries.
pub(super) fn is_unset(value: &Given, kind: &Kind) -> bool {
    let minus_one = match value {
        Given::Plain(text) | Given::Quoted(text) => text == "-1",
        Given::Integer(n) => *n == -1,
        _ => false,
    };
    minus_one && matches!(kind, Kind::Int { .. } | Kind::Seconds)
}

fn fill<T: Keyed>(mut target: T, entry: &Entry, place: &str, unknown: &str, problems: &mut Problems) -> T {
    for item in &entry.items {
        let place = format!("{place}.{}", item.key);
        let Some(key) = T::KEYS.iter().find(|k| k.name == canonical(&item.key)) else {
            let hint = nearest(&item.key, T::KEYS.iter().map(|k| k.name));
            problems.error(&item.at, place, format!("{unknown}: {}{hint}", item.key));
            continue;
        };
        note_effect(key.effect, &item.at, &place, problems);
        if is_unset(&item.value, &key.kind) && key.default.is_none() {
            continue;
        }
        if matches!(&item.value, Given::Quoted(text) if text.is_empty()) {
            problems.error(&item.at, place, "must not be empty: leave it out");
            continue;
        }
        assign(item, &key.kind, &place, |text| target.set(key.name, text), problems);
    }
    target
}

/// Reads one value and hands it on.
fn assign(item: &Item, kind: &Kind, place: &str, set: impl FnOnce(&str) -> Result<(), SetError>, problems: &mut Problems) {
    let outcome = item.value.text(kind).map_err(SetError::Invalid).and_then(|text| set(&text));
    if let Err(error) = outcome {
        problems.error(&item.at, place, format!("invalid value {}: {error}", kind.shown(&item.value.display())));
    }
}

fn note_effect(effect: Effect, at: &At, place: &str, problems: &mut Problems) {
    match effect {
        Effect::Works => {}
        Effect::NotYet => problems.warn(at, place, "has no effect yet"),
        Effect::Never(why) => problems.warn(at, place, format!("has no effect: {why}")),
    }
}

/// `; did you mean NAME?` when a known name is near, else nothing.
pub(super) fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> String {
    nearest_name(name, known, 2.max(name.len() / 3)).map_or_else(String::new, |near| format!("; did you mean {near}?"))
}

fn nearest_name(name: &str, known: impl Iterator<Item = &'static str>, within: usize) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    known.map(|k| (strsim::damerau_levenshtein(&name, k), k)).filter(|(distance, _)| *distance <= within).min().map(|(_, k)| k)
}
