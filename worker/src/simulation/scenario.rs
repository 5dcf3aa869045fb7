//! What a run is like: the configuration, the clients, and what goes wrong. Drawn from the seed.

use super::client::Habits;
use rand::RngExt;
use rand::rngs::SmallRng;
use shared::auth::Secret;
use shared::config::{AuthType, Config, Database, PoolMode, TABLE};
use shared::ids::Slot;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Times are ranges of microseconds to draw from.
#[derive(Clone)]
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
    /// From a worker's death until it is reaped, and from then until its successor starts.
    pub(super) reap_delay: Range<u64>,
    pub(super) restart_delay: Range<u64>,
    /// What happens, and how long after the beginning.
    pub(super) troubles: Vec<(Duration, Trouble)>,
    /// Something in it can end a client's session.
    pub(super) ends_sessions: bool,
}

/// Something that does not happen every day.
#[derive(Clone)]
pub(super) enum Trouble {
    /// A worker dies: in its next turn before it sends so many messages more, or between two turns.
    Death(Slot, Option<u32>),
    /// A worker gets no turn for so long.
    Hang(Slot, Duration),
    Reload(Box<Config>),
    /// PostgreSQL accepts no connections from now on, and does again.
    Refusing,
    Accepting,
    /// One of the backends crashes: the one at this place, going round.
    Crash(usize),
    /// The fleet moves to another region.
    Upgrade,
}

/// A name for sockets that no other run uses, in this process or another.
pub(super) fn fresh_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("pgfleet-simulation-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

const DATABASES: [&str; 3] = ["shop", "stock", "staff"];
const USERS: [&str; 2] = ["joe", "ann"];

impl Plan {
    /// Nothing goes wrong.
    pub(super) fn calm(random: &mut SmallRng) -> Self {
        let workers = random.random_range(1..5);
        Self {
            workers,
            config: config(random),
            clients: clients(random, workers),
            turn_delay: 0..[50, 200, 2_000][random.random_range(0..3)],
            mail_delay: 10..300,
            reorders: false,
            loss_per_mille: 0,
            login_time: 500..[2_000, 20_000][random.random_range(0..2)],
            linger: 100..[1_000, 20_000][random.random_range(0..2)],
            reap_delay: 0..5_000,
            restart_delay: 0..100_000,
            troubles: Vec::new(),
            ends_sessions: false,
        }
    }

    /// Pools share limits.
    pub(super) fn shared(random: &mut SmallRng) -> Self {
        let mut plan = Self::calm(random);
        share(random, &mut plan.config);
        plan
    }

    /// As many clients as it takes that somebody always waits, for long.
    pub(super) fn saturated(random: &mut SmallRng) -> Self {
        let mut plan = Self::either(random);
        for client in &mut plan.clients {
            (client.sessions, client.transactions, client.think, client.vanishes_per_mille) = (1, 30, 50..500, 0);
        }
        plan
    }

    /// Messages between workers are lost, late, or overtake each other.
    pub(super) fn lossy(random: &mut SmallRng) -> Self {
        let mut plan = Self::either(random);
        plan.workers = plan.workers.max(2);
        // A client that is lost on its way is cut off.
        plan.config.settings.accept_balance = false;
        plan.loss_per_mille = [0, 20, 100, 300][random.random_range(0..4)];
        plan.reorders = random.random_range(0..3) > 0;
        plan.mail_delay = 10..[300, 20_000, 1_000_000][random.random_range(0..3)];
        plan
    }

    /// Workers die.
    pub(super) fn deadly(random: &mut SmallRng) -> Self {
        let mut plan = Self::either(random);
        plan.ends_sessions = true;
        for _ in 0..random.random_range(1..5) {
            let slot = Slot(random.random_range(0..plan.workers) as u8);
            let sends = if random.random_range(0..3) == 0 { None } else { Some(random.random_range(0..4)) };
            plan.trouble(random, Trouble::Death(slot, sends));
        }
        if random.random_range(0..3) == 0 {
            plan.loss_per_mille = 50;
            plan.reorders = true;
        }
        plan
    }

    /// Workers hang.
    pub(super) fn hanging(random: &mut SmallRng) -> Self {
        let mut plan = Self::either(random);
        plan.workers = plan.workers.max(2);
        for _ in 0..random.random_range(1..4) {
            let slot = Slot(random.random_range(0..plan.workers) as u8);
            let most = [50, 500, 5_000][random.random_range(0..3)];
            let time = ms(random.random_range(1..most));
            plan.trouble(random, Trouble::Hang(slot, time));
        }
        plan
    }

    /// The configuration changes.
    pub(super) fn reloading(random: &mut SmallRng) -> Self {
        let mut plan = Self::either(random);
        for _ in 0..random.random_range(1..4) {
            let mut config = plan.config.clone();
            resize(random, &mut config);
            plan.trouble(random, Trouble::Reload(Box::new(config)));
        }
        plan
    }

    /// PostgreSQL refuses connections for a while, and backends crash.
    pub(super) fn failing(random: &mut SmallRng) -> Self {
        let mut plan = Self::either(random);
        plan.ends_sessions = true;
        if random.random_range(0..2) == 0 {
            let begin = ms(random.random_range(1..60));
            plan.troubles.push((begin, Trouble::Refusing));
            plan.troubles.push((begin + ms(random.random_range(1..800)), Trouble::Accepting));
        }
        for _ in 0..random.random_range(0..4) {
            let nth = random.random_range(0..8);
            plan.trouble(random, Trouble::Crash(nth));
        }
        plan
    }

    /// The fleet is upgraded; a worker may die meanwhile.
    pub(super) fn upgrading(random: &mut SmallRng) -> Self {
        let mut plan = Self::either(random);
        let (at, workers) = (ms(random.random_range(1..60)), plan.workers);
        plan.troubles.push((at, Trouble::Upgrade));
        for _ in 0..random.random_range(0..3) {
            plan.ends_sessions = true;
            let slot = Slot(random.random_range(0..2 * workers) as u8);
            let sends = Some(random.random_range(0..6));
            plan.troubles.push((at + ms(random.random_range(0..120)), Trouble::Death(slot, sends)));
        }
        plan
    }

    /// The fleet is upgraded, and nothing else happens.
    pub(super) fn upgrading_calmly(random: &mut SmallRng) -> Self {
        let mut plan = Self::either(random);
        plan.troubles.push((ms(random.random_range(1..60)), Trouble::Upgrade));
        plan
    }

    fn either(random: &mut SmallRng) -> Self {
        if random.random_range(0..2) == 0 { Self::calm(random) } else { Self::shared(random) }
    }

    fn trouble(&mut self, random: &mut SmallRng, trouble: Trouble) {
        let most = [30, 100, 400][random.random_range(0..3)];
        self.troubles.push((ms(random.random_range(1..most)), trouble));
    }

    /// Messages between workers arrive soon, in their order.
    pub(super) fn is_reliable(&self) -> bool {
        self.loss_per_mille == 0
            && !self.reorders
            && Duration::from_micros(self.mail_delay.end) < self.config.settings.fairness_slack
    }

    /// Nothing happens that would have workers ask in vain.
    pub(super) fn is_undisturbed(&self) -> bool {
        self.is_reliable() && self.troubles.is_empty()
    }

    /// The longest that a client keeps a server.
    pub(super) fn hold(&self) -> Duration {
        let of = |client: &Habits| {
            // Up to four queries; each is read and answered in two workers' turns at most.
            let transaction = 4 * (client.work.end + 2 * self.turn_delay.end) + 3 * (client.think.end / 10 + 1);
            let session = u64::from(client.transactions) * (transaction + client.think.end);
            Duration::from_micros(if self.config.settings.pool_mode == PoolMode::Session { session } else { transaction })
        };
        self.clients.iter().map(of).max().unwrap_or_default()
    }

    /// How many pools the clients have.
    pub(super) fn pools(&self) -> usize {
        let pools: BTreeSet<_> = self.clients.iter().map(|client| (&client.database, &client.user)).collect();
        pools.len()
    }

    /// For whoever looks at one run.
    pub(super) fn describe(&self) -> String {
        let own = Config::default().settings;
        let settings = TABLE.iter().map(|row| row.name).filter(|name| self.config.settings.value(name) != own.value(name));
        let settings = settings.map(|name| format!("{name} = {}", self.config.settings.value(name).unwrap_or_default()));
        let entries = self
            .config
            .databases
            .values()
            .map(|entry| format!("{}: min_pool_size {:?}, user {:?}", entry.name, entry.min_pool_size, entry.user));
        let clients = self.clients.iter().enumerate().map(|(index, client)| format!("client {index}: {client:?}"));
        let Self { turn_delay, mail_delay, login_time, linger, .. } = self;
        let times = format!("turn {turn_delay:?}, mail {mail_delay:?}, login {login_time:?}, linger {linger:?}");
        settings.chain(entries).chain(clients).chain([times]).collect::<Vec<_>>().join("\n")
    }

    /// After this long without clients everything is at rest: what was lent is taken back, and what is idle is closed.
    pub(super) fn time_to_rest(&self) -> Duration {
        let late = if self.is_undisturbed() { 500 } else { 3_500 };
        self.config.settings.server_idle_timeout + ms(late) + Duration::from_micros(2 * self.mail_delay.end)
    }
}

/// The configuration with PostgreSQL's socket in this directory.
pub(super) fn leading(mut config: Config, directory: &str) -> Config {
    for entry in config.databases.values_mut() {
        Arc::make_mut(entry).host = Some(directory.to_owned());
    }
    config
}

fn config(random: &mut SmallRng) -> Config {
    let mut config = Config { generation: 1, ..Config::default() };
    let settings = &mut config.settings;
    settings.auth_type = AuthType::Trust;
    settings.pool_mode = if random.random_range(0..4) == 0 { PoolMode::Session } else { PoolMode::Transaction };
    settings.default_pool_size = random.random_range(1..5);
    settings.server_idle_timeout = ms([300, 1000][random.random_range(0..2)]);
    settings.server_login_retry = ms(300);
    settings.accept_balance = random.random_range(0..2) == 0;
    settings.server_round_robin = random.random_range(0..2) == 0;
    if random.random_range(0..4) == 0 {
        settings.server_check_delay = ms([0, 5][random.random_range(0..2)]);
    }
    let short_lived = random.random_range(0..6) == 0;
    if short_lived {
        settings.server_lifetime = ms([0, 50][random.random_range(0..2)]);
    }
    if random.random_range(0..3) == 0 {
        settings.reserve_pool_size = random.random_range(1..3);
        settings.reserve_pool_timeout = ms([5, 50][random.random_range(0..2)]);
    }
    settings.log_connections = false;
    settings.log_disconnections = false;
    settings.log_pooler_errors = false;
    for user in USERS {
        config.secrets.insert(user.to_owned(), Secret::Plain("x".to_owned()));
    }
    let forced = random.random_range(0..4) == 0;
    for name in DATABASES {
        let mut entry = Database::new(name.to_owned());
        // A minimum of connections that live short is opened anew for ever.
        if !short_lived && random.random_range(0..3) == 0 {
            entry.min_pool_size = Some(random.random_range(1..4));
            entry.user = forced.then(|| USERS[0].to_owned());
        }
        config.databases.insert(name.to_owned(), Arc::new(entry));
    }
    config
}

/// Limits that several pools share.
fn share(random: &mut SmallRng, config: &mut Config) {
    let mut limit = || if random.random_range(0..2) == 0 { random.random_range(1..5) } else { 0 };
    let settings = &mut config.settings;
    settings.max_db_connections = limit();
    settings.max_user_connections = limit();
    settings.max_host_connections = limit();
}

/// Other sizes and limits.
fn resize(random: &mut SmallRng, config: &mut Config) {
    let settings = &mut config.settings;
    settings.default_pool_size = random.random_range(1..6);
    settings.reserve_pool_size = random.random_range(0..3);
    for limit in [&mut settings.max_db_connections, &mut settings.max_user_connections, &mut settings.max_host_connections] {
        if *limit > 0 || random.random_range(0..3) == 0 {
            *limit = random.random_range(0..6);
        }
    }
    for entry in config.databases.values_mut() {
        if random.random_range(0..3) == 0 {
            let entry = Arc::make_mut(entry);
            entry.min_pool_size = entry.min_pool_size.map(|_| random.random_range(0..4));
            entry.pool_size = Some(random.random_range(1..4));
        }
    }
}

fn clients(random: &mut SmallRng, workers: usize) -> Vec<Habits> {
    let (databases, users) = (random.random_range(1..=DATABASES.len()), random.random_range(1..=USERS.len()));
    let skewed = random.random_range(0..3) == 0;
    let busy = [1_000, 5_000, 50_000][random.random_range(0..3)];
    let count = random.random_range(2..12);
    let client = |number| {
        // All but a few at one worker, or everybody anywhere.
        let homes = if skewed && random.random_range(0..5) > 0 { vec![0] } else { (0..workers).collect() };
        Habits {
            database: DATABASES[random.random_range(0..databases)].to_owned(),
            user: USERS[random.random_range(0..users)].to_owned(),
            name: (random.random_range(0..4) == 0).then(|| format!("app{number}")),
            homes,
            sessions: random.random_range(1..4),
            transactions: random.random_range(0..6),
            delay: Duration::from_micros(random.random_range(0..50_000)),
            think: 100..busy,
            work: 200..5_000,
            vanishes_per_mille: if random.random_range(0..4) == 0 { 100 } else { 0 },
        }
    };
    (0..count).map(client).collect()
}
