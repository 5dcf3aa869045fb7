//! One direction of a session: its keys, how many records they have protected, and the protection of one record.

use super::alert::Alert;
use super::suite::{Cipher, IV_BYTES, Keys, TAG_BYTES, TrafficSecret};
use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};

/// The header of a record: content type, version, length.
pub(super) const HEADER: usize = 5;

/// What follows it in TLS 1.2 with AES-GCM: the part of the nonce that is sent.
const EXPLICIT_NONCE: usize = 8;

/// The most bytes a record carries.
pub(super) const MOST_PLAIN: usize = 1 << 14;

/// What a record is about.
pub(super) mod content {
    pub(in crate::tls) const ALERT: u8 = 21;
    pub(in crate::tls) const HANDSHAKE: u8 = 22;
    pub(in crate::tls) const APPLICATION_DATA: u8 = 23;
}

/// What the two versions of TLS do differently here.
#[derive(Clone, Serialize, Deserialize)]
pub(super) enum Version {
    Tls12,
    /// With the secret that the keys were made from.
    Tls13(TrafficSecret),
}

/// One direction.
#[derive(Serialize, Deserialize)]
pub(super) struct Direction {
    version: Version,
    cipher: Cipher,
    keys: Keys,
    sequence: u64,
    /// The key as the cipher works with it: some 700 bytes, made when it is needed and dropped when the session rests.
    #[serde(skip)]
    expanded: Option<Box<LessSafeKey>>,
}

/// What stands between a record's header and its end, besides what it carries.
#[derive(Clone, Copy)]
struct Overhead {
    before: usize,
    behind: usize,
}

impl Direction {
    pub(super) fn new(version: Version, cipher: Cipher, keys: Keys, sequence: u64) -> Self {
        Self { version, cipher, keys, sequence, expanded: None }
    }

    pub(super) fn is_tls13(&self) -> bool {
        matches!(self.version, Version::Tls13(_))
    }

    /// How many records these keys have protected.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(super) fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// Drops what can be made again.
    pub(super) fn rest(&mut self) {
        self.expanded = None;
    }

    /// The longest record body that is not an overflow.
    pub(super) fn most_body(&self) -> usize {
        MOST_PLAIN + if self.is_tls13() { 256 } else { 2048 }
    }

    /// Goes on to the next generation of keys.
    pub(super) fn update(&mut self) -> Result<(), Alert> {
        let Version::Tls13(secret) = &self.version else { return Err(Alert::INTERNAL_ERROR) };
        let next = secret.next(self.cipher).ok_or(Alert::INTERNAL_ERROR)?;
        self.keys = next.keys(self.cipher).ok_or(Alert::INTERNAL_ERROR)?;
        self.version = Version::Tls13(next);
        self.sequence = 0;
        self.expanded = None;
        Ok(())
    }

    /// Opens one record in place; `record` is all of it, header included. Returns its content type and where in `record` its content lies.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<(u8, std::ops::Range<usize>), Alert> {
        let Overhead { before, behind } = self.overhead();
        let kind = record[0];
        let sealed = record.len() - HEADER;
        let plain = sealed.checked_sub(before + behind).ok_or(Alert::BAD_RECORD_MAC)?;
        let nonce = self.nonce(&record[HEADER..HEADER + before]);
        let (header, body) = record.split_at_mut(HEADER);
        let sequence = self.sequence;
        let (tls13, version) = (self.is_tls13(), [header[1], header[2]]);
        let key = self.expanded()?;
        let body = &mut body[before..];
        let opened = if tls13 {
            key.open_in_place(nonce, Aad::from(&*header), body)
        } else {
            key.open_in_place(nonce, Aad::from(tls12_aad(sequence, kind, version, plain)), body)
        };
        let opened = opened.map_err(|_| Alert::BAD_RECORD_MAC)?;
        let (kind, length) = if tls13 {
            // Zeros may follow the content type, which follows the content.
            let end = opened.iter().rposition(|byte| *byte != 0).ok_or(Alert::UNEXPECTED_MESSAGE)?;
            (opened[end], end)
        } else {
            (kind, opened.len())
        };
        self.sequence = sequence.checked_add(1).ok_or(Alert::INTERNAL_ERROR)?;
        if length > MOST_PLAIN {
            return Err(Alert::RECORD_OVERFLOW);
        }
        let start = HEADER + before;
        Ok((kind, start..start + length))
    }

    /// Appends one record that carries `content`, at most [`MOST_PLAIN`] bytes.
    pub(super) fn seal(&mut self, kind: u8, content: &[u8], out: &mut Vec<u8>) -> Result<(), Alert> {
        let Overhead { before, behind } = self.overhead();
        let tls13 = self.is_tls13();
        let (sequence, plain) = (self.sequence, content.len());
        let body = before + plain + behind;
        let outer = if tls13 { content::APPLICATION_DATA } else { kind };
        let header = [outer, 3, 3, (body >> 8) as u8, body as u8];
        // rustls sends as the explicit part what the nonce is XORed with anyway; so the two never use one nonce twice.
        let explicit: [u8; EXPLICIT_NONCE] = self.mixed_iv()[IV_BYTES - EXPLICIT_NONCE..].try_into().unwrap_or_default();
        let nonce = self.nonce(&explicit[..before]);
        let key = self.expanded()?;
        out.reserve(HEADER + body);
        out.extend_from_slice(&header);
        out.extend_from_slice(&explicit[..before]);
        let start = out.len();
        out.extend_from_slice(content);
        let tag = if tls13 {
            out.push(kind);
            key.seal_in_place_separate_tag(nonce, Aad::from(header), &mut out[start..])
        } else {
            let aad = Aad::from(tls12_aad(sequence, kind, [3, 3], plain));
            key.seal_in_place_separate_tag(nonce, aad, &mut out[start..])
        };
        out.extend_from_slice(tag.map_err(|_| Alert::INTERNAL_ERROR)?.as_ref());
        self.sequence = sequence.checked_add(1).ok_or(Alert::INTERNAL_ERROR)?;
        Ok(())
    }

    fn overhead(&self) -> Overhead {
        match (&self.version, self.cipher) {
            // The content type is sealed too.
            (Version::Tls13(_), _) => Overhead { before: 0, behind: 1 + TAG_BYTES },
            (Version::Tls12, Cipher::Chacha20Poly1305) => Overhead { before: 0, behind: TAG_BYTES },
            (Version::Tls12, _) => Overhead { before: EXPLICIT_NONCE, behind: TAG_BYTES },
        }
    }

    /// The IV with the sequence number in its last eight bytes.
    fn mixed_iv(&self) -> [u8; IV_BYTES] {
        let mut nonce = self.keys.iv;
        for (byte, number) in nonce[IV_BYTES - 8..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        nonce
    }

    /// The nonce of the next record, whose explicit part this is (if the version has one).
    fn nonce(&self, explicit: &[u8]) -> Nonce {
        let mut nonce = self.mixed_iv();
        if !explicit.is_empty() {
            nonce[..IV_BYTES - EXPLICIT_NONCE].copy_from_slice(&self.keys.iv[..IV_BYTES - EXPLICIT_NONCE]);
            nonce[IV_BYTES - EXPLICIT_NONCE..].copy_from_slice(explicit);
        }
        Nonce::assume_unique_for_key(nonce)
    }

    fn expanded(&mut self) -> Result<&LessSafeKey, Alert> {
        if self.expanded.is_none() {
            let key = UnboundKey::new(self.cipher.algorithm(), &self.keys.key).map_err(|_| Alert::INTERNAL_ERROR)?;
            self.expanded = Some(Box::new(LessSafeKey::new(key)));
        }
        self.expanded.as_deref().ok_or(Alert::INTERNAL_ERROR)
    }
}

/// Sequence number, content type, version, length of the content (RFC 5246, 6.2.3.3).
fn tls12_aad(sequence: u64, kind: u8, version: [u8; 2], plain: usize) -> [u8; 13] {
    let mut aad = [0; 13];
    aad[..8].copy_from_slice(&sequence.to_be_bytes());
    aad[8] = kind;
    aad[9..11].copy_from_slice(&version);
    aad[11..].copy_from_slice(&(plain as u16).to_be_bytes());
    aad
}
