//! What both kinds of context are made of: protocols and ciphers, our certificate and its key, the authorities.

use super::certificate::Certificate;
use super::ciphers;
use super::files::{Files, Pem};
use super::side::{Item, Side};
use super::verify::Roots;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{SupportedProtocolVersion, version};
use std::sync::Arc;

/// Why a side's TLS cannot be had as it is set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ContextError {
    /// The setting that is wrong.
    pub setting: &'static str,
    /// What is wrong with it; it names the setting too.
    pub message: String,
}

impl ContextError {
    pub(crate) fn new(setting: &'static str, message: impl Into<String>) -> Self {
        Self { setting, message: message.into() }
    }

    fn invalid(item: Item<'_>) -> Self {
        Self::new(item.name, format!("invalid {}: {}", item.name, item.value))
    }

    fn invalid_for(item: Item<'_>) -> impl Fn(String) -> Self {
        move |why| Self::new(item.name, format!("invalid {}: {} ({why})", item.name, item.value))
    }

    fn in_file(item: Item<'_>, pem: &Pem, what: impl std::fmt::Display) -> Self {
        Self::new(item.name, format!("could not use {} {}: {what}", item.name, pem.path().display()))
    }
}

/// The versions, suites and key exchanges of a side.
pub(super) fn provider(
    side: &Side<'_>,
    groups: Vec<&'static dyn SupportedKxGroup>,
) -> Result<(Arc<CryptoProvider>, Vec<&'static SupportedProtocolVersion>), ContextError> {
    let versions = ciphers::protocols(side.protocols.value).map_err(ContextError::invalid_for(side.protocols))?;
    let has = |version| versions.contains(&version);
    let tls12 = ciphers::tls12_suites(side.ciphers.value).ok_or_else(|| ContextError::invalid(side.ciphers))?;
    let tls13 = ciphers::tls13_suites(side.tls13_ciphers.given()).map_err(ContextError::invalid_for(side.tls13_ciphers))?;
    let tls13 = tls13.into_iter().filter(|_| has(&version::TLS13));
    let cipher_suites = tls13.chain(tls12.into_iter().filter(|_| has(&version::TLS12))).collect();
    let provider = CryptoProvider { cipher_suites, kx_groups: groups, ..aws_lc_rs::default_provider() };
    Ok((Arc::new(provider), versions))
}

/// The key exchanges that clients may choose among.
pub(super) fn curves(side: &Side<'_>) -> Result<Vec<&'static dyn SupportedKxGroup>, ContextError> {
    let curve = side.curve.unwrap_or(Item { name: "", value: "" });
    ciphers::curves(curve.value).map_err(ContextError::invalid_for(curve))
}

/// Our certificate with its key. `None`: neither is given.
pub(super) fn identity(side: &Side<'_>, files: &Files, provider: &CryptoProvider) -> Result<Option<CertifiedKey>, ContextError> {
    let (certificate, key) = match (&files.certificate, &files.key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (None, None) => return Ok(None),
        (None, Some(_)) => return Err(alone(side.key, side.certificate)),
        (Some(_), None) => return Err(alone(side.certificate, side.key)),
    };
    let chain = certificates(side.certificate, certificate)?;
    let leaf = Certificate::parse(&chain[0]).map_err(|e| ContextError::in_file(side.certificate, certificate, e))?;
    let private = provider.key_provider.load_private_key(private_key(side.key, key)?);
    let private = private.map_err(|_| ContextError::in_file(side.key, key, "a key of a kind that there is no support for"))?;
    if private.public_key().is_some_and(|public| public.as_ref() != leaf.public_key().as_ref()) {
        let message = format!("does not fit the certificate of {} {}", side.certificate.name, certificate.path().display());
        return Err(ContextError::in_file(side.key, key, message));
    }
    Ok(Some(CertifiedKey::new(chain, private)))
}

fn alone(given: Item<'_>, missing: Item<'_>) -> ContextError {
    ContextError::new(given.name, format!("{} needs {} too", given.name, missing.name))
}

fn private_key(item: Item<'_>, pem: &Pem) -> Result<PrivateKeyDer<'static>, ContextError> {
    PrivateKeyDer::from_pem_slice(pem.expose()).map_err(|error| {
        let encrypted = pem.expose().windows(9).any(|window| window == b"ENCRYPTED");
        let what = if encrypted { "its key is encrypted".to_owned() } else { reason(&error, "private key") };
        ContextError::in_file(item, pem, what)
    })
}

/// The certificates of a file; there is at least one.
fn certificates(item: Item<'_>, pem: &Pem) -> Result<Vec<CertificateDer<'static>>, ContextError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.expose()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(ContextError::in_file(item, pem, "there is no certificate in it")),
        Err(error) => Err(ContextError::in_file(item, pem, reason(&error, "certificate"))),
    }
}

/// Errors of the PEM reader quote what they do not understand; that may be a key.
fn reason(error: &pem::Error, wanted: &str) -> String {
    match error {
        pem::Error::NoItemsFound => format!("there is no {wanted} in it"),
        pem::Error::MissingSectionEnd { .. } => "it ends in the middle".to_owned(),
        _ => "it is not PEM".to_owned(),
    }
}

/// The authorities that peers' certificates are checked against.
pub(super) fn roots(side: &Side<'_>, files: &Files) -> Result<Roots, ContextError> {
    let mut roots = Roots::default();
    let Some(pem) = &files.authorities else { return Ok(roots) };
    for certificate in certificates(side.authorities, pem)? {
        let added = roots.add(certificate);
        // Of the system's bundle what cannot be read is left out.
        if side.authorities.is_set() {
            added.map_err(|e| ContextError::in_file(side.authorities, pem, e))?;
        }
    }
    Ok(roots)
}
