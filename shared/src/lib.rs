//! What the supervisor and the workers both need. Imports neither of them.
//!
//! [`wire`] speaks PostgreSQL's protocol, [`config`] reads and publishes the configuration, [`shm`] is the fleet's shared
//! memory, [`control`] the messages between processes, [`auth`] the password methods, [`balance`] who serves a new client, [`address`] where a server is, [`log`] PgBouncer's log format, and
//! [`sys`] holds every raw system call and all `unsafe` code of the project.

pub mod address;
pub mod auth;
pub mod balance;
pub mod config;
pub mod control;
pub mod door;
pub mod encoding;
pub mod ids;
pub mod log;
pub mod network;
pub mod orders;
mod rows;
pub mod shm;
pub mod sys;
pub mod tls;
mod tongue;
pub mod wire;

/// The program's name and version.
pub const NAME: &str = concat!("pgfleet ", env!("CARGO_PKG_VERSION"));
