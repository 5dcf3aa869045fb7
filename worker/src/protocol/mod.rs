//! The data path's decisions, sans-IO: bytes of one side in, bytes for the other side out.
//!
//! [`frontend::forward`] takes what a client sent to its server, [`backend::relay`] what the server answered. Both look at headers and at
//! the few messages that pooling needs, keep the queue of [`outstanding`] requests, and give back slices of their input wherever nothing
//! had to be changed ([`splice`]). [`retry`] sends a batch once more that failed only for the sake of what the pooler had prepared. Sockets,
//! time and pools are the caller's.

pub(crate) mod backend;
mod command;
pub(crate) mod description;
pub(crate) mod frontend;
mod held;
mod message;
pub(crate) mod outstanding;
pub(crate) mod retry;
pub(crate) mod saved;
pub(crate) mod splice;
pub(crate) mod statements;

#[cfg(any(test, fuzzing))]
pub(crate) mod rig;
#[cfg(test)]
mod tests;
