//! TLS: handshakes by rustls, everything after them by us.
//!
//! A session must be able to move to another process, and rustls's cannot: so once the handshake is over, keys and sequence numbers are taken out of
//! it ([`handshake`]) and the record layer is ours ([`session`]). An idle session is some hundred bytes, which serde can write.
//!
//! An [`Acceptor`] and a [`Connector`] are what the settings and their files come to; they are made once for each configuration and begin
//! handshakes.

mod acceptor;
mod alert;
mod certificate;
mod ciphers;
mod connector;
mod context;
mod direction;
mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod handshake;
mod names;
mod secrets;
mod secured;
mod session;
pub(crate) mod side;
mod suite;
mod tickets;
mod verify;

#[cfg(test)]
mod tests;

pub use acceptor::Acceptor;
pub use alert::Alert;
pub use connector::Connector;
pub use context::ContextError;
pub use files::{Files, Pem, SYSTEM_AUTHORITIES, Stamp};
pub use handshake::{Agreed, Established, Handshake, HandshakeError, Progress};
pub use names::Names;
pub use secured::{Packed, Secured};
pub use session::{End, Opened, Role, Session};
pub use tickets::{ROTATION, Tickets};

/// Has random numbers at hand. A build of AWS-LC that takes entropy from the jitter of the processor too, as it does unless told otherwise
/// (`.cargo/config.toml`), computes [10 to 50 ms](https://github.com/aws/aws-lc-rs/pull/922) for the first that a process asks for: better before there are
/// clients than in a handshake.
pub fn gather_entropy() {
    // Whoever needs them asks again.
    let _ = aws_lc_rs::rand::fill(&mut [0]);
}
