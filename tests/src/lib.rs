//! pgfleet seen from outside.
//!
//! The library is the harness: a real PostgreSQL ([`Postgres`]), a real fleet in front of it ([`Fleet`]), clients that speak the wire
//! protocol byte by byte ([`Client`]), alone or by the hundred ([`Crowd`]), and eyes that watch from the side ([`Sampler`], [`process`]). The cases are in `tests/`, one
//! subject a file. Every server that a test starts belongs to a value that stops it when dropped, also when the test panics.
//!
//! Environment: `PGFLEET_BINARY` (the program under test), `PGFLEET_PG_BIN` (PostgreSQL's programs), `PGFLEET_NEWEST_PG_BIN` (those of the newest
//! version there is), `PGFLEET_TEST_USER` (who runs the
//! servers when the tests are run by root), `PGFLEET_PYTHON` (an interpreter that has psycopg and asyncpg), `PGFLEET_NODE_PATH` (a
//! folder of node modules that has pg, pg-cursor and pg-copy-streams), `PGFLEET_JDBC_JAR` (the JDBC driver), `PGFLEET_TEST_SECONDS` (how long a
//! load runs), `PGFLEET_TEST_BIG=1` (1 GB transfers instead of 256 MB).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a harness that cannot go on has nothing better to do than to panic")]

mod account;
mod crowd;
mod event;
mod fleet;
mod lock;
mod placement;
mod port;
mod postgres_server;
mod regulars;
mod sampler;
mod wait;

pub mod directory;
pub mod driver;
pub mod frontend;
pub mod impostor;
pub mod network;
pub mod openssl;
pub mod process;
pub mod program;
pub mod tls;
pub mod traffic;
pub mod upgrading;
pub mod wire;

pub use crowd::{Crowd, Record, Tally};
pub use event::Event;
pub use fleet::{Builder, Fleet, PoolMode, each_fleet, each_worker_count};
pub use placement::place;
pub use port::Port;
pub use postgres_server::Postgres;
pub use regulars::{Regulars, Visit};
pub use sampler::{Sampler, Seen, backends};
pub use wait::{SOON, holds_within, wait_for, wait_until};
pub use wire::{Answer, Client, Fields, Message};
