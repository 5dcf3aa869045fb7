//! Certificates of a case's own, and clients that use them.

use crate::{Builder, account};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
    PKCS_RSA_SHA256, SignatureAlgorithm,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion};
use sha2::{Digest, Sha256};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

pub use rustls::version::{TLS12, TLS13};

/// An authority with what it has signed, in a folder: `ca.crt`, and for every name `NAME.crt` and `NAME.key`.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    /// Of what kind its keys are.
    algorithm: &'static SignatureAlgorithm,
}

impl Authority {
    /// A new one, which has signed `server` for `localhost` and 127.0.0.1.
    pub fn new() -> Authority {
        Self::with_keys(&PKCS_ECDSA_P256_SHA256)
    }

    /// One whose keys, its own and those that it signs, are RSA's.
    pub fn rsa() -> Authority {
        Self::with_keys(&PKCS_RSA_SHA256)
    }

    /// One that signs by Ed25519: what binds a login to such a certificate nobody has defined.
    pub fn ed25519() -> Authority {
        Self::with_keys(&PKCS_ED25519)
    }

    fn with_keys(algorithm: &'static SignatureAlgorithm) -> Authority {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let folder = account::folder();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the case's own authority");
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca.crt"), certificate.pem()).unwrap();
        let authority = Authority { folder, issuer: Issuer::new(params, key), algorithm };
        authority.sign("server", &["localhost", "127.0.0.1"]);
        authority
    }

    /// A certificate for these names, whose common name is `name` too.
    pub fn sign(&self, name: &str, names: &[&str]) {
        let key = KeyPair::generate_for(self.algorithm).unwrap();
        self.write(name, &request(name, names).signed_by(&key, &self.issuer).unwrap(), &key);
    }

    /// As [`Authority::sign`], without the authority: the certificate is signed with its own key.
    pub fn sign_itself(&self, name: &str, names: &[&str]) {
        let key = KeyPair::generate_for(self.algorithm).unwrap();
        self.write(name, &request(name, names).self_signed(&key).unwrap(), &key);
    }

    fn write(&self, name: &str, certificate: &Certificate, key: &KeyPair) {
        std::fs::write(self.file(&format!("{name}.crt")), certificate.pem()).unwrap();
        let file = self.file(&format!("{name}.key"));
        std::fs::write(&file, key.serialize_pem()).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        account::give(&file);
    }

    /// A file of its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the first certificate of such a file is.
    pub fn certificate(&self, name: &str) -> CertificateDer<'static> {
        certificates(&self.file(name)).swap_remove(0)
    }

    /// Lines of postgresql.conf by which PostgreSQL takes TLS with the certificate `name`.
    pub fn postgres(&self, name: &str) -> String {
        let file = |suffix: &str| self.file(&format!("{name}.{suffix}")).display().to_string();
        format!("ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'\n", file("crt"), file("key"))
    }

    /// The settings of a server that shows the certificate `name`.
    pub(crate) fn server(&self, name: &str) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let chain = certificates(&self.file(&format!("{name}.crt")));
        let config = config.with_no_client_auth().with_single_cert(chain, key(&self.file(&format!("{name}.key"))));
        Arc::new(config.unwrap())
    }

    /// A client's settings: it trusts this authority and, with `name`, shows that certificate.
    pub fn client(&self, version: &'static SupportedProtocolVersion, name: Option<&str>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.file("ca.crt")) {
            roots.add(certificate).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        let config = config.with_root_certificates(roots);
        let mut config = match name {
            None => config.with_no_client_auth(),
            Some(name) => {
                let chain = certificates(&self.file(&format!("{name}.crt")));
                config.with_client_auth_cert(chain, key(&self.file(&format!("{name}.key")))).unwrap()
            }
        };
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Arc::new(config)
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// The fleet takes TLS from clients, with the certificate `server`.
    #[must_use]
    pub fn client_tls(self, authority: &Authority, mode: &str) -> Self {
        self.setting("client_tls_sslmode", mode)
            .setting("client_tls_cert_file", authority.file("server.crt").display())
            .setting("client_tls_key_file", authority.file("server.key").display())
    }

    /// The fleet speaks TLS with its servers and trusts this authority.
    #[must_use]
    pub fn server_tls(self, authority: &Authority, mode: &str) -> Self {
        self.setting("server_tls_sslmode", mode).setting("server_tls_ca_file", authority.file("ca.crt").display())
    }
}

/// What binds a login to a certificate of an [`Authority`] (`tls-server-end-point`).
pub fn endpoint(certificate: &[u8]) -> Option<Vec<u8>> {
    const ED25519: [u8; 5] = [6, 3, 0x2b, 0x65, 0x70];
    let signed_so = certificate.windows(ED25519.len()).any(|bytes| bytes == ED25519);
    (!signed_so).then(|| Sha256::digest(certificate).to_vec())
}

/// A client's end of a handshake with `localhost`.
pub(crate) fn begin(config: &Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(Arc::clone(config), ServerName::try_from("localhost").unwrap()).unwrap()
}

fn request(name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn certificates(file: &Path) -> Vec<CertificateDer<'static>> {
    use rustls::pki_types::pem::PemObject;
    CertificateDer::pem_file_iter(file).unwrap().map(Result::unwrap).collect()
}

fn key(file: &Path) -> PrivateKeyDer<'static> {
    use rustls::pki_types::pem::PemObject;
    PrivateKeyDer::from_pem_file(file).unwrap()
}
