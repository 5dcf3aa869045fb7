//! What is known of a user at the moment of its login.

use shared::auth::Secret;
use shared::config::Config;

/// A user who logs in.
pub(crate) struct Account {
    /// Its name.
    pub(crate) user: String,
    /// It stands in auth_file or in `[users]`.
    pub(crate) known: bool,
    /// What is stored of its password. `None`: no password is right.
    pub(crate) secret: Option<Secret>,
}

impl Account {
    /// As the configuration knows it.
    pub(crate) fn of(config: &Config, user: &str) -> Self {
        let secret = config.secrets.get(user).cloned();
        Self { user: user.to_owned(), known: secret.is_some() || config.users.contains_key(user), secret }
    }
}
