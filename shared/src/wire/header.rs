//! The five bytes every message but the first begins with: a tag and a length that counts itself.

/// Bytes of a message header.
pub const HEADER_BYTES: usize = 5;

/// A message's tag and its whole length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The message type.
    pub tag: u8,
    /// Bytes in all, tag and length field included.
    pub total: usize,
}

/// What the first bytes of a buffer are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peek {
    /// A whole header.
    Header(Header),
    /// Fewer than five bytes.
    NeedMore,
    /// The length field is below 4 or the message longer than `max`.
    Bad,
}

/// Reads the header at the front of `bytes`; `max` is the longest message accepted, header included (max_packet_size).
#[inline]
pub fn peek(bytes: &[u8], max: u32) -> Peek {
    let Some((&[tag, a, b, c, d], _)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Peek::NeedMore };
    let length = u32::from_be_bytes([a, b, c, d]);
    if length < 4 || length >= max { Peek::Bad } else { Peek::Header(Header { tag, total: length as usize + 1 }) }
}

/// At most the first eight bytes in hex, as `bad packet header: '…'` shows them.
pub fn hex_prefix(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().take(8).fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_checked_before_they_are_trusted() {
        assert_eq!(peek(b"Q\0\0\0", 100), Peek::NeedMore);
        assert_eq!(peek(b"Q\0\0\0\x03", 100), Peek::Bad);
        assert_eq!(peek(b"Q\xff\xff\xff\xff", u32::MAX), Peek::Bad);
        assert_eq!(peek(b"Q\0\0\0\x64", 100), Peek::Bad);
        assert_eq!(peek(b"S\0\0\0\x04rest", 100), Peek::Header(Header { tag: b'S', total: 5 }));
    }
}
