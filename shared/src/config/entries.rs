//! The keys of `[databases]`, `[users]` and `[peers]` entries, one row each.

use super::choices::{ChannelBinding, LoadBalanceHosts, PoolMode, SslNegotiation};
use super::field::Field;
use super::kind::Kind;
use super::kind::Kind::{Seconds, Text, Words as WordList};
use super::settings::Effect::Works;
use super::settings::{Key, SetError, default_text, default_value, entry};
use super::table::{choice, int};
use crate::auth::Secret;
use crate::auth::demands::RequireAuth;
use serde::{Deserialize, Serialize};
use std::time::Duration;

const MAX: i64 = i32::MAX as i64;
const PORT: Kind = int(1, 65535, "");

entry! {
    /// A `[databases]` entry: a name that clients may ask for, and where its server connections go.
    Database {
        /// The name clients ask for; `*` for the entry that serves every other name.
        name: String
    }, DATABASE_KEYS {
        dbname: Option<String> = NULL, Text, Works,
            "The database's name in PostgreSQL. Without it: the entry's own name.";
        host: Option<String> = NULL, Text, Works,
            "Where PostgreSQL is: a name, an IPv4 or IPv6 address, the directory of a Unix socket, or several of these separated by commas. Without it: the Unix socket in unix_socket_dir.";
        port: u16 = "5432", PORT, Works,
            "PostgreSQL's port.";
        user: Option<String> = NULL, Text, Works,
            "Every server connection of this entry logs in as this user, so that all its clients share one pool. Without it: each client's own user.";
        password: Option<Secret> = NULL, Kind::Secret, Works,
            "The password of `user`. Without it: the one in auth_file.";
        auth_user: Option<String> = NULL, Text, Works,
            "As the setting, for this database.";
        auth_query: Option<String> = NULL, Text, Works,
            "As the setting, for this database.";
        auth_dbname: Option<String> = NULL, Text, Works,
            "As the setting, for this database.";
        pool_size: Option<u32> = NULL, int(0, MAX, "connections"), Works,
            "Overrides default_pool_size for this database.";
        min_pool_size: Option<u32> = NULL, int(0, MAX, "connections"), Works,
            "As the setting, for this database.";
        reserve_pool_size: Option<u32> = NULL, int(0, MAX, "connections"), Works,
            "As the setting, for this database. Also written `reserve_pool`.";
        max_db_connections: Option<u32> = NULL, int(0, MAX, "connections"), Works,
            "As the setting, for this database; 0 leaves the setting in force.";
        max_db_client_connections: Option<u32> = NULL, int(0, MAX, "connections"), Works,
            "As the setting, for this database; 0 leaves the setting in force.";
        server_lifetime: Option<Duration> = NULL, Seconds, Works,
            "As the setting, for this database; 0 leaves the setting in force.";
        query_wait_timeout: Option<Duration> = NULL, Seconds, Works,
            "As the setting, for this database; 0 lets this database's clients wait for ever.";
        pool_mode: Option<PoolMode> = NULL, choice(PoolMode::WORDS), Works,
            "As the setting, for this database.";
        load_balance_hosts: LoadBalanceHosts = "round-robin", choice(LoadBalanceHosts::WORDS), Works,
            "The order in which the hosts of a list are used.";
        sslnegotiation: SslNegotiation = "postgres", choice(SslNegotiation::WORDS), Works,
            "How TLS with the servers begins, unless server_tls_sslmode is `disable`: `postgres` asks them first, `direct` begins at once, which saves a round trip and needs PostgreSQL 17 or later.";
        channel_binding: Option<ChannelBinding> = NULL, choice(ChannelBinding::WORDS), Works,
            "As the setting server_channel_binding, for this database.";
        require_auth: Option<RequireAuth> = NULL, WordList, Works,
            "As the setting server_require_auth, for this database.";
        connect_query: Option<String> = NULL, Text, Works,
            "Run on every new server connection before its first use.";
        client_encoding: Option<String> = NULL, Text, Works,
            "Asked for when a server connection starts.";
        datestyle: Option<String> = NULL, Text, Works,
            "Asked for when a server connection starts.";
        timezone: Option<String> = NULL, Text, Works,
            "Asked for when a server connection starts.";
        application_name: Option<String> = NULL, Text, Works,
            "Asked for when a server connection starts.";
    }
}

impl Database {
    /// The database's name in PostgreSQL.
    pub fn server_database(&self) -> &str {
        self.dbname.as_deref().unwrap_or(&self.name)
    }

    /// The hosts of its list; none means the Unix socket in unix_socket_dir.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.host.as_deref().unwrap_or("").split(',').map(str::trim).filter(|h| !h.is_empty())
    }
}

entry! {
    /// A `[users]` entry: limits of one user.
    UserSettings {
        /// The user.
        name: String
    }, USER_KEYS {
        pool_mode: Option<PoolMode> = NULL, choice(PoolMode::WORDS), Works,
            "As the setting, for this user's pools.";
        pool_size: Option<u32> = NULL, int(0, MAX, "connections"), Works,
            "Overrides default_pool_size, and the database's pool_size, for this user's pools.";
        reserve_pool_size: Option<u32> = NULL, int(0, MAX, "connections"), Works,
            "As the setting, for this user's pools. Also written `reserve_pool`.";
        max_user_connections: Option<u32> = NULL, int(0, MAX, "connections"), Works,
            "As the setting, for this user; 0 leaves the setting in force.";
        max_user_client_connections: Option<u32> = NULL, int(0, MAX, "connections"), Works,
            "As the setting, for this user; 0 leaves the setting in force.";
        query_timeout: Option<Duration> = NULL, Seconds, Works,
            "As the setting, for this user; 0 leaves the setting in force.";
        query_wait_timeout: Option<Duration> = NULL, Seconds, Works,
            "As the setting, for this user; 0 lets this user's clients wait for ever.";
        idle_transaction_timeout: Option<Duration> = NULL, Seconds, Works,
            "As the setting, for this user; 0 leaves the setting in force.";
        transaction_timeout: Option<Duration> = NULL, Seconds, Works,
            "As the setting, for this user; 0 leaves the setting in force.";
        client_idle_timeout: Option<Duration> = NULL, Seconds, Works,
            "As the setting, for this user; 0 leaves the setting in force.";
    }
}

entry! {
    /// A `[peers]` entry: another fleet behind the same address, to which cancel requests for its clients are forwarded.
    Peer {
        /// Its peer_id.
        id: u16
    }, PEER_KEYS {
        host: Option<String> = NULL, Text, Works,
            "Where it listens: a name, an address, or the directory of its Unix socket. Required.";
        port: u16 = "6432", PORT, Works,
            "Its listen_port.";
        pool_size: Option<u32> = NULL, int(0, MAX, "connections"), Works,
            "The most cancel requests on their way to it at once. Without it: default_pool_size.";
    }
}
