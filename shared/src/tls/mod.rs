//! TLS: handshakes by rustls, everything after them by us.
//!
//! A session must be able to move to another process, and rustls's cannot: so once the handshake is over, keys and sequence numbers are taken out of
//! it ([`handshake`]) and the record layer is ours ([`session`]). An idle session is some hundred bytes, which serde can write.

mod alert;
pub mod ciphers;
mod direction;
mod handshake;
mod secrets;
mod session;
mod suite;

#[cfg(test)]
mod tests;

pub use alert::Alert;
pub use handshake::{Agreed, Established, Handshake, HandshakeError, Progress};
pub use secrets::Listener;
pub use session::{End, Opened, Role, Session};
