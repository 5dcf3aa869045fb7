//! The files that the settings of authentication name: users and secrets, rules, maps. Read with the configuration, as a part of it.

use super::problem::{At, Problems};
use super::{AuthType, Config, ini, userlist};
use crate::auth::hba::{Access, System};
use std::path::PathBuf;

/// The settings for which [`reread`] is needed when one of them is set.
const SETTINGS: [&str; 4] = ["auth_type", "auth_file", "auth_hba_file", "auth_ident_file"];

/// Reads what is needed for auth_type. `place` says where a setting was set. Gives the auth_file that was read.
pub(super) fn read(config: &mut Config, place: impl Fn(&str) -> At, problems: &mut Problems) -> Option<PathBuf> {
    let settings = &config.settings;
    let locate = |setting: &str, name: Option<&str>| {
        name.filter(|name| !name.is_empty()).map(|name| ini::locate(name, &place(setting).file))
    };
    let auth_file = locate("auth_file", settings.auth_file.as_deref()).filter(|_| settings.auth_type.uses_auth_file());
    let hba_file = locate("auth_hba_file", Some(&settings.auth_hba_file)).filter(|_| settings.auth_type == AuthType::Hba);
    let ident_file = locate("auth_ident_file", settings.auth_ident_file.as_deref());

    config.secrets = match &auth_file {
        Some(path) => userlist::read(path, &place("auth_file"), problems),
        None => std::collections::BTreeMap::new(),
    };
    let mut findings = Vec::new();
    config.access = match &hba_file {
        Some(path) => Access::read(path, ident_file.as_deref(), &mut System, &mut findings),
        None => Access::default(),
    };
    for finding in findings {
        let at = if finding.line == 0 { place(finding.setting) } else { At { file: finding.file, line: finding.line } };
        if finding.is_error {
            problems.error(&at, finding.setting, finding.message);
        } else {
            problems.warn(&at, finding.setting, finding.message);
        }
    }
    auth_file
}

/// Reads the files again if `setting`, which was given a new value by SET, is one of those that they depend on.
pub fn reread(config: &mut Config, setting: &str) -> Problems {
    let mut problems = Problems::default();
    if SETTINGS.contains(&setting) {
        let whole = At::whole(&config.path);
        read(config, |_| whole.clone(), &mut problems);
    }
    problems
}
