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
