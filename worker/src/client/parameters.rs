//! A startup message's parameters, sorted out.

use super::Ending;
use shared::config::{Settings, StartupParameters};
use shared::control::Replication;

/// What PostgreSQL reports and a client may set, in any version up to 18 (its documentation, "Asynchronous Operations").
const REPORTED: [&str; 9] = [
    "DateStyle",
    "client_encoding",
    "TimeZone",
    "standard_conforming_strings",
    "application_name",
    "IntervalStyle",
    "default_transaction_read_only",
    "search_path",
    "scram_iterations",
];

/// A startup message's parameters, sorted out.
#[derive(Default, Debug)]
pub(super) struct Asked {
    pub(super) user: Option<String>,
    pub(super) database: Option<String>,
    pub(super) replication: Replication,
    /// The options of a replication client, as they are.
    pub(super) options: Option<String>,
    /// Values that follow the client from server to server.
    pub(super) parameters: Vec<(String, String)>,
    /// `_pq_.` options; we know none.
    pub(super) unknown_options: Vec<String>,
}

/// A parameter that is neither tracked nor ignored, or options that cannot be read. `Display` is what the client gets.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unsupported {
    #[error("unsupported startup parameter: {0}")]
    Parameter(String, String),
    #[error("unsupported startup parameter in options: {0}")]
    InOptions(String, String),
    #[error("too many startup parameters")]
    TooMany(usize),
    #[error("unsupported options startup parameter: only '-c config=val' and '--config=val' are allowed")]
    Options(String),
}

impl Unsupported {
    /// For the log: with the value.
    pub(super) fn detail(&self) -> String {
        match self {
            Unsupported::Parameter(name, value) => format!("unsupported startup parameter: {name}={value}"),
            Unsupported::InOptions(name, value) => format!("unsupported startup parameter in options: {name}={value}"),
            Unsupported::TooMany(count) => format!("too many startup parameters: {count}, the most is {MOST_PARAMETERS}"),
            Unsupported::Options(text) => format!("unsupported startup parameter: options={text}"),
        }
    }
}

impl From<Unsupported> for Ending {
    fn from(unsupported: Unsupported) -> Self {
        Ending::violation(unsupported.to_string())
    }
}

/// More are nobody's wish: PostgreSQL knows fewer than twice as many.
const MOST_PARAMETERS: usize = 256;

/// Sorts out a startup message's parameters.
pub(super) fn read_parameters(parameters: Vec<(String, String)>, settings: &Settings) -> Result<Asked, Unsupported> {
    let replication = parameters.iter().find(|(name, _)| name == "replication").map(|(_, value)| replication(value));
    let mut asked = Asked { replication: replication.unwrap_or_default(), ..Asked::default() };
    let ignored = |name: &str| settings.ignore_startup_parameters.has(name);
    for (name, value) in parameters {
        match name.as_str() {
            "user" => asked.user = Some(value),
            "database" => asked.database = Some(value),
            "replication" => {}
            "options" if asked.replication != Replication::None => asked.options = Some(value),
            "options" => {
                for (name, value) in read_options(&value).ok_or_else(|| Unsupported::Options(value.clone()))? {
                    let is_known = is_tracked(&name, settings);
                    if ignored(&name) || ignored("options") && !is_known {
                    } else if is_known || settings.startup_parameters == StartupParameters::Apply {
                        asked.parameters.push((name, value));
                    } else {
                        return Err(Unsupported::InOptions(name, value));
                    }
                }
            }
            _ if name.starts_with("_pq_.") => asked.unknown_options.push(name),
            _ if ignored(&name) => {}
            _ if is_tracked(&name, settings) || settings.startup_parameters == StartupParameters::Apply => {
                asked.parameters.push((name, value));
            }
            _ => return Err(Unsupported::Parameter(name, value)),
        }
    }
    match asked.parameters.len() {
        count if count > MOST_PARAMETERS => Err(Unsupported::TooMany(count)),
        _ => Ok(asked),
    }
}

/// The startup parameter `replication`; what is neither `database` nor a boolean asks for nothing.
fn replication(value: &str) -> Replication {
    match value.to_ascii_lowercase().as_str() {
        "database" => Replication::Logical,
        "true" | "on" | "yes" | "1" => Replication::Physical,
        _ => Replication::None,
    }
}

/// What PgBouncer takes: what PostgreSQL reports, and what it is told to take.
fn is_tracked(name: &str, settings: &Settings) -> bool {
    REPORTED.iter().any(|t| t.eq_ignore_ascii_case(name))
        || settings.track_extra_parameters.iter().any(|t| t.eq_ignore_ascii_case(name))
}

/// Reads `-c name=value`, `-cname=value` and `--name=value`, blanks inside a value escaped by a backslash. `None`: something else.
fn read_options(options: &str) -> Option<Vec<(String, String)>> {
    let mut words = split_words(options).into_iter();
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
            Some("") if word == "-c" => words.next()?,
            Some(rest) => rest.to_owned(),
            None => return None,
        };
        let (name, value) = setting.split_once('=')?;
        if name.is_empty() {
            return None;
        }
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Some(settings)
}

fn split_words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut escaped) = (Vec::new(), None::<String>, false);
    for c in text.chars() {
        match c {
            '\\' if !escaped => escaped = true,
            c if c.is_ascii_whitespace() && !escaped => words.extend(word.take()),
            c => {
                word.get_or_insert_default().push(c);
                escaped = false;
            }
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(parameters: &[(&str, &str)], ignored: &str, startup_parameters: StartupParameters) -> Result<Asked, Unsupported> {
        let ignore_startup_parameters = shared::config::Words::parse(ignored);
        let settings = Settings { ignore_startup_parameters, startup_parameters, ..Settings::default() };
        read_parameters(parameters.iter().map(|&(n, v)| (n.to_owned(), v.to_owned())).collect(), &settings)
    }

    #[test]
    fn parameters_are_kept_ignored_or_refused() {
        use StartupParameters::{Apply, Reject};
        let all = [("user", "u"), ("datestyle", "German"), ("IntervalStyle", "iso_8601"), ("_pq_.x", "1")];
        let asked = read(&all, "", Reject).unwrap();
        assert_eq!(asked.user.as_deref(), Some("u"));
        assert_eq!((asked.parameters.len(), asked.unknown_options), (2, vec!["_pq_.x".to_owned()]));
        let other = [("extra_float_digits", "2"), ("options", "-c statement_timeout=1")];
        assert_eq!(read(&other, "", Apply).unwrap().parameters.len(), 2);
        assert_eq!(read(&other, "extra_float_digits", Apply).unwrap().parameters.len(), 1);
        let in_options = [("options", "-c statement_timeout=1 -c datestyle=German")];
        assert_eq!(read(&in_options, "options", Apply).unwrap().parameters, [("datestyle".to_owned(), "German".to_owned())]);
        assert_eq!(read(&other, "", Reject).unwrap_err().to_string(), "unsupported startup parameter: extra_float_digits");
        let in_options = read(&other, "extra_float_digits", Reject).unwrap_err().to_string();
        assert_eq!(in_options, "unsupported startup parameter in options: statement_timeout");
    }

    #[test]
    fn replication_is_a_word_or_a_boolean() {
        let kind = |value: &str| read(&[("options", "-d x"), ("replication", value)], "", StartupParameters::Apply);
        assert_eq!(kind("database").unwrap().replication, Replication::Logical);
        let physical = kind("On").unwrap();
        assert_eq!((physical.replication, physical.options.as_deref()), (Replication::Physical, Some("-d x")));
        assert!(kind("false").is_err() && kind("what").is_err(), "these are ordinary clients with odd options");
    }

    #[test]
    fn options_are_read_as_postgresql_does() {
        let set = |text: &str| read_options(text);
        let pair = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        assert_eq!(set("-c a=1 --b-c=2 -cd=3"), Some(vec![pair("a", "1"), pair("b_c", "2"), pair("d", "3")]));
        assert_eq!(set(r"-c a=x\ y\\"), Some(vec![pair("a", r"x y\")]));
        assert_eq!(set("-d 1"), None);
        // CVE-2026-107349: an empty name made PgBouncer spin.
        assert_eq!(set("-c="), None);
        assert_eq!(set("-c"), None);
        assert_eq!(set("--"), None);
    }
}
