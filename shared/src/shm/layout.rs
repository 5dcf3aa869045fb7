//! What lies where in the region.
//!
//! Room is reserved generously and costs memory only where it is touched: the region is a sparse file. Arrays that are scanned (words of
//! seats, names' entries) are apart from what is looked at once a seat is found. Seat tables grow by runs of units taken from an arena, each run as
//! long as all before it; units never go back, so an index once valid stays valid.

use super::atomic::{AtomicU32, AtomicU64};
use super::client::ClientSeat;
use super::directory::Name;
use super::pool::{LimitState, PoolState};
use super::seat::SeatWord;
use super::tickets::TicketCell;
use super::worker::WorkerCell;
use crate::ids::MAX_WORKERS;
use crate::sys::map::{Shared, hash, number, shared_struct};

#[cfg(not(loom))]
pub(super) mod capacity {
    /// Worker slots.
    pub(in super::super) const SLOTS: usize = super::MAX_WORKERS;
    /// Pools in the directory.
    pub(in super::super) const POOLS: usize = 4096;
    /// Limits in the directory.
    pub(in super::super) const LIMITS: usize = 8192;
    /// Names: one for each pool and limit, and as many again that processes lose by dying or by finding another quicker.
    pub(in super::super) const NAMES: usize = 2 * (POOLS + LIMITS);
    /// Client seats.
    pub(in super::super) const CLIENTS: usize = 262_144;
    /// Seats in a unit.
    pub(in super::super) const UNIT: usize = 256;
    /// Units for pools' seats.
    pub(in super::super) const SERVER_UNITS: usize = 8192;
    /// Units for limits' seats.
    pub(in super::super) const LIMIT_UNITS: usize = 16_384;
    /// Runs of units a pool's table can have: 16,384 seats.
    pub(in super::super) const POOL_RUNS: usize = 7;
    /// Runs of units any table can have: 262,144 seats.
    pub(in super::super) const RUNS: usize = 11;
    /// Words that the texts of prepared statements share.
    pub(in super::super) const EPOCHS: usize = 4096;
}

#[cfg(loom)]
pub(super) mod capacity {
    pub(in super::super) const SLOTS: usize = 3;
    pub(in super::super) const POOLS: usize = 1;
    pub(in super::super) const LIMITS: usize = 1;
    pub(in super::super) const NAMES: usize = 2;
    pub(in super::super) const CLIENTS: usize = 1;
    pub(in super::super) const UNIT: usize = 3;
    pub(in super::super) const SERVER_UNITS: usize = 1;
    pub(in super::super) const LIMIT_UNITS: usize = 1;
    pub(in super::super) const POOL_RUNS: usize = 1;
    pub(in super::super) const RUNS: usize = 1;
    pub(in super::super) const EPOCHS: usize = 1;
}

use capacity::{CLIENTS, EPOCHS, LIMIT_UNITS, LIMITS, NAMES, POOLS, RUNS, SERVER_UNITS, SLOTS, UNIT};

/// Marks the region as ours: "pgfleet" and a zero byte.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"pgfleet\0");

/// What the meaning of the bits adds to the layout of the fields: raise it when a word's encoding changes.
const ENCODING: u64 = if cfg!(feature = "other-build") { 2 } else { 1 };

/// The layout's hash: a region made by a build with another one is refused.
pub(super) const LAYOUT: u64 = number(number(hash(Region::LAYOUT, b"encoding"), ENCODING), MAX_WORKERS as u64);

shared_struct! {
    /// The first bytes of the region.
    pub(super) struct Header {
        pub(super) magic: AtomicU64,
        pub(super) layout: AtomicU64,
        pub(super) next_incarnation: AtomicU32,
        /// The last life that began in a region before this one: such workers are of another build.
        pub(super) last_stranger: AtomicU32,
        /// Not 0 when a client may have another seat than the one its cancel key names.
        pub(super) strayed: AtomicU32,
        pub(super) unused: AtomicU32,
    }
}

/// In the build for tests of upgrades, all that follows lies elsewhere.
type Shift = [AtomicU64; if cfg!(feature = "other-build") { 8 } else { 0 }];

shared_struct! {
    /// Where to look for a free seat first, and how far a table has ever been used. Written by every taker.
    pub(super) struct Cursor {
        /// A hint: the seat behind the one taken last.
        pub(super) next: AtomicU32,
        /// One more than the highest seat ever tried; never falls.
        pub(super) top: AtomicU32,
    }
}

shared_struct! {
    /// A growing seat table: where its runs of units start, each 0 (not there yet) or one more than its first unit.
    pub(super) struct Runs {
        pub(super) cursor: Cursor,
        pub(super) starts: [AtomicU32; RUNS],
        pub(super) unused: AtomicU32,
    }
}

shared_struct! {
    /// What stands beside a pool's seat. Written by the seat's owner; cleared before the seat is free.
    pub(super) struct ServerCell {
        /// The database's, the user's and the host's seat of the same connection: see `server::Reference`.
        pub(super) references: [AtomicU64; 3],
        /// The backend's process, 0 while unknown.
        pub(super) pid: AtomicU32,
        /// The backend's cancel secret.
        pub(super) secret: AtomicU32,
        /// Not 0 while a query may be running.
        pub(super) busy: AtomicU32,
        /// Not 0 when the connection is being closed.
        pub(super) leaving: AtomicU32,
    }
}

shared_struct! {
    /// The whole region.
    pub(super) struct Region {
        pub(super) header: Header,
        pub(super) shift: Shift,
        pub(super) workers: [WorkerCell; SLOTS],
        pub(super) client_cursor: Cursor,
        pub(super) names_used: AtomicU64,
        pub(super) server_units_used: AtomicU64,
        pub(super) limit_units_used: AtomicU64,
        pub(super) pool_names: [AtomicU64; POOLS],
        pub(super) limit_names: [AtomicU64; LIMITS],
        pub(super) pools: [PoolState; POOLS],
        pub(super) limits: [LimitState; LIMITS],
        pub(super) pool_runs: [Runs; POOLS],
        pub(super) limit_runs: [Runs; LIMITS],
        pub(super) names: [Name; NAMES],
        pub(super) clients: [ClientSeat; CLIENTS],
        pub(super) server_words: [SeatWord; SERVER_UNITS * UNIT],
        pub(super) server_cells: [ServerCell; SERVER_UNITS * UNIT],
        pub(super) limit_words: [SeatWord; LIMIT_UNITS * UNIT],
        pub(super) statement_epochs: [AtomicU32; EPOCHS],
        pub(super) ticket_keys: TicketCell,
    }
}
