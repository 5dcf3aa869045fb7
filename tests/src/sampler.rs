//! Watches PostgreSQL from the side: how many backends does the pooler hold, at most?
//!
//! One direct connection asks `pg_stat_activity` every 10 ms. Only the pooler's roles are counted, never the superuser that the
//! harness itself uses.

use crate::Postgres;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

const INTERVAL: Duration = Duration::from_millis(10);

const COUNT: &str = "select count(*), count(*) filter (where state = 'active') from pg_stat_activity
                     where backend_type = 'client backend' and usename is distinct from 'postgres'";

/// What was seen.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// The most backends at one time.
    pub most: i64,
    /// The most that were running a query at one time.
    pub busiest: i64,
    /// How many at the last look.
    pub last: i64,
    /// How many looks.
    pub samples: usize,
}

/// A running watch.
#[derive(Debug)]
pub struct Sampler {
    stop: Sender<()>,
    thread: JoinHandle<Seen>,
}

impl Sampler {
    /// Starts to watch.
    pub fn start(server: &Postgres) -> Sampler {
        Self::of(server, "true")
    }

    /// Starts to watch those backends that the condition holds for.
    pub fn of(server: &Postgres, condition: &str) -> Sampler {
        let sql = format!("{COUNT} and {condition}");
        let mut connection = server.admin();
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let statement = connection.prepare(&sql).unwrap();
            let mut seen = Seen { most: 0, busiest: 0, last: 0, samples: 0 };
            loop {
                let row = connection.query_one(&statement, &[]).unwrap();
                seen.last = row.get(0);
                seen.most = seen.most.max(seen.last);
                seen.busiest = seen.busiest.max(row.get(1));
                seen.samples += 1;
                if stopped.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                    return seen;
                }
            }
        });
        Sampler { stop, thread }
    }

    /// Stops and tells what was seen.
    pub fn finish(self) -> Seen {
        drop(self.stop);
        self.thread.join().unwrap()
    }
}

/// The number of the pooler's backends now.
pub fn backends(connection: &mut postgres::Client) -> i64 {
    connection.query_one(COUNT, &[]).unwrap().get(0)
}
