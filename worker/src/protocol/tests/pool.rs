//! Several clients over few servers, against the model: each hears exactly what a server of its own would have said.
//!
//! A seed decides who asks what, who comes next, where the streams are cut, and who goes on at another worker. `PGFLEET_SEED=… cargo test -p worker every_client_hears` runs one again.

use super::super::backend::Backend;
use super::super::frontend::{Need, Rules, Stop};
use super::super::outstanding::Request;
use super::super::rig::ServerEnd;
use super::super::saved::{SavedBackend, SavedFrontend};
use super::super::statements::{Registry, StatementId};
use super::client::Client;
use super::postgres::Postgres;
use super::tags;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rustc_hash::FxHashMap;
use serde::{Serialize, de::DeserializeOwned};
use shared::wire::encode;
use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

const SEEDS: u64 = 10_000;

/// A run takes some hundreds of steps; one that takes so many hangs.
const MOST_STEPS: u32 = 50_000;

/// Batches that a client sends in a run.
const BATCHES: u32 = 8;

#[test]
fn every_client_hears_what_a_server_of_its_own_would_have_said() {
    let one = std::env::var("PGFLEET_SEED").ok().map(|seed| seed.parse().unwrap());
    for seed in one.map_or(0..SEEDS, |seed: u64| seed..seed + 1) {
        let said = Said(seed);
        let mut pool = Pool::new(SmallRng::seed_from_u64(seed), one.is_some());
        pool.run();
        drop(said);
    }
}

/// As the other end reads it.
fn travelled<T: Serialize + DeserializeOwned>(state: &T) -> T {
    rmp_serde::from_slice(&rmp_serde::to_vec_named(state).unwrap()).unwrap()
}

/// Printed when the test panics while it lives.
struct Said(u64);

impl Drop for Said {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with PGFLEET_SEED={}", self.0);
        }
    }
}

/// A server connection with what is behind it.
#[derive(Default)]
struct Server {
    end: ServerEnd,
    model: Postgres,
    /// Said by the model, and not yet at the pooler.
    outbox: Vec<u8>,
    state: State,
}

#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    #[default]
    Idle,
    /// A query of the pooler's own comes first.
    Setting(usize),
    Linked(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Link {
    None,
    Waiting,
    Linked(usize),
}

struct Pool {
    random: SmallRng,
    rules: Rules,
    /// Each worker's.
    registries: [Registry; 2],
    /// At which worker each client is.
    homes: Vec<usize>,
    clients: Vec<(Client, Link)>,
    servers: Vec<Server>,
    waiting: VecDeque<usize>,
    /// Batches that are yet to be sent.
    batches: u32,
    tell: bool,
}

impl Pool {
    fn new(mut random: SmallRng, tell: bool) -> Self {
        // Session mode, where everything is passed on and a server is a client's for ever; or transaction mode.
        let session = random.random_range(0..5) == 0;
        let max_statements = if session { 0 } else { [1, 2, 3, 100][random.random_range(0..4)] };
        let reuse_unnamed = !session && random.random_range(0..2) == 0;
        let rules = Rules { max_packet: 1 << 20, max_statements, reuse_unnamed, refuse_simple: false };
        let clients = random.random_range(1..4);
        let servers = if session { clients } else { random.random_range(1..=clients) };
        let epochs = Rc::<RefCell<FxHashMap<[u8; 16], u32>>>::default();
        let mut pool = Self {
            rules,
            registries: [Registry::new(Rc::clone(&epochs)), Registry::new(epochs)],
            homes: vec![0; clients],
            clients: (0..clients).map(|_| (Client::new(rules), Link::None)).collect(),
            servers: (0..servers).map(|_| Server::default()).collect(),
            waiting: VecDeque::new(),
            batches: BATCHES * clients as u32,
            random,
            tell,
        };
        if session {
            for index in 0..clients {
                pool.clients[index].1 = Link::Linked(index);
                pool.servers[index].state = State::Linked(index);
            }
        }
        pool
    }

    fn is_session(&self) -> bool {
        self.rules.max_statements == 0
    }

    fn run(&mut self) {
        while self.batches > 0 {
            self.step();
        }
        for (client, _) in &mut self.clients {
            client.finish();
        }
        self.settle();
        for index in 0..self.clients.len() {
            let (client, link) = &self.clients[index];
            assert!(client.is_answered(), "client {index} was not answered: {}", self.story(index));
            assert!(self.is_session() || *link == Link::None, "client {index} is {link:?}");
            assert!(client.end.held.is_empty());
            if !self.is_session() {
                client.assert_names();
            }
        }
        for server in &self.servers {
            assert!(server.model.is_idle() && server.end.back.is_free() && server.end.held.is_empty());
        }
    }

    /// Steps until nothing is on its way.
    fn settle(&mut self) {
        let mut steps = 0;
        while !self.is_at_rest() {
            self.step();
            steps += 1;
            assert!(steps < MOST_STEPS, "it does not come to rest: {}", self.state());
        }
    }

    /// Who is where.
    fn state(&self) -> String {
        let clients = self.clients.iter().map(|(client, link)| format!("{link:?}, answered {}", client.is_answered()));
        let servers = self.servers.iter().map(|s| format!("{:?} {:?} {:?}", s.state, s.end.back.requests, s.model));
        clients.chain(servers).collect::<Vec<_>>().join("\n")
    }

    /// Nothing is on its way.
    fn is_at_rest(&self) -> bool {
        self.clients.iter().all(|(client, link)| client.outbox.is_empty() && *link != Link::Waiting)
            && self
                .servers
                .iter()
                .all(|s| s.outbox.is_empty() && s.end.received.is_empty() && !matches!(s.state, State::Setting(_)))
    }

    fn step(&mut self) {
        let client = self.random.random_range(0..self.clients.len());
        let server = self.random.random_range(0..self.servers.len());
        match self.random.random_range(0..9) {
            8 if self.random.random_range(0..4) == 0 => self.moves(client),
            0 if self.batches > 0 => {
                self.batches -= 1;
                self.clients[client].0.ask(&mut self.random);
            }
            0..=2 if self.clients[client].1 != Link::Waiting => self.client_sends(client),
            3..=4 => self.server_receives(server),
            5..=7 => self.server_sends(server),
            _ => {}
        }
    }

    /// A client goes on at another worker, with the server that it is linked to.
    fn moves(&mut self, index: usize) {
        let (client, link) = &mut self.clients[index];
        let server = match *link {
            Link::Linked(server) => Some(&mut self.servers[server]),
            _ => None,
        };
        if server.as_ref().is_some_and(|server| server.state != State::Linked(index)) {
            return;
        }
        self.homes[index] = 1 - self.homes[index];
        let registry = &mut self.registries[self.homes[index]];
        let front = &mut client.end.front;
        let scope = front.scope;
        *front = travelled(&SavedFrontend::of(front)).restore(registry);
        front.scope = scope;
        if let Some(server) = server {
            let mut back = Backend::default();
            server.end.back.statements.in_order().into_iter().for_each(|id| back.statements.insert(StatementId(id)));
            travelled(&SavedBackend::of(&server.end.back)).restore(&mut back, registry);
            server.end.back = back;
        }
    }

    /// A part of `bytes` from the front: often all, sometimes a byte.
    fn part(random: &mut SmallRng, bytes: &mut Vec<u8>) -> Vec<u8> {
        let most = bytes.len();
        let length = if random.random_range(0..3) > 0 { most } else { random.random_range(0..=most) };
        bytes.drain(..length).collect()
    }

    fn client_sends(&mut self, index: usize) {
        let bytes = Self::part(&mut self.random, &mut self.clients[index].0.outbox);
        if !bytes.is_empty() {
            self.client_input(index, &bytes);
        }
    }

    fn client_input(&mut self, index: usize, bytes: &[u8]) {
        match self.clients[index].1 {
            Link::Waiting => unreachable!("a waiting client is not read"),
            Link::Linked(server) if self.servers[server].state == State::Setting(index) => {
                self.clients[index].0.end.held.extend_from_slice(bytes);
            }
            Link::Linked(server) => self.forward(index, server, bytes),
            Link::None => {
                let need = self.clients[index].0.end.ask(self.rules, bytes);
                self.check(index);
                match need {
                    Need::Nothing(_) => {}
                    Need::Server(_) => {
                        if let Some(server) = self.servers.iter().position(|server| server.state == State::Idle) {
                            self.link(index, server);
                        } else {
                            self.clients[index].1 = Link::Waiting;
                            self.waiting.push_back(index);
                        }
                    }
                    other => panic!("client {index}: {other:?}"),
                }
            }
        }
    }

    fn link(&mut self, index: usize, server: usize) {
        self.clients[index].1 = Link::Linked(server);
        let at = &mut self.servers[server];
        if self.random.random_range(0..4) == 0 {
            at.state = State::Setting(index);
            encode::query(&mut at.end.received, "notice");
            at.end.back.requests.push(Request::HiddenQuery);
        } else {
            at.state = State::Linked(index);
            self.forward(index, server, &[]);
        }
    }

    fn forward(&mut self, index: usize, server: usize, bytes: &[u8]) {
        let stop = self.clients[index].0.end.send(
            &mut self.servers[server].end,
            &mut self.registries[self.homes[index]],
            self.rules,
            bytes,
        );
        if self.tell {
            println!("client {index} → server {server}: {} of it, {stop:?}", bytes.len());
        }
        assert!(matches!(stop, Stop::No | Stop::Wait), "client {index}: {stop:?}, {}", self.story(index));
        self.check(index);
        // What asks for no answer ends the link, too, unless more of a message is to come.
        if self.clients[index].0.end.held.is_empty() {
            self.release(index, server);
        }
    }

    fn server_receives(&mut self, index: usize) {
        let server = &mut self.servers[index];
        let bytes = Self::part(&mut self.random, &mut server.end.received);
        if self.tell && !bytes.is_empty() {
            println!("server {index} is asked {}", String::from_utf8_lossy(&bytes).escape_debug());
        }
        server.model.receive(&bytes, &mut server.outbox);
    }

    fn server_sends(&mut self, index: usize) {
        let server = &mut self.servers[index];
        let bytes = Self::part(&mut self.random, &mut server.outbox);
        if bytes.is_empty() {
            return;
        }
        if self.tell {
            println!("server {index} in {:?} says {}", server.state, String::from_utf8_lossy(&bytes).escape_debug());
        }
        match server.state {
            State::Idle => panic!("server {index} was released before it had said all"),
            State::Setting(client) => {
                let (seen, broken) = server.end.answer(None, &mut self.registries[self.homes[client]], &bytes);
                assert_eq!((seen.stray_error, broken), (false, None));
                if seen.hidden_ended {
                    server.state = State::Linked(client);
                    self.forward(client, index, &[]);
                }
            }
            State::Linked(client) => {
                let registry = &mut self.registries[self.homes[client]];
                let (_, broken) = server.end.answer(Some(&mut self.clients[client].0.end), registry, &bytes);
                assert_eq!(broken, None);
                self.check(client);
                self.release(client, index);
                if self.servers[index].state == State::Linked(client) && !self.clients[client].0.end.held.is_empty() {
                    self.forward(client, index, &[]);
                }
            }
        }
    }

    /// As the worker does: a server that owes nothing goes to the next, and what its client has sent since is looked at anew.
    fn release(&mut self, index: usize, server: usize) {
        let (client, link) = &mut self.clients[index];
        let at = &mut self.servers[server];
        if self.rules.max_statements == 0 || !at.end.back.is_free() || client.end.front.is_mid_message() {
            return;
        }
        *link = Link::None;
        at.state = State::Idle;
        self.assert_idle(server);
        if let Some(next) = self.waiting.pop_front() {
            self.link(next, server);
        }
        if !self.clients[index].0.end.held.is_empty() {
            self.client_input(index, &[]);
        }
    }

    /// With all that is under way to it the server has nothing to say, and holds what we think it does.
    fn assert_idle(&self, index: usize) {
        let server = &self.servers[index];
        assert!(server.outbox.is_empty(), "server {index} was released before it had said all");
        let (mut model, mut said) = (server.model.clone(), Vec::new());
        model.receive(&server.end.received, &mut said);
        assert!(said.is_empty() && model.is_idle(), "server {index} was released and is not idle: {model:?}");
        let ours = server
            .end
            .back
            .statements
            .in_order()
            .into_iter()
            .map(|id| String::from_utf8_lossy(&StatementId(id).server_name()).into_owned());
        let theirs = model.statements.keys().filter(|name| !name.is_empty()).map(|name| String::from_utf8_lossy(name).into_owned());
        assert_eq!(ours.collect::<BTreeSet<_>>(), theirs.collect(), "the statements of server {index}");
    }

    /// What the client has heard is the beginning of what it should hear.
    #[track_caller]
    fn check(&self, index: usize) {
        let client = &self.clients[index].0;
        let heard = client.end.received.len();
        let right = client.expected.get(..heard).is_some_and(|expected| expected == client.end.received);
        assert!(right, "client {index} hears what its own server would not have said: {}", self.story(index));
    }

    /// What was expected and what came.
    fn story(&self, index: usize) -> String {
        let client = &self.clients[index].0;
        let (expected, heard) = (&client.expected, &client.end.received);
        let same = expected.iter().zip(heard).take_while(|(a, b)| a == b).count();
        let text = |bytes: &[u8]| {
            String::from_utf8_lossy(&bytes[same.saturating_sub(60)..bytes.len().min(same + 60)]).escape_debug().to_string()
        };
        format!("{:?}\nexpected {}\nor {}\nheard {}", self.rules, tags(expected), text(expected), text(heard))
    }
}
