//! Secrets stay where they were put: the log, the console, the processes' command lines and what `check` prints hold none of them.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::directory::{BASE, Directory};
use end_to_end::program::{binary, stderr, stdout};
use end_to_end::tls::{Authority, TLS13};
use end_to_end::{Client, Fleet, Postgres, SOON, frontend, wait_until};
use nix::sys::signal::Signal;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

/// Part of every secret that can be chosen.
const PLANTED: &str = "hunter2";

/// What is to be found nowhere.
struct Planted(Vec<String>);

impl Planted {
    /// The chosen ones, the verifiers that PostgreSQL has made of some of them, and a key.
    fn new(server: &Postgres, authority: &Authority) -> Planted {
        let mut secrets = vec![PLANTED.to_owned(), "manager-password".to_owned()];
        for user in ["scram_user", "looked_up"] {
            // SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey
            let verifier = stored(server, user);
            secrets.extend(verifier.rsplit(['$', ':']).take(2).map(str::to_owned));
        }
        secrets.push(stored(server, "md5_user")["md5".len()..].to_owned());
        let key = std::fs::read_to_string(authority.file("server.key")).unwrap();
        secrets.extend(key.lines().filter(|line| !line.starts_with("-----")).map(str::to_owned));
        Planted(secrets)
    }

    #[track_caller]
    fn assert_absent(&self, place: &str, text: &str) {
        for secret in &self.0 {
            assert!(!text.contains(secret), "{secret} in {place}:\n{text}");
        }
    }
}

/// What PostgreSQL keeps of a role's password.
fn stored(server: &Postgres, user: &str) -> String {
    server.admin().query_one("select rolpassword from pg_authid where rolname = $1", &[&user]).unwrap().get(0)
}

fn check(config: &Path) -> Output {
    Command::new(binary()).arg("check").arg(config).output().unwrap()
}

fn all(output: &Output) -> String {
    format!("{}\n{}", stdout(output), stderr(output))
}

/// A password of every kind and origin: the roles' own in PostgreSQL, and what the fleet is told of them.
fn postgres() -> Postgres {
    let server = Postgres::start();
    let roles = "
        alter role plain_user password 'hunter2-plain'; alter role scram_user password 'hunter2-scram';
        create role looked_up login password 'hunter2-looked-up';
        set password_encryption = md5; alter role md5_user password 'hunter2-md5'";
    server.admin().batch_execute(roles).unwrap();
    server
}

/// Methods by database.
fn rules(ldap_port: u16) -> String {
    format!(
        "host plain     all   all password\n\
         host hashed    all   all md5\n\
         host proved    all   all scram-sha-256\n\
         host asked     all   all scram-sha-256\n\
         host directory all   all ldap\n\
         host strange   all   all ldap ldapserver=127.0.0.1 ldapport={ldap_port} ldapbasedn=\"{BASE}\" \
             ldapbinddn=\"cn=manager,{BASE}\" ldapbindpasswd=\"hunter2-no-manager\"\n\
         host pgbouncer admin all trust\n\
         host all       all   all password\n"
    )
}

fn fleet(server: &Postgres, directory: &Directory, authority: &Authority) -> end_to_end::Builder {
    let app = format!("host=127.0.0.1 port={} dbname=app", server.port());
    let searcher = format!("ldapbinddn=\"cn=manager,{BASE}\" ldapbindpasswd=manager-password");
    let ldap = format!("ldapserver=127.0.0.1 ldapport={} ldapbasedn=\"{BASE}\" {searcher}", directory.port());
    let builder = Fleet::builder(server)
        .setting("auth_type", "hba")
        .setting("auth_hba_file", "hba.conf")
        .file("hba.conf", &rules(directory.port()))
        .setting("auth_ldap_options", ldap)
        .setting("verbose", 3)
        .setting("server_login_retry", 1)
        .client_tls(authority, "allow")
        .secret("app", "hunter2-app")
        .secret("plain_user", "hunter2-plain")
        .secret("scram_user", &stored(server, "scram_user"))
        .secret("md5_user", &stored(server, "md5_user"))
        .secret("postgres", "hunter2-asker")
        .database("forced", format!("{app} user=md5_user password=hunter2-md5"))
        .database("misled", format!("{app} user=plain_user password='hunter2 not plain'"))
        .database("asked", format!("{app} auth_user=postgres"));
    ["plain", "hashed", "proved", "directory", "strange"].iter().fold(builder, |builder, name| builder.database(name, &app))
}

/// Database, user, and the right password; `None`: no password is.
const LOGINS: [(&str, &str, Option<&str>); 9] = [
    ("plain", "plain_user", Some("hunter2-plain")),
    ("hashed", "md5_user", Some("hunter2-md5")),
    ("proved", "scram_user", Some("hunter2-scram")),
    ("proved", "app", Some("hunter2-app")),
    ("asked", "looked_up", Some("hunter2-looked-up")),
    ("forced", "app", Some("hunter2-app")),
    ("misled", "app", None),
    ("directory", "plain_user", Some("hunter2-plain")),
    ("strange", "plain_user", None),
];

/// Everybody tries to log in, in the clear and inside TLS.
fn log_in(fleet: &Fleet, authority: &Authority) {
    let config = authority.client(&TLS13, None);
    for (database, user, right) in LOGINS {
        for password in ["hunter2-wrong", right.unwrap_or("hunter2-app")] {
            for mut client in [Client::tcp(fleet.port()), Client::tls(fleet.port(), &config)] {
                let result = client.start(&[("user", user), ("database", database)], Some(password));
                assert_eq!(
                    result.is_ok(),
                    right == Some(password),
                    "{user} in {database} with {password}: {result:?}\n{}",
                    fleet.log()
                );
                if result.is_ok() {
                    assert_eq!(client.value("select 1"), "1");
                    client.query("alter role nobody_at_all password 'hunter2-in-a-query'").error();
                }
            }
        }
    }
}

/// Clients that break off or talk nonsense with a password in it.
fn stammer(fleet: &Fleet) {
    let attempts: [(&str, &[u8]); 5] = [
        ("plain", b"hunter2-without-an-end"),
        ("plain", b"hunter2\0-and-more\0"),
        ("hashed", b"hunter2-is-no-hash\0"),
        ("proved", b"SCRAM-SHA-256\0\0\0\0\x07hunter2"),
        ("proved", b"hunter2\0"),
    ];
    for (database, body) in attempts {
        let mut client = Client::tcp(fleet.port());
        client.send(&frontend::startup(&[("user", "plain_user"), ("database", database)]));
        assert_eq!(client.read().kind, b'R');
        client.send(&frontend::password(body));
        client.refusal();
    }
}

/// A client of every way in, with a server of its own.
fn in_transactions(fleet: &Fleet) -> Vec<Client> {
    let rights = LOGINS.iter().filter_map(|(database, user, right)| Some((database, user, (*right)?)));
    let open = rights.filter_map(|(database, user, password)| {
        let mut client = Client::tcp(fleet.port());
        // SET has led the directory's users astray.
        client.start(&[("user", user), ("database", database)], Some(password)).ok()?;
        client.query("begin; select 'hunter2'");
        Some(client)
    });
    open.collect()
}

fn reload(fleet: &Fleet, outcome: &str) {
    let before = fleet.logged(outcome);
    fleet.signal(Signal::SIGHUP);
    wait_until("the reload", SOON, || fleet.logged(outcome) > before);
}

/// What SHOW takes, by its own help.
fn items(console: &mut Client) -> Vec<String> {
    let help = console.query("show help").notices.remove(0).0;
    let shows = help[&'D'].lines().filter_map(|line| line.trim().strip_prefix("SHOW "));
    shows.flat_map(|items| items.split('|')).map(str::to_owned).collect()
}

#[test]
fn no_secret_shows_anywhere() {
    let (server, authority) = (postgres(), Authority::new());
    let directory = Directory::start(&[("plain_user", "hunter2-plain")]);
    let planted = Planted::new(&server, &authority);
    let fleet = fleet(&server, &directory, &authority).start();
    let output = check(&fleet.config_path());
    assert!(output.status.success(), "{}", all(&output));
    planted.assert_absent("what check prints", &all(&output));

    log_in(&fleet, &authority);
    stammer(&fleet);
    let mut console = fleet.console();
    let set = console.query("set auth_ldap_options = 'ldapserver=a ldapbasedn=x ldapbindpasswd=hunter2'");
    assert_eq!(set.tags, ["SET auth_ldap_options=****"]);
    for wrong in [
        "set auth_ldap_options = 'ldapserver=a ldapbasedn=x ldapbindpasswd=\"hunter2 ldapbinddn=y'",
        "set auth_ldap_options 'ldapserver=a ldapbasedn=x ldapbindpasswd=hunter2'",
        "ALTER ROLE app PASSWORD 'hunter2'",
    ] {
        planted.assert_absent("an error", console.query(wrong).error().text());
    }

    let items = items(&mut console);
    assert!(items.len() > 20, "{items:?}");
    let clients = in_transactions(&fleet);
    for item in items {
        let answer = console.query(&format!("show {item}"));
        assert!(answer.errors.is_empty(), "{item}: {answer:?}");
        planted.assert_absent(&item, &format!("{answer:?}"));
    }
    for pid in fleet.processes() {
        planted.assert_absent("a command line", &std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap());
    }

    reload(&fleet, "RELOAD done");
    let hba = fleet.folder().join("hba.conf");
    let unquoted = std::fs::read_to_string(&hba).unwrap().replace("\"hunter2-no-manager\"", "not quoted hunter2");
    std::fs::write(&hba, unquoted).unwrap();
    reload(&fleet, "not in name=value format");
    drop(clients);
    planted.assert_absent("the log", &fleet.log());
}

/// Mistakes with a secret in the middle of them; each is complained of without it.
#[test]
fn check_complains_without_showing_what_is_secret() {
    let authority = Authority::new();
    let key = std::fs::read_to_string(authority.file("server.key")).unwrap();
    let ini = |lines: &str| ("pgfleet.ini", format!("[pgbouncer]\nauth_type = trust\nlisten_addr = 127.0.0.1\n{lines}\n"));
    let database = |entry: &str| ini(&format!("[databases]\napp = host=127.0.0.1 {entry}"));
    let toml = |lines: &str| ("pgfleet.toml", format!("[pgfleet]\nauth_type = \"trust\"\nlisten_addr = \"127.0.0.1\"\n{lines}\n"));
    let ldap = |options: &str| ini(&format!("auth_ldap_options = ldapserver=a ldapbasedn=x {options}"));
    let mistakes = [
        database("password='hunter2"),
        database("password='not'hunter2"),
        database("password=not hunter2"),
        database("pasword=hunter2"),
        toml("[databases.app]\npassword = hunter2"),
        toml("[databases.app]\npassword = \"hunter2"),
        toml("[databases.app]\npassword = [\"hunter2\"]"),
        toml("[databases.app]\npassword = \"not\" hunter2"),
        toml("[databases]\napp = \"password=hunter2\""),
        ldap("ldapbindpasswd=\"hunter2"),
        ldap("ldapbindpasswd=not hunter2"),
        ldap("ldapbindpaswd=hunter2"),
        ldap("ldapurl=ldap://me:hunter2@a/"),
        ini(&format!("client_tls_sslmode = allow\nclient_tls_key_file = {0}\nclient_tls_cert_file = {0}", key_file(&authority))),
        ini(&format!("server_tls_sslmode = verify-ca\nserver_tls_ca_file = {}", key_file(&authority))),
    ];
    for (name, text) in mistakes {
        assert_complained_of(&key, &[(name, &text)]);
    }
    let (name, with_users) = ini("auth_file = userlist.txt");
    for line in ["\"app\" \"hunter2", "\"app\" hunter2", "app \"hunter2\"", "hunter2"] {
        assert_complained_of(&key, &[(name, &with_users), ("userlist.txt", line)]);
    }
    let with_rules = with_users.replace("trust", "hba").replace("auth_file = userlist.txt", "auth_hba_file = hba.conf");
    for line in [
        "host all all all ldap ldapserver=a ldapbasedn=x ldapbindpasswd=\"hunter2",
        "host all all all ldap ldapserver=a ldapbasedn=x ldapbindpasswd=not hunter2",
        "host all all all ldap ldapserver=a ldapbasedn=x ldapbindpaswd=hunter2",
        "host all all ldap ldapserver=a ldapbindpasswd=hunter2",
        "host all all all ldapbindpasswd=hunter2 ldap",
        "ldapbindpasswd=hunter2",
        "host all all all password hunter2",
        "local all all peer map=m ldapbindpasswd=hunter2",
    ] {
        assert_complained_of(&key, &[(name, &with_rules), ("hba.conf", line)]);
    }
}

fn key_file(authority: &Authority) -> String {
    authority.file("server.key").display().to_string()
}

#[track_caller]
fn assert_complained_of(key: &str, files: &[(&str, &str)]) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let output = check(&folder.path().join(files[0].0));
    let said = all(&output);
    assert_eq!(output.status.code(), Some(1), "{files:?}: {said}");
    assert!(!said.contains(PLANTED), "{files:?}: {said}");
    assert!(key.lines().skip(1).take(1).all(|line| !said.contains(line)), "{said}");
}

#[test]
fn files_that_everybody_can_read_are_named() {
    let (server, authority) = (Postgres::start(), Authority::new());
    let fleet = Fleet::builder(&server)
        .setting("auth_type", "hba")
        .setting("auth_hba_file", "hba.conf")
        .file("hba.conf", "host all all all ldap ldapserver=a ldapbasedn=x ldapbindpasswd=hunter2\n")
        .client_tls(&authority, "allow")
        .database("forced", "host=127.0.0.1 password=hunter2")
        .start();
    let files = ["pgfleet.ini", "userlist.txt", "hba.conf"].map(|name| fleet.folder().join(name));
    let files: Vec<_> = files.into_iter().chain([authority.file("server.key")]).collect();
    let named = |mode: u32| -> Vec<bool> {
        for file in &files {
            std::fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
        }
        let output = check(&fleet.config_path());
        assert!(output.status.success(), "{}", all(&output));
        let warned = |file: &Path| {
            all(&output).lines().any(|line| line.contains(file.to_str().unwrap()) && line.contains("can be read by everyone"))
        };
        files.iter().map(|file| warned(file)).collect()
    };
    assert_eq!(named(0o600), [false; 4]);
    assert_eq!(named(0o644), [true; 4]);
    reload(&fleet, "RELOAD done");
    for file in &files {
        fleet.wait_for_log(&format!("{}: ", file.display()));
    }
    assert_eq!(fleet.logged(PLANTED), 0);
}
