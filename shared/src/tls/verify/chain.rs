//! The chain from a peer's certificate to an authority.

use super::candidates;
use super::lenient;
use super::roots::Roots;
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

impl Peer {
    pub(super) fn usage(self) -> KeyUsage {
        match self {
            Self::Client => KeyUsage::client_auth(),
            Self::Server => KeyUsage::server_auth(),
        }
    }
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
    let found = match strict(shown, roots, algorithms) {
        Err(Error::UnsupportedCertVersion | Error::CaUsedAsEndEntity) => lenient::verify(shown, roots, algorithms),
        other => other,
    };
    found.map_err(reason)
}

fn strict(shown: Shown<'_>, roots: &Roots, algorithms: &WebPkiSupportedAlgorithms) -> Result<(), Error> {
    let approve = |path: &VerifiedPath<'_>| roots.approve(path, shown);
    let leaf = EndEntityCert::try_from(shown.leaf)?;
    let others = candidates::above(&leaf, shown.others);
    let usage = shown.peer.usage();
    leaf.verify_for_usage(algorithms.all, &roots.anchors, &others, shown.now, usage, None, Some(&approve)).map(|_| ())
}

/// What the peer is told, and the log.
fn reason(error: Error) -> CertificateError {
    match error {
        Error::BadDer | Error::BadDerTime | Error::TrailingData(_) => CertificateError::BadEncoding,
        Error::CertNotValidYet { .. } | Error::InvalidCertValidity => CertificateError::NotValidYet,
        Error::CertExpired { .. } => CertificateError::Expired,
        Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        Error::UnknownIssuer => CertificateError::UnknownIssuer,
        Error::UnsupportedCriticalExtension => CertificateError::UnhandledCriticalExtension,
        Error::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    }
}
