//! Two encodings, both into a buffer that never grows: one that does leaves behind a copy of what was in it, which nobody wipes.
//!
//! postcard's is short and quick, and understood by the same build only. With the names of fields two builds understand each other: what
//! one does not know it leaves out, what it misses it takes as it was before there was such a thing (`#[serde(default)]`).

use serde::{Serialize, de::DeserializeOwned};
use std::io;

/// `head` and behind it `value`. What is returned is as large as what it holds.
pub(crate) fn encode<T: Serialize + ?Sized>(head: &[u8], value: &T) -> postcard::Result<Vec<u8>> {
    let size = postcard::experimental::serialized_size(value)?;
    let mut bytes = Vec::with_capacity(head.len() + size);
    bytes.extend_from_slice(head);
    postcard::to_extend(value, bytes)
}

/// With the names of all fields, for another build.
pub fn encode_named<T: Serialize + ?Sized>(head: &[u8], value: &T) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    let mut size = Size(0);
    rmp_serde::encode::write_named(&mut size, value)?;
    let mut bytes = Vec::with_capacity(head.len() + size.0);
    bytes.extend_from_slice(head);
    rmp_serde::encode::write_named(&mut bytes, value)?;
    Ok(bytes)
}

/// What [`encode_named`] has written, without the head.
pub fn decode_named<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, rmp_serde::decode::Error> {
    rmp_serde::from_slice(bytes)
}

/// Counts what is written.
struct Size(usize);

impl io::Write for Size {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_buffer_is_as_large_as_it_has_to_be() {
        for value in [vec![], vec!["secret".to_owned(); 1000]] {
            let bytes = encode(b"head", &value).unwrap();
            assert_eq!((bytes.len(), &bytes[..4]), (bytes.capacity(), &b"head"[..]));
            assert_eq!(postcard::from_bytes::<Vec<String>>(&bytes[4..]).unwrap(), value);
            let named = encode_named(b"head", &value).unwrap();
            assert_eq!((named.len(), &named[..4]), (named.capacity(), &b"head"[..]));
            assert_eq!(decode_named::<Vec<String>>(&named[4..]).unwrap(), value);
        }
    }

    #[test]
    fn two_builds_understand_each_other() {
        #[derive(Serialize)]
        struct Older {
            kept: u32,
            dropped: String,
        }
        #[derive(serde::Deserialize, PartialEq, Debug)]
        struct Newer {
            kept: u32,
            #[serde(default)]
            added: Option<u8>,
        }
        let bytes = encode_named(&[], &Older { kept: 7, dropped: "x".into() }).unwrap();
        assert_eq!(decode_named::<Newer>(&bytes).unwrap(), Newer { kept: 7, added: None });
    }
}
