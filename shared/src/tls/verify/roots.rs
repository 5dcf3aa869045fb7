//! The authorities that a chain may end at.

use super::chain::Shown;
use super::rights;
use crate::tls::certificate::{Certificate, Malformed};
use rustls::pki_types::{CertificateDer, TrustAnchor};
use webpki::{Error, VerifiedPath};

/// See the module.
#[derive(Debug, Default)]
pub(in crate::tls) struct Roots {
    pub(super) anchors: Vec<TrustAnchor<'static>>,
    /// The same, whole.
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

impl Roots {
    pub(in crate::tls) fn add(&mut self, certificate: CertificateDer<'static>) -> Result<(), Malformed> {
        let anchor = webpki::anchor_from_trusted_cert(&certificate).map_err(|_| Malformed)?.to_owned();
        Certificate::parse(&certificate)?;
        self.anchors.push(anchor);
        self.certificates.push(certificate);
        Ok(())
    }

    /// Asks those on a path for what OpenSSL asks and webpki takes for granted: of the one at its head anything at all. Somebody who is trusted
    /// as himself would speak for everybody else.
    pub(super) fn approve(&self, path: &VerifiedPath<'_>, shown: Shown<'_>) -> Result<(), Error> {
        let mut between = 0;
        for certificate in path.intermediate_certificates() {
            let der = certificate.der();
            rights::may_issue(&Certificate::parse(&der).map_err(|_| Error::BadDer)?, between, false)?;
            between += 1;
        }
        let anchor = path.anchor();
        let mut refused = Error::UnknownIssuer;
        for (other, root) in self.anchors.iter().zip(&self.certificates) {
            // The same name and key may stand in several certificates.
            if other.subject == anchor.subject && other.subject_public_key_info == anchor.subject_public_key_info {
                match may_head(root, between, shown) {
                    Ok(()) => return Ok(()),
                    Err(error) => refused = error,
                }
            }
        }
        Err(refused)
    }
}

fn may_head(root: &CertificateDer<'_>, between: usize, shown: Shown<'_>) -> Result<(), Error> {
    // Signed by itself, and trusted as what it is.
    if between == 0 && root.as_ref() == shown.leaf.as_ref() {
        return Ok(());
    }
    let root = Certificate::parse(root).map_err(|_| Error::BadDer)?;
    rights::in_force(&root, shown.now)?;
    rights::may_issue(&root, between, true)?;
    rights::serves(&root, shown.peer)
}
