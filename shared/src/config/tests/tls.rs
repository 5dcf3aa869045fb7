//! The files of the TLS settings: read with the configuration, or the reason why it is refused.

use super::{Config, Folder};

const INI: &str = "[pgbouncer]\nclient_tls_sslmode = prefer\nclient_tls_cert_file = a.crt\nclient_tls_key_file = a.key\n";

/// A folder with two certificates and their keys, and `pgbouncer.ini` for one of them.
fn folder(ini: &str) -> Folder {
    let made = ["a", "b"].map(|name| rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap());
    let [a, b] = made.map(|made| (made.cert.pem(), made.signing_key.serialize_pem()));
    Folder::new(&[("pgbouncer.ini", ini), ("a.crt", &a.0), ("a.key", &a.1), ("b.crt", &b.0), ("b.key", &b.1)])
}

/// The errors, without the warnings.
fn errors(folder: &Folder) -> Vec<String> {
    let problems = super::super::check(&folder.path("pgbouncer.ini"));
    problems.errors().map(|problem| problem.to_string().replace(&format!("{}/", folder.0.path().display()), "")).collect()
}

#[test]
fn what_they_hold_travels_with_the_configuration_and_is_not_shown() {
    let config = folder(INI).load("pgbouncer.ini").unwrap();
    assert!(config.client_tls.key.is_some() && config.client_tls.certificate.is_some());
    assert!(!format!("{config:?}").contains("PRIVATE KEY"));
    assert_eq!(Config::from_bytes(&config.to_bytes().unwrap()).unwrap(), config);
    let disabled = folder(&INI.replace("prefer", "disable")).load("pgbouncer.ini").unwrap();
    assert!(disabled.client_tls.iter().next().is_none(), "nothing is read that is not needed");
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_its_setting() {
    let wrong = |from: &str, to: &str| errors(&folder(&INI.replace(from, to)));
    let missing = wrong("a.key", "none.key");
    assert_eq!(
        missing,
        [
            "pgbouncer.ini:4: client_tls_key_file: could not open client_tls_key_file none.key: No such file or directory (os error 2)"
        ]
    );
    let other = wrong("a.key", "b.key");
    assert_eq!(other.len(), 1);
    assert!(
        other[0].starts_with("pgbouncer.ini:4: client_tls_key_file: could not use client_tls_key_file b.key: does not fit"),
        "{other:?}"
    );
    let swapped = wrong("a.crt", "a.key");
    assert!(swapped[0].ends_with("client_tls_cert_file a.key: there is no certificate in it"), "{swapped:?}");
    let unset = wrong("client_tls_key_file = a.key\n", "");
    assert!(unset[0].contains("client_tls_key_file and client_tls_cert_file must be set."), "{unset:?}");
    let list = wrong("[pgbouncer]\n", "[pgbouncer]\nclient_tls_ciphers = all\n");
    assert_eq!(list, ["pgbouncer.ini:2: client_tls_ciphers: invalid client_tls_ciphers: all"]);
}

#[test]
fn a_key_that_everyone_can_read_is_reported() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder(INI);
    std::fs::set_permissions(folder.path("a.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let problems = folder.check("pgbouncer.ini");
    let warned = "a.key: client_tls_key_file: holds secrets and can be read by everyone (mode 0644)";
    assert!(problems.iter().any(|problem| problem == warned), "{problems:?}");
}

#[test]
fn files_are_read_again_as_a_set_or_not_at_all() {
    let folder = folder(INI);
    let running = folder.load("pgbouncer.ini").unwrap();
    let copy = |from: &str, to: &str| std::fs::copy(folder.path(from), folder.path(to)).unwrap();
    copy("b.crt", "a.crt");
    let mut new = running.clone();
    let errors = new.read_tls_files(&running).unwrap_err();
    assert_eq!((errors.len(), errors[0].setting), (1, "client_tls_key_file"));
    assert!(new == running);
    copy("b.key", "a.key");
    new.read_tls_files(&running).unwrap();
    assert!(new.client_tls != running.client_tls && new.server_tls == running.server_tls);
    // A file that is set is looked for beside the configuration, as in it.
    new.settings.set("client_tls_ca_file", "b.crt").unwrap();
    new.read_tls_files(&running).unwrap();
    assert_eq!(new.client_tls.authorities.as_ref().map(|pem| pem.path().to_owned()), Some(folder.path("b.crt")));
}

#[test]
fn servers_are_connected_to_anew_when_what_they_are_shown_changes() {
    let with = "[databases]\na = host=x\n[pgbouncer]\nserver_tls_sslmode = prefer\nserver_tls_cert_file = a.crt\nserver_tls_key_file = a.key\n";
    let folder = folder(with);
    let running = folder.load("pgbouncer.ini").unwrap();
    std::fs::copy(folder.path("b.crt"), folder.path("a.crt")).unwrap();
    std::fs::copy(folder.path("b.key"), folder.path("a.key")).unwrap();
    let new = folder.load("pgbouncer.ini").unwrap();
    assert_eq!(running.changes(&new).reconnect_databases, ["a"]);
    assert!(new.changes(&new.clone()).reconnect_databases.is_empty());
}

#[test]
fn cert_needs_certificates_to_be_asked_for() {
    let full = "auth_type = cert\nclient_tls_sslmode = verify-full\nclient_tls_ca_file = b.crt\n";
    let with = |cert: &str| errors(&folder(&INI.replace("client_tls_sslmode = prefer\n", cert)));
    assert_eq!(with(full), [] as [&str; 0]);
    let mode = "pgbouncer.ini:2: auth_type: auth_type=cert requires client_tls_sslmode=SSLMODE_VERIFY_FULL";
    for weaker in ["disable", "allow", "prefer", "require", "verify-ca"] {
        assert_eq!(with(&full.replace("verify-full", weaker)), [mode], "{weaker}");
    }
    let authorities = "pgbouncer.ini:2: auth_type: auth_type=cert requires client_tls_ca_file";
    assert_eq!(with("auth_type = cert\nclient_tls_sslmode = verify-ca\n"), [mode, authorities]);
    let alone = with("auth_type = cert\nclient_tls_sslmode = verify-full\n");
    assert!(alone.iter().any(|error| error == authorities), "{alone:?}");
}

#[test]
fn a_rule_with_cert_needs_an_authority_of_its_own() {
    let with = |mode: &str, authorities: &str, rules: &str| {
        let ini = INI.replace("prefer", mode) + authorities + "auth_type = hba\nauth_hba_file = hba.conf\n";
        let folder = folder(&ini);
        std::fs::write(folder.path("hba.conf"), rules).unwrap();
        errors(&folder)
    };
    let rules = "hostssl all all all scram-sha-256\nhostssl all all all cert\n";
    for mode in ["allow", "prefer", "require", "verify-ca", "verify-full"] {
        let refused = with(mode, "", rules);
        let said = "pgbouncer.ini:6: auth_hba_file: a rule with cert requires client_tls_ca_file";
        assert!(refused.iter().any(|error| error == said), "{mode}: {refused:?}");
        assert_eq!(with(mode, "client_tls_ca_file = b.crt\n", rules), [""; 0], "{mode}");
    }
    assert_eq!(with("disable", "", rules), [""; 0], "nobody gets in by it");
    assert_eq!(with("prefer", "", "hostssl all all all scram-sha-256\n"), [""; 0]);
}
