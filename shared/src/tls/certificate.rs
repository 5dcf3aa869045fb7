//! A certificate as far as more is asked of it than whether its chain is right: key, names, validity, what it may be used for.

use super::names::Names;
use aws_lc_rs::digest;
use rustls::pki_types::{SubjectPublicKeyInfoDer, UnixTime};
use std::sync::Arc;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry as oids;
use x509_parser::prelude::FromDer;
use x509_parser::signature_algorithm::RsaSsaPssParams;

/// See the module.
pub(super) struct Certificate<'a> {
    x509: X509Certificate<'a>,
}

/// It cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed certificate")]
pub(super) struct Malformed;

impl<'a> Certificate<'a> {
    pub(super) fn parse(der: &'a [u8]) -> Result<Self, Malformed> {
        match X509Certificate::from_der(der) {
            Ok(([], x509)) => Ok(Self { x509 }),
            _ => Err(Malformed),
        }
    }

    /// All that a parser of certificates can say about it.
    pub(super) fn x509(&self) -> &X509Certificate<'a> {
        &self.x509
    }

    pub(super) fn public_key(&self) -> SubjectPublicKeyInfoDer<'a> {
        SubjectPublicKeyInfoDer::from(self.x509.tbs_certificate.subject_pki.raw)
    }

    /// Its first and last second, since 1970.
    pub(super) fn validity(&self) -> (i64, i64) {
        let validity = self.x509.validity();
        (validity.not_before.timestamp(), validity.not_after.timestamp())
    }

    /// Whom it speaks for. One whose alternative names cannot be read speaks for nobody.
    pub(super) fn names(&self) -> Names {
        let mut names = Names::default();
        let Ok(alternatives) = self.x509.subject_alternative_name() else { return names };
        for name in alternatives.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::DNSName(name) => names.dns.push((*name).to_owned()),
                GeneralName::IPAddress(address) => names.addresses.push(address.to_vec()),
                _ => {}
            }
        }
        let common = self.x509.subject().iter_common_name().next();
        names.common = common.and_then(|name| std::str::from_utf8(name.attr_value().data).ok()).map(str::to_owned);
        names
    }

    /// What `tls-server-end-point` binds a login to: the certificate's hash, by the algorithm of its signature (RFC 5929, 4.1). `None`: that
    /// has no hash of its own.
    pub(super) fn endpoint_binding(&self) -> Option<Arc<[u8]>> {
        let signature = &self.x509.signature_algorithm;
        let algorithm = if signature.algorithm == oids::OID_PKCS1_RSASSAPSS {
            let parameters = RsaSsaPssParams::try_from(signature.parameters.as_ref()?).ok()?;
            hash_of_name(parameters.hash_algorithm_oid())?
        } else {
            hash_of_signature(&signature.algorithm)?
        };
        Some(digest::digest(algorithm, self.x509.as_raw()).as_ref().into())
    }
}

/// MD5 and SHA-1 are replaced by SHA-256.
fn hash_of_signature(algorithm: &oids::Oid<'_>) -> Option<&'static digest::Algorithm> {
    let sha256 = [
        oids::OID_PKCS1_MD5WITHRSAENC,
        oids::OID_PKCS1_SHA1WITHRSA,
        oids::OID_PKCS1_SHA256WITHRSA,
        oids::OID_SIG_ECDSA_WITH_SHA256,
    ];
    // ecdsa-with-SHA1 has no name in the registry.
    let ecdsa_sha1 = x509_parser::der_parser::oid!(1.2.840.10045.4.1);
    if sha256.contains(algorithm) || *algorithm == ecdsa_sha1 {
        Some(&digest::SHA256)
    } else if [oids::OID_PKCS1_SHA224WITHRSA, oids::OID_SIG_ECDSA_WITH_SHA224].contains(algorithm) {
        Some(&digest::SHA224)
    } else if [oids::OID_PKCS1_SHA384WITHRSA, oids::OID_SIG_ECDSA_WITH_SHA384].contains(algorithm) {
        Some(&digest::SHA384)
    } else if [oids::OID_PKCS1_SHA512WITHRSA, oids::OID_SIG_ECDSA_WITH_SHA512].contains(algorithm) {
        Some(&digest::SHA512)
    } else {
        None
    }
}

fn hash_of_name(hash: &oids::Oid<'_>) -> Option<&'static digest::Algorithm> {
    match hash {
        hash if [oids::OID_HASH_SHA1, oids::OID_NIST_HASH_SHA256].contains(hash) => Some(&digest::SHA256),
        hash if *hash == oids::OID_NIST_HASH_SHA384 => Some(&digest::SHA384),
        hash if *hash == oids::OID_NIST_HASH_SHA512 => Some(&digest::SHA512),
        _ => None,
    }
}

/// Seconds since 1970, as certificates count.
pub(super) fn seconds(now: UnixTime) -> i64 {
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}
