//! What peers must prove with their certificates.
//!
//! Chains are verified by webpki. What it refuses and OpenSSL takes, and people have (X.509 v1 certificates, authorities' own certificates
//! shown by servers), is looked at once more in [`lenient`]. The signature in the handshake is verified in every mode.

mod candidates;
mod chain;
mod client;
mod lenient;
mod rights;
mod roots;
mod server;
mod signature;

pub(super) use client::ClientVerifier;
pub(super) use roots::Roots;
pub(super) use server::{Proof, ServerVerifier};
