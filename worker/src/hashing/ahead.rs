//! Clear-text passwords of auth_file are hashed for SCRAM before anybody logs in: a user would be asked for a proof later at its first login than somebody who
//! does not exist, and this would tell who exists.
//!
//! It is done while a worker has nothing else to do, and in every tick. After a reload the keys of before serve until those who are still users have been
//! gone through.

use super::{Question, SLICE, TURN};
use crate::client::auth;
use crate::clock::now;
use crate::worker::Worker;
use shared::auth::Method;
use shared::auth::scram::Derivation;
use shared::config::{AuthType, Config};
use std::ops::Bound;

/// Rounds in one turn at most: less than for who waits.
const MOST_PER_TURN: u32 = 512;

/// How far it has got.
#[derive(Default)]
pub(super) struct Ahead {
    /// The user whose turn was last.
    after: Option<String>,
    /// Whose password is being hashed.
    pub(super) job: Option<(Question, Derivation)>,
}

impl Ahead {
    /// `None`: nobody is asked for SCRAM.
    pub(super) fn of(config: &Config) -> Option<Self> {
        let by_scram = match config.settings.auth_type {
            AuthType::ScramSha256 => true,
            AuthType::Hba => config.access.methods().any(|method| *method == Method::ScramSha256),
            _ => false,
        };
        by_scram.then(Self::default)
    }
}

impl Worker {
    /// A little of it, if nobody waits for anything to be hashed.
    pub(crate) fn hash_ahead(&mut self) {
        if !self.hashing.is_idle() {
            return;
        }
        let (mut rounds, start) = (MOST_PER_TURN, now());
        while rounds > 0 && self.hashing.has_ahead() && now() - start < TURN {
            if !self.hashing.work_ahead(&mut rounds) {
                self.next_ahead();
            }
        }
    }

    /// It is the next user's turn; the end, if there is none.
    fn next_ahead(&mut self) {
        let Some(ahead) = &mut self.hashing.ahead else { return };
        let after = ahead.after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.config.secrets.range::<str, _>((after, Bound::Unbounded));
        match rest.next().filter(|_| !self.hashing.clients.is_full()) {
            Some((user, secret)) => {
                let user = user.clone();
                let question = auth::question(&user, secret, self.config.settings.scram_iterations, &self.mock_secret);
                ahead.after = Some(user);
                if let Some(question) = question {
                    self.hashing.ask_ahead(question);
                }
            }
            None => self.hashing.ahead_done(),
        }
    }
}

impl super::Hashing {
    /// There are users whose turn has not been.
    pub(crate) fn has_ahead(&self) -> bool {
        self.ahead.is_some()
    }

    fn ask_ahead(&mut self, question: Question) {
        if let Some(keys) = self.former.get(&question) {
            let keys = keys.clone();
            self.clients.keep(question, keys);
        } else if self.clients.get(&question).is_none()
            && let Some(ahead) = &mut self.ahead
        {
            let derivation = question.derivation();
            ahead.job = Some((question, derivation));
        }
    }

    /// Whether there was something to work on.
    fn work_ahead(&mut self, rounds: &mut u32) -> bool {
        let Some(ahead) = &mut self.ahead else { return false };
        let Some((_, derivation)) = &mut ahead.job else { return false };
        let slice = SLICE.min(*rounds);
        *rounds -= slice;
        if let Some(keys) = derivation.run(slice)
            && let Some((question, _)) = ahead.job.take()
        {
            self.clients.keep(question, keys);
        }
        true
    }

    fn ahead_done(&mut self) {
        self.ahead = None;
        self.former.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use shared::auth::Secret;
    use std::rc::Rc;

    fn config(passwords: &[(&str, &str)]) -> Config {
        let mut config = Config::default();
        config.settings.auth_type = AuthType::ScramSha256;
        config.secrets = passwords.iter().map(|(user, password)| ((*user).to_owned(), Secret::parse(password))).collect();
        config
    }

    fn is_known(worker: &Worker, user: &str, password: &str) -> bool {
        let question = auth::question(user, &Secret::parse(password), 4096, &worker.mock_secret).unwrap();
        worker.hashing.known_to_client(&question).is_some()
    }

    fn work(worker: &mut Worker) {
        while worker.hashing.has_ahead() {
            worker.hash_ahead();
        }
    }

    #[test]
    fn users_are_gone_through_and_then_it_is_over() {
        let mut worker = Worker::alone(config(&[("a", "x"), ("b", "md50123456789abcdef0123456789abcdef"), ("c", ""), ("d", "y")]));
        worker.hash_ahead();
        assert!(worker.hashing.has_ahead() && !is_known(&worker, "a", "x"), "a little in each turn");
        work(&mut worker);
        assert!(is_known(&worker, "a", "x") && is_known(&worker, "d", "y"));
        assert_eq!(worker.hashing.clients.len(), 2);
        let mut other = config(&[("a", "x")]);
        other.settings.auth_type = AuthType::Md5;
        assert!(!Worker::alone(other).hashing.has_ahead());
    }

    #[test]
    fn after_a_reload_keys_serve_on_and_those_of_former_passwords_go() {
        let mut worker = Worker::alone(config(&[("a", "x"), ("b", "y")]));
        work(&mut worker);
        worker.config = Rc::new(config(&[("a", "x"), ("b", "z")]));
        let config = Rc::clone(&worker.config);
        worker.hashing.start_anew(&config);
        assert!(is_known(&worker, "a", "x"), "without a moment in which it would have to be hashed");
        assert!(worker.hashing.has_ahead());
        work(&mut worker);
        assert!(is_known(&worker, "a", "x") && is_known(&worker, "b", "z") && !is_known(&worker, "b", "y"));
    }
}
