//! Commands to a fleet that runs, from another process: a console session over its Unix socket, as the user that it runs as.
//!
//! Such a user needs no password there, and whoever is root becomes that user first.

mod drain;
mod restart;
mod session;

pub(crate) use drain::run as drain;
pub(crate) use restart::run as restart;
