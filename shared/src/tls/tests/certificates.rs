//! Certificates for tests, and files of them.

#![allow(clippy::unwrap_used)]
use crate::config::Settings;
use crate::tls::{Files, Pem};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// A certificate, as text, and its key.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// Signs others' certificates.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) certificate: String,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self::of(params)
    }

    pub(super) fn of(params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// Another authority below this one, and its certificate.
    pub(super) fn issues_authority(&self, name: &str) -> (Self, String) {
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        self.issues_issuer(params)
    }

    /// Somebody who signs certificates, entitled to it or not.
    pub(super) fn issues_issuer(&self, params: CertificateParams) -> (Self, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        (Self { issuer: Issuer::new(params, key), certificate: certificate.clone() }, certificate)
    }

    pub(super) fn issues(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        Identity { certificate: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }
}

/// A certificate's content: its common name and its alternative ones.
pub(super) fn named(common: &str, alternatives: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(alternatives.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    params.distinguished_name.remove(DnType::CommonName);
    if !common.is_empty() {
        params.distinguished_name.push(DnType::CommonName, common);
    }
    params
}

pub(super) fn self_signed(params: &CertificateParams) -> Identity {
    let key = KeyPair::generate().unwrap();
    Identity { certificate: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

/// A side's files, as the supervisor would have read them.
pub(super) fn files(authorities: Option<&str>, identity: Option<&Identity>) -> Files {
    let folder = TempDir::new().unwrap();
    let pem = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(Pem::read(&path).unwrap())
    };
    Files {
        authorities: authorities.and_then(|text| pem("ca.pem", text)),
        certificate: identity.and_then(|identity| pem("cert.pem", &identity.certificate)),
        key: identity.and_then(|identity| pem("key.pem", &identity.key)),
    }
}

/// Settings that name files on both sides, and some more.
pub(super) fn settings(values: &[(&str, &str)]) -> Settings {
    let mut settings = Settings::default();
    let files = ["ca", "cert", "key"].map(|file| [format!("client_tls_{file}_file"), format!("server_tls_{file}_file")]);
    for name in files.as_flattened() {
        settings.set(name, "named.pem").unwrap();
    }
    settings.set("client_tls_sslmode", "require").unwrap();
    settings.set("server_tls_sslmode", "require").unwrap();
    for (name, value) in values {
        settings.set(name, value).unwrap();
    }
    settings
}
