//! Identifiers that must not be mixed up, each its own type.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The most slots, and so workers, a fleet can have: the waiting word of a pool has one bit for each.
pub const MAX_WORKERS: usize = 64;

/// The most workers that `workers` may ask for: one slot is for the successor of a worker that is being replaced.
pub const MOST_WORKERS: usize = MAX_WORKERS - 1;

/// A worker's place in the fleet, `0..MAX_WORKERS`. A slot owns listeners and an inbox; processes come and go on it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Slot(pub u8);

impl Slot {
    /// The supervisor's own "slot": it owns the seats of console clients and of backends that outlived their worker.
    pub const SUPERVISOR: Slot = Slot(u8::MAX);

    /// The slot as an index into per-worker arrays.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One life of a worker process. Unique in the life of a fleet's shared memory, never 0, so that a successor on the same slot is
/// never taken for its predecessor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Incarnation(pub u32);

impl Incarnation {
    /// The supervisor's own.
    pub const SUPERVISOR: Incarnation = Incarnation(1);
}

/// Who holds a seat: a process, and the slot it runs on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Owner {
    /// Where it runs.
    pub slot: Slot,
    /// Which life of that slot.
    pub incarnation: Incarnation,
}

impl Owner {
    /// The supervisor.
    pub const SUPERVISOR: Owner = Owner { slot: Slot::SUPERVISOR, incarnation: Incarnation::SUPERVISOR };
}

/// A pool's index in the shared directory: one (database entry, server-side user) pair.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PoolId(pub u16);

/// A limit's index in the shared directory: the seats of one pool, database, user or host.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct LimitId(pub u16);

/// A seat's index within its limit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct SeatIndex(pub u32);

/// A number for each client and server connection, unique in the fleet and small enough for the console's int4
/// (SHOW CLIENTS `id`, KILL_CLIENT): the slot in the high bits, a per-worker counter in the low ones.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ConnectionId(pub u32);

impl ConnectionId {
    const COUNTER_BITS: u32 = 25;

    /// The `counter`-th connection of `slot`; the counter wraps at 2^25.
    pub fn new(slot: Slot, counter: u32) -> Self {
        Self((u32::from(slot.0 & 0x3f) << Self::COUNTER_BITS) | (counter & ((1 << Self::COUNTER_BITS) - 1)))
    }

    /// The slot whose worker gave the number.
    pub fn slot(self) -> Slot {
        Slot((self.0 >> Self::COUNTER_BITS) as u8)
    }
}

/// Names a connection in log lines and SHOW CLIENTS as PgBouncer's pointers do (`0x…`): the slot is its first hex digits.
impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counter = self.0 & ((1 << Self::COUNTER_BITS) - 1);
        write!(f, "0x{:x}{counter:08x}", u32::from(self.slot().0) + 1)
    }
}
