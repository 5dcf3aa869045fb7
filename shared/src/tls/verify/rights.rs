//! What a certificate may be used for, as OpenSSL sees it.

use super::chain::Peer;
use crate::tls::certificate::{Certificate, seconds};
use rustls::pki_types::UnixTime;
use webpki::{Error, RequiredEkuNotFoundContext};
use x509_parser::x509::X509Version;

/// It is valid at that time.
pub(super) fn in_force(certificate: &Certificate<'_>, time: UnixTime) -> Result<(), Error> {
    let (first, last) = certificate.validity();
    match seconds(time) {
        now if now < first => Err(Error::CertNotValidYet { time, not_before: time }),
        now if now > last => Err(Error::CertExpired { time, not_after: time }),
        _ => Ok(()),
    }
}

/// It is an authority's that may have so many others between it and an end's. One that does not say whether it is must be trusted.
pub(super) fn may_issue(certificate: &Certificate<'_>, between: usize, trusted: bool) -> Result<(), Error> {
    let x509 = certificate.x509();
    let (Ok(constraints), Ok(usage)) = (x509.basic_constraints(), x509.key_usage()) else { return Err(Error::BadDer) };
    let signs = usage.as_ref().map(|usage| usage.value.key_cert_sign());
    let is_authority = match &constraints {
        Some(constraints) => constraints.value.ca,
        None if x509.version() == X509Version::V1 => trusted && x509.subject() == x509.issuer(),
        None => trusted && signs.is_some(),
    };
    if !is_authority || signs == Some(false) {
        return Err(Error::EndEntityUsedAsCa);
    }
    let most = constraints.and_then(|constraints| constraints.value.path_len_constraint);
    if most.is_some_and(|most| between > most as usize) { Err(Error::PathLenConstraintViolated) } else { Ok(()) }
}

/// It may be used with such peers. Of an authority it says what those may be that it issues certificates to.
pub(super) fn serves(certificate: &Certificate<'_>, peer: Peer) -> Result<(), Error> {
    let usage = certificate.x509().extended_key_usage().map_err(|_| Error::BadDer)?;
    let serves = usage.is_none_or(|usage| match peer {
        Peer::Client => usage.value.client_auth,
        Peer::Server => usage.value.server_auth,
    });
    let missing = RequiredEkuNotFoundContext { required: peer.usage(), present: Vec::new() };
    serves.then_some(()).ok_or(Error::RequiredEkuNotFoundContext(missing))
}
