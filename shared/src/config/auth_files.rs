//! The files that the settings of authentication name: users and secrets, rules, maps. Read with the configuration, as a part of it.

use super::problem::{At, Problems};
use super::{AuthType, Config, ini, userlist};
use crate::auth::hba::{Access, Files, System};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// The settings for which [`reread`] is needed when one of them is set.
const SETTINGS: [&str; 4] = ["auth_type", "auth_file", "auth_hba_file", "auth_ident_file"];

/// A file that holds secrets, and the setting that is to be named with it; none where the file holds nothing else.
pub(super) type Secretive = (PathBuf, &'static str);

/// Reads what is needed for auth_type. `place` says where a setting was set. Gives the files with secrets that were read.
pub(super) fn read(config: &mut Config, place: impl Fn(&str) -> At, problems: &mut Problems) -> Vec<Secretive> {
    let settings = &config.settings;
    let locate = |setting: &str, name: Option<&str>| {
        name.filter(|name| !name.is_empty()).map(|name| ini::locate(name, &place(setting).file))
    };
    let auth_file = locate("auth_file", settings.auth_file.as_deref()).filter(|_| settings.auth_type.uses_auth_file());
    let hba_file = locate("auth_hba_file", Some(&settings.auth_hba_file)).filter(|_| settings.auth_type == AuthType::Hba);
    let ident_file = locate("auth_ident_file", settings.auth_ident_file.as_deref());

    config.secrets = match &auth_file {
        Some(path) => userlist::read(path, &place("auth_file"), problems),
        None => BTreeMap::new(),
    };
    let (mut findings, mut rules) = (Vec::new(), Noting::default());
    config.access = match &hba_file {
        Some(path) => Access::read(path, ident_file.as_deref(), &mut rules, &mut findings),
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
    auth_file.into_iter().map(|file| (file, "")).chain(rules.0.into_iter().map(|file| (file, "auth_hba_file"))).collect()
}

/// Notes which of the files that are read hold an LDAP password: in a rule, or where a rule was.
#[derive(Default)]
struct Noting(BTreeSet<PathBuf>);

impl Files for Noting {
    fn read(&mut self, path: &Path) -> io::Result<String> {
        let text = System.read(path)?;
        if text.contains("ldapbindpasswd=") {
            self.0.insert(path.to_owned());
        }
        Ok(text)
    }

    fn list(&mut self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        System.list(folder)
    }
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
