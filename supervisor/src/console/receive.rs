//! What a console client sends, message by message, sans-IO: bytes in, messages out.

use std::collections::VecDeque;

/// The longest message that is taken; no command is longer.
const LONGEST: usize = 16 * 1024;

/// One message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// Query, with its text.
    Query(String),
    /// Terminate.
    Terminate,
    /// Parse, Bind or Execute.
    Extended,
    /// Any other type.
    Other(u8),
}

/// Why the stream cannot be read on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    /// A length below 4.
    #[error("bad packet")]
    Header,
    /// A message longer than any command.
    #[error("incomplete pkt")]
    TooLong,
    /// A Query without its terminator, or with bytes behind it.
    #[error("incomplete query")]
    Query,
}

/// Bytes that have arrived and not been read.
#[derive(Debug, Default)]
pub(super) struct Inbound(VecDeque<u8>);

impl Inbound {
    /// Takes bytes as they arrive.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    /// Bytes that are not a whole message yet, or messages that were not asked for.
    pub(super) fn unread(&self) -> Vec<u8> {
        self.0.iter().copied().collect()
    }

    /// The next message; `None`: more bytes are needed. Copy data, which some drivers send late, is skipped.
    pub(super) fn next(&mut self) -> Result<Option<Incoming>, Broken> {
        loop {
            let Some((kind, body)) = self.message()? else { return Ok(None) };
            return Ok(Some(match kind {
                b'Q' => Incoming::Query(text(&body)?),
                b'X' => Incoming::Terminate,
                b'P' | b'B' | b'E' => Incoming::Extended,
                b'd' | b'c' | b'f' => continue,
                other => Incoming::Other(other),
            }));
        }
    }

    fn message(&mut self) -> Result<Option<(u8, Vec<u8>)>, Broken> {
        let bytes = self.0.make_contiguous();
        let Some((&[kind, a, b, c, d], rest)) = bytes.split_first_chunk() else { return Ok(None) };
        let length = usize::try_from(i32::from_be_bytes([a, b, c, d])).ok().and_then(|length| length.checked_sub(4));
        let length = length.ok_or(Broken::Header)?;
        if length > LONGEST {
            return Err(Broken::TooLong);
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let body = body.to_vec();
        self.0.drain(..5 + length);
        Ok(Some((kind, body)))
    }
}

fn text(body: &[u8]) -> Result<String, Broken> {
    match body.split_last() {
        Some((0, text)) if !text.contains(&0) => Ok(String::from_utf8_lossy(text).into_owned()),
        _ => Err(Broken::Query),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_at_a_time() {
        let mut inbound = Inbound::default();
        let stream = b"Q\0\0\0\x09show\0X\0\0\0\x04";
        let mut seen = vec![];
        for byte in stream {
            inbound.push(&[*byte]);
            while let Ok(Some(message)) = inbound.next() {
                seen.push(message);
            }
        }
        assert_eq!(seen, [Incoming::Query("show".into()), Incoming::Terminate]);
    }

    #[test]
    fn types() {
        let mut inbound = Inbound::default();
        inbound.push(b"d\0\0\0\x05xc\0\0\0\x04P\0\0\0\x04S\0\0\0\x04");
        assert_eq!(inbound.next(), Ok(Some(Incoming::Extended)));
        assert_eq!(inbound.next(), Ok(Some(Incoming::Other(b'S'))));
        assert_eq!(inbound.next(), Ok(None));
    }

    #[test]
    fn broken() {
        for (bytes, error) in [
            (&b"Q\0\0\0\x03"[..], Broken::Header),
            (b"Q\xff\xff\xff\xff", Broken::Header),
            (b"Q\x7f\xff\xff\xff", Broken::TooLong),
            (b"Q\0\0\0\x04", Broken::Query),
            (b"Q\0\0\0\x07a\0b", Broken::Query),
        ] {
            let mut inbound = Inbound::default();
            inbound.push(bytes);
            assert_eq!(inbound.next(), Err(error), "{bytes:?}");
        }
    }
}
