//! What is wrong with a configuration: every finding with its place, errors and warnings together.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At {
    /// The file.
    pub(super) file: Arc<Path>,
    /// The line, from 1; 0 for the file as a whole.
    pub(super) line: u32,
}

impl At {
    /// The file as a whole.
    pub(super) fn whole(file: &Path) -> Self {
        Self { file: file.into(), line: 0 }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration is not used.
    Error,
    /// It is used; the user should know.
    Warning,
}

/// One finding. Displays as `FILE:LINE: setting: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file it is in.
    pub file: PathBuf,
    /// The line, from 1; `None` for the file as a whole.
    pub line: Option<u32>,
    /// The setting, or `databases.NAME.KEY` and the like; empty when it is about none.
    pub setting: String,
    /// What is wrong.
    pub message: String,
    /// How bad it is.
    pub severity: Severity,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if !self.setting.is_empty() {
            write!(f, " {}:", self.setting)?;
        }
        write!(f, " {}", self.message)
    }
}

/// All findings, in the order of the files. Displays one a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Whether the configuration cannot be used.
    pub fn has_errors(&self) -> bool {
        self.errors().next().is_some()
    }

    /// The errors.
    pub fn errors(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter().filter(|p| p.severity == Severity::Error)
    }

    /// The warnings.
    pub fn warnings(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter().filter(|p| p.severity == Severity::Warning)
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn error(&mut self, at: &At, setting: impl Into<String>, message: impl Into<String>) {
        self.add(Severity::Error, at, setting.into(), message.into());
    }

    pub(super) fn warn(&mut self, at: &At, setting: impl Into<String>, message: impl Into<String>) {
        self.add(Severity::Warning, at, setting.into(), message.into());
    }

    fn add(&mut self, severity: Severity, at: &At, setting: String, message: String) {
        let line = (at.line > 0).then_some(at.line);
        self.0.push(Problem { file: at.file.to_path_buf(), line, setting, message, severity });
    }

    /// Puts the findings of each file in the order of its lines; files stay in the order in which they were first mentioned.
    pub(super) fn sort(&mut self) {
        let mut files: Vec<PathBuf> = Vec::new();
        for problem in &self.0 {
            if !files.contains(&problem.file) {
                files.push(problem.file.clone());
            }
        }
        self.0.sort_by_key(|p| (files.iter().position(|f| *f == p.file), p.line));
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
