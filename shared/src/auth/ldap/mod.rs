//! The options of the ldap method, as PostgreSQL's pg_hba.conf has them (its documentation, chapter "LDAP Authentication"), and what they make of
//! a user's name.
//!
//! Read by the supervisor when a configuration is loaded; the connections to the LDAP server are made in `supervisor::auth`. Nothing here does
//! any input or output.

mod options;
mod url;

use super::Password;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// The options of one rule, checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LdapOptions {
    /// Host names or addresses; the first that can be reached is asked.
    pub servers: Vec<String>,
    /// Where they listen.
    pub port: u16,
    /// How the connection is kept secret.
    pub security: Security,
    /// How a password is checked.
    pub way: Way,
    /// The options as SHOW CONFIG has them: without the password.
    shown: String,
}

/// How a connection to an LDAP server is kept secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Security {
    /// Not at all.
    Plain,
    /// StartTLS on the ordinary port (`ldaptls=1`).
    StartTls,
    /// TLS from the beginning (`ldapscheme=ldaps`).
    Ldaps,
}

/// How a password is checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// By a bind with a name made from the user's.
    Bind {
        /// What stands before the user's name.
        prefix: String,
        /// What stands behind it.
        suffix: String,
    },
    /// By a bind with the name of the one entry that a search finds.
    Search(Search),
}

/// Where and as whom users are searched for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search {
    /// The entry to begin at.
    pub base: String,
    /// How deep to look.
    pub scope: Scope,
    /// Who searches; empty: nobody in particular.
    pub bind_dn: String,
    /// The password of who searches.
    pub bind_password: Password,
    /// Which entry is the user's.
    pub matching: Matching,
}

/// How deep a search goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// The entry itself.
    Base,
    /// What is directly below it.
    One,
    /// Everything from it downwards.
    Sub,
}

/// Which entry is a user's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Matching {
    /// The one with this attribute.
    Attribute(String),
    /// The one that this filter finds, with `$username` for the name.
    Filter(String),
}

/// A user name that an LDAP server must not be asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid character in user name for LDAP authentication")]
pub struct BadUserName;

impl LdapOptions {
    /// The options with the password left out.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Whether there is a password in them.
    pub fn hold_secret(&self) -> bool {
        matches!(&self.way, Way::Search(search) if !search.bind_password.is_empty())
    }
}

impl Way {
    /// The name to bind with, for a prefix and suffix. A user's name that stands inside a distinguished name stays one value of it (RFC 4514): it
    /// cannot become another entry's.
    pub fn bind_name(prefix: &str, suffix: &str, user: &str) -> Result<String, BadUserName> {
        if user.contains('\0') {
            return Err(BadUserName);
        }
        let inside_dn = prefix.ends_with('=') || suffix.trim_start().starts_with(',');
        let user = if inside_dn { escape_dn(user) } else { user.to_owned() };
        Ok(format!("{prefix}{user}{suffix}"))
    }
}

impl Search {
    /// The filter that finds this user. As PostgreSQL, a name with a character that means something in a filter is refused, and what
    /// remains is escaped (RFC 4515) all the same.
    pub fn filter(&self, user: &str) -> Result<String, BadUserName> {
        if user.contains(['*', '(', ')', '\\', '/', '\0']) {
            return Err(BadUserName);
        }
        let user = escape_filter(user);
        Ok(match &self.matching {
            Matching::Attribute(attribute) => format!("({attribute}={user})"),
            Matching::Filter(filter) => filter.replace("$username", &user),
        })
    }
}

/// A backslash and the character's two hex digits.
fn push_hex(out: &mut String, c: char) {
    // Writing to a String cannot fail.
    let _ = write!(out, "\\{:02x}", c as u32);
}

fn escape_filter(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '*' | '(' | ')' | '\\' | '\0'..='\x1f' | '\x7f' => push_hex(&mut out, c),
            c => out.push(c),
        }
    }
    out
}

fn escape_dn(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let last = text.chars().count().saturating_sub(1);
    for (at, c) in text.chars().enumerate() {
        let edge = (c == ' ' && (at == 0 || at == last)) || (c == '#' && at == 0);
        if edge || matches!(c, '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=') {
            out.push('\\');
        }
        match c {
            '\x01'..='\x1f' | '\x7f' => push_hex(&mut out, c),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn search(options: &str) -> Search {
        match LdapOptions::parse(options).unwrap().way {
            Way::Search(search) => search,
            Way::Bind { .. } => panic!("no search"),
        }
    }

    #[test]
    fn a_name_in_a_filter_stays_a_name() {
        let plain = search("ldapserver=a ldapbasedn=dc=x");
        assert_eq!(plain.filter("joe").unwrap(), "(uid=joe)");
        let both = search(r#"ldapserver=a ldapbasedn=dc=x ldapsearchfilter="(|(uid=$username)(mail=$username))""#);
        assert_eq!(both.filter("j o\x01e").unwrap(), "(|(uid=j o\\01e)(mail=j o\\01e))");
        for hostile in ["*", "joe)(uid=*", "a\\2a", "a/b", "a(b"] {
            assert_eq!(plain.filter(hostile), Err(BadUserName), "{hostile}");
        }
    }

    #[test]
    fn a_name_in_a_dn_stays_one_value() {
        let name = |user| Way::bind_name("uid=", ",dc=x", user).unwrap();
        assert_eq!(name("joe"), "uid=joe,dc=x");
        assert_eq!(name("joe,ou=admins"), "uid=joe\\,ou\\=admins,dc=x");
        assert_eq!(name(" #a\\ "), "uid=\\ #a\\\\\\ ,dc=x");
        assert_eq!(name("#a\n"), "uid=\\#a\\0a,dc=x");
        // Not a distinguished name: Active Directory's other two forms.
        assert_eq!(Way::bind_name("EXAMPLE\\", "", "joe").unwrap(), "EXAMPLE\\joe");
        assert_eq!(Way::bind_name("", "@example.net", "o'joe").unwrap(), "o'joe@example.net");
    }
}
