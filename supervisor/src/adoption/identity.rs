//! Whether a process whose number the worker table has is the one that was entered: numbers are given again, and other fleets' workers look alike.

use nix::sys::stat::fstat;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};
use shared::sys::clock;
use std::fs;
use std::os::fd::BorrowedFd;

/// How far from what the table says a process may have been started.
const TOLERANCE_US: u64 = 2_000_000;

/// Whether it has mapped the fleet's memory, or was started when the table says: one that has only begun has not mapped it yet.
pub(super) fn is_of_fleet(pid: u32, memory: BorrowedFd<'_>, started_at_us: u64) -> bool {
    has_mapped(pid, memory) || started_at(pid).is_some_and(|at| at.abs_diff(started_at_us) < TOLERANCE_US)
}

/// proc_pid_maps(5): "address perms offset dev inode pathname".
fn has_mapped(pid: u32, memory: BorrowedFd<'_>) -> bool {
    let (Ok(stat), Ok(maps)) = (fstat(memory), fs::read_to_string(format!("/proc/{pid}/maps"))) else { return false };
    let device = format!("{:02x}:{:02x}", nix::sys::stat::major(stat.st_dev), nix::sys::stat::minor(stat.st_dev));
    let expected = [device, stat.st_ino.to_string()];
    maps.lines().any(|line| line.split_whitespace().skip(3).take(2).eq(expected.iter()))
}

/// When the process was started (µs since 1970), by the clock as it stands now.
fn started_at(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything. The start is field 22, in ticks since the system's.
    let ticks: u64 = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()?;
    let per_second = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok()??).ok()?;
    let up = clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?;
    let up_us = u64::try_from(up.tv_sec()).ok()? * 1_000_000 + u64::try_from(up.tv_nsec()).ok()? / 1_000;
    let age_us = up_us.saturating_sub(ticks.checked_mul(1_000_000)? / per_second);
    clock::wall_us().checked_sub(age_us)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use shared::shm::Shm;
    use std::os::fd::AsFd;
    use std::process::Command;

    #[test]
    fn known_by_the_memory_or_by_the_start() {
        let (_shm, memory) = Shm::create().unwrap();
        let (_other, another) = Shm::create().unwrap();
        let before = clock::wall_us();
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let own = std::process::id();
        assert!(is_of_fleet(own, memory.as_fd(), 0) && is_of_fleet(own, another.as_fd(), 0));
        assert!(is_of_fleet(child.id(), memory.as_fd(), before));
        for other in [before - 10_000_000, before + 10_000_000] {
            assert!(!is_of_fleet(child.id(), memory.as_fd(), other));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_of_fleet(child.id(), memory.as_fd(), before), "it is no more");
    }
}
