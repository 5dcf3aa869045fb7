//! The fleet's shared memory: one sealed memfd that every process of the fleet maps.
//!
//! What it promises, and where:
//! - a limit is a fleet total, exact at all times, also after `kill -9`: `seat`, `table`;
//! - a server connection's seats are taken, lent and given back so that a death at any step leaks none: `server`, `bury`;
//! - a client that waits and a server that falls idle never miss each other: `pool`;
//! - a cancel key finds its client's worker: `client`. A name is the same pool everywhere: `directory`;
//! - it can be moved to a region of another layout while the fleet works: `census`;
//! - a prepared statement that a table's change has made useless is prepared anew by every worker: `statement`.
//!
//! There is no lock, hence none to be left locked. A region laid out by another build is refused by its hash.

#![deny(unsafe_code)]

pub mod atomic;
mod bury;
#[cfg(not(loom))]
mod census;
mod client;
mod directory;
mod layout;
mod pool;
mod seat;
mod server;
mod statement;
mod table;
mod tickets;
mod worker;

pub use bury::Orphan;
#[cfg(not(loom))]
pub use census::{Census, CensusError};
pub use client::ClientTable;
pub use directory::Limit;
pub use pool::{LimitState, PoolState};
pub use seat::{SeatState, Ticket};
pub use server::{Full, ServerInfo, ServerLimits};
pub use statement::StatementEpochs;
pub use table::SeatTable;
pub use tickets::{TicketKey, TicketKeys};
pub use worker::{WorkerRow, WorkerState, WorkerTable};

use crate::control::ServerSeats;
use crate::ids::{LimitId, PoolId, Slot};
use directory::{Key, entered};
use layout::capacity::{POOL_RUNS, RUNS};
use layout::{LAYOUT, MAGIC, Region};
use std::io;
use std::sync::Arc;

#[cfg(not(loom))]
type Memory = crate::sys::map::Mapped<Region>;
#[cfg(loom)]
type Memory = Box<Region>;

/// A handle on the shared memory, cheap to clone.
#[derive(Clone)]
pub struct Shm(Arc<Memory>);

/// Why a region cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ShmError {
    /// It cannot be mapped, is too short, or is not sealed.
    #[error("could not map the shared memory: {0}")]
    Map(#[from] io::Error),
    /// It cannot be made from this census.
    #[cfg(not(loom))]
    #[error("could not move to shared memory of another layout: {0}")]
    Census(#[from] CensusError),
    /// It is something else.
    #[error("the shared memory is not pgfleet's")]
    Magic,
    /// A build with another layout made it.
    #[error("the shared memory has layout {found:016x}, this build has {LAYOUT:016x}")]
    Layout {
        /// Its layout's hash.
        found: u64,
    },
}

#[cfg(not(loom))]
mod open {
    use super::atomic::Ordering;
    use super::{Census, LAYOUT, MAGIC, Region, Shm, ShmError};
    use crate::sys::{map::Mapped, memfd};
    use std::fs::File;
    use std::io;
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;

    impl Shm {
        /// Makes the fleet's shared memory; the descriptor is for [`Shm::open`] in other processes.
        pub fn create() -> io::Result<(Shm, OwnedFd)> {
            let fd = memfd::create_region("pgfleet", size_of::<Region>())?;
            let region = Mapped::<Region>::open(fd.as_fd())?;
            region.header.layout.store(LAYOUT, Ordering::Relaxed);
            region.header.magic.store(MAGIC, Ordering::Release);
            Ok((Shm(Arc::new(region)), fd))
        }

        /// Makes shared memory in which the workers of another region have the seats that they have there: see [`Census`].
        pub fn from_census(census: &Census) -> Result<(Shm, OwnedFd), ShmError> {
            let (shm, fd) = Self::create()?;
            shm.fill(census)?;
            Ok((shm, fd))
        }

        /// Maps shared memory that another process made.
        pub fn open(fd: BorrowedFd<'_>) -> Result<Shm, ShmError> {
            // One of another layout may be too short for this one's.
            let mut head = [0; 16];
            File::from(fd.try_clone_to_owned()?).read_exact_at(&mut head, 0)?;
            let [magic, found] = [0, 8].map(|at| head[at..at + 8].try_into().map_or(0, u64::from_ne_bytes));
            if magic == MAGIC && found != LAYOUT {
                return Err(ShmError::Layout { found });
            }
            let region = Mapped::<Region>::open(fd)?;
            if region.header.magic.load(Ordering::Acquire) != MAGIC {
                return Err(ShmError::Magic);
            }
            let found = region.header.layout.load(Ordering::Relaxed);
            if found == LAYOUT { Ok(Shm(Arc::new(region))) } else { Err(ShmError::Layout { found }) }
        }
    }
}

#[cfg(loom)]
impl Shm {
    /// The whole of it with a handful of seats, on the heap: for the model checker.
    pub fn for_model() -> Shm {
        let region = <Region as crate::sys::map::Shared>::zeroed();
        region.header.layout.store(LAYOUT, atomic::Ordering::Relaxed);
        region.header.magic.store(MAGIC, atomic::Ordering::Relaxed);
        Shm(Arc::new(Box::new(region)))
    }
}

impl Shm {
    /// What must be equal in two builds for them to use the same region.
    pub const LAYOUT: u64 = LAYOUT;

    fn region(&self) -> &Region {
        &self.0
    }

    /// The pool of `user` in `database`, entered in the directory if it is new. `None` when the directory is full or a name longer than
    /// 63 (database) or 127 (user) bytes. Walks the directory: keep the answer.
    pub fn pool(&self, database: &str, user: &str) -> Option<PoolId> {
        let region = self.region();
        region.find_or_append(&region.pool_names, &Key::pool(database, user)?).map(|index| PoolId(index as u16))
    }

    /// A pool's database and user.
    pub fn pool_names(&self, id: PoolId) -> Option<(String, String)> {
        let region = self.region();
        region.name_at(&region.pool_names, usize::from(id.0)).map(|(_, database, user)| (database, user))
    }

    /// How many pools the directory has room for.
    pub const POOLS: usize = layout::capacity::POOLS;

    /// Every pool in the directory.
    pub fn pools(&self) -> impl Iterator<Item = PoolId> + use<> {
        (0..entered(&self.region().pool_names)).map(|index| PoolId(index as u16))
    }

    /// What workers tell each other about a pool. Panics for an id that no directory could hold.
    pub fn pool_state(&self, id: PoolId) -> &PoolState {
        &self.region().pools[usize::from(id.0)]
    }

    /// The seats of `what`, entered in the directory if it is new. `None` when the directory is full or the name longer than 264 bytes.
    /// Walks the directory: keep the answer.
    pub fn limit(&self, what: Limit<'_>) -> Option<LimitId> {
        let region = self.region();
        region.find_or_append(&region.limit_names, &Key::limit(what)?).map(|index| LimitId(index as u16))
    }

    /// Every limit in the directory.
    pub fn limits(&self) -> impl Iterator<Item = LimitId> + use<> {
        (0..entered(&self.region().limit_names)).map(|index| LimitId(index as u16))
    }

    /// Whether it is in the directory.
    pub fn has_limit(&self, id: LimitId) -> bool {
        usize::from(id.0) < entered(&self.region().limit_names)
    }

    /// Who waits for a limit's seats. Panics for an id that no directory could hold.
    pub fn limit_state(&self, id: LimitId) -> &LimitState {
        &self.region().limits[usize::from(id.0)]
    }

    /// Workers other than `slot` with a client waiting in the pool or for a limit that the connection of `seats` counts in, a bit for each.
    /// Call it after `set_idle` or `leave_server`.
    pub fn waiting_beside(&self, slot: Slot, seats: &ServerSeats) -> u64 {
        let limits = [seats.database, seats.user, seats.host];
        let waiting = limits.into_iter().flatten().map(|(limit, _)| self.limit_state(limit).waiting_others(slot));
        waiting.fold(self.pool_state(seats.pool).waiting_others(slot), |all, some| all | some)
    }

    /// A limit's seats. Panics for an id that no directory could hold.
    pub fn seats(&self, id: LimitId) -> SeatTable<'_> {
        let region = self.region();
        let runs = &region.limit_runs[usize::from(id.0)];
        SeatTable { runs, most_runs: RUNS, arena: &region.limit_words, units_used: &region.limit_units_used }
    }

    /// A pool's seats. Panics for an id that no directory could hold.
    pub fn pool_seats(&self, id: PoolId) -> SeatTable<'_> {
        let region = self.region();
        let runs = &region.pool_runs[usize::from(id.0)];
        SeatTable { runs, most_runs: POOL_RUNS, arena: &region.server_words, units_used: &region.server_units_used }
    }

    /// The clients' seats.
    pub fn clients(&self) -> ClientTable<'_> {
        ClientTable(self.region())
    }

    /// How often the prepared statements of a text have been retired.
    pub fn statement_epochs(&self) -> StatementEpochs<'_> {
        StatementEpochs(&self.region().statement_epochs)
    }

    /// The keys by which TLS sessions are resumed.
    pub fn ticket_keys(&self) -> TicketKeys<'_> {
        TicketKeys(&self.region().ticket_keys)
    }

    /// The workers.
    pub fn workers(&self) -> WorkerTable<'_> {
        WorkerTable(self.region())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sys::memfd;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn a_region_of_another_kind_is_refused() {
        let (_shm, fd) = Shm::create().unwrap();
        assert!(Shm::open(fd.as_fd()).is_ok());
        let file = File::from(fd.try_clone().unwrap());
        file.write_all_at(&(LAYOUT ^ 1).to_ne_bytes(), 8).unwrap();
        assert!(matches!(Shm::open(fd.as_fd()), Err(ShmError::Layout { found }) if found == LAYOUT ^ 1));
        file.write_all_at(b"x", 0).unwrap();
        assert!(matches!(Shm::open(fd.as_fd()), Err(ShmError::Magic)));
        let short = memfd::create_region("short", size_of::<Region>() - 1).unwrap();
        assert!(matches!(Shm::open(short.as_fd()), Err(ShmError::Map(_))));
    }

    #[test]
    fn memory_is_used_where_it_is_touched() {
        let (shm, fd) = Shm::create().unwrap();
        let pool = shm.pool("d", "u").unwrap();
        shm.take_server(crate::ids::Owner::SUPERVISOR, pool, &ServerLimits { pool: 20, ..ServerLimits::default() }).unwrap();
        shm.bury(crate::ids::Owner { slot: Slot(0), incarnation: crate::ids::Incarnation(2) });
        let used = File::from(fd).metadata().unwrap().blocks() * 512;
        assert!(used < 512 * 1024, "{used} bytes of {}", size_of::<Region>());
    }
}
