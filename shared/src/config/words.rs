//! A comma-separated list of words, as `admin_users` and `listen_addr` are written.

use serde::{Deserialize, Serialize};
use std::{fmt, ops::Deref};

/// The words, and the text they were given as, which SHOW CONFIG prints. Blanks separate as commas do.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Words {
    text: String,
    words: Vec<String>,
}

impl Words {
    /// Splits `text` at commas and blanks.
    pub fn parse(text: &str) -> Self {
        let words = text.split([',', ' ', '\t', '\n', '\r']).filter(|w| !w.is_empty()).map(str::to_owned).collect();
        Self { text: text.to_owned(), words }
    }

    /// The text as it was given.
    pub fn as_text(&self) -> &str {
        &self.text
    }

    /// Whether `word` is listed; case matters.
    pub fn has(&self, word: &str) -> bool {
        self.words.iter().any(|w| w == word)
    }
}

/// The same words in the same order, however they are separated.
impl PartialEq for Words {
    fn eq(&self, other: &Self) -> bool {
        self.words == other.words
    }
}

impl Eq for Words {}

impl Deref for Words {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.words
    }
}

impl<'a> IntoIterator for &'a Words {
    type Item = &'a String;
    type IntoIter = std::slice::Iter<'a, String>;

    fn into_iter(self) -> Self::IntoIter {
        self.words.iter()
    }
}

impl From<Vec<String>> for Words {
    fn from(words: Vec<String>) -> Self {
        Self { text: words.join(", "), words }
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.words.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_and_blanks_separate() {
        let words = Words::parse(" alice,bob ,\tcarol dave,,");
        assert_eq!(&words[..], ["alice", "bob", "carol", "dave"]);
        assert_eq!(words.as_text(), " alice,bob ,\tcarol dave,,");
        assert!(words.has("bob") && !words.has("Bob") && !words.has("bo"));
        assert!(Words::parse("").is_empty());
    }
}
