//! %include, a second main section, auth_file and what others may read.

use super::Folder;
use std::os::unix::fs::PermissionsExt;

#[test]
fn the_section_goes_on_through_an_include() {
    let folder = Folder::new(&[
        ("main.ini", "[pgbouncer]\n%include more.ini\nworkers = 3\n%include dbs.ini\n b = host=y\n"),
        ("more.ini", "listen_port = 7001\nmax_client_conn = x\n"),
        ("dbs.ini", "[databases]\na = host=x\n"),
    ]);
    assert_eq!(
        folder.check("main.ini"),
        ["more.ini:2: max_client_conn: invalid value \"x\": must be a whole number from 0 to 262144"]
    );
    std::fs::write(folder.path("more.ini"), "listen_port = 7001\n").unwrap();
    let config = folder.load("main.ini").unwrap();
    assert_eq!((config.settings.listen_port, config.settings.workers), (7001, 3));
    assert_eq!(config.databases.keys().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn includes_end_somewhere() {
    let folder =
        Folder::new(&[("a.ini", "[pgbouncer]\n%include a.ini\n"), ("b.ini", "[pgbouncer]\n%include gone.ini\n%include\n")]);
    let problems = folder.check("a.ini");
    assert_eq!(problems, ["a.ini:2: include nesting level too deep"]);
    let problems = folder.check("b.ini");
    assert_eq!(problems[0], "b.ini:2: could not load file \"gone.ini\": No such file or directory (os error 2)");
    assert_eq!(problems[1], "b.ini:3: syntax error in configuration: %include without a file name");
}

#[test]
fn a_second_main_section_starts_from_the_defaults() {
    let folder = Folder::new(&[(
        "a.ini",
        "[pgbouncer]\nuser = postgres\nlisten_port = 7000\nworkers = nonsense\n[databases]\n[pgbouncer]\nmax_client_conn = 5\n",
    )]);
    assert_eq!(
        folder.check("a.ini"),
        [
            "a.ini:4: workers: invalid value \"nonsense\": must be a whole number from 0 to 63",
            "a.ini:6: another [pgbouncer] section puts what was set before back to its default: listen_port, workers",
        ]
    );
    let text = std::fs::read_to_string(folder.path("a.ini")).unwrap();
    std::fs::write(folder.path("a.ini"), text.replace("workers = nonsense\n", "")).unwrap();
    let settings = folder.load("a.ini").unwrap().settings;
    assert_eq!((settings.listen_port, settings.max_client_conn, settings.user.as_deref()), (6432, 5, Some("postgres")));
    let printed = super::super::to_toml(&folder.path("a.ini")).unwrap();
    assert_eq!(printed, "[pgfleet]\nuser = \"postgres\"\nmax_client_conn = 5\n");
}

#[test]
fn secrets_come_from_auth_file_and_should_be_private() {
    let folder = Folder::new(&[
        ("a.ini", "[databases]\nx = password=1\n[pgbouncer]\nauth_file = users.txt\nlisten_port = 1\nlisten_port = 2\n"),
        ("users.txt", "\"alice\" \"secret\"\n\"bob\" \"md50123456789abcdef0123456789abcdef\"\n"),
    ]);
    let set_mode = |mode| {
        for name in ["a.ini", "users.txt"] {
            std::fs::set_permissions(folder.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    set_mode(0o644);
    let mut problems = folder.check("a.ini");
    problems.sort();
    assert_eq!(
        problems,
        [
            "a.ini: password: holds secrets and can be read by everyone (mode 0644)",
            "a.ini:6: listen_port: stands here again; what stood before does not count",
            "users.txt: holds secrets and can be read by everyone (mode 0644)",
        ]
    );
    set_mode(0o640);
    assert_eq!(folder.check("a.ini").len(), 1);
    let config = folder.load("a.ini").unwrap();
    assert_eq!(config.secrets["alice"].expose(), "secret");
    assert!(matches!(config.secrets["bob"], crate::auth::Secret::Md5(_)));
    assert_eq!(config.settings.listen_port, 2);
}

#[test]
fn passwords_for_ldap_should_be_private_too() {
    let secret = "ldapserver=a ldapbasedn=dc=x ldapbindpasswd=hunter2";
    let folder = Folder::new(&[
        ("a.ini", "[pgbouncer]\nauth_type = hba\nauth_hba_file = hba\n%include ldap.ini\n"),
        ("ldap.ini", &format!("auth_ldap_options = {secret}\n")),
        ("hba", "include more\nhost all all all ldap ldapserver=a ldapbasedn=dc=x\n"),
        ("more", &format!("host all all 10.0.0.0/8 ldap {secret}\n")),
    ]);
    for name in ["a.ini", "ldap.ini", "hba", "more"] {
        std::fs::set_permissions(folder.path(name), std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    let mut problems = folder.check("a.ini");
    problems.sort();
    assert_eq!(
        problems,
        [
            "ldap.ini: auth_ldap_options: holds secrets and can be read by everyone (mode 0644)",
            "more: auth_hba_file: holds secrets and can be read by everyone (mode 0644)",
        ]
    );
}
