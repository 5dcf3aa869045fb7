//! How a client comes in.

use crate::Client;
use rustls::ClientConfig;
use std::sync::Arc;

/// Where, as whom, and whether inside TLS.
#[derive(Debug, Clone)]
pub(super) struct Door {
    pub(super) port: u16,
    pub(super) user: &'static str,
    pub(super) database: &'static str,
    pub(super) tls: Option<Arc<ClientConfig>>,
}

impl Door {
    #[track_caller]
    pub(super) fn enter(&self) -> Client {
        let mut client = match &self.tls {
            None => Client::tcp(self.port),
            Some(config) => Client::tls(self.port, config),
        };
        client.start(&[("user", self.user), ("database", self.database)], None).unwrap();
        client
    }
}
