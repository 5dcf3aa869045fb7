//! What the fuzz targets of TLS in `fuzz/` run, and what the tests here run on their corpora and on seeded mutations of these.
//!
//! As in `worker::fuzz`: each function takes any bytes and panics where a promise is broken.

#![allow(clippy::unwrap_used)]

mod handshake;
mod records;

pub use handshake::handshake;
pub use records::records;

/// Pieces of 1 to 64 bytes, as many as each begins with.
fn cut(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = 1 + usize::from(*bytes.first()? & 63);
        let (piece, rest) = bytes.split_at(length.min(bytes.len()));
        bytes = rest;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use replay::{Extent, survives};

    #[test]
    fn tls_records() {
        survives("tls_records", Extent { mutations: 20_000, bytes: 512 * 1024 }, super::records);
    }

    #[test]
    fn tls_handshake() {
        survives("tls_handshake", Extent { mutations: 1000, bytes: 2 * 1024 * 1024 }, super::handshake);
    }
}
