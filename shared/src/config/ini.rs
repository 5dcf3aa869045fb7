//! Reads PgBouncer's configuration file, `%include` and all, into a [`Document`].
//!
//! The grammar is PgBouncer's: `;` and `#` begin a comment only at the start of a line, values run to the end of the line and know no quoting,
//! keys are bare words or in single quotes. Where PgBouncer stops at the first error, reading goes on with the next line.

use super::build::nearest;
use super::connstr;
use super::document::{Document, Entry, Given, Item};
use super::problem::{At, Problems};
use super::settings::Setting;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// How deep files may include files.
const MAX_DEPTH: usize = 10;

#[derive(Clone, Copy, PartialEq)]
enum Section {
    Main,
    Databases,
    Users,
    Peers,
    /// Its header was an error already.
    Unknown,
}

const SECTIONS: [(&str, Section); 5] = [
    ("pgbouncer", Section::Main),
    ("pgfleet", Section::Main),
    ("databases", Section::Databases),
    ("users", Section::Users),
    ("peers", Section::Peers),
];

/// Reads `path`. What it holds that cannot be read is in `problems`.
pub(super) fn read(path: &Path, problems: &mut Problems) -> Document {
    let mut reader = Reader { document: Document::default(), section: None, problems };
    let at = At::whole(path);
    if reader.file(path, &at, 0) && !reader.document.has_main {
        reader.problems.error(&at, "", "main section missing from config file: there is no [pgbouncer]");
    }
    reader.document
}

/// The file of that name as the process sees it, else beside the file that names it.
pub(super) fn locate(name: &str, named_in: &Path) -> PathBuf {
    let path = PathBuf::from(name);
    match named_in.parent().map(|folder| folder.join(name)) {
        Some(beside) if !path.exists() && beside.exists() => beside,
        _ => path,
    }
}

struct Reader<'a> {
    document: Document,
    section: Option<Section>,
    problems: &'a mut Problems,
}

impl Reader<'_> {
    /// Reads one file that `from` asked for; false when it cannot be opened.
    fn file(&mut self, path: &Path, from: &At, depth: usize) -> bool {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => Zeroizing::new(text),
            Err(e) => {
                self.problems.error(from, "", format!("could not load file \"{}\": {e}", path.display()));
                return false;
            }
        };
        let file: Arc<Path> = path.into();
        for (number, line) in text.lines().enumerate() {
            let at = At { file: Arc::clone(&file), line: number as u32 + 1 };
            if let Err(message) = self.line(line, &at, depth) {
                self.problems.error(&at, "", message);
            }
        }
        true
    }

    fn line(&mut self, line: &str, at: &At, depth: usize) -> Result<(), String> {
        let mut rest = line.trim_matches(is_blank);
        while let Some(header) = rest.strip_prefix('[') {
            let (name, behind) = header.split_once(']').ok_or("syntax error in configuration: section name without \"]\"")?;
            self.header(name, at);
            rest = behind.trim_start_matches(is_blank);
        }
        if rest.is_empty() || rest.starts_with([';', '#']) {
            return Ok(());
        }
        if let Some(include) = rest.strip_prefix("%include") {
            return self.include(include, at, depth);
        }
        let (key, behind) = key(rest)?;
        let value = behind
            .trim_start_matches([' ', '\t'])
            .strip_prefix('=')
            .ok_or("syntax error in configuration: no \"=\" behind the name")?;
        self.value(key, value.trim_start_matches([' ', '\t']), at);
        Ok(())
    }

    fn header(&mut self, name: &str, at: &At) {
        let section = SECTIONS.iter().find(|(known, _)| *known == name).map(|(_, section)| *section);
        if section.is_none() {
            let hint = nearest(name, SECTIONS.iter().map(|(known, _)| *known));
            self.problems.error(at, "", format!("invalid section \"{name}\" in configuration{hint}"));
        }
        if section == Some(Section::Main) {
            self.reset_to_defaults(at);
            self.document.has_main = true;
        }
        self.section = Some(section.unwrap_or(Section::Unknown));
    }

    /// PgBouncer puts every setting that has a default back to it when it meets a `[pgbouncer]` header.
    fn reset_to_defaults(&mut self, at: &At) {
        let reset = |item: &&mut Item| Setting::find(&item.key).is_some_and(|s| s.default.is_some()) && !item.void;
        let items: Vec<&mut Item> = self.document.settings.iter_mut().filter(reset).collect();
        if !items.is_empty() {
            let names: Vec<&str> = items.iter().map(|i| i.key.as_str()).collect();
            let message = format!("another [pgbouncer] section puts what was set before back to its default: {}", names.join(", "));
            self.problems.warn(at, "", message);
        }
        for item in items {
            item.void = true;
        }
    }

    fn include(&mut self, rest: &str, at: &At, depth: usize) -> Result<(), String> {
        let name = rest.trim_matches(is_blank);
        if name.is_empty() || !rest.starts_with(is_blank) {
            return Err("syntax error in configuration: %include without a file name".into());
        }
        if depth + 1 >= MAX_DEPTH {
            return Err("include nesting level too deep".into());
        }
        self.file(&locate(name, &at.file), at, depth + 1);
        Ok(())
    }

    fn value(&mut self, key: &str, value: &str, at: &At) {
        let item = |key: String, value: String| Item { key, value: Given::Plain(value), at: at.clone(), void: false };
        let (entries, table) = match self.section {
            None => return self.problems.error(at, key, "value without section"),
            Some(Section::Unknown) => return,
            Some(Section::Main) => return self.document.settings.push(item(key.to_owned(), value.to_owned())),
            Some(Section::Databases) => (&mut self.document.databases, "databases"),
            Some(Section::Users) => (&mut self.document.users, "users"),
            Some(Section::Peers) => (&mut self.document.peers, "peers"),
        };
        match connstr::parse(value) {
            Ok(pairs) => {
                let items = pairs.into_iter().map(|(key, mut value)| item(key, std::mem::take(&mut *value))).collect();
                entries.push(Entry { name: key.to_owned(), at: at.clone(), items });
            }
            Err(message) => self.problems.error(at, format!("{table}.{key}"), message),
        }
    }
}

/// What C's `isspace` takes for a blank.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\x0b' | '\x0c')
}

/// Reads a bare or single-quoted key; gives it and what is behind.
fn key(line: &str) -> Result<(&str, &str), &'static str> {
    if let Some(quoted) = line.strip_prefix('\'') {
        return quoted.split_once('\'').ok_or("syntax error in configuration: quoted name not closed");
    }
    let end = line.find(|c: char| !c.is_ascii_alphanumeric() && !"_.*-".contains(c)).unwrap_or(line.len());
    match end {
        0 if line.starts_with('"') => Err("syntax error in configuration: names are quoted with single quotes"),
        0 => Err("syntax error in configuration"),
        _ => Ok(line.split_at(end)),
    }
}
