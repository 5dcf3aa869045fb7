//! The parameters PostgreSQL reports and a client may set: which values a client expects, which a server has.
//!
//! Equal sets are one object, so whether a switch of servers needs a SET is one pointer comparison. What a client cannot set
//! (`server_version` and the like) is no part of a set; it is only repeated to clients at login. What PostgreSQL does not report
//! (`statement_timeout` and the like) is part of it if a client asked for it at startup: it is set where that client is served, and set
//! back for others.

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

/// One value of a set.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Pair {
    name: Rc<str>,
    value: Rc<str>,
    /// PostgreSQL does not report it: it is known only because a client asked for it at startup and it was set.
    asked: bool,
}

/// A set of values, in the order in which the server first reported them.
#[derive(Clone, Debug)]
pub(crate) struct Params(Rc<[Pair]>);

impl Params {
    #[inline]
    pub(crate) fn same(&self, other: &Params) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// What PostgreSQL reports.
    pub(crate) fn reported(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter(|pair| !pair.asked).map(|pair| (&*pair.name, &*pair.value))
    }

    /// What was asked for besides.
    pub(crate) fn asked(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter(|pair| pair.asked).map(|pair| (&*pair.name, &*pair.value))
    }

    /// A reported value.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.reported().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The value of a parameter, whether reported or asked for.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|pair| pair.name.eq_ignore_ascii_case(name)).map(|pair| &*pair.value)
    }

    /// One query that turns a server with these values into one with `wanted`'s; `None` when nothing differs. A reported parameter that
    /// either side does not have is left alone; one that was asked for by somebody else is set back.
    pub(crate) fn difference(&self, wanted: &Params) -> Option<String> {
        let mut sql = String::new();
        for (name, value) in wanted.reported() {
            if self.get(name).is_some_and(|have| have != value) {
                set(&mut sql, name, value);
            }
        }
        for (name, _) in self.asked().filter(|(name, _)| !wanted.asked().any(|(wanted, _)| wanted == *name)) {
            sql.push_str("RESET ");
            quote_name(&mut sql, name);
            sql.push(';');
        }
        for (name, value) in wanted.asked().filter(|pair| !self.asked().any(|have| have == *pair)) {
            set_config(&mut sql, name, value);
        }
        (!sql.is_empty()).then_some(sql)
    }
}

fn set(sql: &mut String, name: &str, value: &str) {
    // A list: as one literal it would be one name.
    if name.eq_ignore_ascii_case("search_path") {
        return set_config(sql, name, value);
    }
    // A style without an order of fields would keep the order that somebody else has set.
    if name.eq_ignore_ascii_case("datestyle") && !value.contains(',') {
        let _ = write!(sql, "RESET {name};");
    }
    let _ = write!(sql, "SET {name}=");
    quote(sql, value);
    sql.push(';');
}

/// Sets a parameter to a text that is read as in a startup message, lists included (PostgreSQL documentation, "System Administration
/// Functions"). Neither name nor value is SQL.
fn set_config(sql: &mut String, name: &str, value: &str) {
    sql.push_str("SELECT pg_catalog.set_config(");
    quote(sql, name);
    sql.push(',');
    quote(sql, value);
    sql.push_str(",false);");
}

fn quote(sql: &mut String, value: &str) {
    sql.push_str(if value.contains('\\') { "E'" } else { "'" });
    for c in value.chars() {
        if matches!(c, '\'' | '\\') {
            sql.push(c);
        }
        sql.push(c);
    }
    sql.push('\'');
}

/// The parts of a name, each in double quotes.
fn quote_name(sql: &mut String, name: &str) {
    for (index, part) in name.split('.').enumerate() {
        sql.push_str(if index > 0 { ".\"" } else { "\"" });
        sql.push_str(&part.replace('"', "\"\""));
        sql.push('"');
    }
}

/// Makes equal sets one object.
#[derive(Default)]
pub(crate) struct Interner {
    sets: FxHashSet<Rc<[Pair]>>,
    words: FxHashSet<Rc<str>>,
    sweep_at: usize,
}

impl Interner {
    /// The set of these pairs, as a server reports them.
    pub(crate) fn set<'a>(&mut self, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Params {
        let pairs = pairs.map(|(name, value)| self.pair(name, value, false)).collect();
        self.intern(pairs)
    }

    /// `params` with one reported value changed or added.
    pub(crate) fn with(&mut self, params: &Params, name: &str, value: &str) -> Params {
        self.changed(params, name, value, false)
    }

    /// `params` with a value that a client asks for and PostgreSQL does not report.
    pub(crate) fn ask(&mut self, params: &Params, name: &str, value: &str) -> Params {
        self.changed(params, name, value, true)
    }

    /// What `server` reports, with what was asked for in `wanted`.
    pub(crate) fn adopt(&mut self, server: &Params, wanted: &Params) -> Params {
        if server.asked().eq(wanted.asked()) {
            return server.clone();
        }
        let part = |params: &Params, asked| params.0.iter().filter(|pair| pair.asked == asked).cloned().collect::<Vec<_>>();
        self.intern([part(server, false), part(wanted, true)].concat())
    }

    /// `params` without what was asked for, or without that parameter.
    pub(crate) fn forget_asked(&mut self, params: &Params, name: Option<&str>) -> Params {
        let gone = |pair: &Pair| pair.asked && name.is_none_or(|name| pair.name.eq_ignore_ascii_case(name));
        if params.0.iter().any(gone) {
            let left = params.0.iter().filter(|pair| !gone(pair)).cloned().collect();
            return self.intern(left);
        }
        params.clone()
    }

    fn changed(&mut self, params: &Params, name: &str, value: &str, asked: bool) -> Params {
        let mut pairs = params.0.to_vec();
        match pairs.iter_mut().find(|pair| pair.name.eq_ignore_ascii_case(name)) {
            Some(pair) if *pair.value == *value && pair.asked == asked => return params.clone(),
            Some(pair) => *pair = Pair { name: Rc::clone(&pair.name), value: self.word(value), asked },
            None => pairs.push(self.pair(name, value, asked)),
        }
        self.intern(pairs)
    }

    fn pair(&mut self, name: &str, value: &str, asked: bool) -> Pair {
        Pair { name: self.word(name), value: self.word(value), asked }
    }

    /// How many sets there are, and the bytes of them and of their words.
    pub(crate) fn memory(&self) -> (usize, usize) {
        let sets: usize = self.sets.iter().map(|set| size_of_val(&**set)).sum();
        (self.sets.len(), sets + self.words.iter().map(|word| word.len()).sum::<usize>())
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
        let b = i.with(&a, "timezone", "Asia/Tokyo");
        assert!(!a.same(&b));
        assert_eq!(b.get("TimeZone"), Some("Asia/Tokyo"));
        assert!(a.same(&i.with(&b, "TimeZone", "UTC")));
        assert_eq!(i.with(&a, "IntervalStyle", "iso_8601").get("intervalstyle"), Some("iso_8601"));
    }

    #[test]
    fn only_what_differs_is_set() {
        let mut i = Interner::default();
        let server = [("client_encoding", "UTF8"), ("application_name", ""), ("search_path", "public"), ("DateStyle", "ISO, DMY")];
        let server = i.set(server.into_iter());
        let client = [
            ("client_encoding", "UTF8"),
            ("application_name", "it's \\"),
            ("x", "1"),
            ("search_path", "\"\""),
            ("DateStyle", "ISO"),
        ];
        let client = i.set(client.into_iter());
        assert_eq!(
            server.difference(&client).unwrap(),
            "SET application_name=E'it''s \\\\';SELECT pg_catalog.set_config('search_path','\"\"',false);RESET DateStyle;SET DateStyle='ISO';"
        );
        assert_eq!(server.difference(&server), None);
    }

    #[test]
    fn what_one_client_asked_for_is_set_back_for_the_next() {
        let mut i = Interner::default();
        let plain = i.set([("TimeZone", "UTC")].into_iter());
        let first = i.ask(&plain, "statement_timeout", "5s");
        let second = i.ask(&plain, "my.own", "'); drop");
        assert_eq!(plain.difference(&first).unwrap(), "SELECT pg_catalog.set_config('statement_timeout','5s',false);");
        assert_eq!(
            first.difference(&second).unwrap(),
            "RESET \"statement_timeout\";SELECT pg_catalog.set_config('my.own','''); drop',false);"
        );
        assert_eq!(second.difference(&plain).unwrap(), "RESET \"my\".\"own\";");
        assert!(i.adopt(&plain, &first).same(&first) && i.adopt(&first, &plain).same(&plain));
        assert!(i.forget_asked(&first, Some("STATEMENT_TIMEOUT")).same(&plain) && i.forget_asked(&first, Some("x")).same(&first));
        assert!(i.forget_asked(&first, None).same(&plain));
    }
}
