//! `ldap[s]://host[:port]/basedn[?[attribute][?[scope][?[filter]]]]` (RFC 4516).

use super::Scope;
use super::options::port;

/// What a URL says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) ldaps: bool,
    pub(super) host: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) base: Option<String>,
    pub(super) attribute: Option<String>,
    pub(super) scope: Scope,
    pub(super) filter: Option<String>,
}

impl Url {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        // Not shown: somebody may have put a password into it.
        let invalid = || "could not parse LDAP URL".to_owned();
        let (scheme, rest) = text.split_once("://").ok_or_else(invalid)?;
        let ldaps = match scheme.to_ascii_lowercase().as_str() {
            "ldap" => false,
            "ldaps" => true,
            other => return Err(format!("unsupported LDAP URL scheme: {other}")),
        };
        let (place, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, number) = split_place(place).ok_or_else(invalid)?;
        let mut parts = rest.split('?').map(decode);
        let mut next = || match parts.next() {
            Some(part) => part.map(|part| Some(part).filter(|part| !part.is_empty())).ok_or_else(invalid),
            None => Ok(None),
        };
        let (base, attributes, scope, filter) = (next()?, next()?, next()?, next()?);
        let scope = match scope.as_deref() {
            None | Some("base") => Scope::Base,
            Some("one" | "onelevel") => Scope::One,
            Some("sub" | "subtree") => Scope::Sub,
            Some(_) => return Err(invalid()),
        };
        Ok(Self {
            ldaps,
            host: Some(host.to_owned()).filter(|host| !host.is_empty()),
            port: number.map(|number| port(number).map_err(|_| invalid())).transpose()?,
            base,
            attribute: attributes.and_then(|names| names.split(',').next().map(str::to_owned)).filter(|name| !name.is_empty()),
            scope,
            filter,
        })
    }
}

/// `host`, `host:port`, `[::1]`, `[::1]:port`.
fn split_place(place: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = place.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None if rest.is_empty() => Some((host, None)),
            None => None,
        };
    }
    Some(place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))))
}

/// Percent-decodes. `None` for a broken escape, or bytes that are not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            out.push((high * 16 + low) as u8);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok().filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_part() {
        let url = Url::parse("LDAPS://[::1]:1636/dc=a%20b,dc=c?uid,cn?one?(%26(a=b)(c=$username))").unwrap();
        assert_eq!((url.ldaps, url.host.as_deref(), url.port), (true, Some("::1"), Some(1636)));
        assert_eq!((url.base.as_deref(), url.attribute.as_deref(), url.scope), (Some("dc=a b,dc=c"), Some("uid"), Scope::One));
        assert_eq!(url.filter.as_deref(), Some("(&(a=b)(c=$username))"));
        let bare = Url::parse("ldap://ldap.example").unwrap();
        assert_eq!((bare.host.as_deref(), bare.port, bare.base, bare.scope), (Some("ldap.example"), None, None, Scope::Base));
    }

    #[test]
    fn what_is_none() {
        for text in [
            "",
            "ldap:",
            "ldapi://x/",
            "http://x",
            "ldap://[::1/x",
            "ldap://[::1]x/",
            "ldap://a:0/",
            "ldap://a/%",
            "ldap://a/%zz",
            "ldap://a/b?c?all",
            "ldap://a/%ff",
            "ldap://a/%00",
        ] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }
}
