//! The parameters PostgreSQL reports and a client may set: which values a client expects, which a server has.
//!
//! Equal sets are one object, so whether a switch of servers needs a SET is one pointer comparison. What a client cannot set
//! (`server_version` and the like) is no part of a set; it is only repeated to clients at login.

use rustc_hash::FxHashSet;
use std::fmt::Write;
use std::rc::Rc;

/// Parameters that PostgreSQL reports but SET cannot change (PostgreSQL documentation, "Asynchronous Operations"; those that SET can
/// change only by other means are here too).
const FIXED: [&str; 6] =
    ["is_superuser", "session_authorization", "server_version", "server_encoding", "integer_datetimes", "in_hot_standby"];

/// Whether a client's value of this parameter is kept and set again on other servers.
pub(crate) fn is_tracked(name: &str) -> bool {
    !FIXED.contains(&name)
}

/// Name and value.
pub(crate) type Pair = (Rc<str>, Rc<str>);

/// A set of values, in the order in which the server first reported them.
#[derive(Clone, Debug)]
pub(crate) struct Params(Rc<[Pair]>);

impl Params {
    #[inline]
    pub(crate) fn same(&self, other: &Params) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// One `SET name=value;…` that turns a server with these values into one with `wanted`'s; `None` when nothing differs. A parameter that
    /// either side does not have is left alone.
    pub(crate) fn difference(&self, wanted: &Params) -> Option<String> {
        let mut sql = String::new();
        for (name, value) in wanted.iter() {
            if self.get(name).is_some_and(|have| !have.eq_ignore_ascii_case(value)) {
                let _ = write!(sql, "SET {name}=");
                quote(&mut sql, name, value);
                sql.push(';');
            }
        }
        (!sql.is_empty()).then_some(sql)
    }
}

/// `search_path` is a list and goes as it was reported; everything else is one literal.
fn quote(sql: &mut String, name: &str, value: &str) {
    if name.eq_ignore_ascii_case("search_path") {
        sql.push_str(if value.is_empty() || value == "\"\"" { "''" } else { value });
        return;
    }
    sql.push_str(if value.contains('\\') { "E'" } else { "'" });
    for c in value.chars() {
        if matches!(c, '\'' | '\\') {
            sql.push(c);
        }
        sql.push(c);
    }
    sql.push('\'');
}

/// Makes equal sets one object.
#[derive(Default)]
pub(crate) struct Interner {
    sets: FxHashSet<Rc<[Pair]>>,
    words: FxHashSet<Rc<str>>,
    sweep_at: usize,
}

impl Interner {
    /// The set of these pairs.
    pub(crate) fn set<'a>(&mut self, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Params {
        let pairs: Vec<Pair> = pairs.map(|(name, value)| (self.word(name), self.word(value))).collect();
        self.intern(pairs)
    }

    /// `params` with one value changed. A name that the set does not have is added when `add` holds, else ignored.
    pub(crate) fn with(&mut self, params: &Params, name: &str, value: &str, add: bool) -> Params {
        match params.get(name) {
            Some(have) if have == value => return params.clone(),
            None if !add => return params.clone(),
            _ => {}
        }
        let mut pairs = params.0.to_vec();
        let value = self.word(value);
        match pairs.iter_mut().find(|(n, _)| n.eq_ignore_ascii_case(name)) {
            Some(pair) => pair.1 = value,
            None => pairs.push((self.word(name), value)),
        }
        self.intern(pairs)
    }

    fn intern(&mut self, pairs: Vec<Pair>) -> Params {
        if let Some(known) = self.sets.get(pairs.as_slice()) {
            return Params(Rc::clone(known));
        }
        if self.sets.len() >= self.sweep_at {
            self.sets.retain(|set| Rc::strong_count(set) > 1);
            self.words.retain(|word| Rc::strong_count(word) > 1);
            self.sweep_at = (self.sets.len() * 2).max(256);
        }
        let set: Rc<[Pair]> = pairs.into();
        self.sets.insert(Rc::clone(&set));
        Params(set)
    }

    fn word(&mut self, word: &str) -> Rc<str> {
        if let Some(known) = self.words.get(word) {
            return Rc::clone(known);
        }
        let word: Rc<str> = word.into();
        self.words.insert(Rc::clone(&word));
        word
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_are_one() {
        let mut i = Interner::default();
        let a = i.set([("DateStyle", "ISO, MDY"), ("TimeZone", "UTC")].into_iter());
        let b = i.with(&a, "timezone", "Asia/Tokyo", false);
        assert!(!a.same(&b));
        assert_eq!(b.get("TimeZone"), Some("Asia/Tokyo"));
        assert!(a.same(&i.with(&b, "TimeZone", "UTC", false)));
        assert!(a.same(&i.with(&a, "unknown", "x", false)));
        assert_eq!(i.with(&a, "IntervalStyle", "iso_8601", true).get("intervalstyle"), Some("iso_8601"));
    }

    #[test]
    fn only_what_differs_is_set() {
        let mut i = Interner::default();
        let server = i.set([("client_encoding", "UTF8"), ("application_name", ""), ("search_path", "public")].into_iter());
        let client =
            i.set([("client_encoding", "utf8"), ("application_name", "it's \\"), ("x", "1"), ("search_path", "\"\"")].into_iter());
        assert_eq!(server.difference(&client).unwrap(), "SET application_name=E'it''s \\\\';SET search_path='';");
        assert_eq!(server.difference(&server), None);
    }
}
