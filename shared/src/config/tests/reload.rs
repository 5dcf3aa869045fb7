//! Snapshots and differences.

use super::super::{Changes, Config};
use super::ini;

fn of(databases: &str, settings: &str) -> Config {
    ini(&format!("[databases]\n{databases}\n[pgbouncer]\n{settings}\n")).unwrap()
}

#[test]
fn a_snapshot_reads_back_the_same() {
    let mut config = of("a = host=x password=secret\n* =", "listen_addr = *\nserver_idle_timeout = 0.25\nadmin_users = a b");
    config.secrets.insert("alice".into(), crate::auth::Secret::parse("hunter2"));
    config.generation = 7;
    let bytes = config.to_bytes().unwrap();
    assert_eq!(Config::from_bytes(&bytes).unwrap(), config);
    for broken in [&bytes[..bytes.len() - 1], &bytes[1..], &[], &[&bytes[..], &[0]].concat()] {
        assert!(Config::from_bytes(broken).is_err());
    }
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn the_same_configuration_changes_nothing() {
    let config = of("a = host=x", "");
    assert_eq!(config.changes(&config.clone()), Changes { ..Changes::default() });
}

#[test]
fn settings_are_told_apart_by_what_applies_them() {
    let running = of("", "listen_port = 7000\nmax_client_conn = 10\nadmin_users = a,b");
    let mut new = of("", "listen_port = 7001\nmax_client_conn = 11\nadmin_users = a b");
    let changes = running.changes(&new);
    let applied: Vec<&str> = changes.changed.iter().copied().filter(|name| *name != "conffile").collect();
    assert_eq!((applied, changes.needs_restart), (vec!["max_client_conn"], vec!["listen_port"]));
    new.keep_unchangeable(&running);
    assert_eq!((new.settings.listen_port, new.settings.max_client_conn), (7000, 11));
    assert!(running.changes(&new).needs_restart.is_empty());
}

#[test]
fn databases_reconnect_when_they_lead_elsewhere() {
    let running = of("a = host=x\nb = host=x\nc = host=x\nd = host=x user=u\n* = host=x", "");
    let new = of("a = host=x pool_size=5 password=p\nb = host=y\nd = host=x\ne = host=x\n* = host=y", "");
    let changes = running.changes(&new);
    assert_eq!(changes.dropped_databases, ["c"]);
    assert_eq!(changes.added_databases, ["e"]);
    assert_eq!(changes.reconnect_databases, ["*", "b", "d"]);
    let mut new = of("a = host=x\nb = host=x", "server_tls_ciphers = fast");
    assert_eq!(running.changes(&new).reconnect_databases, ["a", "b"]);
    assert!(running.changes(&new).dropped_databases.contains(&"*".to_owned()));
    new.secrets.insert("a".into(), crate::auth::Secret::parse("x"));
    assert!(running.changes(&new).outdated_secrets.is_empty());
    assert_eq!(new.changes(&running).outdated_secrets, [crate::auth::Secret::parse("x")]);
}

/// Lines about `new` in place of `running`, but for what differs because they are two files.
fn told(running: &Config, new: &Config) -> Vec<String> {
    let news = running.news(new, &running.changes(new));
    let lines = news.changed.into_iter().chain(news.needs_restart.into_iter().map(|line| format!("! {line}")));
    lines.filter(|line| !line.starts_with("conffile")).collect()
}

#[test]
fn what_has_changed_is_told() {
    let running = of("a = host=x password=old\nb = host=x\nc = host=x\n* = host=x", "[users]\nu = pool_size=1\nv = pool_size=2");
    assert_eq!(told(&running, &running), [""; 0]);
    let settings = "listen_port = 7000\nmax_client_conn = 11\nauth_user = alice\nsbuf_loopcnt = 7\npidfile = /x\n";
    let mut new = of(
        "a = host=x password=new\nb = host=y pool_size=3\n* = host=x\nd = host=x",
        &format!("{settings}[users]\nu = pool_size=2"),
    );
    new.secrets.insert("alice".into(), crate::auth::Secret::parse("hunter2"));
    let lines = [
        "auth_user: alice, was (unset)",
        "max_client_conn: 11, was 100",
        "databases added: d",
        "databases removed: c",
        "databases.a: changed: password",
        "databases.b: changed: host, pool_size",
        "users removed: v",
        "users.u: changed: pool_size",
        "auth_file: users added: alice",
        "server connections are replaced as they fall free, of databases: b",
        "! listen_port: 7000 needs pgfleet to be stopped and started; until then 6432 stays in force",
        "! pidfile: /x needs pgfleet to be stopped and started; until then (empty) stays in force",
    ];
    assert_eq!(told(&running, &new), lines);
    let mut third = new.clone();
    third.secrets.insert("alice".into(), crate::auth::Secret::parse("hunter3"));
    assert_eq!(told(&new, &third), ["auth_file: users with another secret: alice"]);
}

#[test]
fn secrets_are_not_told_nor_control_characters() {
    let ldap =
        |password| of("", &format!("auth_ldap_options = ldapserver=a ldapbasedn=dc=x ldapbinddn=b ldapbindpasswd={password}"));
    assert_eq!(told(&ldap("one"), &ldap("two")), ["auth_ldap_options: another value"]);
    let mut new = of("", "");
    new.settings.login_notify_message = "two\nlines".into();
    assert_eq!(told(&of("", ""), &new), ["login_notify_message: two lines, was (empty)"]);
}

#[test]
fn many_things_are_told_in_few_words() {
    let databases = |host| (0..1000).fold(String::new(), |all, n| format!("{all}d{n} = host={host}\n"));
    let lines = told(&of(&databases("x"), ""), &of(&databases("y"), ""));
    assert_eq!((lines.len(), lines[50].as_str()), (52, "databases: changed besides: 950"));
    assert!(lines[51].ends_with(" and 980 more"));
    let lines = told(&of("", ""), &of(&databases("x"), ""));
    assert!(lines.len() == 1 && lines[0].starts_with("databases added: d0, d1, d10, ") && lines[0].ends_with(" and 980 more"));
}
