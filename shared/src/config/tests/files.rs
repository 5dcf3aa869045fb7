//! Both file formats: what is read, and what is said about what cannot be.

use super::super::{AuthType, LoadBalanceHosts, PoolMode};
use super::{Folder, ini, ini_problems, toml, toml_problems};
use crate::auth::Secret;
use std::time::Duration;

const INI: &str = "\
; a comment
# another
[databases]
app = host=10.0.0.1 port=5433 dbname=main pool_size=7 pool_mode = transaction
'with space' = user=boss password='it''s' connect_query='select 1' load_balance_hosts=disable
legacy = reserve_pool=3 max_db_connections=-1 server_lifetime=60 auth_user=a
* = host=/run/postgresql
[users]
batch = pool_size=2 query_timeout=30 query_wait_timeout=0
[peers]
1 = host=other
[pgbouncer]
listen_addr = 127.0.0.1, ::1
listen_port=0x1900
  unix_socket_mode = 0770\x20\x20
server_reset_query = DISCARD ALL; -- not a comment # either
server_idle_timeout = 1.5
admin_users = alice,bob
syslog = 7
auth_user = lookup
";

const NATIVE: &str = r#"
[pgfleet]
listen_addr = ["127.0.0.1", "::1"]
listen_port = 6400
unix_socket_mode = 0o770
server_reset_query = "DISCARD ALL; -- not a comment # either"
server_idle_timeout = "1500ms"
admin_users = ["alice", "bob"]
syslog = true
auth_user = "lookup"

[databases.app]
host = "10.0.0.1"
port = 5433
dbname = "main"
pool_size = 7
pool_mode = "transaction"

[databases."with space"]
user = "boss"
password = "it's"
connect_query = "select 1"
load_balance_hosts = "disable"

[databases]
legacy = { reserve_pool_size = 3, server_lifetime = 60, auth_user = "a" }
"*" = { host = "/run/postgresql" }

[users.batch]
pool_size = 2
query_timeout = 30.0
query_wait_timeout = 0

[peers.1]
host = "other"
"#;

#[test]
fn pgbouncers_file() {
    let config = ini(INI).unwrap();
    let settings = &config.settings;
    assert_eq!(&settings.listen_addr[..], ["127.0.0.1", "::1"]);
    assert_eq!((settings.listen_port, settings.unix_socket_mode, settings.syslog), (6400, 0o770, true));
    assert_eq!(settings.server_reset_query, "DISCARD ALL; -- not a comment # either");
    assert_eq!(settings.server_idle_timeout, Duration::from_millis(1500));
    assert_eq!(settings.value("admin_users").as_deref(), Some("alice,bob"));
    assert!(settings.conffile.as_deref().is_some_and(|f| f.ends_with("pgbouncer.ini")));

    let app = &config.databases["app"];
    assert_eq!((app.host.as_deref(), app.port, app.server_database()), (Some("10.0.0.1"), 5433, "main"));
    assert_eq!((app.pool_size, app.pool_mode), (Some(7), Some(PoolMode::Transaction)));
    let spaced = &config.databases["with space"];
    assert_eq!(spaced.password, Some(Secret::parse("it's")));
    assert_eq!((spaced.load_balance_hosts, spaced.server_database()), (LoadBalanceHosts::Disable, "with space"));
    assert_eq!((config.databases["legacy"].reserve_pool_size, config.databases["legacy"].max_db_connections), (Some(3), None));
    assert_eq!(config.fallback.as_ref().unwrap().hosts().collect::<Vec<_>>(), ["/run/postgresql"]);
    assert_eq!(config.users["batch"].query_wait_timeout, Some(Duration::ZERO));
    assert_eq!((config.peers[&1].host.as_deref(), config.peers[&1].port), (Some("other"), 6432));
}

#[test]
fn both_formats_say_the_same() {
    let folder = Folder::new(&[("a.ini", INI), ("b.toml", NATIVE)]);
    let (mut a, b) = (folder.load("a.ini").unwrap(), folder.load("b.toml").unwrap());
    a.path.clone_from(&b.path);
    a.settings.conffile.clone_from(&b.settings.conffile);
    assert_eq!(a, b);
}

#[test]
fn convert_keeps_what_was_set_and_nothing_else() {
    let folder = Folder::new(&[("a.ini", INI)]);
    let printed = super::super::to_toml(&folder.path("a.ini")).unwrap();
    std::fs::write(folder.path("a.toml"), &printed).unwrap();
    let (mut from_ini, from_toml) = (folder.load("a.ini").unwrap(), folder.load("a.toml").unwrap());
    from_ini.path.clone_from(&from_toml.path);
    from_ini.settings.conffile.clone_from(&from_toml.settings.conffile);
    assert_eq!(from_ini, from_toml, "{printed}");
    assert!(
        printed.contains("\nunix_socket_mode = 0o770\n") && printed.contains("\nserver_idle_timeout = \"1500ms\"\n"),
        "{printed}"
    );
    assert!(!printed.contains("max_client_conn") && !printed.contains("max_db_connections"), "{printed}");
    assert_eq!(super::super::to_toml(&folder.path("a.toml")).unwrap(), printed, "converting again changes nothing");
}

#[test]
fn the_last_of_several_is_what_holds_and_what_is_converted() {
    let folder = Folder::new(&[(
        "a.ini",
        "[databases]\na = host=x pool_size=1\na = host=y\n[pgbouncer]\nworkers = 1\nworkers = 2\n[users]\nu = pool_size=1 pool_size=2 reserve_pool=3\n",
    )]);
    let config = folder.load("a.ini").unwrap();
    assert_eq!(
        (config.databases["a"].host.as_deref(), config.databases["a"].pool_size, config.settings.workers),
        (Some("y"), None, 2)
    );
    let printed = super::super::to_toml(&folder.path("a.ini")).unwrap();
    assert_eq!(
        printed,
        "[pgfleet]\nworkers = 2\n\n[databases.a]\nhost = \"y\"\n\n[users.u]\npool_size = 2\nreserve_pool_size = 3\n"
    );
    let repeated = folder.check("a.ini").iter().filter(|p| p.contains("stands here again")).count();
    assert_eq!(repeated, 2, "the entry and the setting");
}

#[test]
fn every_problem_of_an_ini_is_named_with_its_place() {
    let mut problems = ini_problems(
        "stray = 1\n[pgbouncer]\ndefualt_pool_size = 3\nlisten_port = 65536\npool_size = 4\nworkers : 3\n\"x\" = 1\n[database]\nx = 1\n\
         [databases]\napp = host=h pool_size=abc\ndb2 = hots=h\ndb3 = password='hunter2\npgfleet = host=h\npgbouncer =\ndb4 = port=0\n\
         [users]\nu = pool_size=1 dbname=x\n[peers]\n0 = host=h\n2 = port=1\n",
    );
    let expected = [
        "pgbouncer.ini:1: stray: value without section",
        "pgbouncer.ini:3: defualt_pool_size: unknown parameter: pgbouncer/defualt_pool_size; did you mean default_pool_size?",
        "pgbouncer.ini:4: listen_port: invalid value \"65536\": must be a whole number from 1 to 65535",
        "pgbouncer.ini:5: pool_size: unknown parameter: pgbouncer/pool_size; it is a key of a database entry",
        "pgbouncer.ini:6: syntax error in configuration: no \"=\" behind the name",
        "pgbouncer.ini:7: syntax error in configuration: names are quoted with single quotes",
        "pgbouncer.ini:8: invalid section \"database\" in configuration; did you mean databases?",
        "pgbouncer.ini:11: databases.app.pool_size: invalid value \"abc\": must be a whole number, 0 or more",
        "pgbouncer.ini:12: databases.db2.hots: unrecognized connection parameter: hots; did you mean host?",
        "pgbouncer.ini:13: databases.db3: syntax error in connection string: quote of password not closed",
        "pgbouncer.ini:14: databases.pgfleet: database name \"pgfleet\" is reserved: it is the console's",
        "pgbouncer.ini:15: databases.pgbouncer: database name \"pgbouncer\" is reserved: it is the console's",
        "pgbouncer.ini:16: databases.db4.port: invalid value \"0\": must be a whole number from 1 to 65535",
        "pgbouncer.ini:18: users.u.dbname: unrecognized user parameter: dbname",
        "pgbouncer.ini:20: peers.0: ids of peers must be a number larger than 0 and at most 65535",
        "pgbouncer.ini:21: peers.2: host was not provided for peer 2",
    ];
    problems.sort_by_key(|p| expected.iter().position(|e| e == p));
    assert_eq!(problems, expected);
}

#[test]
fn every_problem_of_a_toml_is_named_with_its_place() {
    let problems = toml_problems(
        "listen_port = 1\n[pgfleet]\nmax_client_conn = \"many\"\nlog_connections = 2\nadmin_users = \"a b\"\nserver_lifetime = \"5 parsecs\"\n\
         auth_file = 7\nworker = 2\nlisten_addr = [\"a,b\"]\n[database.x]\n[databases.app]\npassword = 5\nhost = \"\"\n[databases]\ny = 3\n",
    );
    let expected = [
        "pgfleet.toml:1: listen_port: belongs under [pgfleet]",
        "pgfleet.toml:3: max_client_conn: invalid value \"many\": must be a whole number from 0 to 262144",
        "pgfleet.toml:4: log_connections: invalid value 2: must be true or false",
        "pgfleet.toml:6: server_lifetime: invalid value \"5 parsecs\": must be a number of seconds, or a time such as \"10s\", \"5min\" or \"100ms\"",
        "pgfleet.toml:7: auth_file: invalid value 7: must be a string",
        "pgfleet.toml:8: worker: unknown parameter: pgbouncer/worker; did you mean workers?",
        "pgfleet.toml:9: listen_addr: invalid value (array of something else than words): must be an array of strings",
        "pgfleet.toml:10: database: unknown table [database]; did you mean databases?",
        "pgfleet.toml:12: databases.app.password: invalid value ****: must be a string",
        "pgfleet.toml:13: databases.app.host: must not be empty: leave it out",
        "pgfleet.toml:15: databases.y: must be a table: [databases.y]",
    ];
    assert_eq!(problems, expected);
    let broken = toml_problems("[pgfleet]\nlisten_port = \nworkers = 2\nworkers = 3\n");
    assert!(broken.iter().any(|p| p.starts_with("pgfleet.toml:2: syntax error")), "{broken:?}");
    assert!(broken.iter().any(|p| p.starts_with("pgfleet.toml:4: syntax error")), "{broken:?}");
}

#[test]
fn a_password_is_never_in_a_message() {
    let problems = ini_problems("[databases]\na = password=hunter2 hunter2\nb = password='hunter2'hunter2\n[pgbouncer]\n");
    assert_eq!(problems.len(), 2);
    assert!(problems.iter().all(|p| !p.contains("hunter2")), "{problems:?}");
}

#[test]
fn what_is_not_supported_is_refused_and_converted_all_the_same() {
    let text = "[databases]\na = auth_dbname=pgbouncer\n[pgbouncer]\nauth_type = hba\nauth_dbname = pgbouncer\n";
    let folder = Folder::new(&[("p.ini", text)]);
    let problems = folder.check("p.ini");
    for expected in [
        "p.ini:2: databases.a.auth_dbname: cannot use the reserved \"pgbouncer\" database as an auth_dbname",
        "p.ini:4: auth_type: hba needs auth_hba_file",
        "p.ini:5: auth_dbname: cannot use the reserved \"pgbouncer\" database as an auth_dbname",
    ] {
        assert!(problems.iter().any(|p| p == expected), "{expected}: {problems:?}");
    }
    assert!(super::super::to_toml(&folder.path("p.ini")).unwrap().contains("auth_type = \"hba\""));
    for (line, expected) in [
        ("proxy_protocol_networks = 10.0.0.0/8, proxy", "p.ini:2: proxy_protocol_networks: proxy is not an IP address"),
        (
            "proxy_protocol_networks = 10.0.0.1",
            "p.ini:2: proxy_protocol_networks: 10.0.0.1 has a wrong number of bits behind the slash",
        ),
        ("proxy_protocol_addresses = *", "p.ini:2: proxy_protocol_addresses: * is not an IP address"),
    ] {
        let folder = Folder::new(&[("p.ini", &format!("[pgbouncer]\n{line}\n"))]);
        assert_eq!(folder.check("p.ini"), [expected]);
    }
    assert!(ini_problems("[pgbouncer]\nunix_socket_dir =\n").iter().any(|p| p.contains("nowhere to listen on")));
}

#[test]
fn missing_files_and_sections() {
    assert_eq!(ini_problems("[databases]\n"), ["pgbouncer.ini: main section missing from config file: there is no [pgbouncer]"]);
    let folder = Folder::new(&[("a.ini", "[pgbouncer]\nauth_file = nowhere.txt\n")]);
    assert_eq!(
        folder.check("a.ini"),
        ["a.ini:2: auth_file: could not open auth_file nowhere.txt: No such file or directory (os error 2)"]
    );
    for name in ["none.ini", "none.toml"] {
        let problems = folder.check(name);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(&format!("{name}: could not load file")), "{problems:?}");
    }
    assert!(ini("[pgfleet]\nlisten_port = 7000\n").is_ok_and(|c| c.settings.listen_port == 7000));
    assert!(toml("").is_ok_and(|c| c.settings.auth_type == AuthType::Md5));
}
