//! Passwords being hashed: SCRAM's thousands of rounds, done a little in every turn of the loop, so that traffic does not wait for logins.
//!
//! Clients and servers in login ask ([`Hashing::ask`]) and go on when they are told ([`Worker::hash`]). The first in line is served until it has had
//! a quantum, then the next: ordinary passwords in the order in which they came, and one with a million rounds holds up none of them. What comes
//! out is kept until the configuration changes. Who goes away takes back what it has asked ([`Hashing::forget`]). What nobody has asked for yet comes
//! last ([`ahead`]).

mod ahead;
mod results;

use self::ahead::Ahead;
use self::results::Results;
use crate::clock::now;
use crate::worker::Worker;
use rustc_hash::FxHashMap;
use shared::auth::Secret;
use shared::auth::scram::{Challenge, Derivation, Keys};
use shared::config::Config;
use shared::ids::ConnectionId;
use std::collections::VecDeque;
use std::time::Duration;

/// Rounds between two looks at the clock: about 20 microseconds.
const SLICE: u32 = 64;

/// Rounds in one turn at most, and how long they may take.
const MOST_PER_TURN: u32 = 1024;
const TURN: Duration = Duration::from_micros(150);

/// Rounds after which the next in line has its turn: PostgreSQL's default number.
const QUANTUM: u32 = 4096;

/// How many results are kept: of clients' passwords, a few hundred bytes each, and of those that servers ask for. Clients do not crowd out servers.
const MOST_OF_CLIENTS: usize = 16_384;
const MOST_OF_SERVERS: usize = 4096;

/// A password of ours, and what it is to be hashed with.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    pub(crate) password: Secret,
    pub(crate) challenge: Challenge,
}

/// What is hashed. Questions that are equal share the work and its result; what a client guesses is shared with nobody, or the time it takes would
/// tell whether somebody has that password.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    Ours(Question),
    Guess(ConnectionId),
}

/// Who waits for it: a connection's place and number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asker {
    Client(usize, ConnectionId),
    Server(usize, ConnectionId),
}

struct Job {
    derivation: Derivation,
    askers: Vec<Asker>,
    /// Rounds left of its turn.
    quantum: u32,
}

/// What has been asked, and what has come of it.
pub(crate) struct Hashing {
    jobs: FxHashMap<Subject, Job>,
    /// Whose turn it is, in order. Some of them want it no more: a storm of clients that all go at once costs a look at each, not at each other.
    line: VecDeque<Subject>,
    clients: Results,
    /// Of before the last reload.
    former: Results,
    servers: Results,
    /// `None`: there is nothing left.
    ahead: Option<Ahead>,
}

impl Question {
    fn derivation(&self) -> Derivation {
        Derivation::new(self.password.expose().as_bytes(), &self.challenge.salt, self.challenge.iterations)
    }
}

impl Hashing {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            jobs: FxHashMap::default(),
            line: VecDeque::new(),
            clients: Results::new(MOST_OF_CLIENTS),
            former: Results::new(MOST_OF_CLIENTS),
            servers: Results::new(MOST_OF_SERVERS),
            ahead: Ahead::of(config),
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// The keys of a client's password, if they have been derived before.
    pub(crate) fn known_to_client(&self, question: &Question) -> Option<&Keys> {
        self.clients.get(question).or_else(|| self.former.get(question))
    }

    /// The same of a password for a server.
    pub(crate) fn known_to_server(&self, question: &Question) -> Option<&Keys> {
        self.servers.get(question)
    }

    /// Wants the keys of a password of ours.
    pub(crate) fn ask(&mut self, question: &Question, asker: Asker) {
        let subject = Subject::Ours(question.clone());
        if let Some(job) = self.jobs.get_mut(&subject) {
            job.askers.push(asker);
        } else {
            let job = self.ahead.as_mut().and_then(|ahead| ahead.job.take_if(|(other, _)| other == question));
            self.begin(subject, job.map_or_else(|| question.derivation(), |(_, derivation)| derivation), asker);
        }
    }

    /// Wants the keys of what the client `id` says its password is.
    pub(crate) fn ask_guess(&mut self, id: ConnectionId, derivation: Derivation, asker: Asker) {
        self.begin(Subject::Guess(id), derivation, asker);
    }

    fn begin(&mut self, subject: Subject, derivation: Derivation, asker: Asker) {
        self.line.push_back(subject.clone());
        self.jobs.insert(subject, Job { derivation, askers: vec![asker], quantum: QUANTUM });
    }

    /// Somebody does not want it any more; nor does anybody else, perhaps.
    pub(crate) fn forget(&mut self, subject: &Subject, asker: Asker) {
        if let Some(job) = self.jobs.get_mut(subject) {
            job.askers.retain(|other| *other != asker);
            if job.askers.is_empty() {
                self.jobs.remove(subject);
            }
            if self.jobs.is_empty() {
                self.line.clear();
            }
        }
    }

    /// The passwords may be others now.
    pub(crate) fn start_anew(&mut self, config: &Config) {
        if self.clients.len() >= self.former.len() {
            std::mem::swap(&mut self.clients, &mut self.former);
        }
        self.clients.clear();
        self.servers.clear();
        self.ahead = Ahead::of(config);
        if self.ahead.is_none() {
            self.former.clear();
        }
    }

    /// Works on what stands first in line, until something is finished or there are no rounds left. `is_over` looks at the clock.
    fn work(&mut self, rounds: &mut u32, is_over: impl Fn() -> bool) -> Option<(Keys, Vec<Asker>)> {
        while *rounds > 0 && !is_over() {
            let Some(job) = self.jobs.get_mut(self.line.front()?) else {
                self.line.pop_front();
                continue;
            };
            let slice = SLICE.min(*rounds);
            *rounds -= slice;
            if let Some(keys) = job.derivation.run(slice) {
                let subject = self.line.pop_front()?;
                let job = self.jobs.remove(&subject)?;
                if let Subject::Ours(question) = subject {
                    self.keep(question, &keys, &job.askers);
                }
                return Some((keys, job.askers));
            }
            job.quantum = job.quantum.saturating_sub(slice);
            if job.quantum == 0 {
                job.quantum = QUANTUM;
                self.line.rotate_left(1);
            }
        }
        None
    }

    fn keep(&mut self, question: Question, keys: &Keys, askers: &[Asker]) {
        if askers.iter().any(|asker| matches!(asker, Asker::Server(..))) {
            self.servers.keep(question.clone(), keys.clone());
        }
        if askers.iter().any(|asker| matches!(asker, Asker::Client(..))) {
            self.clients.keep(question, keys.clone());
        }
    }
}

impl Worker {
    /// A little of the hashing that waits, and what follows from what is finished.
    pub(crate) fn hash(&mut self) {
        let (mut rounds, start) = (MOST_PER_TURN, now());
        while let Some((keys, askers)) = self.hashing.work(&mut rounds, || now() - start >= TURN) {
            for asker in askers {
                match asker {
                    Asker::Client(index, id) => self.client_hashed(index, id, &keys),
                    Asker::Server(index, id) => self.server_hashed(index, id, &keys),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use shared::ids::Slot;

    pub(super) fn question(password: &str, iterations: u32) -> Question {
        let challenge = Challenge { salt: b"salt".to_vec(), iterations };
        Question { password: Secret::Plain(password.to_owned()), challenge }
    }

    fn asker(number: u32) -> Asker {
        Asker::Client(number as usize, ConnectionId::new(Slot(0), number))
    }

    /// Works as in so many turns, and tells who was answered, in order.
    fn turns(hashing: &mut Hashing, turns: u32) -> Vec<Asker> {
        let mut answered = Vec::new();
        for _ in 0..turns {
            let mut rounds = MOST_PER_TURN;
            while let Some((_, askers)) = hashing.work(&mut rounds, || false) {
                answered.extend(askers);
            }
        }
        answered
    }

    #[test]
    fn equal_questions_have_one_answer_which_is_kept() {
        let mut hashing = Hashing::new(&Config::default());
        hashing.ask(&question("a", 100), asker(1));
        hashing.ask(&question("b", 100), asker(2));
        hashing.ask(&question("a", 100), asker(3));
        assert_eq!(hashing.line.len(), 2);
        assert_eq!(turns(&mut hashing, 1), [asker(1), asker(3), asker(2)]);
        assert!(hashing.is_idle());
        assert!(hashing.known_to_client(&question("a", 100)) == Some(&Keys::derive(b"a", b"salt", 100)));
        assert!(hashing.known_to_client(&question("a", 99)).is_none());
        hashing.start_anew(&Config::default());
        assert!(hashing.known_to_client(&question("a", 100)).is_none());
    }

    #[test]
    fn clients_do_not_crowd_out_servers() {
        let mut hashing = Hashing::new(&Config::default());
        let (Asker::Client(_, id) | Asker::Server(_, id)) = asker(1);
        hashing.ask(&question("a", 100), asker(1));
        hashing.ask(&question("b", 100), Asker::Server(1, id));
        turns(&mut hashing, 1);
        let known = |password| {
            let question = question(password, 100);
            (hashing.known_to_client(&question).is_some(), hashing.known_to_server(&question).is_some())
        };
        assert_eq!((known("a"), known("b")), ((true, false), (false, true)));
    }

    #[test]
    fn a_million_rounds_hold_up_nobody() {
        let mut hashing = Hashing::new(&Config::default());
        hashing.ask(&question("slow", 1_000_000), asker(0));
        for number in 1..=10 {
            hashing.ask(&question(&number.to_string(), 4096), asker(number));
        }
        let order: Vec<Asker> = (1..=10).map(asker).collect();
        assert_eq!(turns(&mut hashing, 45), order, "in the order in which they came");
        assert_eq!(turns(&mut hashing, 1_000_000 / MOST_PER_TURN), [asker(0)]);
    }

    #[test]
    fn a_turn_is_no_longer_than_the_clock_says() {
        let mut hashing = Hashing::new(&Config::default());
        hashing.ask(&question("slow", 1_000_000), asker(0));
        let looks = std::cell::Cell::new(0);
        let mut rounds = MOST_PER_TURN;
        assert!(hashing.work(&mut rounds, || looks.replace(looks.get() + 1) == 3).is_none());
        assert_eq!(rounds, MOST_PER_TURN - 3 * SLICE);
    }

    #[test]
    fn who_goes_away_leaves_nothing_behind() {
        let mut hashing = Hashing::new(&Config::default());
        let (Asker::Client(_, id) | Asker::Server(_, id)) = asker(1);
        hashing.ask_guess(id, Derivation::new(b"guess", b"salt", 4096), asker(1));
        hashing.ask(&question("a", 4096), asker(2));
        hashing.ask(&question("a", 4096), asker(3));
        hashing.forget(&Subject::Guess(id), asker(1));
        hashing.forget(&Subject::Ours(question("a", 4096)), asker(2));
        assert_eq!(turns(&mut hashing, 4), [asker(3)]);
        hashing.ask(&question("b", 4096), asker(2));
        hashing.forget(&Subject::Ours(question("b", 4096)), asker(2));
        assert!(hashing.is_idle() && hashing.jobs.is_empty() && hashing.line.is_empty());
    }

    #[test]
    fn who_goes_away_and_comes_back_is_answered_once() {
        let mut hashing = Hashing::new(&Config::default());
        hashing.ask(&question("before", 4096), asker(0));
        for _ in 0..3 {
            hashing.ask(&question("a", 100), asker(1));
            hashing.forget(&Subject::Ours(question("a", 100)), asker(1));
        }
        hashing.ask(&question("a", 100), asker(1));
        assert_eq!(turns(&mut hashing, 5), [asker(0), asker(1)]);
        assert!(hashing.is_idle() && hashing.line.is_empty());
    }

    #[test]
    fn what_a_client_guesses_is_not_kept() {
        let mut hashing = Hashing::new(&Config::default());
        let (Asker::Client(_, id) | Asker::Server(_, id)) = asker(1);
        hashing.ask_guess(id, Derivation::new(b"guess", b"salt", 100), asker(1));
        assert_eq!(turns(&mut hashing, 1), [asker(1)]);
        assert!(hashing.clients.len() == 0 && hashing.jobs.is_empty());
    }
}
