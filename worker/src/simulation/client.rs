//! Clients: they log in, ask, hear, think, leave, vanish, and come back.
//!
//! Each hears exactly what it asked for. An end that it did not choose is allowed only where the plan has something that brings it about.

use super::Simulation;
use super::postgres::{Query, What};
use super::schedule::Event;
use shared::wire::encode;
use shared::wire::header::{self, HEADER_BYTES, Header, Peek};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

/// What a client is going to do.
#[derive(Clone, Debug)]
pub(super) struct Habits {
    pub(super) database: String,
    pub(super) user: String,
    /// Its application_name, which it asks for at startup.
    pub(super) name: Option<String>,
    /// The workers that it connects to, each with the same chance.
    pub(super) homes: Vec<usize>,
    /// How often it connects.
    pub(super) sessions: u32,
    /// Transactions in a session.
    pub(super) transactions: u32,
    /// Before it comes for the first time.
    pub(super) delay: Duration,
    /// Between two transactions, in microseconds.
    pub(super) think: std::ops::Range<u64>,
    /// A query's time, in microseconds.
    pub(super) work: std::ops::Range<u64>,
    /// How often, in 1000 queries, it vanishes while one runs.
    pub(super) vanishes_per_mille: u32,
}

pub(super) struct Client {
    pub(super) habits: Habits,
    pub(super) state: State,
    pub(super) stream: Option<UnixStream>,
    /// Grows with each connection.
    life: u32,
    /// Sessions and transactions that are left.
    sessions: u32,
    transactions: u32,
    script: VecDeque<What>,
    /// What it waits for.
    asked: Option<Query>,
    heard: bool,
    serial: u64,
    input: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Not connected.
    Away,
    LoggingIn,
    Idle,
    Asked,
    /// It will not come back.
    Done,
}

impl Client {
    pub(super) fn new(habits: Habits) -> Self {
        Self {
            state: State::Away,
            stream: None,
            life: 0,
            sessions: habits.sessions,
            transactions: 0,
            script: VecDeque::new(),
            asked: None,
            heard: false,
            serial: 0,
            input: Vec::new(),
            habits,
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        // An end is found when it is read.
        if let Some(stream) = &mut self.stream {
            let _ = stream.write(bytes);
        }
    }
}

impl Simulation {
    /// A client does the next thing.
    pub(super) fn client_acts(&mut self, index: usize, life: u32) {
        if self.clients[index].life != life {
            return;
        }
        match self.clients[index].state {
            State::Away => self.client_connects(index),
            State::Idle if self.clients[index].script.is_empty() && self.clients[index].transactions == 0 => {
                self.clients[index].send(encode::TERMINATE);
                self.client_is_off(index);
            }
            State::Idle => self.client_asks(index),
            state => panic!("client {index} acts while {state:?}"),
        }
    }

    fn client_connects(&mut self, index: usize) {
        let choice = self.random_below(self.clients[index].habits.homes.len() as u64);
        let home = self.clients[index].habits.homes[choice as usize];
        let address = SocketAddr::from_abstract_name(self.listener_name(home)).unwrap();
        let stream = UnixStream::connect_addr(&address).unwrap();
        stream.set_nonblocking(true).unwrap();
        self.note("client comes", index as u64, home as u64);
        let client = &mut self.clients[index];
        client.stream = Some(stream);
        client.life += 1;
        client.input.clear();
        client.transactions = client.habits.transactions;
        client.state = State::LoggingIn;
        let mut startup = Vec::new();
        let Habits { database, user, name, .. } = &client.habits;
        let name = name.as_deref().map(|name| ("application_name", name));
        encode::startup(&mut startup, [("user", user.as_str()), ("database", database.as_str())].into_iter().chain(name));
        client.send(&startup);
    }

    fn client_asks(&mut self, index: usize) {
        let begins = self.clients[index].script.is_empty();
        if begins {
            self.clients[index].transactions -= 1;
            let script = if self.random_below(3) == 0 {
                let asks = 1 + self.random_below(2) as usize;
                std::iter::once(What::Begin).chain(std::iter::repeat_n(What::Ask, asks)).chain([What::Commit]).collect()
            } else {
                VecDeque::from([What::Ask])
            };
            self.clients[index].script = script;
        }
        let work = self.clients[index].habits.work.clone();
        let time = self.draw(&work);
        let bytes = if self.random_below(50) == 0 { 200_000 } else { self.random_below(100) as usize };
        let vanishes = self.chance(self.clients[index].habits.vanishes_per_mille);
        let client = &mut self.clients[index];
        let Some(what) = client.script.pop_front() else { return };
        client.serial += 1;
        let query = Query { what, client: index as u64, serial: client.serial, time, bytes };
        let mut message = Vec::new();
        encode::query(&mut message, &query.text());
        client.send(&message);
        client.asked = Some(query);
        client.heard = false;
        client.state = State::Asked;
        let life = client.life;
        self.note("client asks", index as u64, time.as_micros() as u64);
        if vanishes {
            let patience = self.draw(&(0..20_000));
            self.schedule.after(patience, Event::Vanish(index, life));
        }
    }

    /// A client closes its socket, if it still is where it was when that was decided.
    pub(super) fn client_vanishes(&mut self, index: usize, life: u32) {
        if self.clients[index].life == life && self.clients[index].stream.is_some() {
            self.note("client vanishes", index as u64, 0);
            self.client_is_off(index);
        }
    }

    /// It has closed its socket, and may come again.
    fn client_is_off(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.stream = None;
        client.script.clear();
        client.asked = None;
        client.life += 1;
        client.sessions -= 1;
        client.state = if client.sessions == 0 { State::Done } else { State::Away };
        let (state, life, think) = (client.state, client.life, client.habits.think.clone());
        if state == State::Away {
            let delay = self.draw(&think);
            self.schedule.after(delay, Event::Client(index, life));
        }
    }

    /// A client's socket can be read.
    pub(super) fn client_ready(&mut self, index: usize) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut ended = false;
        let client = &mut self.clients[index];
        while let Some(stream) = &mut client.stream {
            match stream.read(&mut buffer) {
                Ok(0) => ended = true,
                Ok(read) => {
                    client.input.extend_from_slice(&buffer[..read]);
                    continue;
                }
                Err(error) => ended = error.kind() != ErrorKind::WouldBlock,
            }
            break;
        }
        self.buffer = buffer;
        while let Some((tag, body)) = self.next_message(index) {
            self.client_hears(index, tag, &body);
        }
        if ended && self.clients[index].stream.is_some() {
            assert!(self.plan.ends_sessions, "client {index} is cut off");
            self.note("client is cut off", index as u64, 0);
            self.client_is_off(index);
        }
    }

    fn next_message(&mut self, index: usize) -> Option<(u8, Vec<u8>)> {
        let input = &mut self.clients[index].input;
        let Peek::Header(Header { tag, total }) = header::peek(input, u32::MAX) else { return None };
        let body = input.get(HEADER_BYTES..total)?.to_vec();
        input.drain(..total);
        Some((tag, body))
    }

    fn client_hears(&mut self, index: usize, tag: u8, body: &[u8]) {
        let client = &mut self.clients[index];
        match (tag, client.state) {
            (b'R' | b'K', State::LoggingIn) | (b'T' | b'C', State::Asked) | (b'N' | b'S', _) => {}
            (b'D', State::Asked) => {
                let text = client.asked.as_ref().unwrap().text();
                let heard = String::from_utf8_lossy(&body[6..]);
                assert_eq!(heard.trim_end(), text, "client {index} hears another's answer");
                assert_eq!(body.len(), 6 + text.len() + client.asked.as_ref().unwrap().bytes);
                client.heard = true;
            }
            (b'Z', State::LoggingIn | State::Asked) => {
                assert!(client.state == State::LoggingIn || client.heard, "client {index} is not answered");
                client.state = State::Idle;
                client.asked = None;
                let (life, think) = (client.life, client.habits.think.clone());
                // Within a transaction a client thinks little.
                let think = if client.script.is_empty() { think } else { think.start / 10..think.end / 10 + 1 };
                let delay = self.draw(&think);
                self.note("client is answered", index as u64, 0);
                self.schedule.after(delay, Event::Client(index, life));
            }
            (b'E', _) => {
                let text = String::from_utf8_lossy(body).replace('\0', " ");
                assert!(self.plan.ends_sessions, "client {index} is told {text}");
                self.note("client is refused", index as u64, 0);
            }
            (tag, state) => panic!("client {index}, {state:?}, is sent a message {:?}", char::from(tag)),
        }
    }
}
