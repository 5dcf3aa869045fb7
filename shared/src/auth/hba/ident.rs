//! auth_ident_file: which name of a system or a certificate may be which user.

use super::files::Record;
use super::token::Token;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The maps by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maps(BTreeMap<String, Vec<Mapping>>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mapping {
    system_user: String,
    /// `None`: all.
    user: Option<String>,
}

impl Maps {
    /// Whether there is a map of this name.
    pub(super) fn has(&self, map: &str) -> bool {
        self.0.contains_key(map)
    }

    /// Whether a line of `map` leads from such a name to `user`.
    pub(super) fn lets(&self, map: &str, user: &str, is: impl Fn(&str) -> bool) -> bool {
        let lines = self.0.get(map).map(Vec::as_slice).unwrap_or_default();
        lines.iter().any(|line| line.user.as_deref().is_none_or(|u| u == user) && is(&line.system_user))
    }

    /// Adds a line: `map system-user user`.
    pub(super) fn add(&mut self, record: &Record) -> Result<(), String> {
        let [map, system_user, user] = &record.fields[..] else {
            return Err("a line must have three fields: map, system user, user".to_owned());
        };
        let (Some(map), Some(system_user), Some(user)) = (map.single(), system_user.single(), user.single()) else {
            return Err("lists are not supported: give each name a line of its own".to_owned());
        };
        for name in [system_user, user] {
            plain(name)?;
        }
        let user = (!user.is("all")).then(|| user.text.clone());
        self.0.entry(map.text.clone()).or_default().push(Mapping { system_user: system_user.text.clone(), user });
        Ok(())
    }
}

/// PostgreSQL's regular expressions, groups and files are not taken for names.
fn plain(name: &Token) -> Result<(), String> {
    for (mark, what) in [('/', "regular expressions"), ('+', "groups"), ('@', "files of names")] {
        if name.marked(mark).is_some() {
            return Err(format!("{what} are not supported: {}", name.text));
        }
    }
    Ok(())
}
