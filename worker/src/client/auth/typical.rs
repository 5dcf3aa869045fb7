//! What the users of a fleet have in common, for those who do not exist: to a client they must look and take as long as the others.

use rustc_hash::FxHashMap;
use shared::auth::Secret;
use shared::auth::scram::{MAX_ITERATIONS, Verifier};
use shared::config::Config;
use std::collections::BTreeMap;

/// For how many users an answer is remembered.
const MOST_ANSWERS: usize = 1024;

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
}

/// Like whom users look who do not exist, as far as this worker knows.
pub(crate) struct Typical {
    form: Form,
    /// What auth_query has said of users, and how many of them have which form.
    answers: FxHashMap<Box<str>, Form>,
    counts: BTreeMap<Form, usize>,
    /// The form that most of them had when there was one last.
    agreed: Option<Form>,
}

impl Typical {
    pub(crate) fn new(config: &Config) -> Self {
        let mut typical = Self { form: Form::Plain, answers: FxHashMap::default(), counts: BTreeMap::new(), agreed: None };
        typical.reload(config);
        typical
    }

    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// The configuration has changed; what PostgreSQL has stored has not.
    pub(crate) fn reload(&mut self, config: &Config) {
        self.form = if asks(config) {
            // auth_file may hold nobody but auth_user, and PostgreSQL stores SCRAM unless it is told otherwise.
            self.agreed.unwrap_or(Form::Scram(config.settings.scram_iterations))
        } else {
            in_auth_file(config)
        };
    }

    /// auth_query has answered.
    pub(crate) fn answered(&mut self, user: &str, form: Form) {
        let before = self.answers.get(user).copied();
        if before.is_none() && self.answers.len() == MOST_ANSWERS {
            return;
        }
        self.answers.insert(user.into(), form);
        if let Some(count) = before.and_then(|before| self.counts.get_mut(&before)) {
            *count -= 1;
        }
        *self.counts.entry(form).or_default() += 1;
        self.counts.retain(|_, count| *count > 0);
        if let Some(form) = self.majority() {
            (self.form, self.agreed) = (form, Some(form));
        }
    }

    /// The form that more than half of them have, and more than one: somebody who is looked up again and again decides nothing.
    fn majority(&self) -> Option<Form> {
        let most = |count: usize| count > 1 && count * 2 > self.answers.len();
        self.counts.iter().find(|(_, count)| most(**count)).map(|(form, _)| *form)
    }
}

/// Whether auth_query is asked about users.
fn asks(config: &Config) -> bool {
    config.settings.auth_user.is_some() || config.databases.values().chain(&config.fallback).any(|entry| entry.auth_user.is_some())
}

/// As most users' secrets in auth_file are; as PostgreSQL stores them, where there are none.
fn in_auth_file(config: &Config) -> Form {
    let mut counts: BTreeMap<Form, usize> = BTreeMap::new();
    for form in config.secrets.values().filter_map(Form::of) {
        *counts.entry(form).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map_or(Form::Scram(config.settings.scram_iterations), |(form, _)| form)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_form_is_the_typical_one() {
        let mut config = Config::default();
        assert_eq!(Typical::new(&config).form(), Form::Scram(4096));
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
        assert_eq!(Typical::new(&config).form(), Form::Scram(10_000));
        for user in ["i", "j"] {
            config.secrets.insert(user.to_owned(), Secret::parse("plain"));
        }
        assert_eq!(Typical::new(&config).form(), Form::Plain);
    }

    #[test]
    fn answers_of_auth_query_count_by_user_and_outlast_a_reload() {
        let mut config = Config::default();
        config.settings.auth_user = Some("asker".to_owned());
        config.secrets.insert("asker".to_owned(), Secret::parse("plain"));
        let mut typical = Typical::new(&config);
        assert_eq!(typical.form(), Form::Scram(4096), "what auth_user has tells nothing");
        for _ in 0..10 {
            typical.answered("a", Form::Md5);
            assert_eq!(typical.form(), Form::Scram(4096), "one user decides nothing");
        }
        typical.answered("b", Form::Md5);
        assert_eq!(typical.form(), Form::Md5);
        for user in ["c", "d"] {
            typical.answered(user, Form::Scram(9999));
            assert_eq!(typical.form(), Form::Md5, "neither is in the majority");
        }
        typical.reload(&config);
        typical.answered("a", Form::Scram(9999));
        assert_eq!(typical.form(), Form::Scram(9999), "whose password has changed counts once");
        typical.reload(&config);
        assert_eq!(typical.form(), Form::Scram(9999));
        config.settings.auth_user = None;
        typical.reload(&config);
        assert_eq!(typical.form(), Form::Plain);
        for number in 0..2 * MOST_ANSWERS {
            typical.answered(&number.to_string(), Form::Scram(number as u32));
        }
        assert!(typical.answers.len() == MOST_ANSWERS && typical.counts.len() <= MOST_ANSWERS);
    }
}
