//! A worker is killed while its servers are busy with something: their seats stay taken until their backends are gone, and no longer.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Builder, Client, Fleet, PoolMode, Postgres, SOON, Sampler, backends, frontend, process, wait_until};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

const SERVERS: usize = 4;
/// For what takes some ten milliseconds on a quiet machine; what waits for a grace to be over takes longer.
const PROMPT: Duration = Duration::from_secs(5);
/// Within this all seats of a worker that did nothing are used again. Other tests' load may delay one kill, but not each of several.
const AT_ONCE: Duration = Duration::from_millis(100);

/// A full pool of two workers: all servers belong to clients of the one that is to be killed, as many clients of the other wait.
struct Scene {
    fleet: Fleet,
    victim: u32,
    lost: Vec<Client>,
    waiting: Vec<Client>,
    console: Client,
    admin: postgres::Client,
    sampler: Sampler,
}

impl Scene {
    fn new(server: &Postgres, build: impl Fn(Builder) -> Builder) -> Self {
        let fleet = build(Fleet::builder(server).workers(2).pool_size(SERVERS)).start();
        let workers = fleet.all_workers();
        let at = |pid| (0..SERVERS).map(|_| fleet.client_at(pid)).collect();
        let (lost, waiting) = (at(workers[0]), at(workers[1]));
        let (console, admin, sampler) = (fleet.console(), server.admin(), Sampler::start(server));
        Self { fleet, victim: workers[0], lost, waiting, console, admin, sampler }
    }

    /// How many of the fleet's backends `condition` holds for.
    fn count(&mut self, condition: &str) -> usize {
        let sql = format!("select count(*) from pg_stat_activity where usename = 'app' and {condition}");
        self.admin.query_one(&sql, &[]).unwrap().get::<_, i64>(0) as usize
    }

    fn wait_for_all(&mut self, condition: &str) {
        wait_until(condition, SOON, || self.count(condition) == SERVERS);
    }

    fn column(&mut self, name: &str) -> u32 {
        self.console.query("show workers").column(name).iter().map(|seats| seats.parse::<u32>().unwrap()).sum()
    }

    /// Closes what the first logins have opened.
    fn begin_without_servers(&mut self) {
        assert_eq!(self.console.query("reconnect app").tags, ["RECONNECT"]);
        wait_until("no backend", SOON, || self.count("true") == 0);
    }

    fn queued(&mut self) -> usize {
        self.console.query("show pools").lookup("user", "app", "cl_waiting").parse().unwrap()
    }

    fn wait_for_queue(&mut self) {
        let others = self.queued();
        for client in &mut self.waiting {
            client.send(&frontend::query("begin"));
        }
        wait_until("all others to wait", SOON, || self.queued() == others + SERVERS);
    }

    fn kill(&self) -> Instant {
        let now = Instant::now();
        process::signal(self.victim, Signal::SIGKILL);
        now
    }

    /// Every client that waits has a server within `limit` of the kill; there is no seat that is not used, and never was a backend too many.
    /// Returns when the last one had its server.
    #[track_caller]
    fn assert_freed(mut self, what: &str, killed: Instant, limit: Duration) -> Duration {
        let mut took = Vec::new();
        for client in &mut self.waiting {
            client.patience(limit);
            assert_eq!(client.answer().status, 'T', "{what}");
            took.push(killed.elapsed());
        }
        println!("{what}: seats were used again after {took:?}");
        wait_until("no draining seat", SOON, || self.column("draining_seats") == 0);
        assert_eq!(backends(&mut self.admin), SERVERS as i64, "{what}");
        for mut client in self.lost {
            while let Ok(Some(_)) = client.try_read() {}
        }
        let seen = self.sampler.finish();
        assert!(seen.most <= SERVERS as i64, "{what}: {seen:?}");
        assert_eq!(self.fleet.logged("its place is given up"), 0, "{what}");
        took.into_iter().max().unwrap()
    }
}

/// Puts every client of the victim into a state, kills it, and looks how long its seats stay taken.
#[track_caller]
fn killed_while(what: &str, build: impl Fn(Builder) -> Builder, begin: impl Fn(&mut Client), condition: &str) {
    let server = Postgres::start();
    server.admin().batch_execute("create table filled (line text); grant all on filled to app").unwrap();
    let mut scene = Scene::new(&server, build);
    scene.lost.iter_mut().for_each(begin);
    scene.wait_for_all(condition);
    scene.wait_for_queue();
    let killed = scene.kill();
    scene.assert_freed(what, killed, PROMPT);
}

fn send(sql: &str) -> impl Fn(&mut Client) {
    move |client| client.send(&frontend::query(sql))
}

#[test]
fn idle() {
    let server = Postgres::start();
    let kill = || {
        wait_until("no backend", SOON, || backends(&mut server.admin()) == 0);
        let mut scene = Scene::new(&server, |builder| builder);
        for client in &mut scene.lost {
            client.query("begin");
        }
        for client in &mut scene.lost {
            client.query("commit");
        }
        scene.wait_for_all("state = 'idle'");
        let killed = scene.kill();
        for client in &mut scene.waiting {
            client.send(&frontend::query("begin"));
        }
        scene.assert_freed("idle", killed, PROMPT)
    };
    let best = (0..5).map(|_| kill()).min().unwrap();
    assert!(best < AT_ONCE, "the seats were used again after {best:?} at best");
}

#[test]
fn idle_in_transaction() {
    killed_while(
        "idle in transaction",
        |b| b,
        |client| assert_eq!(client.query("begin").status, 'T'),
        "state = 'idle in transaction'",
    );
}

#[test]
fn running_a_query() {
    killed_while("a query", |b| b, send("select pg_sleep(60)"), "wait_event = 'PgSleep'");
}

#[test]
fn running_a_query_behind_a_unix_socket() {
    let server = Postgres::start();
    let entry = format!("host={} port={}", server.socket_dir().display(), server.port());
    let mut scene = Scene::new(&server, |builder| builder.database("app", &entry));
    scene.lost.iter_mut().for_each(send("select pg_sleep(60)"));
    scene.wait_for_all("wait_event = 'PgSleep' and client_addr is null");
    scene.wait_for_queue();
    let killed = scene.kill();
    scene.assert_freed("a query behind a Unix socket", killed, PROMPT);
}

#[test]
fn copying_in() {
    let copy = |client: &mut Client| {
        client.send(&frontend::query("copy filled from stdin"));
        assert_eq!(client.read().kind, b'G');
        client.send(&frontend::copy_data(b"one\n"));
        // And the beginning of another.
        client.send(b"d\0\0\0\x80two");
    };
    killed_while("COPY IN", |b| b, copy, "state = 'active' and wait_event = 'ClientRead'");
}

/// The result does not fit into the sockets between, and the client does not read it.
#[test]
fn blocked_writing_a_large_result() {
    let large = "select repeat(md5(number::text), 32) from generate_series(1, 3000000) number";
    killed_while("a blocked result", |b| b, send(large), "wait_event = 'ClientWrite'");
}

#[test]
fn waiting_for_a_lock() {
    let server = Postgres::start();
    server.admin().batch_execute("create table held (line text); grant all on held to app").unwrap();
    let mut holder = server.admin();
    let mut transaction = holder.transaction().unwrap();
    transaction.batch_execute("lock table held").unwrap();
    let mut scene = Scene::new(&server, |builder| builder);
    scene.lost.iter_mut().for_each(send("select * from held"));
    scene.wait_for_all("wait_event_type = 'Lock'");
    scene.wait_for_queue();
    let killed = scene.kill();
    scene.assert_freed("a lock", killed, PROMPT);
}

/// Each query has to be cancelled by itself: the one that comes next is in the backend's hands already.
#[test]
fn running_a_pipeline() {
    let pipeline = |client: &mut Client| {
        let batch = frontend::extended("select pg_sleep(60)", &[]);
        client.send(&batch.repeat(3));
    };
    killed_while("a pipeline", |b| b, pipeline, "wait_event = 'PgSleep'");
}

/// The first cancel is swallowed.
#[test]
fn running_a_function_that_goes_on_when_it_is_cancelled() {
    let stubborn = "do $$ begin perform pg_sleep(60); exception when query_canceled then perform pg_sleep(60); end $$";
    killed_while("a stubborn function", |b| b, send(stubborn), "wait_event = 'PgSleep'");
}

/// The client has left; server_reset_query is at work.
#[test]
fn being_reset() {
    let build = |builder: Builder| builder.pool_mode(PoolMode::Session).setting("server_reset_query", "select pg_sleep(60)");
    let leave = |client: &mut Client| {
        assert_eq!(client.value("select 1"), "1");
        client.send(&frontend::terminate());
    };
    let server = Postgres::start();
    let mut scene = Scene::new(&server, build);
    scene.lost.iter_mut().for_each(leave);
    scene.wait_for_all("wait_event = 'PgSleep'");
    scene.wait_for_queue();
    let killed = scene.kill();
    scene.assert_freed("a reset", killed, PROMPT);
}

/// A query of nobody's: connect_query.
#[test]
fn being_prepared() {
    let server = Postgres::start();
    let entry = format!(
        "host=127.0.0.1 port={} connect_query='select pg_sleep(case when exists (select from slow) then 60 else 0 end)'",
        server.port()
    );
    let mut admin = server.admin();
    admin.batch_execute("create table slow (); grant all on slow to app").unwrap();
    let mut scene = Scene::new(&server, |builder| builder.database("app", &entry));
    scene.begin_without_servers();
    admin.batch_execute("insert into slow default values").unwrap();
    scene.lost.iter_mut().for_each(send("begin"));
    scene.wait_for_all("wait_event = 'PgSleep'");
    admin.batch_execute("delete from slow").unwrap();
    scene.wait_for_queue();
    let killed = scene.kill();
    scene.assert_freed("connect_query", killed, PROMPT);
}

/// As long as PostgreSQL does nothing, so long do the seats stay taken, and SHOW WORKERS tells of them.
#[test]
fn a_backend_that_cannot_be_cancelled_yet() {
    let server = Postgres::start();
    let mut scene = Scene::new(&server, |builder| builder);
    scene.lost.iter_mut().for_each(send("select pg_sleep(60)"));
    scene.wait_for_all("wait_event = 'PgSleep'");
    scene.wait_for_queue();
    server.freeze();
    scene.kill();
    wait_until("the seats to drain", SOON, || scene.column("draining_seats") == SERVERS as u32);
    for client in &mut scene.waiting {
        client.expect_silence(Duration::from_millis(300));
    }
    assert_eq!((scene.column("draining_seats"), scene.count("true")), (SERVERS as u32, SERVERS));
    server.thaw();
    scene.assert_freed("a frozen postmaster", Instant::now(), PROMPT);
}

/// The connections are there and PostgreSQL has not taken them yet: the backends are still to come.
#[test]
fn in_the_middle_of_the_login() {
    let server = Postgres::start();
    let mut scene = Scene::new(&server, |builder| builder);
    scene.begin_without_servers();
    server.freeze();
    scene.lost.iter_mut().for_each(send("begin"));
    let logging_in = SERVERS.to_string();
    wait_until("all to log in", SOON, || scene.console.query("show pools").lookup("user", "app", "sv_login") == logging_in);
    for client in &mut scene.waiting {
        client.send(&frontend::query("begin"));
    }
    scene.kill();
    wait_until("the seats to drain", SOON, || scene.column("draining_seats") == SERVERS as u32);
    for client in &mut scene.waiting {
        client.expect_silence(Duration::from_millis(500));
    }
    assert_eq!(scene.column("draining_seats"), SERVERS as u32, "longer than a connection without a duplicate would be");
    server.thaw();
    scene.assert_freed("a login", Instant::now(), PROMPT);
}

/// What the worker sent of its sockets is read when it is dead already.
#[test]
fn while_the_duplicates_are_on_their_way_to_the_supervisor() {
    let server = Postgres::start();
    let mut scene = Scene::new(&server, |builder| builder);
    scene.fleet.signal(Signal::SIGSTOP);
    scene.lost.iter_mut().for_each(send("select pg_sleep(60)"));
    scene.wait_for_all("wait_event = 'PgSleep'");
    for client in &mut scene.waiting {
        client.send(&frontend::query("begin"));
    }
    scene.kill();
    for client in &mut scene.waiting {
        client.expect_silence(Duration::from_millis(100));
    }
    assert_eq!(scene.count("true"), SERVERS);
    scene.fleet.signal(Signal::SIGCONT);
    scene.assert_freed("duplicates under way", Instant::now(), PROMPT);
}
