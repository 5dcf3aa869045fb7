//! The cipher suites a session can have once its handshake is over, and the keys they work with.

use aws_lc_rs::{aead, hkdf};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// What a record's nonce is added to, in bytes.
pub(super) const IV_BYTES: usize = 12;

/// What every one of these ciphers adds to a record, in bytes.
pub(super) const TAG_BYTES: usize = 16;

/// An AEAD cipher, with the hash that TLS 1.3 pairs it with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Cipher {
    Aes128Gcm,
    Aes256Gcm,
    Chacha20Poly1305,
}

impl Cipher {
    pub(super) fn algorithm(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes128Gcm => &aead::AES_128_GCM,
            Self::Aes256Gcm => &aead::AES_256_GCM,
            Self::Chacha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }

    fn hash(self) -> hkdf::Algorithm {
        match self {
            Self::Aes128Gcm | Self::Chacha20Poly1305 => hkdf::HKDF_SHA256,
            Self::Aes256Gcm => hkdf::HKDF_SHA384,
        }
    }

    /// AES's keys wear out (RFC 8446, 5.5); ChaCha20's do not before the sequence number does.
    pub(super) fn wears_out(self) -> bool {
        self != Self::Chacha20Poly1305
    }
}

/// The key and IV of one direction, as the record layer uses them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(super) struct Keys {
    pub(super) key: Vec<u8>,
    pub(super) iv: [u8; IV_BYTES],
}

/// The secret that TLS 1.3 makes the keys of one direction from, and its successor (RFC 8446, 7.1 to 7.3).
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(super) struct TrafficSecret(pub(super) Vec<u8>);

/// How many bytes HKDF is asked for.
struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl TrafficSecret {
    /// The keys made from it. `None`: it is no secret of this cipher's hash.
    pub(super) fn keys(&self, cipher: Cipher) -> Option<Keys> {
        let key = self.expand(cipher, b"key", cipher.algorithm().key_len())?;
        let iv = self.expand(cipher, b"iv", IV_BYTES)?.try_into().ok()?;
        Some(Keys { key, iv })
    }

    /// The secret of the next generation.
    pub(super) fn next(&self, cipher: Cipher) -> Option<Self> {
        self.expand(cipher, b"traffic upd", self.0.len()).map(Self)
    }

    /// HKDF-Expand-Label with an empty context.
    fn expand(&self, cipher: Cipher, label: &[u8], length: usize) -> Option<Vec<u8>> {
        const PREFIX: &[u8] = b"tls13 ";
        let prk = hkdf::Prk::new_less_safe(cipher.hash(), &self.0);
        let length_bytes = u16::try_from(length).ok()?.to_be_bytes();
        let label_length = [u8::try_from(PREFIX.len() + label.len()).ok()?];
        let info = [&length_bytes[..], &label_length, PREFIX, label, &[0]];
        let mut bytes = vec![0; length];
        prk.expand(&info, Length(length)).ok()?.fill(&mut bytes).ok()?;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// RFC 8448, section 3: the server's application traffic secret and the keys made from it.
    #[test]
    fn keys_are_those_of_the_rfc() {
        let secret = TrafficSecret(bytes("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643"));
        let keys = secret.keys(Cipher::Aes128Gcm).unwrap();
        assert_eq!(keys.key, bytes("9f02283b6c9c07efc26bb9f2ac92e356"));
        assert_eq!(keys.iv[..], bytes("cf782b88dd83549aadf1e984")[..]);
        assert_ne!(secret.next(Cipher::Aes128Gcm).unwrap().0, secret.0);
    }
}
