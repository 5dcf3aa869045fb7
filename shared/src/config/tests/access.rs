//! auth_hba_file and auth_ident_file as parts of the configuration.

use super::super::{Changes, Config, reread};
use super::Folder;
use crate::auth::Method;
use crate::auth::hba::{Asked, Origin};

const INI: &str = "[databases]\na =\n[pgbouncer]\nauth_type = hba\nauth_hba_file = hba.conf\nauth_ident_file = ident.conf\n";

fn folder(hba: &str) -> Folder {
    Folder::new(&[
        ("a.ini", INI),
        ("hba.conf", hba),
        ("ident.conf", "m root app\n"),
        ("more.conf", "local all all trust\nnonsense\n"),
    ])
}

/// What is said about the rules.
fn problems(folder: &Folder) -> Vec<String> {
    folder.check("a.ini").into_iter().filter(|p| p.contains("_file: ")).collect()
}

#[test]
fn what_is_wrong_is_named_with_file_and_line() {
    assert_eq!(problems(&folder("local all all peer map=m\n")), [""; 0]);
    assert_eq!(
        problems(&folder("local all all peer map=n\n\nhost all all samehost trust\ninclude more.conf\ninclude none.conf\n")),
        [
            "hba.conf:1: auth_hba_file: hba line 1: unknown ident map: n",
            "hba.conf:3: auth_hba_file: hba line 3: samehost is not supported",
            "hba.conf:5: auth_hba_file: hba line 5: could not open file \"none.conf\": No such file or directory (os error 2)",
            "more.conf:2: auth_hba_file: hba line 2: unknown type: nonsense",
        ]
    );
    let folder = folder("");
    std::fs::remove_file(folder.path("ident.conf")).unwrap();
    assert_eq!(
        problems(&folder),
        ["a.ini:6: auth_ident_file: could not open file \"ident.conf\": No such file or directory (os error 2)"]
    );
}

#[test]
fn rules_travel_with_the_snapshot_and_a_change_is_seen() {
    let folder = folder("local all app peer map=m\nhost all all 10.0.0.0/8 ldap ldapserver=x ldapbasedn=y\n");
    let mut config = Config { path: folder.path("a.ini"), ..Config::default() };
    config.settings.auth_type = super::super::AuthType::Hba;
    config.settings.auth_hba_file = folder.path("hba.conf").display().to_string();
    config.settings.auth_ident_file = Some(folder.path("ident.conf").display().to_string());
    let before = config.clone();
    assert!(reread(&mut config, "max_client_conn").is_empty());
    assert_eq!(config, before);
    assert!(reread(&mut config, "auth_type").is_empty());
    assert_eq!(before.changes(&config), Changes { access: true, ..Changes::default() });

    let read_back = Config::from_bytes(&config.to_bytes().unwrap()).unwrap();
    assert_eq!(read_back.access, config.access);
    let asked = Asked { database: "a", user: "app", physical_replication: false, from: Origin::Unix };
    assert_eq!(read_back.access.find(&asked).unwrap().method, Method::Peer { map: Some("m".into()) });
    assert!(read_back.access.maps("m", "app", |name| name == "root"));

    std::fs::write(folder.path("hba.conf"), "nonsense\n").unwrap();
    assert!(reread(&mut config, "auth_hba_file").has_errors());
}

#[test]
fn auth_query_in_whatever_database_clients_name_is_warned_of() {
    let warned = |entry: &str, settings: &str| {
        let text = format!("[databases]\na =\n* ={entry}\n[pgbouncer]\n{settings}");
        Folder::new(&[("a.ini", &text)]).check("a.ini").into_iter().find(|problem| problem.contains("auth_dbname"))
    };
    let said = "a.ini:3: databases.*: auth_query is asked in whatever database a client names, and few of them if they do not exist: set auth_dbname";
    assert_eq!(warned("", "auth_user = u\n").as_deref(), Some(said));
    assert_eq!(warned(" auth_user=u", "").as_deref(), Some(said));
    assert_eq!(warned("", ""), None);
    assert_eq!(warned("", "auth_user = u\nauth_dbname = a\n"), None);
    assert_eq!(warned(" auth_user=u auth_dbname=a", ""), None);
    assert_eq!(warned("", "auth_user = u\nauth_type = any\n"), None);
}
