//! Reads the options: `name=value` words, a value in double quotes where it has blanks, `""` for a quote within.
//!
//! What contradicts itself is refused as PostgreSQL refuses it, and with its words.

use super::url::Url;
use super::{LdapOptions, Matching, Scope, Search, Security, Way};
use crate::auth::Password;
use std::fmt::Write;
use zeroize::Zeroizing;

/// The options as they stand, each at most once; a later one of the same name holds.
#[derive(Default)]
struct Raw {
    servers: Option<String>,
    port: Option<u16>,
    ldaps: bool,
    start_tls: bool,
    prefix: Option<String>,
    suffix: Option<String>,
    base: Option<String>,
    bind_dn: Option<String>,
    bind_password: Option<Password>,
    attribute: Option<String>,
    filter: Option<String>,
    scope: Option<Scope>,
    shown: String,
}

impl LdapOptions {
    /// Reads `auth_ldap_options`, or what stands behind the method of an hba line. The error names the option and never a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut raw = Raw::default();
        words(text, |name, value| raw.take(name, value))?;
        raw.check()
    }
}

impl Raw {
    fn take(&mut self, name: &str, value: &str) -> Result<(), String> {
        let text = || Some(value.to_owned()).filter(|value| !value.is_empty());
        match name {
            "ldapserver" => self.servers = text(),
            "ldapport" => self.port = Some(port(value)?),
            "ldapscheme" => self.ldaps = scheme(value)?,
            "ldaptls" => self.start_tls = switch(value)?,
            "ldapprefix" => self.prefix = Some(value.to_owned()),
            "ldapsuffix" => self.suffix = Some(value.to_owned()),
            "ldapbasedn" => self.base = text(),
            "ldapbinddn" => self.bind_dn = text(),
            "ldapbindpasswd" => self.bind_password = Some(Password::new(value)),
            "ldapsearchattribute" => self.attribute = text(),
            "ldapsearchfilter" => self.filter = text(),
            "ldapurl" => self.url(&Url::parse(value)?),
            _ if name.starts_with("ldap") => return Err(format!("unrecognized authentication option name: \"{name}\"")),
            // Behind a blank that should have been quoted it may be the rest of a password.
            _ => return Err("unrecognized authentication option name".into()),
        }
        self.show(name, value);
        Ok(())
    }

    fn url(&mut self, url: &Url) {
        self.ldaps = url.ldaps;
        self.servers.clone_from(&url.host);
        self.port = url.port;
        self.base.clone_from(&url.base);
        self.attribute.clone_from(&url.attribute);
        self.filter.clone_from(&url.filter);
        self.scope = Some(url.scope);
    }

    fn show(&mut self, name: &str, value: &str) {
        let value = if name == "ldapbindpasswd" { "****" } else { value };
        let gap = if self.shown.is_empty() { "" } else { " " };
        // Writing to a String cannot fail.
        let _ = if value.contains(|c: char| c == '"' || c.is_whitespace()) || value.is_empty() {
            write!(self.shown, "{gap}{name}=\"{}\"", value.replace('"', "\"\""))
        } else {
            write!(self.shown, "{gap}{name}={value}")
        };
    }

    fn check(self) -> Result<LdapOptions, String> {
        let simple = self.prefix.is_some() || self.suffix.is_some();
        let searching = self.base.is_some()
            || self.bind_dn.is_some()
            || self.bind_password.is_some()
            || self.attribute.is_some()
            || self.filter.is_some();
        if simple && searching {
            return Err("cannot mix options for simple bind and search+bind modes".into());
        }
        if self.attribute.is_some() && self.filter.is_some() {
            return Err("cannot use ldapsearchattribute together with ldapsearchfilter".into());
        }
        if self.ldaps && self.start_tls {
            return Err("cannot use ldaptls together with ldapscheme=ldaps: the connection is encrypted already".into());
        }
        let servers: Vec<String> = self.servers.iter().flat_map(|s| s.split_whitespace()).map(str::to_owned).collect();
        if servers.is_empty() {
            return Err("authentication method \"ldap\" requires argument \"ldapserver\" to be set".into());
        }
        if let Some(server) = servers.iter().find(|server| !is_host(server)) {
            return Err(format!("not a host name or address in ldapserver: \"{server}\""));
        }
        let way = if simple {
            Way::Bind { prefix: self.prefix.unwrap_or_default(), suffix: self.suffix.unwrap_or_default() }
        } else {
            let missing =
                "authentication method \"ldap\" requires argument \"ldapbasedn\", \"ldapprefix\", or \"ldapsuffix\" to be set";
            let attribute = || Matching::Attribute(self.attribute.unwrap_or_else(|| "uid".into()));
            Way::Search(Search {
                base: self.base.ok_or(missing)?,
                scope: self.scope.unwrap_or(Scope::Sub),
                bind_dn: self.bind_dn.unwrap_or_default(),
                bind_password: self.bind_password.unwrap_or_default(),
                matching: self.filter.map_or_else(attribute, Matching::Filter),
            })
        };
        let security = match (self.ldaps, self.start_tls) {
            (true, _) => Security::Ldaps,
            (false, true) => Security::StartTls,
            (false, false) => Security::Plain,
        };
        let port = self.port.unwrap_or(if self.ldaps { 636 } else { 389 });
        Ok(LdapOptions { servers, port, security, way, shown: self.shown })
    }
}

pub(super) fn port(value: &str) -> Result<u16, String> {
    value.parse().ok().filter(|port| *port > 0).ok_or_else(|| format!("invalid ldapport value: \"{value}\""))
}

fn scheme(value: &str) -> Result<bool, String> {
    match value {
        "ldap" => Ok(false),
        "ldaps" => Ok(true),
        _ => Err(format!("invalid ldapscheme value: \"{value}\"")),
    }
}

fn switch(value: &str) -> Result<bool, String> {
    match value {
        "1" => Ok(true),
        "0" => Ok(false),
        _ => Err(format!("invalid ldaptls value: \"{value}\"")),
    }
}

fn is_host(text: &str) -> bool {
    text.parse::<std::net::IpAddr>().is_ok()
        || (!text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')))
}

/// Calls `take` with the name and the value of each word.
fn words(text: &str, mut take: impl FnMut(&str, &str) -> Result<(), String>) -> Result<(), String> {
    // One word after the other, and as long as the text from the start: a copy that is outgrown would leave a password behind.
    let mut word = Zeroizing::new(String::with_capacity(text.len()));
    let mut end_of = |word: &mut String| {
        let taken = match word.split_once('=') {
            Some((name, value)) => take(name, value),
            // As above: it is not shown.
            None => Err("authentication option not in name=value format".into()),
        };
        word.clear();
        taken
    };
    let (mut inside, mut begun) = (false, false);
    let mut letters = text.chars().peekable();
    while let Some(c) = letters.next() {
        match c {
            '"' if inside && letters.peek() == Some(&'"') => {
                letters.next();
                word.push('"');
            }
            '"' => (inside, begun) = (!inside, true),
            c if c.is_whitespace() && !inside => {
                if std::mem::take(&mut begun) {
                    end_of(&mut word)?;
                }
            }
            c => {
                word.push(c);
                begun = true;
            }
        }
    }
    if inside {
        return Err("unterminated quoted value".into());
    }
    if begun { end_of(&mut word) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_ways() {
        let simple =
            LdapOptions::parse(r#"ldapserver="a.example b.example" ldapprefix="cn=" ldapsuffix=", dc=example, dc=net""#).unwrap();
        assert_eq!(simple.servers, ["a.example", "b.example"]);
        assert_eq!((simple.port, simple.security), (389, Security::Plain));
        assert_eq!(simple.way, Way::Bind { prefix: "cn=".into(), suffix: ", dc=example, dc=net".into() });

        let text = r#"ldapserver=::1 ldapport=1389 ldaptls=1 ldapbasedn="dc=x" ldapbinddn=cn=me,dc=x ldapbindpasswd="se ""cret" ldapsearchattribute=cn"#;
        let search = LdapOptions::parse(text).unwrap();
        assert_eq!((search.port, search.security), (1389, Security::StartTls));
        let Way::Search(found) = &search.way else { panic!("no search") };
        assert_eq!((found.scope, found.bind_password.expose()), (Scope::Sub, &b"se \"cret"[..]));
        assert_eq!(found.matching, Matching::Attribute("cn".into()));
        assert!(!search.shown().contains("cret") && !format!("{search:?}").contains("cret"), "{search:?}");
        assert_eq!(
            search.shown(),
            "ldapserver=::1 ldapport=1389 ldaptls=1 ldapbasedn=dc=x ldapbinddn=cn=me,dc=x ldapbindpasswd=**** ldapsearchattribute=cn"
        );
    }

    #[test]
    fn a_url_says_it_all_at_once() {
        let url = LdapOptions::parse("ldapurl=ldaps://ldap.example.net/dc=example,dc=net?uid?sub").unwrap();
        assert_eq!((url.servers, url.port, url.security), (vec!["ldap.example.net".to_owned()], 636, Security::Ldaps));
        let Way::Search(search) = url.way else { panic!("no search") };
        assert_eq!((search.base.as_str(), search.scope), ("dc=example,dc=net", Scope::Sub));
    }

    #[test]
    fn contradictions_are_refused() {
        for (text, reason) in [
            ("", "requires argument \"ldapserver\""),
            ("ldapserver=a", "requires argument \"ldapbasedn\", \"ldapprefix\""),
            ("ldapserver=a ldapprefix=cn= ldapbasedn=dc=x", "cannot mix"),
            ("ldapserver=a ldapsuffix=@x ldapbindpasswd=hunter2", "cannot mix"),
            ("ldapserver=a ldapbasedn=dc=x ldapsearchattribute=uid ldapsearchfilter=(a=b)", "ldapsearchattribute together"),
            ("ldapserver=a ldapbasedn=dc=x ldapscheme=ldaps ldaptls=1", "encrypted already"),
            ("ldapserver=a ldapbasedn=dc=x ldapport=0", "invalid ldapport"),
            ("ldapserver=a ldapbasedn=dc=x ldapscheme=http", "invalid ldapscheme"),
            ("ldapserver=a ldapbasedn=dc=x ldaptls=yes", "invalid ldaptls"),
            ("ldapserver=a/b ldapbasedn=dc=x", "not a host name"),
            ("ldapserver=a ldapbase=dc=x", "unrecognized authentication option name: \"ldapbase\""),
            ("ldapserver", "not in name=value"),
            ("ldapserver=\"a", "unterminated"),
            ("ldapbindpasswd=half hunter2", "not in name=value"),
            ("ldapbindpasswd=half hunter2=", "unrecognized authentication option name"),
            ("ldapurl=ldap://me:hunter2@a/", "could not parse LDAP URL"),
            ("ldapurl=http://me:hunter2@a/", "unsupported LDAP URL scheme: http"),
        ] {
            let error = LdapOptions::parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
