//! postcard's encoding, into a buffer that never grows: one that does leaves behind a copy of what was in it, which nobody wipes.

use serde::Serialize;

/// `head` and behind it `value`. What is returned is as large as what it holds.
pub(crate) fn encode<T: Serialize + ?Sized>(head: &[u8], value: &T) -> postcard::Result<Vec<u8>> {
    let size = postcard::experimental::serialized_size(value)?;
    let mut bytes = Vec::with_capacity(head.len() + size);
    bytes.extend_from_slice(head);
    postcard::to_extend(value, bytes)
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
        }
    }
}
