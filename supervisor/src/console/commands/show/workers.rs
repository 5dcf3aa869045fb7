//! SHOW WORKERS (ours): who runs on each slot.

use super::super::Context;
use crate::console::encode::{Kind, Table, cell};
use crate::fleet::{Answer, Request};
use nix::unistd::{SysconfVar, sysconf};

pub(super) fn table(context: &Context<'_>) -> Option<Table> {
    use Kind::{Int4, Int8, Text};
    let Some(Answer::Workers(lines)) = context.ask(Request::Workers) else { return None };
    let mut table = Table::new(&[
        ("slot", Int4),
        ("pid", Int4),
        ("state", Text),
        ("uptime", Int8),
        ("clients", Int4),
        ("servers", Int4),
        ("cpu_ms", Int8),
        ("restarts", Int4),
        ("draining_seats", Int4),
        ("handed_over", Int4),
    ]);
    for line in lines {
        let row = context.office.shm.workers().get(line.slot);
        table.row(vec![
            cell(line.slot),
            line.pid.map(|pid| pid.to_string()),
            cell(line.state),
            line.pid.map(|_| line.uptime.as_secs().to_string()),
            cell(row.clients),
            cell(row.servers),
            line.pid.and_then(cpu_ms).map(|ms| ms.to_string()),
            cell(line.restarts),
            cell(context.office.orphans.draining(line.slot)),
            cell(row.handed_over),
        ]);
    }
    Some(table)
}

/// CPU time a process has used, user and system.
fn cpu_ms(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks_a_second = sysconf(SysconfVar::CLK_TCK).ok()?? as u64;
    Some(cpu_ticks(&stat)? * 1000 / ticks_a_second)
}

/// utime and stime of `/proc/PID/stat`: the 14th and 15th field. The 2nd, the name, may hold blanks and brackets.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_behind_a_strange_name() {
        let stat = "17 (a) b (c) S 1 17 17 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks(""), None);
        assert!(cpu_ms(std::process::id()).is_some());
    }
}
