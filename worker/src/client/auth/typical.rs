//! What the users of a fleet have in common, for those who do not exist: to a client they must look and take as long as the others.

use shared::auth::Secret;
use shared::auth::scram::{MAX_ITERATIONS, Verifier};
use shared::config::Config;
use std::collections::BTreeMap;

/// How a secret is stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Form {
    Plain,
    Md5,
    /// With so many iterations.
    Scram(u32),
}

impl Form {
    /// `None`: no password fits it, however it is stored.
    pub(crate) fn of(secret: &Secret) -> Option<Self> {
        match secret {
            Secret::Plain(password) => (!password.is_empty()).then_some(Self::Plain),
            Secret::Md5(_) => Some(Self::Md5),
            Secret::Scram(text) => {
                Verifier::from_secret(text).ok().filter(|v| v.iterations <= MAX_ITERATIONS).map(|v| Self::Scram(v.iterations))
            }
        }
    }

    /// As most users' secrets in auth_file are; as PostgreSQL stores them, where there are none.
    pub(crate) fn typical(config: &Config) -> Self {
        let mut counts: BTreeMap<Self, usize> = BTreeMap::new();
        for form in config.secrets.values().filter_map(Self::of) {
            *counts.entry(form).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        most.map_or(Self::Scram(config.settings.scram_iterations), |(form, _)| form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_form_is_the_typical_one() {
        let mut config = Config::default();
        assert_eq!(Form::typical(&config), Form::Scram(4096));
        let scram = |n: u32| {
            let key = "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=";
            Secret::parse(&format!("SCRAM-SHA-256${n}:QtqbkfZjTmn8SjGPgaXcMg==${key}:{key}"))
        };
        for (user, secret) in [("a", scram(10_000)), ("b", scram(10_000)), ("c", scram(4096)), ("d", Secret::parse("plain"))] {
            config.secrets.insert(user.to_owned(), secret);
        }
        for user in ["e", "f", "g", "h"] {
            config.secrets.insert(user.to_owned(), Secret::parse(""));
        }
        assert_eq!(Form::typical(&config), Form::Scram(10_000));
        for user in ["i", "j"] {
            config.secrets.insert(user.to_owned(), Secret::parse("plain"));
        }
        assert_eq!(Form::typical(&config), Form::Plain);
    }
}
