//! Files in the syntax of `pg_hba.conf`: lines, continued by a backslash, and what they include.

use super::token::{self, Field, Token};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How deep files may include files, as in PostgreSQL.
const MAX_DEPTH: usize = 10;

/// How many files may be read in all: each may include others, and these again.
const MAX_FILES: usize = 1000;

/// The settings that name the two files.
pub(super) const HBA: &str = "auth_hba_file";
pub(super) const IDENT: &str = "auth_ident_file";

/// How files are read. The rules themselves open nothing.
pub trait Files {
    /// A file's text.
    fn read(&mut self, path: &Path) -> io::Result<String>;

    /// The files in a folder.
    fn list(&mut self, folder: &Path) -> io::Result<Vec<PathBuf>>;
}

/// Those of the system.
pub struct System;

impl Files for System {
    fn read(&mut self, path: &Path) -> io::Result<String> {
        std::fs::read_to_string(path)
    }

    fn list(&mut self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if !path.is_dir() {
                files.push(path);
            }
        }
        Ok(files)
    }
}

/// Something that is to be said about a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The setting that named the files.
    pub setting: &'static str,
    /// The file.
    pub file: Arc<Path>,
    /// The line, from 1; 0 for the file as a whole.
    pub line: u32,
    /// What.
    pub message: String,
    /// Whether the files cannot be used.
    pub is_error: bool,
}

/// A place in a file.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) file: Arc<Path>,
    pub(super) line: u32,
}

/// A line that is neither empty nor an include.
pub(super) struct Record {
    pub(super) place: Place,
    pub(super) fields: Vec<Field>,
    /// Without its comment.
    pub(super) text: String,
}

/// Reads files, and collects what is wrong with them.
pub(super) struct Reader<'a> {
    files: &'a mut dyn Files,
    setting: &'static str,
    opened: usize,
    pub(super) findings: Vec<Finding>,
}

impl<'a> Reader<'a> {
    /// For the files of this setting.
    pub(super) fn new(files: &'a mut dyn Files, setting: &'static str) -> Self {
        Self { files, setting, opened: 0, findings: Vec::new() }
    }

    /// The records of a file and of all that it includes, in order.
    pub(super) fn records(&mut self, path: &Path) -> Vec<Record> {
        let mut records = Vec::new();
        match self.open(path) {
            Ok(text) => self.file(path, &text, 0, &mut records),
            Err(error) => self.error(&Place { file: path.into(), line: 0 }, &could_not_open(path, &error)),
        }
        records
    }

    pub(super) fn error(&mut self, place: &Place, message: &str) {
        self.say(place, message, true);
    }

    pub(super) fn warn(&mut self, place: &Place, message: &str) {
        self.say(place, message, false);
    }

    fn say(&mut self, place: &Place, message: &str, is_error: bool) {
        let message = match place.line {
            0 => message.to_owned(),
            line => format!("{} line {line}: {message}", if self.setting == HBA { "hba" } else { "ident" }),
        };
        self.findings.push(Finding { setting: self.setting, file: Arc::clone(&place.file), line: place.line, message, is_error });
    }

    fn open(&mut self, path: &Path) -> io::Result<String> {
        if self.opened >= MAX_FILES {
            return Err(io::Error::other("too many files are included"));
        }
        self.opened += 1;
        self.files.read(path)
    }

    fn file(&mut self, path: &Path, text: &str, depth: usize, records: &mut Vec<Record>) {
        let file: Arc<Path> = path.into();
        for (line, text) in logical_lines(text) {
            let place = Place { file: Arc::clone(&file), line };
            match token::fields(&text) {
                Ok((fields, length)) => match fields.first().and_then(Field::single) {
                    None if fields.is_empty() => {}
                    Some(word) if INCLUDES.iter().any(|include| word.is(include)) => self.include(&place, &fields, depth, records),
                    _ => records.push(Record { place, fields, text: text[..length].to_owned() }),
                },
                Err(message) => self.error(&place, message),
            }
        }
    }

    fn include(&mut self, place: &Place, fields: &[Field], depth: usize, records: &mut Vec<Record>) {
        let [how, name] = fields else { return self.error(place, "an include takes one name") };
        let (Some(how), Some(name)) = (how.single(), name.single().filter(|name| !name.text.is_empty())) else {
            return self.error(place, "an include takes one name");
        };
        if depth + 1 >= MAX_DEPTH {
            return self.error(place, "include nesting level too deep");
        }
        let path = beside(place, &name.text);
        let paths = if how.is("include_dir") {
            match self.files.list(&path) {
                Ok(paths) => configuration_files(paths),
                Err(error) => return self.error(place, &format!("could not open directory \"{}\": {error}", path.display())),
            }
        } else {
            vec![path]
        };
        for path in paths {
            match self.open(&path) {
                Ok(text) => self.file(&path, &text, depth + 1, records),
                Err(error) if how.is("include_if_exists") && error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.error(place, &could_not_open(&path, &error)),
            }
        }
    }

    /// The words of a field, those of `@file` in its place.
    pub(super) fn expand(&mut self, place: &Place, tokens: &[Token]) -> Result<Vec<Token>, String> {
        let mut words = Vec::new();
        self.expand_into(place, tokens, 0, &mut words)?;
        Ok(words)
    }

    fn expand_into(&mut self, place: &Place, tokens: &[Token], depth: usize, words: &mut Vec<Token>) -> Result<(), String> {
        for token in tokens {
            let Some(name) = token.marked('@') else {
                words.push(token.clone());
                continue;
            };
            if depth >= MAX_DEPTH {
                return Err("include nesting level too deep".to_owned());
            }
            let path = beside(place, name);
            let text = self.open(&path).map_err(|error| could_not_open(&path, &error))?;
            let file: Arc<Path> = path.as_path().into();
            for (line, text) in logical_lines(&text) {
                let here = Place { file: Arc::clone(&file), line };
                let (fields, _) = token::fields(&text).map_err(|error| format!("{}:{line}: {error}", path.display()))?;
                for field in fields {
                    self.expand_into(&here, &field.tokens, depth + 1, words)?;
                }
            }
        }
        Ok(())
    }
}

const INCLUDES: [&str; 3] = ["include", "include_if_exists", "include_dir"];

fn could_not_open(path: &Path, error: &io::Error) -> String {
    format!("could not open file \"{}\": {error}", path.display())
}

/// A name in a file is relative to the file's folder.
fn beside(place: &Place, name: &str) -> PathBuf {
    place.file.parent().map_or_else(|| PathBuf::from(name), |folder| folder.join(name))
}

/// Those of a folder that PostgreSQL's include_dir takes, in its order.
fn configuration_files(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let name = |path: &Path| path.file_name().map(|name| name.as_encoded_bytes().to_vec()).unwrap_or_default();
    let mut paths: Vec<PathBuf> = paths
        .into_iter()
        .filter(|path| {
            let name = name(path);
            name.len() > b".conf".len() && !name.starts_with(b".") && name.ends_with(b".conf")
        })
        .collect();
    paths.sort_by_key(|path| name(path));
    paths
}

/// Lines with their numbers; one that ends with a backslash goes on in the next.
fn logical_lines(text: &str) -> Vec<(u32, String)> {
    let mut lines: Vec<(u32, String)> = Vec::new();
    let mut goes_on = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_end_matches('\r');
        let (part, more) = line.strip_suffix('\\').map_or((line, false), |part| (part, true));
        match lines.last_mut() {
            Some((_, whole)) if goes_on => whole.push_str(part),
            _ => lines.push((number as u32 + 1, part.to_owned())),
        }
        goes_on = more;
    }
    lines
}
