//! What a console user types, taken apart as PgBouncer does it: a command word and perhaps an argument, or SET.
//!
//! ```text
//! cmd    := WS* WORD (WS+ WORD)? WS* (";" WS*)?
//! ours   := WS* ("drain" | "restart") (WS+ WORD)* WS* (";" WS*)?
//! upgrade := WS* "upgrade" (WS+ STRING)? WS* (";" WS*)?
//! set    := WS* "set" WS+ (("session" | "local") WS+)? WORD WS* ("=" | "to") WS* (STRING | WORD) WS* (";" WS*)?
//! WORD   := [0-9A-Za-z_]+  |  "…" with "" for a quote
//! STRING := '…' with '' for a quote
//! ```
//!
//! SET NAMES and SET TIME ZONE, which drivers send, are understood as what they stand for.

/// A command, taken apart; what it means is [`super::commands`]'s matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// A word, in lower case unless it was quoted, and its argument as it was written.
    Plain {
        /// `show`, `pause`, …
        word: String,
        /// A database, an item of SHOW, a client's number.
        argument: Option<String>,
    },
    /// DRAIN (ours), with its options as they were written.
    Drain(Vec<String>),
    /// RESTART (ours), with its options as they were written.
    Restart(Vec<String>),
    /// UPGRADE (ours), perhaps with the path of a binary.
    Upgrade(Option<String>),
    /// SET.
    Set {
        /// The setting as it was written.
        key: String,
        /// Its value.
        value: String,
    },
}

/// Why a text is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bad {
    /// Not of the form above.
    Syntax,
    /// A word longer than any that could be meant.
    Arguments,
}

const LONGEST_WORD: usize = 15;
const LONGEST_ARGUMENT: usize = 63;
const LONGEST_VALUE: usize = 255;
const LONGEST_PATH: usize = 4095;

/// Takes one Query text apart.
pub(crate) fn parse(text: &str) -> Result<Command, Bad> {
    let mut rest = Rest(text.trim_start_matches(is_blank));
    let word = rest.word().ok_or(Bad::Syntax)?;
    let command = if word.eq_ignore_ascii_case("set") {
        rest.set()?
    } else if word.eq_ignore_ascii_case("drain") {
        Command::Drain(rest.words()?)
    } else if word.eq_ignore_ascii_case("restart") {
        Command::Restart(rest.words()?)
    } else if word.eq_ignore_ascii_case("upgrade") {
        let path = if rest.blank() { rest.quoted('\'') } else { None };
        Command::Upgrade(path.map(|path| limited(path, LONGEST_PATH)).transpose()?)
    } else {
        let argument = if rest.blank() { rest.word() } else { None };
        let word = limited(word, LONGEST_WORD)?.to_ascii_lowercase();
        let argument = argument.map(|argument| limited(argument, LONGEST_ARGUMENT)).transpose()?;
        Command::Plain { word, argument }
    };
    rest.end().then_some(command).ok_or(Bad::Syntax)
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

fn limited(word: String, longest: usize) -> Result<String, Bad> {
    if word.len() > longest { Err(Bad::Arguments) } else { Ok(word) }
}

/// What has not been taken yet.
struct Rest<'a>(&'a str);

impl Rest<'_> {
    /// Skips blanks; whether there were any.
    fn blank(&mut self) -> bool {
        let before = self.0.len();
        self.0 = self.0.trim_start_matches(is_blank);
        self.0.len() < before
    }

    fn word(&mut self) -> Option<String> {
        if self.0.starts_with('"') {
            return self.quoted('"');
        }
        let end = self.0.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        (!word.is_empty()).then(|| word.to_owned())
    }

    /// Text between two `quote`s, with a doubled one for one; never empty.
    fn quoted(&mut self, quote: char) -> Option<String> {
        let mut text = String::new();
        let mut chars = self.0.strip_prefix(quote)?.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            if c != quote {
                text.push(c);
            } else if chars.next_if(|&(_, next)| next == quote).is_some() {
                text.push(quote);
            } else {
                self.0 = &self.0[1 + at + 1..];
                return Some(text);
            }
        }
        None
    }

    /// All words that are left.
    fn words(&mut self) -> Result<Vec<String>, Bad> {
        let words = std::iter::from_fn(|| if self.blank() { self.word() } else { None });
        words.map(|word| limited(word, LONGEST_ARGUMENT)).collect()
    }

    /// Behind the word SET.
    fn set(&mut self) -> Result<Command, Bad> {
        if !self.blank() {
            return Err(Bad::Syntax);
        }
        let is = |word: &str, other: &str| word.eq_ignore_ascii_case(other);
        let mut key = self.word().ok_or(Bad::Syntax)?;
        self.blank();
        if is(&key, "session") || is(&key, "local") {
            key = self.word().ok_or(Bad::Syntax)?;
            self.blank();
        }
        if is(&key, "names") && self.0.starts_with('\'') {
            "client_encoding".clone_into(&mut key);
        } else if let Some(rest) = self.0.strip_prefix('=') {
            self.0 = rest;
        } else {
            match self.word() {
                Some(word) if is(&word, "to") => {}
                Some(word) if is(&key, "time") && is(&word, "zone") => "timezone".clone_into(&mut key),
                _ => return Err(Bad::Syntax),
            }
        }
        self.blank();
        let value = if self.0.starts_with('\'') { self.quoted('\'') } else { self.word() };
        let value = value.ok_or(Bad::Syntax)?;
        Ok(Command::Set { key: limited(key, LONGEST_ARGUMENT)?, value: limited(value, LONGEST_VALUE)? })
    }

    /// Whether nothing is left but a semicolon and blanks.
    fn end(&mut self) -> bool {
        self.blank();
        if let Some(rest) = self.0.strip_prefix(';') {
            self.0 = rest;
            self.blank();
        }
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(word: &str, argument: Option<&str>) -> Command {
        Command::Plain { word: word.into(), argument: argument.map(str::to_owned) }
    }

    fn set(key: &str, value: &str) -> Command {
        Command::Set { key: key.into(), value: value.into() }
    }

    #[test]
    fn commands() {
        assert_eq!(parse("SHOW Pools"), Ok(plain("show", Some("Pools"))));
        assert_eq!(parse("  reload ; \n"), Ok(plain("reload", None)));
        assert_eq!(parse("pause \"my-\"\"db\";"), Ok(plain("pause", Some("my-\"db"))));
        assert_eq!(parse("kill_client 12"), Ok(plain("kill_client", Some("12"))));
        assert_eq!(parse("pause é"), Err(Bad::Syntax));
    }

    #[test]
    fn drains() {
        let drain = |words: &[&str]| Ok(Command::Drain(words.iter().map(|word| (*word).to_owned()).collect()));
        assert_eq!(parse("DRAIN"), drain(&[]));
        assert_eq!(parse(" drain ;"), drain(&[]));
        assert_eq!(parse("Drain RATE 10 deadline 30;"), drain(&["RATE", "10", "deadline", "30"]));
        assert_eq!(parse("drain rate=10"), Err(Bad::Syntax));
        assert_eq!(parse("drain 10/s"), Err(Bad::Syntax));
        assert_eq!(parse("restart"), Ok(Command::Restart(vec![])));
        assert_eq!(parse("RESTART deadline 5;"), Ok(Command::Restart(vec!["deadline".into(), "5".into()])));
    }

    #[test]
    fn upgrades() {
        let upgrade = |path: Option<&str>| Ok(Command::Upgrade(path.map(str::to_owned)));
        assert_eq!(parse("UPGRADE"), upgrade(None));
        assert_eq!(parse("upgrade ;"), upgrade(None));
        assert_eq!(parse("Upgrade '/opt/it''s new/pgfleet';"), upgrade(Some("/opt/it's new/pgfleet")));
        for wrong in ["upgrade /opt/pgfleet", "upgrade '/opt", "upgrade 'a' 'b'", "upgrade x"] {
            assert_eq!(parse(wrong), Err(Bad::Syntax), "{wrong}");
        }
        assert_eq!(parse(&format!("upgrade '/{}'", "x".repeat(4095))), Err(Bad::Arguments));
    }

    #[test]
    fn not_commands() {
        for text in [
            "",
            ";",
            "  ",
            "show pools clients",
            "show pools;;",
            "show \"pools",
            "select 1+1",
            "show pools -- x",
            "show;x",
            "\"\u{e9}",
        ] {
            assert_eq!(parse(text), Err(Bad::Syntax), "{text:?}");
        }
    }

    #[test]
    fn sets() {
        assert_eq!(parse("set default_pool_size=5"), Ok(set("default_pool_size", "5")));
        assert_eq!(parse("SET a TO b;"), Ok(set("a", "b")));
        assert_eq!(parse("set a = 'it''s';"), Ok(set("a", "it's")));
        assert_eq!(parse("set a=''"), Ok(set("a", "")));
        assert_eq!(parse("set session a to b"), Ok(set("a", "b")));
        assert_eq!(parse("SET NAMES 'UTF8'"), Ok(set("client_encoding", "UTF8")));
        assert_eq!(parse("set local time zone 'UTC'"), Ok(set("timezone", "UTC")));
        assert_eq!(parse("set session"), Err(Bad::Syntax));
        assert_eq!(parse("set time out 'x'"), Err(Bad::Syntax));
        assert_eq!(parse("set server_lifetime=1.5"), Err(Bad::Syntax));
        assert_eq!(parse("set a"), Err(Bad::Syntax));
        assert_eq!(parse("set a=1 2"), Err(Bad::Syntax));
    }

    #[test]
    fn too_long() {
        assert_eq!(parse("abcdefghijklmnop"), Err(Bad::Arguments));
        assert_eq!(parse(&format!("show {}", "x".repeat(64))), Err(Bad::Arguments));
        assert_eq!(parse(&format!("set a='{}'", "x".repeat(256))), Err(Bad::Arguments));
        assert!(parse(&format!("set a='{}'", "x".repeat(255))).is_ok());
    }
}
