//! From one image of the supervisor to another, in the same process.
//!
//! [`preflight`] asks a new binary whether it can take the fleet over; [`crate::engine`] writes the estate down and executes it; [`resume`] is
//! the first that the new image does. What one image says to the next stands in [`Arguments`] and must stay as it is.

mod preflight;
mod resume;

pub(crate) use preflight::{Binary, answer as answer_preflight, ask as ask_binary};
pub(crate) use resume::{WayBack, give_up, run as resume};

use std::ffi::CString;
use std::os::fd::RawFd;

/// The first argument of an image that goes on.
const RESUME: &str = "resume";

/// What an image is told that goes on where another has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// The descriptor of the estate.
    pub(crate) manifest: RawFd,
    /// That of the image before, which is to be executed if this one fails.
    pub(crate) old: Option<RawFd>,
    /// This image is the one before, and why it goes on.
    pub(crate) reason: Option<String>,
}

impl Arguments {
    /// As the other image is given them.
    pub(crate) fn to_strings(&self) -> Vec<CString> {
        let old = self.old.map_or("-".to_owned(), |old| old.to_string());
        let words = ["pgfleet".to_owned(), RESUME.to_owned(), self.manifest.to_string(), old];
        let reason = self.reason.as_ref().map(|reason| reason.replace('\0', " "));
        words.into_iter().chain(reason).filter_map(|word| CString::new(word).ok()).collect()
    }

    /// From this process's arguments without the first; `None`: it is no image that goes on.
    pub(crate) fn from_words(mut words: impl Iterator<Item = String>) -> Option<Self> {
        if words.next()? != RESUME {
            return None;
        }
        let manifest = words.next()?.parse().ok()?;
        let old = match words.next()?.as_str() {
            "-" => None,
            number => Some(number.parse().ok()?),
        };
        Some(Self { manifest, old, reason: words.next() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn arguments_arrive() {
        for arguments in [
            Arguments { manifest: 12, old: Some(9), reason: None },
            Arguments { manifest: 5, old: None, reason: Some("it did not like it".into()) },
        ] {
            let words = arguments.to_strings().into_iter().skip(1).map(|word| word.into_string().unwrap());
            assert_eq!(Arguments::from_words(words), Some(arguments));
        }
        for words in [&["check", "a.ini"][..], &["resume"], &["resume", "x", "-"], &["resume", "3"]] {
            assert_eq!(Arguments::from_words(words.iter().map(ToString::to_string)), None, "{words:?}");
        }
    }
}
