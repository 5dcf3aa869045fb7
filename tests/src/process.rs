//! Processes as `/proc` shows them: who is whose child, what they hold, whether they still live.

use crate::account;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fmt::Write as _;
use std::path::Path;

/// Lets this process have as many descriptors as it may, and says how many that is. Most shells allow 1,024 at first.
pub fn allow_descriptors() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    usize::try_from(hard).unwrap_or(usize::MAX)
}

/// Sends `signal` to one process; a process that is gone already is no error.
pub fn signal(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid as i32), signal);
}

/// Whether the process exists and is not a zombie.
pub fn is_alive(pid: u32) -> bool {
    state(pid).is_some_and(|state| state != 'Z' && state != 'X')
}

/// Whether SIGSTOP has stopped the process.
pub fn is_stopped(pid: u32) -> bool {
    state(pid) == Some('T')
}

/// The living children of `pid`, lowest pid first.
pub fn children(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    let mut children: Vec<u32> = lists.flat_map(|list| list.split_whitespace().flat_map(str::parse).collect::<Vec<_>>()).collect();
    children.retain(|&child| is_alive(child));
    children.sort_unstable();
    children
}

/// The living processes whose environment holds `entry` (`NAME=value`): a mark that children inherit, whoever becomes their parent.
pub fn marked(entry: &str) -> Vec<u32> {
    let holds = |pid: u32| {
        std::fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|all| all.split(|&byte| byte == 0).any(|one| one == entry.as_bytes()))
    };
    all().into_iter().filter(|&pid| holds(pid) && is_alive(pid)).collect()
}

/// The memory of these processes in bytes, pages that they share counted once (proportional set size). Without the program's own pages: how much of
/// these counts as whose depends on who else runs the same program.
pub fn memory(pids: &[u32]) -> u64 {
    pids.iter().map(|&pid| memory_of(pid)).sum()
}

fn memory_of(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kilobytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse::<u64>().ok());
        number.unwrap_or_else(|| panic!("no memory figures of process {pid}"))
    };
    (kilobytes("Pss_Anon:") + kilobytes("Pss_Shmem:")) * 1024
}

/// How many descriptors the process has open.
pub fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// The number that the next one that the process opens will have.
pub fn lowest_free_descriptor(pid: u32) -> usize {
    (0..usize::MAX).find(|fd| !Path::new(&format!("/proc/{pid}/fd/{fd}")).is_symlink()).unwrap()
}

/// Lets a process of a fleet have no descriptor from this number on; those that it has stay.
pub fn limit_descriptors(pid: u32, most: usize) {
    let mut command = account::server(Path::new("prlimit"));
    assert!(command.args(["--pid", &pid.to_string(), &format!("--nofile={most}:")]).status().unwrap().success());
}

/// CPU time used so far, in clock ticks.
pub fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<u64> =
        stat.rsplit(')').next().unwrap_or("").split_whitespace().skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    fields.iter().sum()
}

/// Whether a debugger or strace has hold of the process.
pub fn is_traced(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("TracerPid:")).is_some_and(|tracer| tracer.trim() != "0")
}

/// Whether SIGKILL has been sent to the process and it has not come to it yet.
pub fn is_being_killed(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pending = status.lines().filter_map(|line| line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:")));
    let has = |mask: &str| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & (1 << (Signal::SIGKILL as u32 - 1)) != 0);
    pending.into_iter().any(has)
}

fn all() -> Vec<u32> {
    let mut pids: Vec<u32> =
        Path::new("/proc").read_dir().unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything; what follows the last one is regular.
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Prints the last lines of a log of a test that fails.
pub fn print_tail(whose: &str, log: &str, lines: usize) {
    let all: Vec<&str> = log.lines().collect();
    let mut text = String::new();
    for line in &all[all.len().saturating_sub(lines)..] {
        let _ = writeln!(text, "    {line}");
    }
    eprintln!("the last {lines} lines of {whose}:\n{text}");
}
