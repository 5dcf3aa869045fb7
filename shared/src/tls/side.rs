//! The TLS settings of one side, with their names: clients' and servers' are the same but for those.

use crate::config::{Settings, SslMode};

/// A setting's name and its value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item<'a> {
    pub(crate) name: &'static str,
    pub(crate) value: &'a str,
}

impl<'a> Item<'a> {
    pub(crate) fn is_set(self) -> bool {
        !self.value.is_empty()
    }

    /// The value, unless it is empty.
    pub(crate) fn given(self) -> Option<&'a str> {
        Some(self.value).filter(|value| !value.is_empty())
    }
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Side<'a> {
    pub(crate) mode: SslMode,
    pub(crate) mode_name: &'static str,
    pub(crate) authorities: Item<'a>,
    pub(crate) certificate: Item<'a>,
    pub(crate) key: Item<'a>,
    pub(crate) protocols: Item<'a>,
    pub(crate) ciphers: Item<'a>,
    pub(crate) tls13_ciphers: Item<'a>,
    /// Only the side that answers chooses among curves.
    pub(crate) curve: Option<Item<'a>>,
    /// Whether a peer's certificate is verified at all.
    pub(crate) verifies: bool,
}

fn item<'a>(name: &'static str, value: &'a str) -> Item<'a> {
    Item { name, value }
}

impl<'a> Side<'a> {
    pub(crate) fn clients(settings: &'a Settings) -> Self {
        Self {
            mode: settings.client_tls_sslmode,
            mode_name: "client_tls_sslmode",
            authorities: item("client_tls_ca_file", &settings.client_tls_ca_file),
            certificate: item("client_tls_cert_file", &settings.client_tls_cert_file),
            key: item("client_tls_key_file", &settings.client_tls_key_file),
            protocols: item("client_tls_protocols", &settings.client_tls_protocols),
            ciphers: item("client_tls_ciphers", &settings.client_tls_ciphers),
            tls13_ciphers: item("client_tls13_ciphers", settings.client_tls13_ciphers.as_deref().unwrap_or_default()),
            curve: Some(item("client_tls_ecdhcurve", &settings.client_tls_ecdhcurve)),
            // A certificate that need not be shown must be right if it is.
            verifies: settings.client_tls_sslmode != SslMode::Disable,
        }
    }

    pub(crate) fn servers(settings: &'a Settings) -> Self {
        Self {
            mode: settings.server_tls_sslmode,
            mode_name: "server_tls_sslmode",
            authorities: item("server_tls_ca_file", &settings.server_tls_ca_file),
            certificate: item("server_tls_cert_file", &settings.server_tls_cert_file),
            key: item("server_tls_key_file", &settings.server_tls_key_file),
            protocols: item("server_tls_protocols", &settings.server_tls_protocols),
            ciphers: item("server_tls_ciphers", &settings.server_tls_ciphers),
            tls13_ciphers: item("server_tls13_ciphers", settings.server_tls13_ciphers.as_deref().unwrap_or_default()),
            curve: None,
            verifies: matches!(settings.server_tls_sslmode, SslMode::VerifyCa | SslMode::VerifyFull),
        }
    }

    /// Whether there is TLS on this side.
    pub(crate) fn is_on(&self) -> bool {
        self.mode != SslMode::Disable
    }

    /// Whether the peer must be able to prove itself.
    pub(crate) fn demands_proof(&self) -> bool {
        matches!(self.mode, SslMode::VerifyCa | SslMode::VerifyFull)
    }
}
