//! What a fleet holds, all its processes together.

use end_to_end::{Fleet, process};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Footprint {
    pub(crate) descriptors: usize,
    /// Bytes, pages that processes share counted once.
    pub(crate) memory: u64,
    /// Of the one process that is never replaced.
    pub(crate) supervisor_memory: u64,
}

impl Footprint {
    pub(crate) fn of(fleet: &Fleet) -> Footprint {
        let processes = fleet.processes();
        Footprint {
            descriptors: processes.iter().map(|&pid| process::descriptors(pid)).sum(),
            memory: process::memory(&processes),
            supervisor_memory: process::memory(&[fleet.pid()]),
        }
    }
}
