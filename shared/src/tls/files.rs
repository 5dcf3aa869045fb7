//! The files of one side's TLS settings, as they were when the supervisor read them: they travel with the configuration, workers open none.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
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
#[derive(Clone, Serialize, Deserialize)]
pub struct Pem {
    path: PathBuf,
    stamp: Stamp,
    text: Vec<u8>,
}

/// By which a file is known to be another than it was: written anew, replaced, or made readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// Of the file as it is now. `None`: it cannot be looked at.
    pub fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().as_ref().map(Self::from)
    }
}

impl From<&Metadata> for Stamp {
    fn from(file: &Metadata) -> Self {
        Self { device: file.dev(), inode: file.ino(), size: file.size(), changed: (file.ctime(), file.ctime_nsec()) }
    }
}

impl Pem {
    /// Reads a file.
    pub fn read(path: &Path) -> std::io::Result<Self> {
        let mut file = File::open(path)?;
        // Before it is read: what is written meanwhile shows as a change.
        let metadata = file.metadata()?;
        let mut text = Vec::with_capacity(metadata.len() as usize + 1);
        file.read_to_end(&mut text)?;
        Ok(Self { path: path.to_owned(), stamp: Stamp::from(&metadata), text })
    }

    /// What the file was when it was read.
    pub fn stamp(&self) -> Stamp {
        self.stamp
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

/// The same file with the same in it, whenever it was read.
impl PartialEq for Pem {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path && self.text == other.text
    }
}

impl Eq for Pem {}

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
