//! Reads the files of the TLS settings, as far as the mode of their side needs them, and tries whether they can be used together.
//!
//! A set is read in full or refused: a certificate without its key, or with the one that belonged to its predecessor, is never in force.

use super::build::Built;
use super::problem::Problems;
use super::{Config, Settings, ini};
use crate::tls::side::{Item, Side};
use crate::tls::{Acceptor, Connector, ContextError, Files, Pem};
use std::path::{Path, PathBuf};

/// Reads what a configuration from a file names.
pub(super) fn load(built: &mut Built, problems: &mut Problems) {
    let place = |item: Item<'_>| built.place(item.name).file;
    let locate = |item: Item<'_>| ini::locate(item.value, &place(item));
    match read(&built.config.settings, locate) {
        Ok((client_tls, server_tls)) => (built.config.client_tls, built.config.server_tls) = (client_tls, server_tls),
        Err(errors) => {
            for error in errors {
                problems.error(&built.place(error.setting), error.setting, error.message);
            }
        }
    }
}

impl Config {
    /// Reads the files again that the TLS settings name: they may hold something else, or the settings may name others than those of
    /// `before`. The error is what is wrong with them; nothing is changed then.
    pub fn read_tls_files(&mut self, before: &Self) -> Result<(), Vec<ContextError>> {
        let locate = |item: Item<'_>| {
            // A name that has not changed leads to the same file, wherever it was given.
            let same = before.settings.value(item.name).as_deref() == Some(item.value);
            let known = before.tls_file(item.name).filter(|_| same);
            known.map_or_else(|| ini::locate(item.value, &self.path), |pem| pem.path().to_owned())
        };
        (self.client_tls, self.server_tls) = read(&self.settings, locate)?;
        Ok(())
    }

    fn tls_file(&self, setting: &str) -> Option<&Pem> {
        let side = if setting.starts_with("client") { &self.client_tls } else { &self.server_tls };
        match setting {
            "client_tls_key_file" | "server_tls_key_file" => side.key.as_ref(),
            "client_tls_cert_file" | "server_tls_cert_file" => side.certificate.as_ref(),
            "client_tls_ca_file" | "server_tls_ca_file" => side.authorities.as_ref(),
            _ => None,
        }
    }
}

/// The files of both sides, which were tried.
fn read(settings: &Settings, locate: impl Fn(Item<'_>) -> PathBuf) -> Result<(Files, Files), Vec<ContextError>> {
    let mut errors = Vec::new();
    let clients = side(&Side::clients(settings), &locate, &mut errors);
    let servers = side(&Side::servers(settings), &locate, &mut errors);
    // What is missing was said.
    let tried = |name: &str, errors: &[ContextError]| !errors.iter().any(|error| error.setting.starts_with(name));
    if tried("client", &errors) {
        errors.extend(Acceptor::new(settings, &clients, None).err());
    }
    if tried("server", &errors) {
        errors.extend(Connector::new(settings, &servers).err());
    }
    if errors.is_empty() { Ok((clients, servers)) } else { Err(errors) }
}

fn side(side: &Side<'_>, locate: &impl Fn(Item<'_>) -> PathBuf, errors: &mut Vec<ContextError>) -> Files {
    let mut files = Files::default();
    if !side.is_on() {
        return files;
    }
    let mut pem = |item: Item<'_>, path: &Path| match Pem::read(path) {
        Ok(pem) => Some(pem),
        Err(error) => {
            let message = format!("could not open {} {}: {error}", item.name, path.display());
            errors.push(ContextError::new(item.name, message));
            None
        }
    };
    let mut named = |item: Item<'_>| item.is_set().then(|| pem(item, &locate(item))).flatten();
    files.certificate = named(side.certificate);
    files.key = named(side.key);
    if side.verifies {
        files.authorities = if side.authorities.is_set() { named(side.authorities) } else { system_authorities(side, errors) };
    }
    files
}

/// A machine without such a bundle knows no authority: nobody's certificate is right then, which is a mistake only where one must be shown.
fn system_authorities(side: &Side<'_>, errors: &mut Vec<ContextError>) -> Option<Pem> {
    let bundle = Pem::read(Path::new(crate::tls::SYSTEM_AUTHORITIES));
    if let Err(error) = &bundle
        && side.demands_proof()
    {
        let message =
            format!("{} is not set, and could not open {}: {error}", side.authorities.name, crate::tls::SYSTEM_AUTHORITIES);
        errors.push(ContextError::new(side.authorities.name, message));
    }
    bundle.ok()
}
