//! A configuration file as it was written: names and values with their places, before anything is known about them.
//!
//! Both readers (`ini`, `native`) produce one, and both what is loaded and what `pgfleet convert` prints are made from it.

use super::kind::{Kind, parse_duration};
use super::problem::At;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// The contents of a configuration, in the order of the files.
#[derive(Default)]
pub(super) struct Document {
    /// Whether there was a main section.
    pub(super) has_main: bool,
    /// The main section.
    pub(super) settings: Vec<Item>,
    /// `[databases]`.
    pub(super) databases: Vec<Entry>,
    /// `[users]`.
    pub(super) users: Vec<Entry>,
    /// `[peers]`.
    pub(super) peers: Vec<Entry>,
}

/// A named group of values.
pub(super) struct Entry {
    /// Its name.
    pub(super) name: String,
    /// Where it begins.
    pub(super) at: At,
    /// Its values.
    pub(super) items: Vec<Item>,
}

/// One value.
pub(super) struct Item {
    /// Its key.
    pub(super) key: String,
    /// What it was given.
    pub(super) value: Given,
    /// Where.
    pub(super) at: At,
    /// Whether a later `[pgbouncer]` header has put it back to its default.
    pub(super) void: bool,
}

/// A value as it was written. It may be a password.
#[derive(PartialEq, Zeroize, ZeroizeOnDrop)]
pub(super) enum Given {
    /// In PgBouncer's syntax: everything is text.
    Plain(String),
    /// A TOML string.
    Quoted(String),
    /// A TOML integer.
    Integer(i64),
    /// A TOML float.
    Float(f64),
    /// A TOML boolean.
    Bool(bool),
    /// A TOML array of strings.
    List(Vec<String>),
    /// A TOML value that no setting takes.
    Other(#[zeroize(skip)] &'static str),
}

impl Given {
    /// The value in PgBouncer's text form, if a setting of this kind takes such a value. The error is what it must be.
    pub(super) fn text(&self, kind: &Kind) -> Result<Zeroizing<String>, String> {
        let textual = matches!(kind, Kind::Text | Kind::Secret | Kind::Choice(_) | Kind::Words);
        let text = match (self, kind) {
            (Self::Quoted(text), Kind::Seconds) => {
                let time = parse_duration(text).ok_or(r#"a number of seconds, or a time such as "10s", "5min" or "100ms""#)?;
                format!("{}.{:06}", time.as_secs(), time.subsec_micros())
            }
            (Self::Plain(text) | Self::Quoted(text), _) => text.clone(),
            (Self::Integer(n), Kind::Switch) if !(0..=1).contains(n) => return Err(native(kind)),
            (Self::Integer(n), _) if !textual => n.to_string(),
            (Self::Float(n), Kind::Seconds) => n.to_string(),
            (Self::Bool(b), Kind::Switch) => u8::from(*b).to_string(),
            (Self::List(words), Kind::Words) => words.join(", "),
            _ => return Err(native(kind)),
        };
        Ok(Zeroizing::new(text))
    }

    /// The value for an error message.
    pub(super) fn display(&self) -> Zeroizing<String> {
        Zeroizing::new(match self {
            Self::Plain(text) | Self::Quoted(text) => format!("\"{text}\""),
            Self::Integer(n) => n.to_string(),
            Self::Float(n) => n.to_string(),
            Self::Bool(b) => b.to_string(),
            Self::List(words) => format!("{words:?}"),
            Self::Other(name) => format!("({name})"),
        })
    }
}

/// What a value must be in TOML.
fn native(kind: &Kind) -> String {
    match kind {
        Kind::Switch => "true or false".into(),
        Kind::Text | Kind::Secret => "a string".into(),
        Kind::Words => "an array of strings".into(),
        other => other.describe(),
    }
}
