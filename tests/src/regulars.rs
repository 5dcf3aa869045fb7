//! Clients that ask for as long as they are let, check every answer, and come back when their connection is lost.
//!
//! Each has a thread. An error of the server's panics, and so does an answer that is another's, or that does not come.

use crate::{Answer, Client, frontend};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// One connection of a client's.
#[derive(Debug, Clone)]
pub struct Visit {
    /// The client's port, as the fleet's log names it.
    pub port: u16,
    /// When it began to connect.
    pub began: Instant,
    /// When the connection was lost; `None`: the client left it of its own accord.
    pub lost: Option<Instant>,
    /// Whether it was greeted.
    pub greeted: bool,
    /// How many of its transactions were answered.
    pub answered: u64,
    /// The longest time without an answer: from the beginning to the first, between two, or up to the loss.
    pub longest_gap: Duration,
}

/// Clients at work.
#[derive(Debug)]
pub struct Regulars {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Vec<Visit>>>,
}

impl Regulars {
    /// `count` clients log in as `user` to the database `app`; each of their queries takes so long.
    pub fn start(port: u16, count: usize, user: &'static str, busy: Duration) -> Regulars {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let spawn = |number| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            let regular = Regular { port, user, number, busy, asked: 0, answered, stop };
            std::thread::spawn(move || regular.come_and_go())
        };
        let threads = (0..count).map(spawn).collect();
        Regulars { stop, answered, threads }
    }

    /// How many transactions of all of them were answered.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Lets each end its transaction and leave; returns all their visits.
    #[track_caller]
    pub fn finish(self) -> Vec<Visit> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().expect("a client is content")).collect()
    }
}

struct Regular {
    port: u16,
    user: &'static str,
    number: usize,
    busy: Duration,
    asked: u64,
    answered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Regular {
    fn come_and_go(mut self) -> Vec<Visit> {
        let mut visits = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            visits.push(self.visit());
        }
        visits
    }

    fn visit(&mut self) -> Visit {
        let began = Instant::now();
        let mut client = Client::tcp(self.port);
        let port = client.local_port();
        let mut visit = Visit { port, began, lost: None, greeted: false, answered: 0, longest_gap: Duration::ZERO };
        let mut last = began;
        let mut go_on = self.log_in(&mut client);
        visit.greeted = go_on;
        while go_on && !self.stop.load(Ordering::Relaxed) {
            go_on = self.transact(&mut client);
            visit.longest_gap = visit.longest_gap.max(last.elapsed());
            last = Instant::now();
            if go_on {
                visit.answered += 1;
                self.answered.fetch_add(1, Ordering::Relaxed);
            }
        }
        if !go_on {
            visit.longest_gap = visit.longest_gap.max(last.elapsed());
            visit.lost = Some(Instant::now());
        }
        visit
    }

    fn log_in(&self, client: &mut Client) -> bool {
        let startup = frontend::startup(&[("user", self.user), ("database", "app")]);
        self.answer(client, &startup).is_some()
    }

    /// One transaction, of one query or of several. False: the connection is lost.
    fn transact(&mut self, client: &mut Client) -> bool {
        self.asked += 1;
        let (mine, busy) = (format!("{}/{}", self.number, self.asked), self.busy.as_secs_f64());
        if self.asked.is_multiple_of(2) {
            return self.expect(client, &format!("select '{mine}' from pg_sleep({busy})"), &mine);
        }
        // What another client did to the server between two queries would show.
        self.expect(client, "begin", "")
            && self.expect(client, &format!("select set_config('app.owner', '{mine}', true) from pg_sleep({busy})"), &mine)
            && self.expect(client, "select current_setting('app.owner')", &mine)
            && self.expect(client, "commit", "")
    }

    fn expect(&self, client: &mut Client, sql: &str, value: &str) -> bool {
        let Some(answer) = self.answer(client, &frontend::query(sql)) else { return false };
        let found = answer.rows.first().and_then(|row| row[0].as_deref()).unwrap_or("");
        assert_eq!(found, value, "the answer to {sql}: {answer:?}");
        true
    }

    /// What comes up to ReadyForQuery; `None` when the connection is lost before.
    fn answer(&self, client: &mut Client, request: &[u8]) -> Option<Answer> {
        let lost = |kind| matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
        match client.try_send(request).and_then(|()| client.try_answer()) {
            Ok(answer) => {
                let errors = answer.iter().flat_map(|answer| &answer.errors).next();
                assert_eq!(errors, None, "client {} of {}, its port {}", self.number, self.user, client.local_port());
                answer
            }
            Err(error) if lost(error.kind()) => None,
            Err(error) => panic!("client {} is left hanging, its port {}: {error}", self.number, client.local_port()),
        }
    }
}
