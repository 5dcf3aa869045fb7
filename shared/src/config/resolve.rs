//! Which value holds for a database and a user: the settings with their overrides applied.
//!
//! "User" is the pool's server-side user for what concerns servers (pool_mode, pool sizes, max_user_connections, query, transaction and
//! idle_transaction timeouts) and the login user for what concerns clients (max_user_client_connections, client_idle_timeout,
//! query_wait_timeout). Limits of 0 are none; times of zero are disabled, server_lifetime excepted.

use super::{Config, Database, PoolMode, UserSettings};
use crate::auth::demands::Demands;
use std::sync::Arc;
use std::time::Duration;

/// The longest database name, in bytes.
pub const MAX_DATABASE_NAME: usize = 63;
/// The longest user name, in bytes.
pub const MAX_USER_NAME: usize = 127;
/// The names under which clients reach the console.
pub const CONSOLE_DATABASES: [&str; 2] = ["pgbouncer", "pgfleet"];

/// The first limit that is set and above zero.
fn limit(own: Option<u32>, setting: u32) -> u32 {
    own.filter(|n| *n > 0).unwrap_or(setting)
}

/// The first time that is set and above zero.
fn time(own: Option<Duration>, setting: Duration) -> Duration {
    own.filter(|t| !t.is_zero()).unwrap_or(setting)
}

impl Config {
    /// The entry for the database name that a client asks for: its own, else one derived from `*`. `None` for the console's names, for `*`
    /// itself, and for a name that is empty or too long.
    pub fn database(&self, name: &str) -> Option<Arc<Database>> {
        if let Some(database) = self.databases.get(name) {
            return Some(Arc::clone(database));
        }
        if name.is_empty() || name == "*" || name.len() > MAX_DATABASE_NAME || CONSOLE_DATABASES.contains(&name) {
            return None;
        }
        let mut database = Database::clone(self.fallback.as_ref()?);
        name.clone_into(&mut database.name);
        Some(Arc::new(database))
    }

    fn user(&self, user: &str) -> Option<&UserSettings> {
        self.users.get(user).map(Arc::as_ref)
    }

    /// The pool mode: user's, database's, setting's. Replication connections are in session mode whatever this says.
    pub fn pool_mode(&self, database: &Database, user: &str) -> PoolMode {
        self.user(user).and_then(|u| u.pool_mode).or(database.pool_mode).unwrap_or(self.settings.pool_mode)
    }

    /// The most server connections of a pool; 0: no limit.
    pub fn pool_size(&self, database: &Database, user: &str) -> u32 {
        self.user(user).and_then(|u| u.pool_size).or(database.pool_size).unwrap_or(self.settings.default_pool_size)
    }

    /// How many more a pool may have when a client has waited for reserve_pool_timeout.
    pub fn reserve_pool_size(&self, database: &Database, user: &str) -> u32 {
        let own = self.user(user).and_then(|u| u.reserve_pool_size).or(database.reserve_pool_size);
        own.unwrap_or(self.settings.reserve_pool_size)
    }

    /// How many server connections a pool in use keeps.
    pub fn min_pool_size(&self, database: &Database) -> u32 {
        database.min_pool_size.unwrap_or(self.settings.min_pool_size)
    }

    /// What a database's servers must do before they are trusted.
    pub fn demands<'a>(&'a self, database: &'a Database) -> Demands<'a> {
        Demands {
            channel_binding: database.channel_binding.unwrap_or(self.settings.server_channel_binding),
            require_auth: database.require_auth.as_ref().unwrap_or(&self.settings.server_require_auth),
        }
    }

    /// The age at which a server connection is closed; zero: after its first use.
    pub fn server_lifetime(&self, database: &Database) -> Duration {
        time(database.server_lifetime, self.settings.server_lifetime)
    }

    /// The most server connections of a database; 0: no limit.
    pub fn max_db_connections(&self, database: &Database) -> u32 {
        limit(database.max_db_connections, self.settings.max_db_connections)
    }

    /// The most clients of a database; 0: no limit.
    pub fn max_db_client_connections(&self, database: &Database) -> u32 {
        limit(database.max_db_client_connections, self.settings.max_db_client_connections)
    }

    /// The most server connections of a user; 0: no limit.
    pub fn max_user_connections(&self, user: &str) -> u32 {
        limit(self.user(user).and_then(|u| u.max_user_connections), self.settings.max_user_connections)
    }

    /// The most clients of a login user; 0: no limit.
    pub fn max_user_client_connections(&self, user: &str) -> u32 {
        limit(self.user(user).and_then(|u| u.max_user_client_connections), self.settings.max_user_client_connections)
    }

    /// How long a client may wait for a server; `None`: for ever. An override of zero counts.
    pub fn query_wait_timeout(&self, database: &Database, login_user: &str) -> Option<Duration> {
        let own = self.user(login_user).and_then(|u| u.query_wait_timeout).or(database.query_wait_timeout);
        Some(own.unwrap_or(self.settings.query_wait_timeout)).filter(|t| !t.is_zero())
    }

    /// How long a query may run; `None`: for ever.
    pub fn query_timeout(&self, user: &str) -> Option<Duration> {
        let own = self.user(user).and_then(|u| u.query_timeout);
        Some(time(own, self.settings.query_timeout)).filter(|t| !t.is_zero())
    }

    /// How long a transaction may take; `None`: for ever.
    pub fn transaction_timeout(&self, user: &str) -> Option<Duration> {
        let own = self.user(user).and_then(|u| u.transaction_timeout);
        Some(time(own, self.settings.transaction_timeout)).filter(|t| !t.is_zero())
    }

    /// How long a client may be idle in a transaction; `None`: for ever.
    pub fn idle_transaction_timeout(&self, user: &str) -> Option<Duration> {
        let own = self.user(user).and_then(|u| u.idle_transaction_timeout);
        Some(time(own, self.settings.idle_transaction_timeout)).filter(|t| !t.is_zero())
    }

    /// How long a client may be idle outside a transaction; `None`: for ever.
    pub fn client_idle_timeout(&self, login_user: &str) -> Option<Duration> {
        let own = self.user(login_user).and_then(|u| u.client_idle_timeout);
        Some(time(own, self.settings.client_idle_timeout)).filter(|t| !t.is_zero())
    }
}
