//! Epochs of prepared statements: how often the statements of a text have been retired, in any worker.
//!
//! A statement's name on the servers is made of its text and this count. When a server refuses what it has prepared (the table has changed
//! since), whoever sees that raises the count: from then on the same text is another statement, prepared anew wherever it is asked
//! for. Texts share the words by hash; one that is retired for another's sake is prepared once more, no harm else.

use super::atomic::{AtomicU32, Ordering};

/// The words.
#[derive(Clone, Copy)]
pub struct StatementEpochs<'a>(pub(super) &'a [AtomicU32]);

impl StatementEpochs<'_> {
    /// The epoch of the text with this hash.
    pub fn get(&self, text: &[u8; 16]) -> u32 {
        self.word(text).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Begins a new epoch, if `seen` is still the current one.
    pub fn retire(&self, text: &[u8; 16], seen: u32) {
        if let Some(word) = self.word(text) {
            let _ = word.compare_exchange(seen, seen.wrapping_add(1), Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    fn word(&self, text: &[u8; 16]) -> Option<&AtomicU32> {
        let hash = u32::from_le_bytes([text[0], text[1], text[2], text[3]]) as usize;
        self.0.get(hash.checked_rem(self.0.len())?)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::shm::Shm;

    #[test]
    fn who_sees_the_same_failure_twice_retires_once() {
        let shm = Shm::create().unwrap().0;
        let (text, other) = ([7; 16], [8; 16]);
        let epochs = shm.statement_epochs();
        epochs.retire(&text, 0);
        epochs.retire(&text, 0);
        assert_eq!((epochs.get(&text), epochs.get(&other)), (1, 0));
        epochs.retire(&text, 1);
        assert_eq!(epochs.get(&text), 2);
    }
}
