//! The names in a certificate, and whether one is the name looked for: hosts by libpq's rules, users by PgBouncer's.

use std::net::IpAddr;

/// The names that a certificate speaks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// dNSName entries of the subject's alternative names.
    pub dns: Vec<String>,
    /// iPAddress entries: 4 or 16 bytes.
    pub addresses: Vec<Vec<u8>>,
    /// The subject's first common name.
    pub common: Option<String>,
}

impl Names {
    /// Whether this is the certificate of `host`, a name or an address, by libpq's rules: the common name counts only when there is no
    /// alternative name of the host's kind, and `*` stands for the leftmost label (fe-secure-common.c).
    pub fn is_host(&self, host: &str) -> bool {
        let address = host.parse::<IpAddr>().ok();
        if self.dns.iter().any(|pattern| matches(pattern, host, address.is_none())) {
            return true;
        }
        if address.is_some_and(|address| self.addresses.contains(&octets(address))) {
            return true;
        }
        let has_its_kind = if address.is_some() { !self.addresses.is_empty() } else { !self.dns.is_empty() };
        !has_its_kind && self.common.as_deref().is_some_and(|pattern| matches(pattern, host, address.is_none()))
    }

    /// Whether this is the certificate of the user `name`, by PgBouncer's rules: any alternative name or the common name.
    pub fn is_user(&self, name: &str) -> bool {
        self.dns.iter().chain(&self.common).any(|pattern| matches(pattern, name, true))
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Whether `name` is what `pattern` says, whose leftmost label may be `*`; it stands for one label, and there is one behind it.
fn matches(pattern: &str, name: &str, wildcards: bool) -> bool {
    if pattern.is_empty() || pattern.contains('\0') {
        return false;
    }
    if pattern.eq_ignore_ascii_case(name) {
        return true;
    }
    let Some(domain) = pattern.strip_prefix("*.").filter(|domain| wildcards && !domain.is_empty()) else { return false };
    name.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dns: &[&str], addresses: &[&[u8]], common: Option<&str>) -> Names {
        Names {
            dns: dns.iter().map(ToString::to_string).collect(),
            addresses: addresses.iter().map(|a| a.to_vec()).collect(),
            common: common.map(str::to_owned),
        }
    }

    #[test]
    fn the_common_name_stands_in_for_missing_alternatives() {
        let common_only = names(&[], &[], Some("db.example.org"));
        assert!(common_only.is_host("DB.example.org") && !common_only.is_host("example.org"));
        let both = names(&["other.example.org"], &[], Some("db.example.org"));
        assert!(both.is_host("other.example.org") && !both.is_host("db.example.org"));
        // An alternative name of another kind does not shut it out.
        let address = names(&[], &[&[10, 0, 0, 1]], Some("db.example.org"));
        assert!(address.is_host("db.example.org") && address.is_host("10.0.0.1") && !address.is_host("10.0.0.2"));
        assert!(!names(&[], &[], None).is_host("x") && !names(&[], &[], Some("")).is_host(""));
    }

    #[test]
    fn addresses_may_stand_in_either_place() {
        assert!(names(&[], &[], Some("10.0.0.1")).is_host("10.0.0.1"));
        assert!(names(&["x"], &[], Some("10.0.0.1")).is_host("10.0.0.1"));
        assert!(!names(&[], &[&[10, 0, 0, 2]], Some("10.0.0.1")).is_host("10.0.0.1"));
        assert!(names(&["10.0.0.1"], &[], None).is_host("10.0.0.1"));
        let six = "2001:db8::1";
        let octets = octets(six.parse().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)));
        assert!(names(&[], &[&octets], None).is_host("2001:0DB8:0::1"));
        assert!(!names(&["*.0.0.1"], &[], Some("*.0.0.1")).is_host("10.0.0.1"));
    }

    #[test]
    fn a_wildcard_is_one_label() {
        let wild = names(&["*.example.org"], &[], None);
        assert!(wild.is_host("a.example.org") && wild.is_host("A.EXAMPLE.ORG"));
        for host in ["example.org", ".example.org", "a.b.example.org", "aexample.org", "a.example.org.evil"] {
            assert!(!wild.is_host(host), "{host}");
        }
        for pattern in ["*", "*.", "a.*.org", "*a.example.org", "a*.example.org"] {
            assert!(!names(&[pattern], &[], None).is_host("aa.example.org"), "{pattern}");
        }
    }

    #[test]
    fn users_are_any_of_the_names() {
        let both = names(&["bob", "*.staff"], &[], Some("alice"));
        assert!(both.is_user("bob") && both.is_user("alice") && both.is_user("eve.staff"));
        assert!(!both.is_user("eve") && !both.is_user("bo") && !both.is_user(""));
        assert!(!names(&[], &[], Some("al\0ice")).is_user("al"));
    }
}
