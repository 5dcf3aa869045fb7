//! The configuration as bytes, for the sealed memfd from which every worker reads the same one.

use super::{Config, DATABASE_KEYS, Key, PEER_KEYS, TABLE, USER_KEYS};
use crate::encoding;
use zeroize::Zeroizing;

/// Why a snapshot could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It was written by a build whose settings are others.
    #[error("configuration snapshot of another build: its settings are not these")]
    OtherSettings,
    /// Cut short, or bytes left over.
    #[error("malformed configuration snapshot: {0}")]
    Malformed(String),
}

/// A number that differs when the tables differ (FNV-1a over names and types).
fn layout() -> u64 {
    let keys = |keys: &'static [Key]| keys.iter().map(|k| (k.name, k.kind));
    let rows = TABLE.iter().map(|s| (s.name, s.kind)).chain(keys(DATABASE_KEYS)).chain(keys(USER_KEYS)).chain(keys(PEER_KEYS));
    rows.flat_map(|(name, kind)| format!("{name} {kind:?};").into_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Config {
    /// Writes a snapshot. It holds secrets: give it only to a memfd that workers inherit.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, SnapshotError> {
        let bytes = encoding::encode(&layout().to_le_bytes(), self);
        bytes.map(Zeroizing::new).map_err(|e| SnapshotError::Malformed(e.to_string()))
    }

    /// Reads a snapshot of the same build's.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let body = bytes.strip_prefix(&layout().to_le_bytes()).ok_or(SnapshotError::OtherSettings)?;
        match postcard::take_from_bytes(body) {
            Ok((config, [])) => Ok(config),
            Ok((_, rest)) => Err(SnapshotError::Malformed(format!("{} bytes left over", rest.len()))),
            Err(e) => Err(SnapshotError::Malformed(e.to_string())),
        }
    }
}
