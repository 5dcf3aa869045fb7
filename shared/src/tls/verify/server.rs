//! Servers' certificates.

use super::chain::{self, Peer, Shown};
use super::roots::Roots;
use super::signature;
use crate::tls::certificate::Certificate;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

/// What a server must prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tls) enum Proof {
    /// That it has its certificate's key, whoever it is.
    Key,
    /// That an authority has signed the certificate.
    Chain,
    /// That it is the host it is called by, too.
    Name,
}

/// See [`Proof`].
#[derive(Debug)]
pub(in crate::tls) struct ServerVerifier {
    roots: Roots,
    algorithms: WebPkiSupportedAlgorithms,
    proof: Proof,
}

impl ServerVerifier {
    pub(in crate::tls) fn new(roots: Roots, provider: &CryptoProvider, proof: Proof) -> Self {
        Self { roots, algorithms: provider.signature_verification_algorithms, proof }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.proof != Proof::Key {
            chain::verify(Shown { leaf, others, now, peer: Peer::Server }, &self.roots, &self.algorithms)?;
        }
        if self.proof == Proof::Name {
            let names = Certificate::parse(leaf).map_err(|_| CertificateError::BadEncoding)?.names();
            if !names.is_host(&name.to_str()) {
                let presented = names.dns.into_iter().chain(names.common).collect();
                return Err(CertificateError::NotValidForNameContext { expected: name.to_owned(), presented }.into());
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signature::tls12(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signature::tls13(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
