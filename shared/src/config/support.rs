//! What a configuration asks for that cannot be given: combinations that make no sense, secrets that others can read.

use super::auth_files::Secretive;
use super::build::Built;
use super::document::Document;
use super::problem::{At, Problems};
use super::resolve::CONSOLE_DATABASES;
use super::{AuthType, ChannelBinding, Config, Settings, SslMode};
use crate::auth::{LdapOptions, Method};
use crate::network::Network;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Checks values against each other and against what is supported.
pub(super) fn check(built: &Built, document: &Document, problems: &mut Problems) {
    let settings = &built.config.settings;
    for (name, message) in refused(settings) {
        problems.error(&built.place(name), name, message);
    }
    entries(built, document, problems);
    lookups(built, document, problems);
}

/// Warns of databases that clients make up, in which auth_query would be asked.
fn lookups(built: &Built, document: &Document, problems: &mut Problems) {
    let settings = &built.config.settings;
    let Some(fallback) = &built.config.fallback else { return };
    let asks = fallback.auth_user.is_some() || settings.auth_user.is_some();
    if !asks || fallback.auth_dbname.is_some() || settings.auth_dbname.is_some() || settings.auth_type == AuthType::Any {
        return;
    }
    let at = document
        .databases
        .iter()
        .find(|entry| entry.name == "*")
        .map_or_else(|| built.place("auth_user"), |entry| entry.at.clone());
    let message = "auth_query is asked in whatever database a client names, and few of them if they do not exist: set auth_dbname";
    problems.warn(&at, "databases.*", message);
}

/// What of the settings cannot be given: name and reason. SET asks too.
pub fn refused(settings: &Settings) -> Vec<(&'static str, String)> {
    let mut refused = Vec::new();
    let mut refuse = |name: &'static str, message: String| refused.push((name, message));
    if settings.auth_type == AuthType::Cert {
        if settings.client_tls_sslmode != SslMode::VerifyFull {
            refuse("auth_type", "auth_type=cert requires client_tls_sslmode=SSLMODE_VERIFY_FULL".into());
        }
        if settings.client_tls_ca_file.is_empty() {
            refuse("auth_type", "auth_type=cert requires client_tls_ca_file".into());
        }
    }
    if settings.auth_type == AuthType::Hba && settings.auth_hba_file.is_empty() {
        refuse("auth_type", "hba needs auth_hba_file".into());
    }
    if settings.auth_dbname.as_deref().is_some_and(|name| CONSOLE_DATABASES.contains(&name)) {
        refuse("auth_dbname", "cannot use the reserved \"pgbouncer\" database as an auth_dbname".into());
    }
    if settings.server_channel_binding == ChannelBinding::Require && settings.server_tls_sslmode == SslMode::Disable {
        refuse("server_channel_binding", NOTHING_TO_BIND_TO.into());
    }
    if settings.report_backend_pid && settings.peer_id > 0 {
        refuse(
            "report_backend_pid",
            "a cancel key cannot begin with a backend's process id and hold peer_id too: set one of them to 0".into(),
        );
    }
    for (name, words) in [
        ("proxy_protocol_addresses", &settings.proxy_protocol_addresses),
        ("proxy_protocol_networks", &settings.proxy_protocol_networks),
    ] {
        for word in words {
            let error = if name == "proxy_protocol_addresses" {
                word.parse::<std::net::IpAddr>().err().map(|_| "is not an IP address".to_owned())
            } else {
                Network::parse(word).err().map(|error| error.to_string())
            };
            if let Some(error) = error {
                refuse(name, format!("{word} {error}"));
            }
        }
    }
    if settings.listen_addr.is_empty() && settings.unix_socket_dir.is_empty() {
        refuse("listen_addr", "nowhere to listen on: listen_addr and unix_socket_dir are both empty".into());
    }
    refused
}

/// The same of the settings and the files that they name together.
pub fn refused_by_rules(config: &Config) -> Option<(&'static str, String)> {
    let settings = &config.settings;
    let unfounded = settings.client_tls_sslmode != SslMode::Disable && settings.client_tls_ca_file.is_empty();
    // The system's authorities certify whoever owns a name on the internet, and none of them knows who is a user here.
    (unfounded && config.access.methods().any(|method| matches!(method, Method::Cert { .. })))
        .then(|| ("auth_hba_file", "a rule with cert requires client_tls_ca_file".to_owned()))
}

const NOTHING_TO_BIND_TO: &str = "channel binding needs TLS, and server_tls_sslmode is disable";

/// The same for the values of entries.
fn entries(built: &Built, document: &Document, problems: &mut Problems) {
    for (table, entries) in [("databases", &document.databases), ("users", &document.users)] {
        for entry in entries {
            let item = |key: &str| entry.items.iter().find(|i| i.key == key).map_or(&entry.at, |i| &i.at);
            let place = |key: &str| format!("{table}.{}.{key}", entry.name);
            let database = if entry.name == "*" { built.config.fallback.as_ref() } else { built.config.databases.get(&entry.name) };
            let database = database.filter(|_| table == "databases");
            if database.and_then(|d| d.auth_dbname.as_deref()).is_some_and(|name| CONSOLE_DATABASES.contains(&name)) {
                let message = "cannot use the reserved \"pgbouncer\" database as an auth_dbname";
                problems.error(item("auth_dbname"), place("auth_dbname"), message);
            }
            if database.is_some_and(|d| d.channel_binding == Some(ChannelBinding::Require))
                && built.config.settings.server_tls_sslmode == SslMode::Disable
            {
                problems.error(item("channel_binding"), place("channel_binding"), NOTHING_TO_BIND_TO);
            }
        }
    }
}

/// Warns of files with secrets that every user of the machine can read.
pub(super) fn check_permissions(named: &[Secretive], built: &Built, document: &Document, problems: &mut Problems) {
    let config = &built.config;
    let mut files: Vec<(&Path, &str)> = named.iter().map(|(file, setting)| (file.as_path(), *setting)).collect();
    let keys = [("client_tls_key_file", &config.client_tls.key), ("server_tls_key_file", &config.server_tls.key)];
    files.extend(keys.into_iter().filter_map(|(setting, key)| Some((key.as_ref()?.path(), setting))));
    let ldap = built
        .places
        .get("auth_ldap_options")
        .filter(|_| config.settings.auth_ldap_options.as_ref().is_some_and(LdapOptions::hold_secret));
    let passwords = document.databases.iter().flat_map(|d| &d.items).filter(|i| i.key == "password");
    let inside = ldap.into_iter().map(|at| (at, "auth_ldap_options")).chain(passwords.map(|item| (&item.at, "password")));
    for (at, setting) in inside {
        if !files.iter().any(|(file, _)| *file == &*at.file) {
            files.push((&at.file, setting));
        }
    }
    for (file, setting) in files {
        let mode = std::fs::metadata(file).map_or(0, |m| m.permissions().mode());
        if mode & 0o004 != 0 {
            problems.warn(
                &At::whole(file),
                setting,
                format!("holds secrets and can be read by everyone (mode {:04o})", mode & 0o7777),
            );
        }
    }
}
