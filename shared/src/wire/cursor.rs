//! A bounded reader over one message body: a length is checked before it is trusted, a byte left over is an error, and every error
//! names the field.

/// The field that could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("message too short or malformed at {0}")]
pub struct Malformed(pub &'static str);

/// Reads fields off the front of a body.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// A reader at the start of `body`.
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// One byte.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, Malformed> {
        let (&byte, rest) = self.rest.split_first().ok_or(Malformed(field))?;
        self.rest = rest;
        Ok(byte)
    }

    /// A big-endian 16-bit integer.
    pub fn u16(&mut self, field: &'static str) -> Result<u16, Malformed> {
        self.bytes(2, field).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    /// A big-endian 32-bit integer.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, Malformed> {
        self.bytes(4, field).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// Exactly `count` bytes.
    pub fn bytes(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed(field))?;
        self.rest = rest;
        Ok(taken)
    }

    /// A string that ends with a zero byte, without it.
    pub fn cstr(&mut self, field: &'static str) -> Result<&'a [u8], Malformed> {
        let end = self.rest.iter().position(|&b| b == 0).ok_or(Malformed(field))?;
        let taken = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Ok(taken)
    }

    /// Everything that is left.
    pub fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Nothing may be left.
    pub fn end(self, field: &'static str) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed(field)) }
    }
}
