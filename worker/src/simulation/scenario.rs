//! What a run is like: the configuration, the clients, and what goes wrong. Drawn from the seed.

use super::client::Habits;
use rand::RngExt;
use rand::rngs::SmallRng;
use shared::auth::Secret;
use shared::config::{AuthType, Config, Database, PoolMode};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Times are ranges of microseconds to draw from.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) workers: usize,
    pub(super) config: Config,
    pub(super) clients: Vec<Habits>,
    /// From when a worker has something to do until its loop turns.
    pub(super) turn_delay: Range<u64>,
    pub(super) mail_delay: Range<u64>,
    /// Messages between workers may overtake each other.
    pub(super) reorders: bool,
    pub(super) loss_per_mille: u32,
    /// A connection's login in PostgreSQL.
    pub(super) login_time: Range<u64>,
    /// From when a backend is told to end until it has.
    pub(super) linger: Range<u64>,
    /// Something in it can end a client's session.
    pub(super) ends_sessions: bool,
}

/// A name for sockets that no other run uses, in this process or another.
pub(super) fn fresh_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("pgfleet-simulation-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

impl Plan {
    /// Nothing goes wrong.
    pub(super) fn calm(random: &mut SmallRng) -> Self {
        let workers = random.random_range(1..4);
        let mut config = Config { generation: 1, ..Config::default() };
        let settings = &mut config.settings;
        settings.auth_type = AuthType::Trust;
        settings.pool_mode = PoolMode::Transaction;
        settings.default_pool_size = random.random_range(1..5);
        settings.server_idle_timeout = Duration::from_secs(1);
        // Which worker a client is at is the scenario's to say.
        settings.accept_balance = false;
        settings.log_connections = false;
        settings.log_disconnections = false;
        config.secrets.insert("joe".to_owned(), Secret::Plain("x".to_owned()));
        config.databases.insert("shop".to_owned(), Arc::new(Database::new("shop".to_owned())));
        let clients = (0..random.random_range(2..10)).map(|_| Habits {
            database: "shop".to_owned(),
            user: "joe".to_owned(),
            homes: (0..workers).collect(),
            sessions: random.random_range(1..3),
            transactions: random.random_range(1..6),
            delay: Duration::from_micros(random.random_range(0..50_000)),
            think: 100..5_000,
            work: 200..5_000,
            vanishes_per_mille: 0,
        });
        Self {
            workers,
            clients: clients.collect(),
            config,
            turn_delay: 0..200,
            mail_delay: 10..300,
            reorders: false,
            loss_per_mille: 0,
            login_time: 500..5_000,
            linger: 100..10_000,
            ends_sessions: false,
        }
    }

    /// PostgreSQL's socket is in this directory.
    pub(super) fn lead_to(&mut self, directory: &str) {
        for entry in self.config.databases.values_mut() {
            Arc::make_mut(entry).host = Some(directory.to_owned());
        }
    }

    /// After this long without clients everything is at rest.
    pub(super) fn time_to_rest(&self) -> Duration {
        self.config.settings.server_idle_timeout + Duration::from_secs(1)
    }
}
