//! What it costs that the workers share one pool: system calls per transaction beside those of a fleet of one worker.
//!
//! Counted, not timed: nearly all of a worker's time passes in system calls, and on a busy machine CPU time per transaction varies by more
//! than the two fleets differ. strace slows a worker down so much that it is the workers that are saturated. CPU time is `scripts/bench`'s to
//! measure, on a machine that is quiet.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Crowd, Fleet, Postgres, SOON, place, process, wait_until};
use nix::sys::signal::Signal;
use std::process::{Command, Stdio};
use std::time::Duration;

const SLICE: Duration = Duration::from_secs(1);
const SLICES: usize = 5;

struct Loaded {
    fleet: Fleet,
    workers: Vec<u32>,
    crowd: Crowd,
}

impl Loaded {
    /// 64 clients of a fleet that is started for them, as many at each worker.
    fn new(server: &Postgres, workers: usize) -> Loaded {
        let builder = Fleet::builder(server).workers(workers).pool_size(20).setting("accept_balance", 0);
        let fleet = builder.setting("log_connections", 0).setting("log_disconnections", 0).start();
        let pids = fleet.all_workers();
        let mut crowd = Crowd::of(place(&fleet, &vec![64 / workers; workers], || fleet.client()), "select 1");
        // Opens the connections.
        crowd.run(SLICE);
        Loaded { fleet, workers: pids, crowd }
    }

    /// System calls of all workers per transaction in one slice.
    fn calls(&mut self) -> f64 {
        let report = self.fleet.folder().join("calls.txt");
        let mut strace = Command::new("strace")
            .args(["-c", "-q", "-U", "calls,name", "-o"])
            .arg(&report)
            .args(self.workers.iter().map(|pid| format!("-p{pid}")))
            .stdin(Stdio::null())
            .spawn()
            .expect("this case needs strace");
        wait_until("strace to attach", SOON, || self.workers.iter().all(|&pid| process::is_traced(pid)));
        let answers = self.crowd.run(SLICE).answers();
        process::signal(strace.id(), Signal::SIGINT);
        strace.wait().unwrap();
        let report = std::fs::read_to_string(report).unwrap();
        let total = report.lines().find_map(|line| line.trim().strip_suffix(" total")?.trim().parse::<f64>().ok());
        total.unwrap_or_else(|| panic!("no total: {report}")) / answers as f64
    }
}

/// The best of several slices: when the machine is late in running a worker, its clients wait longer than the others', and connections are
/// passed on for that.
#[test]
fn two_workers_make_hardly_more_system_calls_than_one() {
    let server = Postgres::start();
    let (mut one, mut two) = (Loaded::new(&server, 1), Loaded::new(&server, 2));
    let (mut least_of_one, mut least_of_two) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..SLICES {
        let (of_one, of_two) = (one.calls(), two.calls());
        println!("{of_one:.2} calls per transaction with one worker, {of_two:.2} with two");
        (least_of_one, least_of_two) = (least_of_one.min(of_one), least_of_two.min(of_two));
    }
    assert!(least_of_two <= least_of_one * 1.1, "{least_of_two:.2} calls with two workers, {least_of_one:.2} with one");
}
