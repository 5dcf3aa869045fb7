//! Rules and maps from files that are texts here.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::auth::Method;
use crate::config::CONSOLE_DATABASES;
use std::io;
use std::path::PathBuf;

/// Files by name.
struct Texts<'a>(&'a [(&'a str, &'a str)]);

impl Files for Texts<'_> {
    fn read(&mut self, path: &Path) -> io::Result<String> {
        let found = self.0.iter().find(|(name, _)| Path::new(name) == path);
        found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&mut self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let files: Vec<PathBuf> =
            self.0.iter().map(|(name, _)| PathBuf::from(name)).filter(|path| path.parent() == Some(folder)).collect();
        if files.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(files) }
    }
}

fn read(files: &[(&str, &str)]) -> (Access, Vec<Finding>) {
    let mut findings = Vec::new();
    let ident = files.iter().any(|(name, _)| *name == "/c/ident").then_some(Path::new("/c/ident"));
    let access = Access::read(Path::new("/c/hba"), ident, &mut Texts(files), &mut findings);
    (access, findings)
}

/// Rules of one file with nothing wrong in it.
fn rules(text: &str) -> Access {
    let (access, findings) = read(&[("/c/hba", text)]);
    assert_eq!(findings, [], "{text}");
    access
}

/// What is said about one file.
fn said(text: &str) -> Vec<String> {
    let shown = |f: Finding| format!("{}{}", if f.is_error { "" } else { "warning: " }, f.message);
    read(&[("/c/hba", text), ("/c/ident", "m a b")]).1.into_iter().map(shown).collect()
}

fn tcp(address: &str, tls: bool) -> Origin {
    Origin::Tcp { address: address.parse().unwrap(), tls }
}

/// The method for a user of a database from somewhere.
fn method(access: &Access, database: &str, user: &str, from: Origin) -> Option<Method> {
    access.find(&Asked { database, user, physical_replication: false, from }).map(|rule| rule.method.clone())
}

#[test]
fn the_first_rule_that_matches_wins() {
    let access = rules(
        "# TYPE DATABASE USER ADDRESS METHOD\n\
         local all postgres trust\n\
         host app bob 10.0.0.0/8 reject\n\
         host app,other all 10.0.0.0 255.0.0.0 scram-sha-256 # those inside\n\
         hostssl all all all md5\n\
         hostnossl all all ::1/128 password\n",
    );
    let inside = tcp("10.1.2.3", false);
    assert_eq!(method(&access, "app", "bob", inside), Some(Method::Reject));
    assert_eq!(method(&access, "app", "eve", inside), Some(Method::ScramSha256));
    assert_eq!(method(&access, "other", "bob", inside), Some(Method::ScramSha256));
    assert_eq!(method(&access, "third", "bob", inside), None);
    assert_eq!(method(&access, "third", "bob", tcp("10.1.2.3", true)), Some(Method::Md5));
    assert_eq!(method(&access, "app", "bob", tcp("::1", true)), Some(Method::Md5));
    assert_eq!(method(&access, "app", "bob", tcp("::1", false)), Some(Method::Plain));
    assert_eq!(method(&access, "app", "bob", tcp("::2", false)), None);
    assert_eq!(method(&access, "app", "postgres", Origin::Unix), Some(Method::Trust));
    assert_eq!(method(&access, "app", "bob", Origin::Unix), None);
    assert_eq!(method(&Access::default(), "app", "bob", Origin::Unix), None);
}

#[test]
fn keywords_are_names_when_quoted() {
    let access = rules("host sameuser all all md5\nhost \"all\" \"all\" all trust\nhost \"replication\" x all trust\n");
    let from = tcp("10.0.0.1", false);
    assert_eq!(method(&access, "bob", "bob", from), Some(Method::Md5));
    assert_eq!(method(&access, "bob", "eve", from), None);
    assert_eq!(method(&access, "all", "eve", from), None);
    assert_eq!(method(&access, "replication", "x", from), Some(Method::Trust));
    let access = rules("host all replication,all_of_them all trust\n");
    assert_eq!(method(&access, "a", "replication", from), Some(Method::Trust));
    assert_eq!(method(&access, "a", "Replication", from), None);
}

#[test]
fn physical_replication_needs_its_own_rule() {
    let access = rules("host all all all md5\nhost replication rep all trust\n");
    let asked = |user, physical_replication| Asked { database: "replication", user, physical_replication, from: tcp("::1", false) };
    assert_eq!(access.find(&asked("rep", true)).unwrap().method, Method::Trust);
    assert_eq!(access.find(&asked("rep", false)).unwrap().method, Method::Md5);
    assert!(access.find(&asked("other", true)).is_none());
}

#[test]
fn the_console_is_one_database_with_two_names() {
    let access = rules("host pgbouncer admin all md5\nhost pgbouncer all all reject\nhost all all all trust\n");
    for name in CONSOLE_DATABASES {
        assert_eq!(method(&access, name, "admin", tcp("::1", false)), Some(Method::Md5), "{name}");
        assert_eq!(method(&access, name, "eve", tcp("::1", false)), Some(Method::Reject), "{name}");
    }
}

#[test]
fn lines_go_on_behind_a_backslash_and_blank_ones_do_not_count() {
    let access = rules("\n  \t\r\nhost \\\n  a,\\\nb all \\\n all trust\r\n# comment \\\n host all all all reject\n");
    assert_eq!(method(&access, "a", "x", tcp("::1", false)), Some(Method::Trust));
    assert_eq!(method(&access, "b", "x", tcp("::1", false)), Some(Method::Trust));
    assert_eq!(method(&access, "c", "x", tcp("::1", false)), None);
    assert_eq!(said("\nhost all \\\n all \\\n all nonsense\n"), ["hba line 2: unknown method: nonsense"]);
}

#[test]
fn what_is_not_understood_is_an_error_with_its_line() {
    for (line, expected) in [
        ("hots all all all md5", "unknown type: hots"),
        ("host,local all all all md5", "unknown type: more than one"),
        ("host", "no database"),
        ("host all", "no user"),
        ("host all all", "no address"),
        ("host all all all", "no method"),
        ("local all all", "no method"),
        ("host samerole all all md5", "samerole is not supported: the pooler knows of no membership in roles"),
        ("host samegroup all all md5", "samegroup is not supported: the pooler knows of no membership in roles"),
        ("host all +admins all reject", "+admins is not supported: the pooler knows of no membership in roles"),
        ("host all /^a all reject", "regular expressions are not supported: /^a"),
        ("host /^a all all reject", "regular expressions are not supported: /^a"),
        ("host all all db.example.com md5", "address db.example.com is not an IP address: host names are not supported"),
        ("host all all .example.com reject", "address .example.com is not an IP address: host names are not supported"),
        ("host all all samehost md5", "samehost is not supported"),
        ("host all all samenet md5", "samenet is not supported"),
        ("host all all 10.0.0.1 md5", "address 10.0.0.1 is not a mask for this address"),
        ("host all all 10.0.0.1", "no mask: 10.0.0.1 needs /bits, or a mask in the next field"),
        ("host all all 10.0.0.0/33 md5", "address 10.0.0.0/33 has a wrong number of bits behind the slash"),
        (
            "host all all 10.1.0.0/8 md5",
            "address 10.1.0.0/8 has bits set outside its mask: the network is 10.0.0.0/8, the address alone 10.1.0.0/32",
        ),
        ("host all all all any", "unknown method: any"),
        ("host all all all gss", "unknown method: gss"),
        ("host all all all md5,trust", "more than one method"),
        ("host all all all md5 map=m", "option map is only for peer and cert"),
        ("host all all all cert map=none", "unknown ident map: none"),
        ("host all all all cert map", "an option must be NAME=VALUE"),
        (
            "hostssl all all all md5 clientcert=verify-full",
            "option clientcert is not supported: client_tls_sslmode says whether a certificate is needed",
        ),
        ("host all all all pam pamservice=x", "unknown option: pamservice"),
        ("host all \"all all md5", "a quote is not closed"),
        ("host @nowhere all all md5", "could not open file \"/c/nowhere\": entity not found"),
        ("include", "an include takes one name"),
        ("include a b", "an include takes one name"),
        ("include nowhere", "could not open file \"/c/nowhere\": entity not found"),
        ("include_dir nowhere", "could not open directory \"/c/nowhere\": entity not found"),
        ("include hba", "include nesting level too deep"),
    ] {
        let said = said(&format!("# first\n{line}\n"));
        assert_eq!(said, [format!("hba line 2: {expected}")], "{line}");
    }
}

#[test]
fn rules_that_let_nobody_in_are_warned_of() {
    assert_eq!(
        said("hostgssenc all all all trust"),
        ["warning: hba line 1: hostgssenc matches nobody: there is no GSSAPI encryption here"]
    );
    assert_eq!(said("host all all all peer"), ["warning: hba line 1: peer lets nobody in over TCP"]);
    assert_eq!(said("local all all cert"), ["warning: hba line 1: cert lets nobody in without TLS"]);
    assert_eq!(said("hostnogssenc all all all trust"), [""; 0]);
    let (access, _) = read(&[("/c/hba", "hostgssenc all all all trust\nhostnogssenc all all all md5")]);
    assert_eq!(method(&access, "a", "b", tcp("::1", true)), Some(Method::Md5));
}

#[test]
fn ldap_takes_the_rest_of_the_line_and_shows_it_to_nobody() {
    let access = rules("host all all all ldap ldapserver=\"a b\" ldapbasedn=\"dc=x, dc=y\" ldapbindpasswd=hunter2 # not this\n");
    let Some(Method::Ldap { options: Some(options) }) = method(&access, "a", "b", tcp("::1", false)) else { panic!("not ldap") };
    assert_eq!(options.shown(), "ldapserver=\"a b\" ldapbasedn=\"dc=x, dc=y\" ldapbindpasswd=****");
    assert!(!format!("{access:?}").contains("hunter2"));
}

#[test]
fn maps_say_who_may_be_whom() {
    let ident = "# MAP SYSTEM-USER PG-USER\nm root app\nm root \"all\"\nm \"Some One\" other\nn root all\n";
    let (access, findings) = read(&[("/c/hba", "local all all peer map=m\nhostssl all all all cert map=n"), ("/c/ident", ident)]);
    assert_eq!(findings, []);
    let asked = Asked { database: "a", user: "app", physical_replication: false, from: Origin::Unix };
    assert_eq!(access.find(&asked).unwrap().method, Method::Peer { map: Some("m".into()) });
    let maps = |map: &str, system_user: &str, user: &str| access.maps(map, user, |name| name == system_user);
    assert!(maps("m", "root", "app") && maps("m", "root", "all") && maps("m", "Some One", "other"));
    assert!(!maps("m", "root", "other") && !maps("m", "some one", "other") && !maps("none", "root", "app"));
    assert!(maps("n", "root", "anybody") && !maps("n", "daemon", "anybody"));
}

#[test]
fn what_is_wrong_with_a_map_is_said() {
    for (line, expected) in [
        ("m root", "a line must have three fields: map, system user, user"),
        ("m root app more", "a line must have three fields: map, system user, user"),
        ("m root app,other", "lists are not supported: give each name a line of its own"),
        ("m /^(.*)@x$ \\1", "regular expressions are not supported: /^(.*)@x$"),
        ("m root +admins", "groups are not supported: +admins"),
        ("m root @names", "files of names are not supported: @names"),
    ] {
        let (_, findings) = read(&[("/c/hba", "local all all trust"), ("/c/ident", line)]);
        assert_eq!(findings.len(), 1, "{line}");
        assert_eq!(findings[0].message, format!("ident line 1: {expected}"), "{line}");
        assert!(findings[0].is_error && findings[0].file.ends_with("ident"), "{line}");
    }
}

#[test]
fn files_include_others_relative_to_themselves() {
    let files = [
        ("/c/hba", "include sub/first.conf\ninclude_if_exists nowhere\ninclude_dir \"sub dir\"\nhost @names all all md5\n"),
        ("/c/sub/first.conf", "include second.conf\nhost one all all trust\n"),
        ("/c/sub/second.conf", "host two all all reject\nnonsense\n"),
        ("/c/sub dir/b.conf", "host all bob all trust\n"),
        ("/c/sub dir/a.conf", "host all bob all reject\n"),
        ("/c/sub dir/.c.conf", "nonsense\n"),
        ("/c/sub dir/readme", "nonsense\n"),
        ("/c/names", "x, y # z\n\"sameuser\" @more/names\n"),
        ("/c/more/names", "@others"),
        ("/c/more/others", "w"),
    ];
    let (access, findings) = read(&files);
    let places: Vec<_> = findings.iter().map(|f| (f.file.to_str().unwrap(), f.line)).collect();
    assert_eq!(places, [("/c/sub/second.conf", 2)]);
    let from = tcp("10.0.0.1", false);
    assert_eq!(method(&access, "two", "a", from), Some(Method::Reject));
    assert_eq!(method(&access, "one", "a", from), Some(Method::Trust));
    assert_eq!(method(&access, "x", "bob", from), Some(Method::Reject));
    for name in ["x", "y", "sameuser", "w"] {
        assert_eq!(method(&access, name, "a", from), Some(Method::Md5), "{name}");
    }
    assert_eq!(method(&access, "z", "a", from), None);
    assert_eq!(method(&access, "a", "a", from), None);
}

#[test]
fn files_that_include_themselves_come_to_an_end() {
    let twice = "include hba\n".repeat(10);
    let (_, findings) = read(&[("/c/hba", &twice)]);
    assert!(findings.iter().all(|f| f.is_error) && !findings.is_empty() && findings.len() < 100_000);
    let names = format!("host {} all all md5", "@names,".repeat(10));
    let (_, findings) = read(&[("/c/hba", &names), ("/c/names", &"@names ".repeat(10))]);
    assert_eq!(findings.len(), 1);
    let (_, findings) = read(&[]);
    assert_eq!(findings[0].message, "could not open file \"/c/hba\": entity not found");
}
