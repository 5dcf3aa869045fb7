//! What is known of a user at the moment of its login.

use crate::lookup::Found;
use shared::auth::Secret;
use shared::config::Config;

/// A user who logs in.
pub(crate) struct Account {
    /// Its name.
    pub(crate) user: String,
    /// It stands in auth_file or in `[users]`.
    pub(crate) known: bool,
    /// auth_query knows it.
    pub(crate) looked_up: bool,
    /// auth_query was asked and does not know it: no proof without a password is good enough either.
    pub(crate) denied: bool,
    /// What is stored of its password. `None`: no password is right.
    pub(crate) secret: Option<Secret>,
}

impl Account {
    /// As the configuration knows it.
    pub(crate) fn of(config: &Config, user: &str) -> Self {
        let secret = config.secrets.get(user).cloned();
        Self {
            user: user.to_owned(),
            known: secret.is_some() || config.users.contains_key(user),
            looked_up: false,
            denied: false,
            secret,
        }
    }

    /// As auth_query knows it; `None`: not at all, and it is refused as a user with a wrong password is.
    pub(crate) fn looked_up(user: &str, found: Option<Found>) -> Self {
        match found {
            Some(Found { name, secret }) => Self { user: name, known: true, looked_up: true, denied: false, secret },
            None => Self { user: user.to_owned(), known: false, looked_up: false, denied: true, secret: None },
        }
    }
}
