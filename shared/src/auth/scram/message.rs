//! A bounded cursor over a SCRAM message: `x=value` attributes separated by commas.

use super::{MAX_MESSAGE, MAX_NONCE, ScramError};

/// Reads attributes in order. `name` is the message's, for errors.
pub(super) struct Attributes<'a> {
    name: &'static str,
    rest: Option<&'a [u8]>,
}

impl<'a> Attributes<'a> {
    /// Starts at the first attribute of `message`.
    pub(super) fn new(name: &'static str, message: &'a [u8]) -> Result<Self, ScramError> {
        if message.len() > MAX_MESSAGE {
            return Err(ScramError::TooLong(name));
        }
        Ok(Self { name, rest: Some(message) })
    }

    /// The value of the next attribute, which must be `letter`; `field` names it in the error.
    pub(super) fn expect(&mut self, letter: u8, field: &'static str) -> Result<&'a [u8], ScramError> {
        match self.rest {
            Some([first, b'=', ..]) if *first == letter => Ok(self.next_pair()?.1),
            Some([b'm', b'=', ..]) => Err(ScramError::Extension),
            _ => Err(ScramError::Missing(field)),
        }
    }

    /// The next attribute, whatever it is: its letter and value.
    pub(super) fn next_pair(&mut self) -> Result<(u8, &'a [u8]), ScramError> {
        let Some([letter, b'=', rest @ ..]) = self.rest else { return Err(ScramError::Missing("an attribute")) };
        if !letter.is_ascii_alphabetic() {
            return Err(ScramError::Invalid("attribute name"));
        }
        let comma = rest.iter().position(|b| *b == b',');
        self.rest = comma.map(|at| &rest[at + 1..]);
        let value = &rest[..comma.unwrap_or(rest.len())];
        if value.contains(&0) { Err(ScramError::Invalid(self.name)) } else { Ok((*letter, value)) }
    }

    /// Whether an attribute is left; a message that ends in a comma has one left, which will not be found.
    pub(super) fn more(&self) -> bool {
        self.rest.is_some()
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), ScramError> {
        if self.more() { Err(ScramError::Trailing(self.name)) } else { Ok(()) }
    }

    /// Reads over the extensions left, none of which may be malformed.
    pub(super) fn skip_extensions(&mut self) -> Result<(), ScramError> {
        while self.more() {
            self.next_pair()?;
        }
        Ok(())
    }
}

/// A nonce: printable ASCII without the comma, not empty, bounded.
pub(super) fn nonce(value: &[u8]) -> Result<&str, ScramError> {
    if value.len() > MAX_NONCE {
        return Err(ScramError::TooLong("nonce"));
    }
    if value.is_empty() || !value.iter().all(|b| b.is_ascii_graphic() && *b != b',') {
        return Err(ScramError::Invalid("nonce"));
    }
    std::str::from_utf8(value).map_err(|_| ScramError::Invalid("nonce"))
}
