//! What clients are received with: made from the client_tls_* settings, once for each configuration.

use super::certificate::Certificate;
use super::context::{self, ContextError};
use super::files::Files;
use super::handshake::{Handshake, HandshakeError};
use super::secrets::Listener;
use super::side::Side;
use super::verify::ClientVerifier;
use crate::config::{Settings, SslMode};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::sign::SingleCertAndKey;
use std::sync::Arc;

/// The only application protocol there is: clients that name others have come to the wrong place.
pub(super) const PROTOCOL: &[u8] = b"postgresql";

/// See the module.
#[derive(Clone)]
pub struct Acceptor {
    pub(super) config: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
    /// What clients bind SCRAM to, if anything is defined for our certificate.
    pub(super) binding: Option<Arc<[u8]>>,
}

impl Acceptor {
    /// Takes the settings and the files that they name. `tickets` makes sessions that other workers can resume. `None`: there is no TLS with
    /// clients.
    pub fn new(
        settings: &Settings,
        files: &Files,
        tickets: Option<Arc<dyn ProducesTickets>>,
    ) -> Result<Option<Self>, ContextError> {
        let side = Side::clients(settings);
        if !side.is_on() {
            return Ok(None);
        }
        if !side.key.is_set() || !side.certificate.is_set() {
            let message = "To allow TLS connections from clients, client_tls_key_file and client_tls_cert_file must be set.";
            return Err(ContextError::new(side.mode_name, message));
        }
        if side.mode == SslMode::VerifyFull && !side.authorities.is_set() {
            return Err(ContextError::new(side.mode_name, "client_tls_sslmode requires client_tls_ca_file"));
        }
        let (provider, versions) = context::provider(&side, context::curves(&side)?)?;
        let identity = context::identity(&side, files, &provider)?;
        let identity = identity.ok_or_else(|| ContextError::new(side.certificate.name, "the files were not read"))?;
        let binding = identity.cert.first().and_then(|leaf| Certificate::parse(leaf).ok()?.endpoint_binding());
        let verifier = Arc::new(ClientVerifier::new(context::roots(&side, files)?, &provider, side.demands_proof()));
        let unusable = |error: rustls::Error| ContextError::new(side.mode_name, error.to_string());
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&versions).map_err(unusable)?;
        let resolver = SingleCertAndKey::from(identity);
        let mut config = builder.with_client_cert_verifier(verifier.clone()).with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.key_log = Arc::new(Listener);
        config.enable_secret_extraction = true;
        config.ignore_client_order = true;
        // A session of one worker's memory would be unknown to the others.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = usize::from(tickets.is_some());
        if let Some(tickets) = tickets {
            config.ticketer = tickets;
        }
        Ok(Some(Self { config: Arc::new(config), verifier, binding }))
    }

    /// Begins a handshake with a client.
    pub fn accept(&self) -> Result<Box<Handshake>, HandshakeError> {
        Handshake::accept(self.clone())
    }

    /// Verifies once more what a client has shown when the session began that it goes on with: any certificate on the way to an authority may have
    /// expired since, and each session leaves a ticket for the next.
    pub(super) fn verify_again(&self, shown: &[CertificateDer<'_>]) -> Result<(), HandshakeError> {
        let Some((leaf, others)) = shown.split_first() else { return Ok(()) };
        let now = self.config.time_provider.current_time().ok_or(HandshakeError::Tls(rustls::Error::FailedToGetCurrentTime))?;
        self.verifier.verify_client_cert(leaf, others, now).map(|_| ()).map_err(HandshakeError::Tls)
    }

    /// One that asks for no certificate.
    #[cfg(any(test, fuzzing))]
    pub(super) fn of(config: ServerConfig) -> Self {
        Self { config: Arc::new(config), verifier: rustls::server::WebPkiClientVerifier::no_client_auth(), binding: None }
    }

    /// The same with another clock.
    #[cfg(test)]
    pub(super) fn at(&self, clock: Arc<dyn rustls::time_provider::TimeProvider>) -> Self {
        let mut config = ServerConfig::clone(&self.config);
        config.time_provider = clock;
        Self { config: Arc::new(config), ..self.clone() }
    }
}
