//! The authorities that a chain may end at.

use crate::tls::certificate::{Certificate, Malformed};
use rustls::pki_types::{CertificateDer, TrustAnchor};

/// See the module.
#[derive(Debug, Default)]
pub(in crate::tls) struct Roots {
    pub(super) anchors: Vec<TrustAnchor<'static>>,
    /// The same, whole.
    pub(super) certificates: Vec<CertificateDer<'static>>,
    /// From when to when each is valid, in seconds since 1970.
    validity: Vec<(i64, i64)>,
}

impl Roots {
    pub(in crate::tls) fn add(&mut self, certificate: CertificateDer<'static>) -> Result<(), Malformed> {
        let anchor = webpki::anchor_from_trusted_cert(&certificate).map_err(|_| Malformed)?.to_owned();
        let validity = Certificate::parse(&certificate)?.validity();
        self.anchors.push(anchor);
        self.certificates.push(certificate);
        self.validity.push(validity);
        Ok(())
    }

    /// Whether an authority like this one is valid then: the same key and name may stand in several certificates.
    pub(super) fn is_in_force(&self, anchor: &TrustAnchor<'_>, now: i64) -> bool {
        let same = |other: &TrustAnchor<'_>| {
            other.subject == anchor.subject && other.subject_public_key_info == anchor.subject_public_key_info
        };
        let mut rows = self.anchors.iter().zip(&self.validity);
        rows.any(|(other, (first, last))| same(other) && (*first..=*last).contains(&now))
    }
}
