//! The chain from a peer's certificate to an authority.

use super::candidates;
use super::lenient;
use super::roots::Roots;
use crate::tls::certificate::seconds;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, OtherError};
use std::sync::Arc;
use webpki::{EndEntityCert, Error, KeyUsage, VerifiedPath};

/// Which side the peer is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Client,
    Server,
}

/// What a peer has shown, and what it is held against.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    pub(super) leaf: &'a CertificateDer<'a>,
    pub(super) others: &'a [CertificateDer<'a>],
    pub(super) now: UnixTime,
    pub(super) peer: Peer,
}

/// Verifies the chain.
pub(super) fn verify(shown: Shown<'_>, roots: &Roots, algorithms: &WebPkiSupportedAlgorithms) -> Result<(), CertificateError> {
    match strict(shown, roots, algorithms) {
        Err(Error::UnsupportedCertVersion | Error::CaUsedAsEndEntity) => lenient::verify(shown, roots, algorithms),
        other => other.map_err(reason),
    }
}

fn strict(shown: Shown<'_>, roots: &Roots, algorithms: &WebPkiSupportedAlgorithms) -> Result<(), Error> {
    let Shown { leaf, others, now, peer } = shown;
    let usage = match peer {
        Peer::Client => KeyUsage::client_auth(),
        Peer::Server => KeyUsage::server_auth(),
    };
    // webpki does not ask whether the authority itself is still valid; OpenSSL does.
    let in_force = |path: &VerifiedPath<'_>| {
        let in_force = roots.is_in_force(path.anchor(), seconds(now));
        in_force.then_some(()).ok_or(Error::CertExpired { time: now, not_after: now })
    };
    let leaf = EndEntityCert::try_from(leaf)?;
    let others = candidates::above(&leaf, others);
    leaf.verify_for_usage(algorithms.all, &roots.anchors, &others, now, usage, None, Some(&in_force)).map(|_| ())
}

/// What the peer is told, and the log.
fn reason(error: Error) -> CertificateError {
    match error {
        Error::BadDer | Error::BadDerTime | Error::TrailingData(_) => CertificateError::BadEncoding,
        Error::CertNotValidYet { .. } | Error::InvalidCertValidity => CertificateError::NotValidYet,
        Error::CertExpired { .. } => CertificateError::Expired,
        Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        Error::UnknownIssuer => CertificateError::UnknownIssuer,
        Error::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    }
}
