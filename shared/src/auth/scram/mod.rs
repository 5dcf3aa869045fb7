//! SCRAM-SHA-256 (RFC 5802, RFC 7677) as PostgreSQL speaks it, both sides.
//!
//! [`ServerExchange`] checks a client against a [`Verifier`]; [`ClientExchange`] logs in to a server from a password or from
//! [`Keys`]. The only expensive step is a [`Derivation`], which can be done a part at a time; everything else is a handful of hashes, so a caller that
//! keeps the keys of a (password, salt, iterations) never hashes twice. Inside TLS an exchange can be bound to the server's certificate ([`Binding`]).
//! The user name inside the messages is ignored, as PostgreSQL does, in favour of the startup message's.

mod binding;
mod client;
mod keys;
mod message;
mod server;
mod verifier;

pub use binding::Binding;
pub use client::{Challenge, ClientExchange};
pub use keys::{Derivation, Keys};
pub use server::{ServerExchange, Success};
pub use verifier::Verifier;

/// The mechanism's name in AuthenticationSASL and SASLInitialResponse.
pub const MECHANISM: &str = "SCRAM-SHA-256";

/// The name of the same with channel binding.
pub const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// What a client is told when [`ServerExchange`] fails.
pub const CLIENT_FAILURE: &str = "SASL authentication failed";

/// Random bytes in a nonce; base64 makes 24 characters of them, as PostgreSQL and PgBouncer send.
pub const NONCE_BYTES: usize = 18;

/// The most iterations done on a server's word, or for a stored verifier: a server may otherwise have us hash for hours.
pub const MAX_ITERATIONS: u32 = 1_000_000;

/// Bounds on what the other side may send, in bytes. PostgreSQL's own messages are near 100.
const MAX_MESSAGE: usize = 4096;
const MAX_NONCE: usize = 512;
const MAX_SALT: usize = 1024;

/// Why an exchange failed, for the log. A client sees only [`CLIENT_FAILURE`], unless channel binding is what failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// The message ends before this field, or another stands in its place.
    #[error("malformed SCRAM message: expected {0}")]
    Missing(&'static str),
    /// The field's value cannot be.
    #[error("malformed SCRAM message: invalid {0}")]
    Invalid(&'static str),
    /// The field or the message is longer than anyone needs.
    #[error("malformed SCRAM message: {0} too long")]
    TooLong(&'static str),
    /// Bytes after the last field.
    #[error("malformed SCRAM message: garbage at the end of {0}")]
    Trailing(&'static str),
    /// The client has chosen a mechanism that it was not offered.
    #[error("client selected an invalid SASL authentication mechanism")]
    Mechanism,
    /// gs2 flag `p` without SCRAM-SHA-256-PLUS, or another one with it.
    #[error("malformed SCRAM message")]
    BindingFlag,
    /// gs2 flag `y` though SCRAM-SHA-256-PLUS was offered: somebody has kept that from the client.
    #[error("SCRAM channel binding negotiation error")]
    BindingNegotiation,
    /// Another type than `tls-server-end-point`.
    #[error("unsupported SCRAM channel-binding type \"{0}\"")]
    BindingType(String),
    /// The client is bound to another session than this: somebody is in between.
    #[error("SCRAM channel binding check failed")]
    BindingMismatch,
    /// The `c=` of client-final is not the gs2 header of client-first, which has no binding.
    #[error("unexpected SCRAM channel-binding attribute in client-final-message")]
    BindingAttribute,
    /// An `a=` in the gs2 header.
    #[error("client uses authorization identity, but it is not supported")]
    AuthorizationIdentity,
    /// A mandatory extension, `m=`.
    #[error("SCRAM message requires an unsupported extension")]
    Extension,
    /// The nonce is not the one of this exchange.
    #[error("SCRAM nonce does not match")]
    Nonce,
    /// The proof does not fit the verifier: the password is wrong, or there is no such user.
    #[error("password authentication failed")]
    Proof,
    /// A server wants more than [`MAX_ITERATIONS`].
    #[error("SCRAM iteration count {0} is above the limit of {MAX_ITERATIONS}")]
    Iterations(u64),
    /// The server's `e=`.
    #[error("error received from server in SCRAM exchange: {0}")]
    Server(String),
    /// The server does not know the password it was to prove it knows.
    #[error("invalid server signature")]
    ServerSignature,
    /// A message arrived when none, or another, was due.
    #[error("SCRAM message out of order")]
    OutOfOrder,
}
