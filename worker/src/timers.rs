//! Deadlines that move often and seldom come: a heap with at most one entry for each key.
//!
//! When an entry comes due, its owner says what the deadline really is by now; an activity in between has cost nothing.

use crate::clock::Instant;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Deadlines by key.
pub(crate) struct Timers<K>(BinaryHeap<Reverse<(Instant, K)>>);

impl<K: Ord> Default for Timers<K> {
    fn default() -> Self {
        Self(BinaryHeap::new())
    }
}

impl<K: Ord + Copy> Timers<K> {
    /// `key` is to be looked at then. The caller sees to it that it has no other entry.
    pub(crate) fn arm(&mut self, deadline: Instant, key: K) {
        self.0.push(Reverse((deadline, key)));
    }

    /// Takes out the next entry that is due.
    pub(crate) fn due(&mut self, now: Instant) -> Option<K> {
        if self.0.peek().is_none_or(|Reverse((deadline, _))| *deadline > now) {
            return None;
        }
        self.0.pop().map(|Reverse((_, key))| key)
    }
}
