//! The worker that hands its sessions over is killed in the middle of it, or the one that takes them: what it has just then ends, and nothing else.

use end_to_end::tls::{Authority, TLS12, TLS13};
use end_to_end::{Client, Fleet, Postgres, Regulars, SOON, Sampler, frontend, process, wait_for, wait_until};
use nix::sys::signal::Signal;
use std::collections::HashSet;
use std::io::{BufRead, ErrorKind};
use std::time::{Duration, Instant};

const SERVERS: usize = 16;
const SESSIONS: usize = 240;
const REGULARS: usize = 8;
const CLIENTS: usize = SESSIONS + REGULARS + 10;

/// Whose end it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Old,
    New,
}

/// What a session is in the middle of.
#[derive(Debug, Clone, Copy)]
enum Doing {
    Nothing,
    Transaction,
    Query,
    Copy,
}

/// A session with a name that nobody else has.
struct Member {
    client: Client,
    name: String,
    doing: Doing,
    /// The worker that accepted it.
    worker: u32,
}

impl Member {
    fn new(fleet: &Fleet, authority: &Authority, number: usize) -> Member {
        let mut client = match number % 4 {
            0 => Client::tls(fleet.port(), &authority.client(&TLS13, None)),
            1 => Client::tls(fleet.port(), &authority.client(&TLS12, None)),
            _ => Client::tcp(fleet.port()),
        };
        let name = format!("session {number}");
        client.start(&[("user", "app"), ("database", "app"), ("application_name", &name)], None).unwrap();
        let doing = match number {
            0..4 => Doing::Transaction,
            4..8 => Doing::Query,
            8..10 => Doing::Copy,
            _ => Doing::Nothing,
        };
        match doing {
            Doing::Nothing => {}
            Doing::Transaction => {
                assert_eq!(client.query("begin; create temporary table mine on commit drop as select 42 as x").status, 'T');
            }
            Doing::Query => client.send(&frontend::query("select 'slept' from pg_sleep(0.5)")),
            Doing::Copy => client.send(&frontend::query("copy (select generate_series(1, 300000)) to stdout")),
        }
        let worker = fleet.worker_of(&client);
        Member { client, name, doing, worker }
    }

    /// Ends what it was in the middle of; true if it is as it was, false if its connection is lost. Anything else panics.
    fn is_itself(&mut self) -> bool {
        let Self { client, name, doing, .. } = self;
        let mut ask = |sql: Option<&str>| {
            if sql.is_some_and(|sql| client.try_send(&frontend::query(sql)).is_err()) {
                return None;
            }
            let answer = match client.try_answer() {
                Ok(answer) => answer?,
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => return None,
                Err(error) => panic!("{name} is left hanging: {error}"),
            };
            assert!(answer.errors.is_empty(), "{name}, {doing:?}: {answer:?}");
            Some(answer)
        };
        let goes_on = match doing {
            Doing::Nothing => true,
            Doing::Transaction => {
                ask(Some("select x from mine")).is_some_and(|answer| answer.value() == "42") && ask(Some("commit")).is_some()
            }
            Doing::Query => ask(None).is_some_and(|answer| answer.value() == "slept"),
            Doing::Copy => ask(None).is_some_and(|answer| answer.copied.lines().count() == 300_000),
        };
        goes_on && ask(Some("show application_name")).is_some_and(|answer| answer.value() == name)
    }
}

/// The process that will be replaced first.
fn first(fleet: &Fleet) -> u32 {
    let workers = fleet.console().query("show workers");
    let mut rows: Vec<(u32, u32)> = workers
        .column("slot")
        .iter()
        .zip(workers.column("pid"))
        .map(|(slot, pid)| (slot.parse().unwrap(), pid.parse().unwrap()))
        .collect();
    rows.sort_unstable();
    rows[0].1
}

/// Kills one of the two when the old worker has only so many of its descriptors left; returns how many descriptors the victim had. `None`: the old one was
/// too quick, and has left.
fn kill(fleet: &Fleet, victim: Victim, old: u32, before: &[u32], left: f64) -> Option<usize> {
    let new = wait_for("a successor", SOON, || fleet.workers().into_iter().find(|pid| !before.contains(pid)));
    let limit = (process::descriptors(old) as f64 * left) as usize;
    let deadline = Instant::now() + SOON;
    // Not by `wait_until`, which looks too seldom.
    while process::descriptors(old) > limit {
        assert!(Instant::now() < deadline, "it hands over its sessions");
    }
    let pid = if victim == Victim::Old { old } else { new };
    process::signal(pid, Signal::SIGSTOP);
    wait_until("it to stop", SOON, || process::is_stopped(pid) || !process::is_alive(pid));
    let in_the_middle = process::is_alive(old);
    let had = process::descriptors(pid);
    process::signal(pid, Signal::SIGKILL);
    in_the_middle.then_some(had)
}

/// One restart with a death in it. False: the death came too late.
fn round(server: &Postgres, fleet: &Fleet, authority: &Authority, victim: Victim, left: f64) -> bool {
    let mut members: Vec<Member> = (0..SESSIONS).map(|number| Member::new(fleet, authority, number)).collect();
    let (old, before) = (first(fleet), fleet.all_workers());
    let had = std::thread::scope(|scope| {
        scope.spawn(|| fleet.console().query("restart"));
        kill(fleet, victim, old, &before, left)
    });
    let lost: HashSet<usize> = (0..SESSIONS).filter(|&number| !members[number].is_itself()).collect();
    println!("{victim:?} killed with {left:.2} left: {} of {SESSIONS} sessions lost, descriptors {had:?}", lost.len());
    if let Some(had) = had {
        assert!(lost.len() <= had, "no more are lost than it had");
        for &number in &lost {
            assert_eq!(members[number].worker, old, "{number} was never the victim's");
        }
    }
    wait_until("the fleet to be whole", SOON, || {
        let workers = fleet.console().query("show workers");
        workers.column("state") == ["serving", "serving"] && workers.column("draining_seats") == ["0", "0"]
    });
    // A key is good wherever its session is now.
    let mut survivors = members.iter_mut().enumerate().filter(|(number, _)| !lost.contains(number));
    let (_, member) = survivors.next_back().expect("somebody goes on");
    member.client.send(&frontend::query("select pg_sleep(60)"));
    let active = "select from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'";
    wait_until("the query to run", SOON, || !server.admin().query(active, &[]).unwrap().is_empty());
    member.client.cancel(fleet.port());
    assert_eq!(member.client.answer().error().code(), "57014");
    had.is_some()
}

/// Every server, and every client's place, is there for others.
fn nothing_is_lost(fleet: &Fleet) {
    wait_until("all clients to be gone", SOON, || fleet.console().query("show workers").column("clients") == ["0", "0"]);
    let mut clients: Vec<Client> = (0..SERVERS).map(|_| fleet.client()).collect();
    for client in &mut clients {
        assert_eq!(client.query("begin").status, 'T', "the pool still fills");
    }
    clients.extend((SERVERS..CLIENTS).map(|_| fleet.client()));
    let refused = Client::tcp(fleet.port()).start(&[("user", "app"), ("database", "app")], None).unwrap_err();
    assert_eq!(refused.text(), "no more connections allowed (max_client_conn)");
}

fn killed_in_the_middle(victim: Victim) {
    let authority = Authority::new();
    let server = Postgres::start_with(&authority.postgres("server"));
    let fleet = Fleet::builder(&server)
        .workers(2)
        .pool_size(SERVERS)
        .setting("max_client_conn", CLIENTS)
        .client_tls(&authority, "allow")
        .server_tls(&authority, "verify-full")
        .start();
    fleet.all_workers();
    let sampler = Sampler::start(&server);
    let mut hits = 0;
    for _ in 0..12 {
        let regulars = Regulars::start(fleet.port(), REGULARS, "app", Duration::from_millis(5));
        hits += u32::from(round(&server, &fleet, &authority, victim, rand::random_range(0.4..0.98)));
        regulars.finish();
        nothing_is_lost(&fleet);
        if hits == 3 {
            break;
        }
    }
    assert!(hits > 0, "each time it was too late");
    assert_eq!(sampler.finish().most, SERVERS as i64);
}

#[test]
fn the_old_worker_is_killed_in_the_middle_of_a_hand_over() {
    killed_in_the_middle(Victim::Old);
}

#[test]
fn the_new_worker_is_killed_in_the_middle_of_a_hand_over() {
    killed_in_the_middle(Victim::New);
}
