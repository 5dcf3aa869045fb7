//! The files of one side's TLS settings, as they were when the supervisor read them: they travel with the configuration, workers open none.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use zeroize::Zeroize;

/// The file of a machine's own certificate authorities, which stands in where no file of them is named.
pub const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What `*_tls_ca_file`, `*_tls_cert_file` and `*_tls_key_file` hold, as far as it is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// Certificate authorities.
    pub authorities: Option<Pem>,
    /// Our certificate and what leads from it to an authority.
    pub certificate: Option<Pem>,
    /// Its private key.
    pub key: Option<Pem>,
}

impl Files {
    /// Those that there are.
    pub fn iter(&self) -> impl Iterator<Item = &Pem> {
        [&self.authorities, &self.certificate, &self.key].into_iter().flatten()
    }
}

/// A file and what stood in it. It may be a private key: it is not shown, and overwritten when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pem {
    path: PathBuf,
    text: Vec<u8>,
}

impl Pem {
    /// Reads a file.
    pub fn read(path: &Path) -> std::io::Result<Self> {
        Ok(Self { path: path.to_owned(), text: std::fs::read(path)? })
    }

    /// Where it was read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What stood in it. Named so that its uses are found.
    pub(super) fn expose(&self) -> &[u8] {
        &self.text
    }
}

impl Drop for Pem {
    fn drop(&mut self) {
        self.text.zeroize();
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({}, {} bytes)", self.path.display(), self.text.len())
    }
}
