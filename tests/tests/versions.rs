//! An upgrade to a build whose messages and shared memory are others, and back: no client notices, and PostgreSQL sees the limit kept.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::upgrading::{disturb, is_upgraded, try_to_disturb, upgrade};
use end_to_end::{Client, Fleet, Postgres, Regulars, SOON, Sampler, frontend, process, program, wait_until};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

const SERVERS: usize = 8;

fn backends(server: &Postgres) -> BTreeSet<i32> {
    let rows = server.admin().query("select pid from pg_stat_activity where usename = 'app'", &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Each of these has something that must go with it.
struct Residents {
    idle: Client,
    in_transaction: Client,
    running: Client,
    backends: [String; 2],
}

impl Residents {
    fn new(fleet: &Fleet) -> Self {
        let [mut idle, mut in_transaction, mut running] = [(); 3].map(|()| fleet.client());
        idle.query("set application_name = 'stays'");
        idle.send(&[frontend::parse("mine", "select 40 + $1::int"), frontend::sync()].concat());
        idle.answer();
        in_transaction.query("begin");
        in_transaction.query("set local search_path = 'nowhere'");
        let pid = "select pg_backend_pid()";
        let backends = [in_transaction.value(pid), {
            running.query("begin");
            running.value(pid)
        }];
        Self { idle, in_transaction, running, backends }
    }

    fn begin_to_run(&mut self) {
        self.running.send(&frontend::query("select pg_sleep(600)"));
    }

    /// What the fleet knows of them has not changed, and their cancel keys find them.
    fn check(&mut self, fleet: &Fleet) {
        self.running.cancel(fleet.port());
        assert_eq!(self.running.answer().error().code(), "57014");
        self.running.query("rollback");
        self.running.query("begin");
        self.backends[1] = self.running.value("select pg_backend_pid()");
        assert_eq!(self.idle.value("show application_name"), "stays");
        let run = [frontend::bind("", "mine", &["2"]), frontend::execute("", 0), frontend::sync()].concat();
        self.idle.send(&run);
        assert_eq!(self.idle.answer().value(), "42");
        assert_eq!(self.in_transaction.value("show search_path"), "nowhere");
        assert_eq!(self.in_transaction.value("select pg_backend_pid()"), self.backends[0]);
    }
}

#[test]
fn there_and_back_under_load() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(2).pool_size(SERVERS).start();
    fleet.all_workers();
    let pid = fleet.pid();
    let mut residents = Residents::new(&fleet);
    let sampler = Sampler::start(&server);
    let regulars = Regulars::start(fleet.port(), 24, "app", Duration::from_millis(5));
    wait_until("the pool to be full", SOON, || backends(&server).len() == SERVERS);
    let before = backends(&server);
    for to in [program::other_binary(), program::binary()] {
        residents.begin_to_run();
        let seen = regulars.answered();
        wait_until("some traffic", SOON, || regulars.answered() > seen + 100);
        let workers = fleet.all_workers();
        let done = upgrade(&fleet, Some(&to));
        assert!(done.status.success(), "{done:?}\n{}", fleet.log());
        is_upgraded(&fleet, &workers);
        residents.check(&fleet);
        assert_eq!((fleet.pid(), backends(&server)), (pid, before.clone()), "{}", fleet.log());
    }
    let visits = regulars.finish();
    assert!(visits.iter().all(|visit| visit.lost.is_none()), "{}", fleet.log());
    assert_eq!(sampler.finish().most, SERVERS as i64);
    let seats = fleet.console().query("show workers").column("draining_seats");
    assert!(seats.iter().all(|seats| seats == "0"), "{seats:?}");
}

/// The workers of the build before had frozen for it.
#[test]
fn a_canary_that_fails_leaves_the_build_before_as_it_was() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(2).pool_size(SERVERS).start();
    let mut residents = Residents::new(&fleet);
    let sampler = Sampler::start(&server);
    let regulars = Regulars::start(fleet.port(), 24, "app", Duration::from_millis(5));
    wait_until("the pool to be full", SOON, || backends(&server).len() == SERVERS);
    let before = backends(&server);
    for fault in [Signal::SIGKILL, Signal::SIGSTOP] {
        residents.begin_to_run();
        let binaries = [program::other_binary(), program::binary()];
        let (output, unmoved) = disturb(&fleet, &[&binaries[0], &binaries[1]], |canary, _| process::signal(canary, fault));
        assert!(String::from_utf8_lossy(&output.stderr).contains("ready"), "{output:?}");
        wait_until("the canary to be gone", SOON, || process::children(fleet.pid()).len() == fleet.worker_count());
        unmoved.check(&fleet);
        residents.check(&fleet);
        let seen = regulars.answered();
        wait_until("traffic to go on", SOON, || regulars.answered() > seen + 100);
    }
    assert_eq!(backends(&server), before);
    let visits = regulars.finish();
    assert!(visits.iter().all(|visit| visit.lost.is_none()), "{}", fleet.log());
    assert_eq!(sampler.finish().most, SERVERS as i64);
}

/// A worker dies under a version with other shared memory, a dead one's backend ends, an administrator leaves; and then that version fails.
/// All their places are free in the memory of the version before.
#[test]
fn what_has_ended_meanwhile_is_free_after_the_way_back() {
    let in_time = (0..20).any(|_| has_ended_meanwhile());
    assert!(in_time, "the canary was always ready before");
}

/// False: the version did not fail.
fn has_ended_meanwhile() -> bool {
    const CLIENTS: usize = 12;
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(2).pool_size(SERVERS).setting("max_client_conn", CLIENTS).start();
    let workers = fleet.all_workers();
    // A backend that cannot be cancelled outlives its worker.
    let mut stopped = fleet.client_at(workers[0]);
    let backend: u32 = stopped.value("select pg_backend_pid()").parse().unwrap();
    process::signal(backend, Signal::SIGSTOP);
    stopped.send(&frontend::query("select 1"));
    let draining = || fleet.console().query("show workers").column("draining_seats");
    process::signal(workers[0], Signal::SIGKILL);
    wait_until("its place to wait for it", SOON, || draining() == ["1", "0"]);
    let dies = fleet.all_workers()[1];
    let (mut inside, console) = (fleet.client_at(dies), Mutex::new(Some(fleet.console())));
    inside.query("begin");
    let has_failed = try_to_disturb(&fleet, &program::other_binary(), |canary, too_late| {
        process::signal(canary, Signal::SIGSTOP);
        if !too_late() {
            process::signal(dies, Signal::SIGKILL);
            drop(console.lock().unwrap().take());
        }
        process::signal(backend, Signal::SIGCONT);
    })
    .is_some();
    process::signal(backend, Signal::SIGCONT);
    if !has_failed {
        return false;
    }
    wait_until("nothing to drain", Duration::from_secs(5), || draining() == ["0", "0"]);
    let mut all = Vec::new();
    wait_until("as many clients as may be", SOON, || {
        let mut client = Client::try_tcp(fleet.port()).unwrap();
        all.extend(client.start(&[("user", "app"), ("database", "app")], None).is_ok().then_some(client));
        all.len() == CLIENTS
    });
    for client in &mut all[..SERVERS] {
        assert_eq!(client.query("begin").status, 'T');
    }
    assert_eq!(backends(&server).len(), SERVERS);
    true
}

/// The supervisor dies while a worker of the build before leaves: its worker and the new one share no limits, and are not adopted together.
#[test]
fn workers_of_two_builds_are_not_mixed() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(1).start();
    let mut client = fleet.client();
    client.query("begin");
    let backend = client.value("select pg_backend_pid()");
    // A paused pool's linked session stays with its worker.
    let mut pausing = fleet.console();
    pausing.send(&frontend::query("pause app"));
    fleet.wait_for_log("PAUSE 'app' command issued");
    let old = fleet.all_workers()[0];
    let mut upgrading = fleet.command(&["upgrade", "--binary", program::other_binary().to_str().unwrap()]).spawn().unwrap();
    fleet.wait_for_log("leaves when its clients have gone");
    let new = process::children(fleet.pid()).into_iter().find(|pid| *pid != old).unwrap();
    fleet.signal(Signal::SIGKILL);
    wait_until("the supervisor to go", SOON, || fleet.has_ended().is_some());
    upgrading.wait().unwrap();
    assert_eq!(fleet.command(&[]).status().unwrap().code(), Some(1));
    let line = fleet.wait_for_log("FATAL workers of two versions serve on");
    assert!(line.contains(&format!("(kill {new}, or kill {old})")), "{line}");
    process::signal(new, Signal::SIGKILL);
    fleet.start_again(|files| files.command(&[]));
    assert_eq!(client.value("select pg_backend_pid()"), backend);
    assert_eq!(client.query("commit").errors.len(), 0);
    fleet.console().query("resume app");
    assert_eq!(client.value("select 1"), "1");
    assert_eq!((client.value("select 2"), fleet.client().value("select 3")), ("2".to_owned(), "3".to_owned()));
}
