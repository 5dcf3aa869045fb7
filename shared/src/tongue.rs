//! How a message is written: for a process of the same build, or for one of any.
//!
//! The first byte says which. Processes of one build know each other's types to the bit, and postcard's short form does. While a binary upgrade
//! is under way some are of another build: to those goes the common tongue, in which every field and variant is named. What a receiver does not
//! know of a message it leaves out; what is new in a later build has to have a default (`#[serde(default)]`). A message or a variant that it does not know at all is an
//! error that names it, and is not obeyed.

use crate::encoding::{decode_named, encode, encode_named};
use serde::{Serialize, de::DeserializeOwned};

/// The version of every message in the own tongue: raised with any change, as a receiver refuses any other.
pub const VERSION: u8 = if cfg!(feature = "other-build") { 3 } else { 2 };

/// Stands in the version's place before what is in the common tongue.
const COMMON: u8 = 0;

/// The longest message, in bytes: what a SEQPACKET socket takes with the default `SO_SNDBUF`, with room to spare.
pub const MAX_MESSAGE: usize = 192 * 1024;

/// Why a message could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The sender is of another build, and took this process for one of its own.
    #[error("control message of version {0}, this process speaks {VERSION}")]
    Version(u8),
    /// The datagram held nothing.
    #[error("empty control message")]
    Empty,
    /// Longer than [`MAX_MESSAGE`].
    #[error("control message of {0} bytes, the most is {MAX_MESSAGE}")]
    TooLong(usize),
    /// Not what is expected, bytes left over, or something that only another build knows.
    #[error("control message that cannot be read: {0}")]
    Malformed(String),
}

/// What a receiver understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tongue {
    /// It is of this build.
    #[default]
    Own,
    /// It may be of another.
    Common,
}

impl Tongue {
    /// `message` as one datagram.
    pub fn encode<M: Serialize>(self, message: &M) -> Result<Vec<u8>, MessageError> {
        let bytes = self.encode_long(message)?;
        if bytes.len() > MAX_MESSAGE { Err(MessageError::TooLong(bytes.len())) } else { Ok(bytes) }
    }

    /// `message` for a file, however long it is.
    pub fn encode_long<M: Serialize>(self, message: &M) -> Result<Vec<u8>, MessageError> {
        match self {
            Tongue::Own => encode(&[VERSION], message).map_err(|error| MessageError::Malformed(error.to_string())),
            Tongue::Common => encode_named(&[COMMON], message).map_err(|error| MessageError::Malformed(error.to_string())),
        }
    }
}

/// Reads one datagram or file, in whichever tongue it is.
pub fn decode<M: DeserializeOwned>(datagram: &[u8]) -> Result<M, MessageError> {
    match datagram.split_first() {
        None => Err(MessageError::Empty),
        Some((&VERSION, body)) => match postcard::take_from_bytes(body) {
            Ok((message, [])) => Ok(message),
            Ok((_, rest)) => Err(MessageError::Malformed(format!("{} bytes left over", rest.len()))),
            Err(e) => Err(MessageError::Malformed(e.to_string())),
        },
        Some((&COMMON, body)) => decode_named(body).map_err(|error| MessageError::Malformed(error.to_string())),
        Some((&version, _)) => Err(MessageError::Version(version)),
    }
}

#[cfg(test)]
mod tests;
