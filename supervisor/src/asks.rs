//! What workers have asked and nobody has answered yet, kept so that it can be asked again when another image takes the place of this one: a
//! client waits for each answer.
//!
//! Names of hosts are not here: what is known of them is kept where they are looked up ([`crate::dns`]).

use crate::control::Control;
use crate::gate::{Closed, Gate};
use crate::office::Office;
use crate::{auth, system_users};
use serde::{Deserialize, Serialize};
use shared::control::{PasswordCheck, ToWorker};
use shared::ids::Owner;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a worker asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Question {
    /// The name of an operating system's user.
    NameUser(u32),
    /// Whether a password is right. It is wiped when the question is answered.
    CheckPassword(PasswordCheck),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Asks {
    gate: Arc<Gate>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    questions: BTreeMap<u64, (Owner, Question)>,
    last: u64,
}

/// The right to answer a question. Dropped without an answer, the question is forgotten.
#[derive(Debug)]
pub(crate) struct Owed {
    asks: Arc<Asks>,
    number: u64,
    to: Control,
}

impl Asks {
    /// None yet.
    pub(crate) fn new(gate: Arc<Gate>) -> Arc<Self> {
        Arc::new(Self { gate, open: Mutex::default() })
    }

    /// All that are open.
    pub(crate) fn park(&self, _: &Closed<'_>) -> Vec<(Owner, Question)> {
        self.open().questions.values().cloned().collect()
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(self: &Arc<Self>, from: Owner, question: Question, to: &Control) -> Owed {
        let mut open = self.open();
        open.last += 1;
        let number = open.last;
        open.questions.insert(number, (from, question));
        Owed { asks: Arc::clone(self), number, to: to.clone() }
    }
}

impl Owed {
    /// Answers it.
    pub(crate) fn answer(self, answer: &ToWorker) {
        // Answered and forgotten, or neither.
        let gate = Arc::clone(&self.asks.gate);
        let _pass = gate.enter();
        self.to.answer(answer);
        drop(self);
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.asks.open().questions.remove(&self.number);
    }
}

/// Finds the answer for the worker behind `to`, in its own time.
pub(crate) fn ask(office: &Arc<Office>, from: Owner, question: Question, to: &Control) {
    let owed = office.asks.enter(from, question.clone(), to);
    match question {
        Question::NameUser(uid) => system_users::name(uid, owed),
        Question::CheckPassword(check) => auth::check(office, check, owed),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::office::tests::office;
    use crate::process::set_nonblocking;
    use shared::auth::Password;
    use shared::control::{self, MAX_MESSAGE, PasswordMethod, PasswordOutcome, WaitingClient};
    use shared::encoding::{decode_named, encode_named};
    use shared::ids::{ConnectionId, Incarnation, Slot};
    use shared::sys::seqpacket;
    use std::os::fd::AsFd;

    const WORKER: Owner = Owner { slot: Slot(3), incarnation: Incarnation(9) };

    #[test]
    fn what_is_not_answered_is_asked_again_by_the_next_image() {
        let (office, _inputs) = office();
        let (ours, worker) = seqpacket::pair().unwrap();
        set_nonblocking(&ours).unwrap();
        let control = Control::new(ours, Arc::clone(&office.gate), shared::control::Tongue::Own);
        let client = WaitingClient { place: 1, id: ConnectionId(2) };
        let check = PasswordCheck {
            client,
            method: PasswordMethod::Pam { service: "x".into() },
            user: "u".into(),
            password: Password::new("secret"),
            address: "unix".into(),
        };
        let first = office.asks.enter(WORKER, Question::NameUser(1), &control);
        let check = Question::CheckPassword(check);
        let second = office.asks.enter(WORKER, check.clone(), &control);
        let third = office.asks.enter(WORKER, Question::NameUser(3), &control);
        first.answer(&ToWorker::UserNamed { uid: 1, name: Ok("root".into()) });
        drop(third);
        let bytes = encode_named(&[], &office.asks.park(&office.gate.close())).unwrap();
        assert_eq!(decode_named::<Vec<(Owner, Question)>>(&bytes).unwrap(), [(WORKER, check)]);
        second.answer(&ToWorker::PasswordChecked { client, outcome: PasswordOutcome::Admitted });
        assert!(office.asks.park(&office.gate.close()).is_empty());
        let mut buffer = vec![0; MAX_MESSAGE];
        let mut next = || {
            let received = seqpacket::recv(worker.as_fd(), &mut buffer).unwrap();
            control::decode::<ToWorker>(&buffer[..received.len]).unwrap()
        };
        assert!(matches!(next(), ToWorker::UserNamed { uid: 1, .. }));
        assert!(matches!(next(), ToWorker::PasswordChecked { .. }));
    }

    #[test]
    fn nobody_is_answered_while_the_gate_is_closed() {
        let (office, _inputs) = office();
        let (ours, worker) = seqpacket::pair().unwrap();
        set_nonblocking(&ours).unwrap();
        let control = Control::new(ours, Arc::clone(&office.gate), shared::control::Tongue::Own);
        let closed = office.gate.close();
        ask(&office, WORKER, Question::NameUser(0), &control);
        assert_eq!(office.asks.park(&closed), [(WORKER, Question::NameUser(0))]);
        drop(closed);
        let mut buffer = vec![0; MAX_MESSAGE];
        let received = seqpacket::recv(worker.as_fd(), &mut buffer).unwrap();
        assert_eq!(
            control::decode::<ToWorker>(&buffer[..received.len]).unwrap(),
            ToWorker::UserNamed { uid: 0, name: Ok("root".into()) }
        );
    }
}
