//! Whose certificates an LDAP server may show.
//!
//! PostgreSQL and PgBouncer leave this to OpenLDAP's library: its file ldap.conf and its environment. The two settings that matter are
//! read from the same places here, so that what works there works here: `TLS_CACERT` (or `TLS_CACERTDIR`) and `TLS_REQCERT`. Without them
//! it is the system's certificates.

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Where OpenLDAP's file is on Debian, and elsewhere.
const FILES: [&str; 2] = ["/etc/ldap/ldap.conf", "/etc/openldap/ldap.conf"];

/// The configuration in use, and what it was made from.
#[derive(Debug, Default)]
pub(super) struct Trust(Mutex<Option<(Source, Arc<ClientConfig>)>>);

/// What OpenLDAP's settings say, and when the file of certificates was last changed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Source {
    file: Option<PathBuf>,
    folder: Option<PathBuf>,
    blindly: bool,
    changed: Option<SystemTime>,
}

impl Trust {
    /// The TLS configuration for now; files are read again when they have changed.
    pub(super) fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let source = Source::now();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, config)) = &*kept
            && *known == source
        {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(source.config()?);
        *kept = Some((source, Arc::clone(&config)));
        Ok(config)
    }
}

impl Source {
    fn now() -> Self {
        let named = std::env::var_os("LDAPCONF").map(PathBuf::from);
        let files = named.into_iter().chain(FILES.map(PathBuf::from));
        let text = files.into_iter().find_map(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
        let mut source = Self::read(&text, |name| std::env::var(name).ok());
        source.changed = source.file.as_deref().and_then(changed);
        source
    }

    /// ldap.conf(5): a name and a value a line, the name in any case; the environment, with LDAP before the name, is stronger.
    fn read(text: &str, environment: impl Fn(&str) -> Option<String>) -> Self {
        let setting = |name: &str| {
            environment(&format!("LDAP{name}")).or_else(|| {
                let lines = text.lines().filter(|line| !line.starts_with('#'));
                let mut pairs = lines.filter_map(|line| line.trim().split_once(char::is_whitespace));
                pairs.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
            })
        };
        let path = |name: &str| setting(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let blindly = setting("TLS_REQCERT").is_some_and(|level| ["never", "allow"].contains(&level.to_ascii_lowercase().as_str()));
        Self { file: path("TLS_CACERT"), folder: path("TLS_CACERTDIR"), blindly, changed: None }
    }

    fn config(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| error.to_string())?.dangerous();
        let verifier: Arc<dyn ServerCertVerifier> = if self.blindly {
            Arc::new(Blind(provider))
        } else {
            let roots = Arc::new(self.roots()?);
            WebPkiServerVerifier::builder_with_provider(roots, provider).build().map_err(|error| error.to_string())?
        };
        Ok(builder.with_custom_certificate_verifier(verifier).with_no_client_auth())
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let (file, folder) = (self.file.as_deref(), self.folder.as_deref());
        let found = if file.or(folder).is_some() {
            rustls_native_certs::load_certs_from_paths(file, folder)
        } else {
            rustls_native_certs::load_native_certs()
        };
        let mut roots = RootCertStore::empty();
        // Of the many that a system has, one that is not understood is no reason to trust none.
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let reason = found.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
            return Err(format!("no certificates to check an LDAP server's by: {reason}"));
        }
        Ok(roots)
    }
}

fn changed(file: &Path) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|data| data.modified()).ok()
}

/// `TLS_REQCERT never`: any certificate will do.
#[derive(Debug)]
struct Blind(Arc<CryptoProvider>);

impl ServerCertVerifier for Blind {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openldaps_settings() {
        let text = "# comment\nBASE dc=x\ntls_cacert\t/etc/ssl/ca.pem\nTLS_REQCERT demand\n";
        let source = Source::read(text, |_| None);
        assert_eq!((source.file, source.blindly), (Some("/etc/ssl/ca.pem".into()), false));
        let environment = |name: &str| match name {
            "LDAPTLS_CACERT" => Some("/else.pem".to_owned()),
            "LDAPTLS_REQCERT" => Some("Never".to_owned()),
            _ => None,
        };
        let source = Source::read(text, environment);
        assert_eq!((source.file, source.blindly), (Some("/else.pem".into()), true));
    }
}
