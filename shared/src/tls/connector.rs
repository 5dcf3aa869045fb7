//! What servers are connected to with: made from the server_tls_* settings, once for each configuration.

use super::acceptor::PROTOCOL;
use super::context::{self, ContextError};
use super::files::Files;
use super::handshake::{Handshake, HandshakeError};
use super::secrets::Listener;
use super::side::Side;
use super::verify::{Proof, ServerVerifier};
use crate::config::{Settings, SslMode};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{DEFAULT_KX_GROUPS, kx_group};
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// See the module.
#[derive(Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
    /// Whether a server's certificate must hold the name it is called by.
    names: bool,
}

impl Connector {
    /// Takes the settings and the files that they name. `None`: there is no TLS with servers.
    pub fn new(settings: &Settings, files: &Files) -> Result<Option<Self>, ContextError> {
        let side = Side::servers(settings);
        if !side.is_on() {
            return Ok(None);
        }
        // PostgreSQL takes P-256 by default: offering another first would cost a round trip.
        let mut groups = DEFAULT_KX_GROUPS.to_vec();
        groups.sort_by_key(|group| group.name() != kx_group::SECP256R1.name());
        let (provider, versions) = context::provider(&side, groups)?;
        let identity = context::identity(&side, files, &provider)?;
        let proof = match side.mode {
            SslMode::VerifyFull => Proof::Name,
            SslMode::VerifyCa => Proof::Chain,
            _ => Proof::Key,
        };
        let verifier = ServerVerifier::new(context::roots(&side, files)?, &provider, proof);
        let unusable = |error: rustls::Error| ContextError::new(side.mode_name, error.to_string());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&versions).map_err(unusable)?;
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match identity {
            Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.key_log = Arc::new(Listener);
        config.enable_secret_extraction = true;
        // PostgreSQL resumes no sessions, and a resumed one would not be verified.
        config.resumption = Resumption::disabled();
        Ok(Some(Self { config: Arc::new(config), names: proof == Proof::Name }))
    }

    /// Begins a handshake with the server that the configuration calls `host`.
    pub fn connect(&self, host: &str) -> Result<Box<Handshake>, HandshakeError> {
        let name = match ServerName::try_from(host.to_owned()) {
            Ok(name) => name,
            Err(_) if self.names => return Err(HandshakeError::Name(host.to_owned())),
            // It is not compared with anything then, and an address is not sent.
            Err(_) => ServerName::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        };
        Handshake::connect(Arc::clone(&self.config), name)
    }
}
