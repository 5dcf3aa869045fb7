//! A second look at certificates that webpki does not take and OpenSSL does: X.509 v1, and authorities' certificates shown by a peer as its
//! own, a self-signed one among them that is named as the authority.
//!
//! It is stricter than OpenSSL in what such certificates seldom have: chains with name constraints are refused, not interpreted.

use super::candidates::MOST_READ;
use super::chain::{Peer, Shown};
use super::rights::{in_force, may_issue, serves};
use super::roots::Roots;
use crate::tls::certificate::Certificate;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::CertificateDer;
use webpki::{Error, RawPublicKeyEntity};
use x509_parser::extensions::ParsedExtension;

/// The most certificates between a peer's and an authority's.
const LONGEST_CHAIN: usize = 6;

/// How many signatures are verified for one chain, whatever is shown.
const MOST_SIGNATURES: usize = 24;

struct Chain<'a> {
    peer: Peer,
    algorithms: &'a WebPkiSupportedAlgorithms,
    signatures: usize,
}

/// Verifies a chain.
pub(super) fn verify(shown: Shown<'_>, roots: &Roots, algorithms: &WebPkiSupportedAlgorithms) -> Result<(), Error> {
    let mut chain = Chain { peer: shown.peer, algorithms, signatures: 0 };
    let leaf = Certificate::parse(shown.leaf).map_err(|_| Error::BadDer)?;
    in_force(&leaf, shown.now)?;
    readable(&leaf)?;
    serves(&leaf, shown.peer)?;
    let itself = roots.certificates.iter().any(|root| root.as_ref() == shown.leaf.as_ref());
    if itself && is_issuer(&leaf, &leaf) && chain.signed(&leaf, &leaf) {
        return Ok(());
    }
    let others: Vec<_> = shown.others.iter().take(MOST_READ).filter_map(|der| Certificate::parse(der).ok()).collect();
    let roots: Vec<_> =
        roots.certificates.iter().map(CertificateDer::as_ref).filter_map(|der| Certificate::parse(der).ok()).collect();
    let mut current = &leaf;
    for between in 0..LONGEST_CHAIN {
        if let Some(root) = roots.iter().find(|root| chain.issued(root, current, between, true)) {
            return in_force(root, shown.now);
        }
        let next = others.iter().find(|other| chain.issued(other, current, between, false));
        current = next.ok_or(Error::UnknownIssuer)?;
        in_force(current, shown.now)?;
    }
    Err(Error::UnknownIssuer)
}

impl Chain<'_> {
    /// Whether `issuer` has issued `certificate`, with so many others between it and the peer's own.
    fn issued(&mut self, issuer: &Certificate<'_>, certificate: &Certificate<'_>, between: usize, trusted: bool) -> bool {
        is_issuer(issuer, certificate)
            && may_issue(issuer, between, trusted).is_ok()
            && serves(issuer, self.peer).is_ok()
            && readable(issuer).is_ok()
            && self.signed(certificate, issuer)
    }

    /// Whether the signature of `certificate` is by the key of `issuer`.
    fn signed(&mut self, certificate: &Certificate<'_>, issuer: &Certificate<'_>) -> bool {
        self.signatures += 1;
        let x509 = certificate.x509();
        // Both say which algorithm it is; only one of them is signed.
        if self.signatures > MOST_SIGNATURES || x509.signature_algorithm != x509.tbs_certificate.signature {
            return false;
        }
        let public = issuer.public_key();
        let Ok(key) = RawPublicKeyEntity::try_from(&public) else { return false };
        let name = x509.signature_algorithm.algorithm.as_bytes();
        // An identifier is the algorithm's name, behind its own two bytes, and perhaps parameters.
        let named = |identifier: &[u8]| identifier.get(2..).is_some_and(|rest| rest.starts_with(name));
        let mut fitting = self.algorithms.all.iter().filter(|algorithm| named(&algorithm.signature_alg_id()));
        let (message, signature) = (x509.tbs_certificate.as_ref(), &x509.signature_value.data);
        fitting.any(|algorithm| key.verify_signature(*algorithm, message, signature).is_ok())
    }
}

fn is_issuer(issuer: &Certificate<'_>, certificate: &Certificate<'_>) -> bool {
    issuer.x509().subject().as_raw() == certificate.x509().issuer().as_raw()
}

/// Whether nothing in it must be understood that is not.
fn readable(certificate: &Certificate<'_>) -> Result<(), Error> {
    for extension in certificate.x509().extensions() {
        match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(_)
            | ParsedExtension::KeyUsage(_)
            | ParsedExtension::ExtendedKeyUsage(_)
            | ParsedExtension::SubjectAlternativeName(_) => {}
            ParsedExtension::NameConstraints(_) => return Err(Error::UnsupportedCriticalExtension),
            _ if extension.critical => return Err(Error::UnsupportedCriticalExtension),
            _ => {}
        }
    }
    Ok(())
}
