//! Reads pgfleet's own TOML into a [`Document`]: `[pgfleet]`, `[databases.NAME]`, `[users.NAME]`, `[peers.N]`.

use super::build::nearest;
use super::document::{Document, Entry, Given, Item};
use super::problem::{At, Problems};
use super::settings::Setting;
use std::path::Path;
use std::sync::Arc;
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};
use zeroize::Zeroizing;

/// The tables that a file may have.
const TABLES: [&str; 5] = ["pgfleet", "pgbouncer", "databases", "users", "peers"];

/// Reads `path`. What it holds that cannot be read is in `problems`.
pub(super) fn read(path: &Path, problems: &mut Problems) -> Document {
    let mut document = Document::default();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(e) => {
            problems.error(&At::whole(path), "", format!("could not load file \"{}\": {e}", path.display()));
            return document;
        }
    };
    let lines = Lines { file: path.into(), text: &text };
    let (tables, errors) = DeTable::parse_recoverable(&text);
    for error in errors {
        let at = error.span().map_or_else(|| At::whole(path), |span| lines.at(span.start));
        problems.error(&at, "", format!("syntax error: {}", error.message().replace('\n', ", ")));
    }
    for (name, value) in tables.get_ref() {
        let at = lines.at(name.span().start);
        let name = name.get_ref().as_ref();
        let DeValue::Table(table) = value.get_ref() else {
            problems.error(&at, name, stray(name));
            continue;
        };
        match name {
            "pgfleet" | "pgbouncer" => document.settings.extend(lines.items(table)),
            "databases" => document.databases = lines.entries(name, table, problems),
            "users" => document.users = lines.entries(name, table, problems),
            "peers" => document.peers = lines.entries(name, table, problems),
            _ => problems.error(&at, name, format!("unknown table [{name}]{}", nearest(name, TABLES.into_iter()))),
        }
    }
    document.has_main = true;
    document.settings.sort_by_key(|item| item.at.line);
    for entries in [&mut document.databases, &mut document.users, &mut document.peers] {
        entries.sort_by_key(|entry| entry.at.line);
    }
    document
}

/// What to say about a value that stands outside the tables.
fn stray(name: &str) -> String {
    if TABLES.contains(&name) {
        format!("must be a table: [{name}]")
    } else if Setting::find(name).is_some() {
        "belongs under [pgfleet]".into()
    } else {
        "value without section: nothing stands outside [pgfleet], [databases.NAME], [users.NAME] and [peers.N]".into()
    }
}

/// Finds the lines of things.
struct Lines<'a> {
    file: Arc<Path>,
    text: &'a str,
}

impl Lines<'_> {
    fn at(&self, offset: usize) -> At {
        let before = self.text.get(..offset).unwrap_or(self.text);
        At { file: Arc::clone(&self.file), line: before.matches('\n').count() as u32 + 1 }
    }

    fn items(&self, table: &DeTable<'_>) -> Vec<Item> {
        let item = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| -> Item {
            let name: &std::borrow::Cow<'_, str> = key.get_ref();
            Item { key: name.to_string(), value: given(value.get_ref()), at: self.at(key.span().start), void: false }
        };
        let mut items: Vec<Item> = table.iter().map(item).collect();
        items.sort_by_key(|item| item.at.line);
        items
    }

    fn entries(&self, kind: &str, table: &DeTable<'_>, problems: &mut Problems) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (name, value) in table {
            let at = self.at(name.span().start);
            let name = name.get_ref().to_string();
            match value.get_ref() {
                DeValue::Table(table) => entries.push(Entry { name, at, items: self.items(table) }),
                _ => problems.error(&at, format!("{kind}.{name}"), format!("must be a table: [{kind}.{name}]")),
            }
        }
        entries
    }
}

fn given(value: &DeValue<'_>) -> Given {
    match value {
        DeValue::String(text) => Given::Quoted(text.to_string()),
        DeValue::Integer(n) => integer(n).map_or(Given::Other("integer out of range"), Given::Integer),
        DeValue::Float(n) => n.as_str().parse().map_or(Given::Other("float"), Given::Float),
        DeValue::Boolean(b) => Given::Bool(*b),
        DeValue::Array(values) => {
            let words: Option<Vec<String>> = values.iter().map(|v| word(v.get_ref())).collect();
            words.map_or(Given::Other("array of something else than words"), Given::List)
        }
        DeValue::Datetime(_) => Given::Other("date"),
        DeValue::Table(_) => Given::Other("table"),
    }
}

fn integer(n: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(n.as_str(), n.radix()).ok()
}

/// A list's element: no blank or comma can be in it, since these separate.
fn word(value: &DeValue<'_>) -> Option<String> {
    value.as_str().filter(|word| !word.is_empty() && !word.contains([',', ' ', '\t', '\n', '\r'])).map(str::to_owned)
}
