//! A network of the case's own, in which the kernel counts what became of this case's connections and of no other's.

use nix::sched::{CloneFlags, unshare};
use std::process::Command;

/// Moves this thread, and all threads and processes that it starts from now on, into a new network with a loopback device of its own. False: that is
/// root's to do.
pub fn own() -> bool {
    unshare(CloneFlags::CLONE_NEWNET).is_ok()
        && Command::new("ip").args(["link", "set", "lo", "up"]).status().is_ok_and(|status| status.success())
}

/// A counter of this thread's network, by its group and name: `TcpExt` and `ListenDrops`, say.
pub fn counter(group: &str, name: &str) -> u64 {
    let files = ["netstat", "snmp"].map(|file| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap());
    let lines: Vec<Vec<&str>> = files.iter().flat_map(|text| text.lines()).map(|line| line.split_whitespace().collect()).collect();
    let of_group: Vec<_> = lines.iter().filter(|words| words[0] == format!("{group}:")).collect();
    let place = of_group[0].iter().position(|word| *word == name).unwrap_or_else(|| panic!("no counter {name}"));
    of_group[1][place].parse().unwrap()
}
