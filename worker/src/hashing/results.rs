//! Keys that have been derived. Only so many are kept: the oldest make room for new ones, one at a time.

use super::Question;
use rustc_hash::FxHashMap;
use shared::auth::scram::Keys;
use std::collections::VecDeque;
use std::rc::Rc;

pub(super) struct Results {
    most: usize,
    keys: FxHashMap<Rc<Question>, Keys>,
    /// Oldest first.
    order: VecDeque<Rc<Question>>,
}

impl Results {
    pub(super) fn new(most: usize) -> Self {
        Self { most, keys: FxHashMap::default(), order: VecDeque::new() }
    }

    pub(super) fn get(&self, question: &Question) -> Option<&Keys> {
        self.keys.get(question)
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.keys.len() >= self.most
    }

    pub(super) fn keep(&mut self, question: Question, keys: Keys) {
        let question = Rc::new(question);
        if self.keys.insert(Rc::clone(&question), keys).is_some() {
            return;
        }
        self.order.push_back(question);
        if self.keys.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
    }

    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::question;
    use super::*;

    #[test]
    fn the_oldest_make_room_one_at_a_time() {
        let mut results = Results::new(3);
        let keep = |results: &mut Results, password: &str| results.keep(question(password, 1), Keys::derive(b"", b"", 1));
        for password in ["a", "b", "a", "c", "d"] {
            keep(&mut results, password);
        }
        let kept = ["a", "b", "c", "d"].map(|password| results.get(&question(password, 1)).is_some());
        assert_eq!((kept, results.order.len()), ([false, true, true, true], 3));
        results.clear();
        assert_eq!((results.len(), results.order.len()), (0, 0));
    }
}
