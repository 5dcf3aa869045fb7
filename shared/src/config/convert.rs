//! Prints a configuration as TOML: what was set, as it holds, in the order it was written. Comments are not kept.

use super::build::{Keyed, canonical, is_unset};
use super::document::{Document, Entry, Item};
use super::kind::{Kind, parse_int, parse_seconds, print_duration};
use super::settings::Setting;
use super::{Database, Peer, UserSettings, Words};
use std::fmt::Write;

/// The document, which must be without errors, as TOML.
pub(super) fn to_toml(document: &Document) -> String {
    let settings: Vec<&Item> = document.settings.iter().filter(|i| !i.void).collect();
    let mut out = "[pgfleet]\n".to_owned();
    pairs(&mut out, &settings, |name| Setting::find(name).map(|s| s.kind));
    entries::<Database>(&mut out, "databases", &document.databases);
    entries::<UserSettings>(&mut out, "users", &document.users);
    entries::<Peer>(&mut out, "peers", &document.peers);
    out
}

fn entries<T: Keyed>(out: &mut String, table: &str, entries: &[Entry]) {
    for (n, entry) in entries.iter().enumerate() {
        if entries[n + 1..].iter().any(|later| later.name == entry.name) {
            continue;
        }
        let _ = writeln!(out, "\n[{table}.{}]", key(&entry.name)); // writing to a String does not fail, here and below
        pairs(out, &entry.items.iter().collect::<Vec<_>>(), |name| T::KEYS.iter().find(|k| k.name == name).map(|k| k.kind));
    }
}

fn pairs(out: &mut String, items: &[&Item], kind: impl Fn(&str) -> Option<Kind>) {
    for (n, item) in items.iter().enumerate() {
        let name = canonical(&item.key);
        let repeated = items[n + 1..].iter().any(|later| canonical(&later.key) == name);
        let Some(kind) = kind(name) else { continue };
        if repeated || is_unset(&item.value, &kind) {
            continue;
        }
        if let Some(value) = item.value.text(&kind).ok().and_then(|text| value(&kind, &text)) {
            let _ = writeln!(out, "{name} = {value}");
        }
    }
}

/// A value in PgBouncer's text form as TOML has it; `None` when it is not of its kind.
pub(super) fn value(kind: &Kind, text: &str) -> Option<String> {
    Some(match kind {
        Kind::Switch => (parse_int(text)? != 0).to_string(),
        Kind::Int { .. } => parse_int(text)?.to_string(),
        Kind::Mode => format!("0o{:03o}", parse_int(text)?),
        Kind::Seconds => quoted(&print_duration(parse_seconds(text)?)),
        Kind::Choice(words) => quoted(words.iter().find(|w| w.eq_ignore_ascii_case(text))?),
        Kind::Words => {
            let words: Vec<String> = Words::parse(text).iter().map(|w| quoted(w)).collect();
            format!("[{}]", words.join(", "))
        }
        Kind::Text | Kind::Secret => quoted(text),
    })
}

fn key(name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { name.to_owned() } else { quoted(name) }
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
