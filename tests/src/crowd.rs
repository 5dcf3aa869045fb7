//! Many clients in one thread, each asking its query again as soon as it is answered: load that leaves the machine to what is loaded.
//!
//! A crowd is loaded in turns ([`Crowd::run`]), between which its clients stay connected and say nothing, so that several crowds can take
//! turns on one fleet. Errors of the server's panic.

use crate::{Client, SOON, frontend};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Write};
use std::ops::Range;
use std::time::{Duration, Instant};

/// Clients that take turns together.
#[derive(Debug)]
pub struct Crowd {
    poll: Poll,
    events: Events,
    members: Vec<Member>,
    /// How many of them wait for an answer.
    busy: usize,
}

impl Default for Crowd {
    fn default() -> Crowd {
        Crowd { poll: Poll::new().unwrap(), events: Events::with_capacity(256), members: Vec::new(), busy: 0 }
    }
}

impl Crowd {
    /// Clients that are logged in and all ask the same.
    pub fn of(clients: Vec<Client>, sql: &str) -> Crowd {
        let mut crowd = Crowd::default();
        crowd.join(clients, sql);
        crowd
    }

    /// Adds clients that are logged in; returns their places.
    pub fn join(&mut self, clients: Vec<Client>, sql: &str) -> Range<usize> {
        let first = self.members.len();
        for client in clients {
            let stream = client.into_tcp();
            stream.set_nonblocking(true).unwrap();
            self.add(TcpStream::from_std(stream), frontend::query(sql), None);
        }
        first..self.members.len()
    }

    /// Adds clients that log in as `user` to the database `app` for each query; returns their places.
    pub fn join_connecting(&mut self, count: usize, port: u16, user: &str, sql: &str) -> Range<usize> {
        let first = self.members.len();
        for _ in 0..count {
            let door = Door { port, startup: frontend::startup(&[("user", user), ("database", "app")]), logged_in: false };
            self.add(door.connect(), frontend::query(sql), Some(door));
        }
        first..self.members.len()
    }

    fn add(&mut self, mut stream: TcpStream, query: Vec<u8>, door: Option<Door>) {
        self.poll.registry().register(&mut stream, Token(self.members.len()), Interest::READABLE).unwrap();
        self.members.push(Member { stream, query, door, input: Vec::new(), asked: None, record: Record::default() });
    }

    /// Lets all of them ask for so long, and waits for the answers that are still out then. These tell how long they took, but do not
    /// count as served.
    #[track_caller]
    pub fn run(&mut self, time: Duration) -> Tally {
        let start = Instant::now();
        for member in &mut self.members {
            member.record = Record::default();
            member.ask();
        }
        self.busy = self.members.len();
        while start.elapsed() < time {
            self.turn(true);
        }
        let elapsed = start.elapsed();
        while self.busy > 0 {
            assert!(start.elapsed() < time + SOON, "{} clients wait for an answer for ever", self.busy);
            self.turn(false);
        }
        Tally { elapsed, records: self.members.iter().map(|member| member.record).collect() }
    }

    /// Handles what has come; whoever is answered asks again or rests.
    fn turn(&mut self, go_on: bool) {
        self.poll.poll(&mut self.events, Some(Duration::from_millis(100))).unwrap();
        for event in &self.events {
            let Token(place) = event.token();
            let member = &mut self.members[place];
            if !member.is_answered() {
                continue;
            }
            member.record.served += u64::from(go_on);
            if member.door.is_some() {
                member.come_again(&self.poll, place);
            }
            if go_on {
                member.ask();
            } else {
                self.busy -= 1;
            }
        }
    }
}

#[derive(Debug)]
struct Member {
    stream: TcpStream,
    query: Vec<u8>,
    door: Option<Door>,
    /// What has come of the answer and is no whole message yet.
    input: Vec<u8>,
    asked: Option<Instant>,
    record: Record,
}

/// The way in, for a client that takes it for each query.
#[derive(Debug)]
struct Door {
    port: u16,
    startup: Vec<u8>,
    logged_in: bool,
}

impl Door {
    fn connect(&self) -> TcpStream {
        let stream = std::net::TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_nonblocking(true).unwrap();
        TcpStream::from_std(stream)
    }
}

impl Member {
    fn ask(&mut self) {
        self.asked = Some(Instant::now());
        match &self.door {
            Some(door) => send(&self.stream, &door.startup),
            None => send(&self.stream, &self.query),
        }
    }

    /// Reads what is there; true when the query's answer is complete.
    fn is_answered(&mut self) -> bool {
        let mut ready = self.is_ready();
        if let Some(door) = self.door.as_mut().filter(|door| ready && !door.logged_in) {
            door.logged_in = true;
            send(&self.stream, &self.query);
            ready = self.is_ready();
        }
        if ready && let Some(asked) = self.asked.take() {
            self.record.longest = self.record.longest.max(asked.elapsed());
        }
        ready
    }

    /// Reads what is there, up to ReadyForQuery, behind which nothing can be.
    fn is_ready(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        loop {
            match (&self.stream).read(&mut chunk) {
                Ok(0) => panic!("a client's connection was closed"),
                Ok(length) => self.input.extend(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("no answer: {error}"),
            }
        }
        let mut taken = 0;
        let mut ready = false;
        while let Some(header) = self.input[taken..].first_chunk::<5>() {
            let length = 1 + u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
            let Some(message) = self.input.get(taken..taken + length) else { break };
            assert_ne!(message[0], b'E', "an error under load: {}", String::from_utf8_lossy(message));
            ready = message[0] == b'Z';
            taken += length;
        }
        self.input.drain(..taken);
        ready
    }

    /// Leaves, and takes a new connection for the next query.
    fn come_again(&mut self, poll: &Poll, place: usize) {
        send(&self.stream, &frontend::terminate());
        let Some(door) = &mut self.door else { return };
        door.logged_in = false;
        self.stream = door.connect();
        poll.registry().register(&mut self.stream, Token(place), Interest::READABLE).unwrap();
    }
}

/// A query is far smaller than a socket's buffer, and the one before it has been answered.
fn send(mut stream: &TcpStream, bytes: &[u8]) {
    assert_eq!(stream.write(bytes).unwrap(), bytes.len());
}

/// What became of a client's queries in one turn.
#[derive(Debug, Clone, Copy, Default)]
pub struct Record {
    /// How many were answered in time.
    pub served: u64,
    /// The longest time one took, logging in for it included.
    pub longest: Duration,
}

/// What became of everyone's.
#[derive(Debug, Clone)]
pub struct Tally {
    /// How long the turn was.
    pub elapsed: Duration,
    records: Vec<Record>,
}

impl Tally {
    /// Those at these places only.
    #[must_use]
    pub fn of(&self, places: Range<usize>) -> Tally {
        Tally { elapsed: self.elapsed, records: self.records[places].to_vec() }
    }

    /// Answers in all.
    pub fn served(&self) -> u64 {
        self.records.iter().map(|record| record.served).sum()
    }

    /// The answers that came after the end included.
    pub fn answers(&self) -> u64 {
        self.served() + self.records.len() as u64
    }

    /// Answers per second.
    pub fn rate(&self) -> f64 {
        self.served() as f64 / self.elapsed.as_secs_f64()
    }

    /// Answers to the client that got the fewest, for each one to the client that got the most.
    pub fn evenness(&self) -> f64 {
        let served = self.records.iter().map(|record| record.served);
        served.clone().min().unwrap_or(0) as f64 / served.max().unwrap_or(0).max(1) as f64
    }

    /// The longest time that any query took.
    pub fn longest(&self) -> Duration {
        self.records.iter().map(|record| record.longest).max().unwrap_or_default()
    }
}
