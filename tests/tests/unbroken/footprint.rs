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

    /// The least of each. `None`: nobody has looked.
    pub(crate) fn least(looks: &[Footprint]) -> Option<Footprint> {
        let both = |one: Footprint, other: &Footprint| Footprint {
            descriptors: one.descriptors.min(other.descriptors),
            memory: one.memory.min(other.memory),
            supervisor_memory: one.supervisor_memory.min(other.supervisor_memory),
        };
        let (first, others) = looks.split_first()?;
        Some(others.iter().fold(*first, both))
    }
}
