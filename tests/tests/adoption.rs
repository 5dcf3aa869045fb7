//! The supervisor is killed, and another one goes on with its workers.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Client, Fleet, Postgres, Regulars, SOON, Sampler, backends, frontend, process, wait_for, wait_until};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const SERVERS: usize = 12;

/// The supervisor is killed.
fn kill(fleet: &mut Fleet) {
    fleet.signal(Signal::SIGKILL);
    wait_until("the supervisor to go", SOON, || fleet.has_ended().is_some());
}

/// Another one is started in its place.
fn adopt(fleet: &mut Fleet) {
    fleet.start_again(|files| files.command(&[]));
}

/// The pids of the workers, by slot, as the supervisor knows them.
fn workers(fleet: &Fleet) -> Vec<u32> {
    fleet.console().query("show workers").column("pid").iter().filter_map(|pid| pid.parse().ok()).collect()
}

/// Waits until the reload that follows an adoption is over.
fn wait_for_reload(fleet: &Fleet, count: usize) {
    wait_until("the configuration to be in force", SOON, || fleet.logged("RELOAD done") >= count);
}

/// What a worker had that died without a supervisor: nobody holds a duplicate of its sockets, so that only time frees its seats.
fn wait_for_orphans(fleet: &Fleet) {
    let mut console = fleet.console();
    wait_until("its seats to be free", Duration::from_secs(60), || {
        console.query("show workers").column("draining_seats").iter().all(|seats| seats == "0")
    });
}

/// As many transactions at once as there are to be, and not one more.
#[track_caller]
fn assert_exactly(fleet: &Fleet, server: &Postgres, size: usize) {
    let mut clients: Vec<Client> = (0..size).map(|_| fleet.client()).collect();
    for client in &mut clients {
        assert_eq!(client.query("begin").status, 'T', "the fleet still fills to {size}");
    }
    let mut waiting = fleet.client();
    waiting.send(&frontend::query("select 'in turn'"));
    let mut console = fleet.console();
    wait_until("the one too many to queue", SOON, || console.query("show pools").lookup("user", "app", "cl_waiting") == "1");
    assert_eq!(backends(&mut server.admin()), size as i64);
    drop(clients.pop());
    assert_eq!(waiting.answer().value(), "in turn");
}

fn control_dir(fleet: &Fleet) -> PathBuf {
    fleet.folder().join(format!(".s.PGFLEET.{}", fleet.port()))
}

#[test]
fn a_second_fleet_is_told_the_first_ones_pid() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).start();
    assert_eq!(fleet.command(&[]).status().unwrap().code(), Some(1));
    fleet.wait_for_log(&format!("FATAL another fleet runs on this configuration: pid {}", fleet.pid()));
    assert_eq!(fleet.client().value("select 1"), "1", "it has touched nothing of the first one's");
    assert_eq!(fleet.console().query("show workers").column("slot").len(), fleet.worker_count());
    fleet.signal(Signal::SIGQUIT);
    fleet.wait_for_exit();
    assert!(!control_dir(&fleet).exists());
}

#[test]
fn a_control_directory_of_others_is_refused() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).start();
    let directory = control_dir(&fleet);
    fleet.signal(Signal::SIGQUIT);
    fleet.wait_for_exit();
    std::fs::create_dir(&directory).unwrap();
    std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o700)).unwrap();
    let refused = |fleet: &Fleet, why: &str| {
        assert_eq!(fleet.command(&[]).status().unwrap().code(), Some(1));
        let line = fleet.wait_for_log(&format!("FATAL control directory {}: {why}", directory.display()));
        assert!(line.contains("must be a directory of user"), "{line}");
    };
    if nix::unistd::geteuid().is_root() {
        refused(&fleet, "owner 0, mode 0700");
    }
    std::fs::remove_dir(&directory).unwrap();
    std::os::unix::fs::symlink("/tmp", &directory).unwrap();
    refused(&fleet, "no directory, or a symbolic link");
    std::fs::remove_file(&directory).unwrap();
    fleet.start_again(|files| files.command(&[]));
    std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o750)).unwrap();
    refused(&fleet, "owner");
}

/// There is a socket that answers, and nobody to be told.
#[test]
fn a_start_as_pgbouncer_spells_an_upgrade_adopts_too() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(2).start();
    let before = fleet.all_workers();
    let mut client = fleet.client();
    assert_eq!(client.query("begin").status, 'T');
    kill(&mut fleet);
    fleet.start_again(|files| files.command(&["-R"]));
    wait_for_reload(&fleet, 1);
    assert_eq!(workers(&fleet), before);
    assert_eq!(client.query("commit").errors.len(), 0);
}

/// Everything that clients do goes on, while the supervisor is killed and replaced again and again.
#[test]
fn nobody_notices_that_the_supervisor_is_killed() {
    const ROUNDS: usize = 4;
    let server = Postgres::start();
    let session = format!("host=127.0.0.1 port={} dbname=app pool_mode=session", server.port());
    let mut fleet = Fleet::builder(&server).workers(4).pool_size(SERVERS).database("held", session).start();
    let before = fleet.all_workers();
    let sampler = Sampler::start(&server);
    let regulars = Regulars::start(fleet.port(), 16, "app", Duration::from_millis(5));
    let mut listener = Client::login(fleet.port(), "other", "held");
    listener.query("listen news");
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let goes_on = || !stop.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        let end = Stop(&stop);
        for number in 0..4 {
            let (goes_on, done) = (&goes_on, &done);
            let (mut client, prepared, copied) = (fleet.client(), fleet.driver(), fleet.driver());
            // Transactions with a value.
            scope.spawn(move || {
                while goes_on() {
                    let value = format!("{number}-{}", done.fetch_add(1, Ordering::Relaxed));
                    client.query("begin");
                    client.query(&format!("select set_config('test.value', '{value}', true), pg_sleep(0.03)"));
                    assert_eq!(client.value("select current_setting('test.value')"), value);
                    assert_eq!(client.query("commit").status, 'I');
                }
            });
            scope.spawn(move || {
                let mut driver = prepared.connect(postgres::NoTls).unwrap();
                let statement = driver.prepare("select $1::int4 + 1").unwrap();
                while goes_on() {
                    assert_eq!(driver.query_one(&statement, &[&number]).unwrap().get::<_, i32>(0), number + 1);
                }
            });
            scope.spawn(move || {
                let mut driver = copied.connect(postgres::NoTls).unwrap();
                while goes_on() {
                    let sql = "copy (select repeat('x', 1000) from generate_series(1, 20000)) to stdout";
                    let bytes = std::io::copy(&mut driver.copy_out(sql).unwrap(), &mut std::io::sink()).unwrap();
                    assert_eq!(bytes, 20_000 * 1001);
                }
            });
        }
        for round in 1..=ROUNDS {
            kill(&mut fleet);
            let (seen, asked) = (done.load(Ordering::Relaxed), regulars.answered());
            assert_eq!(fleet.client().value("select 1"), "1", "clients can connect");
            let goes_on = || done.load(Ordering::Relaxed) > seen + 10 && regulars.answered() > asked + 50;
            wait_until("traffic without a supervisor", SOON, goes_on);
            adopt(&mut fleet);
            wait_for_reload(&fleet, round);
            assert_eq!(workers(&fleet), before, "they are the same processes");
            fleet.client().query("notify news");
            let heard = wait_for("a notification", SOON, || listener.try_read().ok().flatten());
            assert_eq!(heard.channel(), "news");
        }
        drop(end);
    });
    for visit in regulars.finish() {
        assert!(visit.greeted && visit.lost.is_none(), "{visit:?}");
    }
    let seen = sampler.finish();
    // With the one that listens.
    assert!(seen.most <= SERVERS as i64 + 1, "{seen:?}");
    fleet.console().query("kill held");
    assert_exactly(&fleet, &server, SERVERS);
}

/// Ends the load also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whatever an operator wants of a fleet can be had of one that was adopted.
#[test]
fn an_adopted_fleet_is_a_fleet_like_any_other() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(2).pool_size(SERVERS).start();
    let before = fleet.all_workers();
    let mut clients: Vec<Client> = (0..8).map(|_| fleet.client()).collect();
    for client in &mut clients {
        assert_eq!(client.query("begin").status, 'T');
    }
    kill(&mut fleet);
    adopt(&mut fleet);
    wait_for_reload(&fleet, 1);
    let mut console = fleet.console();
    assert_eq!(workers(&fleet), before);
    let shown = console.query("show clients");
    assert_eq!(shown.column("user").iter().filter(|user| *user == "app").count(), 8);
    assert_eq!(console.query("show servers").column("state").iter().filter(|state| *state == "active").count(), 8);
    assert_eq!(console.query("show pools").lookup("user", "app", "cl_active"), "8");
    // A cancel request and KILL_CLIENT find their client.
    clients[0].send(&frontend::query("select pg_sleep(60)"));
    clients[0].cancel(fleet.port());
    assert_eq!(clients[0].answer().error().code(), "57014");
    let port = clients[1].local_port().to_string();
    let id = shown.lookup("port", &port, "id");
    assert_eq!(console.query(&format!("kill_client {id}")).tags, ["KILL_CLIENT"]);
    assert_eq!(clients[1].refusal().code(), "57P01");
    for client in clients.iter_mut().skip(2) {
        client.query("commit");
    }
    clients[0].query("rollback");
    console.query("pause app");
    clients[2].send(&frontend::query("select 2"));
    clients[2].expect_silence(Duration::from_millis(200));
    console.query("resume app");
    assert_eq!(clients[2].answer().value(), "2");
    fleet.change("default_pool_size", 5);
    console.query("reload");
    assert_eq!(console.query("show databases").lookup("name", "app", "pool_size"), "5");
    assert_eq!(console.query("restart").tags, ["RESTART"]);
    assert!(workers(&fleet).iter().all(|pid| !before.contains(pid)));
    for client in clients.iter_mut().skip(2) {
        assert_eq!(client.value("select 1"), "1");
    }
    clients.clear();
    assert_exactly(&fleet, &server, 5);
    drop(console);
    fleet.signal(Signal::SIGTERM);
    fleet.wait_for_exit();
}

/// What a worker had that died while nobody looked is found: its seats, its clients', and that it has no successor.
#[test]
fn a_worker_that_died_meanwhile_is_buried_and_replaced() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(2).pool_size(SERVERS).setting("max_client_conn", 40).start();
    let before = fleet.all_workers();
    let sampler = Sampler::start(&server);
    let mut clients: Vec<Client> =
        before.iter().flat_map(|&pid| (0..4).map(move |_| pid)).map(|pid| fleet.client_at(pid)).collect();
    for client in &mut clients {
        assert_eq!(client.query("begin").status, 'T');
    }
    let _console = fleet.console();
    kill(&mut fleet);
    process::signal(before[0], Signal::SIGKILL);
    wait_until("the worker to go", SOON, || !process::is_alive(before[0]));
    clients[..4].iter_mut().for_each(Client::expect_end);
    adopt(&mut fleet);
    wait_until("a successor", SOON, || workers(&fleet).len() == 2);
    let now = workers(&fleet);
    assert!(now[0] != before[0] && now[1] == before[1], "{before:?} {now:?}");
    for client in &mut clients[4..] {
        assert_eq!(client.query("commit").status, 'I');
    }
    drop(clients);
    wait_until("its servers' ends", SOON, || backends(&mut server.admin()) <= 4);
    wait_for_orphans(&fleet);
    // The seats of clients, too: those of the dead worker, and those of the dead supervisor's console.
    let all: Vec<Client> = (0..40).map(|_| fleet.client()).collect();
    drop(all);
    wait_until("clients to leave", SOON, || fleet.console().query("show pools").lookup("user", "app", "cl_active") == "0");
    assert_exactly(&fleet, &server, SERVERS);
    let seen = sampler.finish();
    assert!(seen.most <= SERVERS as i64, "{seen:?}");
}

/// In the middle of whatever it does: the next one begins with what it has left.
#[test]
fn a_supervisor_is_killed_while_it_adopts() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(2).pool_size(SERVERS).start();
    let before = fleet.all_workers();
    let sampler = Sampler::start(&server);
    let regulars = Regulars::start(fleet.port(), 8, "app", Duration::from_millis(2));
    kill(&mut fleet);
    for round in 0..30_u64 {
        let mut halfway = fleet.command(&[]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(round * 5));
        process::signal(halfway.id(), Signal::SIGKILL);
        halfway.wait().unwrap();
    }
    adopt(&mut fleet);
    let mut console = fleet.console();
    wait_until("all workers", SOON, || workers(&fleet) == before);
    console.query("reload");
    assert_eq!(console.query("show workers").column("state"), ["serving", "serving"]);
    for visit in regulars.finish() {
        assert!(visit.lost.is_none(), "{visit:?}");
    }
    assert_exactly(&fleet, &server, SERVERS);
    let seen = sampler.finish();
    assert!(seen.most <= SERVERS as i64, "{seen:?}");
}

/// One worker has been told to take a new configuration, the other has not: they agree again.
#[test]
fn killed_in_the_middle_of_a_reload() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(2).pool_size(SERVERS).start();
    let before = fleet.all_workers();
    process::signal(before[1], Signal::SIGSTOP);
    fleet.change("default_pool_size", 7);
    fleet.signal(Signal::SIGHUP);
    fleet.wait_for_log("RELOAD waits for worker 1");
    kill(&mut fleet);
    process::signal(before[1], Signal::SIGCONT);
    adopt(&mut fleet);
    wait_for_reload(&fleet, 1);
    assert_eq!(workers(&fleet), before);
    assert_eq!(fleet.console().query("show databases").lookup("name", "app", "pool_size"), "7");
    for &pid in &before {
        assert_eq!(fleet.client_at(pid).value("select 1"), "1");
    }
    assert_exactly(&fleet, &server, 7);
}

/// Whichever worker is being replaced at that moment: sessions that move arrive, and a worker that leaves goes on leaving.
#[test]
fn killed_in_the_middle_of_a_restart() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(3).pool_size(SERVERS).start();
    fleet.all_workers();
    let sampler = Sampler::start(&server);
    let regulars = Regulars::start(fleet.port(), 24, "app", Duration::from_millis(10));
    // It waits for a login that is not completed.
    let mut slow = Client::tcp(fleet.port());
    slow.send(&frontend::startup(&[("user", "app"), ("database", "app")])[..4]);
    for round in 1..=6_usize {
        let mut console = fleet.console();
        console.send(&frontend::query("restart"));
        wait_until("a successor", SOON, || fleet.logged("RESTART command issued") == round);
        std::thread::sleep(Duration::from_millis(30 * round as u64));
        kill(&mut fleet);
        adopt(&mut fleet);
        wait_for_reload(&fleet, round);
    }
    drop(slow);
    let mut console = fleet.console();
    wait_until("three workers", SOON, || console.query("show workers").column("state") == ["serving"; 3]);
    for visit in regulars.finish() {
        assert!(visit.greeted && visit.lost.is_none(), "{visit:?}");
    }
    assert_exactly(&fleet, &server, SERVERS);
    let seen = sampler.finish();
    assert!(seen.most <= SERVERS as i64, "{seen:?}");
}

/// While the binary is asked, while one image gives way to the other, while the canary starts, while workers are replaced.
#[test]
fn killed_in_the_middle_of_an_upgrade() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(2).pool_size(SERVERS).start();
    fleet.all_workers();
    let sampler = Sampler::start(&server);
    let regulars = Regulars::start(fleet.port(), 24, "app", Duration::from_millis(10));
    let mut leaps = 0;
    for round in 1..=10_usize {
        let mut console = fleet.console();
        console.send(&frontend::query("upgrade"));
        wait_until("the upgrade", SOON, || fleet.logged("UPGRADE command issued") == round);
        let leaped = |fleet: &Fleet| fleet.logged("has taken over");
        if round.is_multiple_of(2) {
            wait_until("the new image", SOON, || leaped(&fleet) > leaps);
        }
        std::thread::sleep(Duration::from_millis(3 * round as u64));
        kill(&mut fleet);
        leaps = leaped(&fleet);
        adopt(&mut fleet);
        wait_for_reload(&fleet, round);
    }
    let mut console = fleet.console();
    wait_until("two workers", SOON, || console.query("show workers").column("state") == ["serving"; 2]);
    for visit in regulars.finish() {
        assert!(visit.greeted && visit.lost.is_none(), "{visit:?}");
    }
    assert_exactly(&fleet, &server, SERVERS);
    assert!(sampler.finish().most <= SERVERS as i64);
    assert_eq!(fleet.console().query("upgrade").tags, ["UPGRADE"], "and an adopted fleet can be upgraded");
}

#[test]
fn what_was_paused_or_disabled_stays_so() {
    let server = Postgres::start();
    let entry = format!("host=127.0.0.1 port={} dbname=app", server.port());
    let mut fleet = Fleet::builder(&server).workers(2).pool_size(SERVERS).database("closed", entry).start();
    let mut client = fleet.client();
    assert_eq!(client.value("select 1"), "1");
    let mut console = fleet.console();
    console.query("pause app");
    console.query("disable closed");
    client.send(&frontend::query("select 2"));
    kill(&mut fleet);
    adopt(&mut fleet);
    wait_for_reload(&fleet, 1);
    client.expect_silence(Duration::from_millis(300));
    let mut console = fleet.console();
    let databases = console.query("show databases");
    assert_eq!(
        (databases.lookup("name", "app", "paused"), databases.lookup("name", "closed", "disabled")),
        ("1".into(), "1".into())
    );
    console.query("resume app");
    assert_eq!(client.answer().value(), "2");
    assert!(Client::tcp(fleet.port()).start(&[("user", "app"), ("database", "closed")], None).is_err());
    console.query("enable closed");
    assert_eq!(Client::login(fleet.port(), "app", "closed").value("select 3"), "3");
}

/// One that hangs is named and killed, like any that does.
#[test]
fn a_worker_that_does_not_answer_is_replaced() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(2).pool_size(SERVERS).start();
    let before = fleet.all_workers();
    let mut client = fleet.client_at(before[0]);
    kill(&mut fleet);
    process::signal(before[1], Signal::SIGSTOP);
    adopt(&mut fleet);
    fleet.wait_for_log(&format!("worker 1 (pid {}) does not answer, killing it", before[1]));
    wait_until("a successor", SOON, || workers(&fleet).len() == 2);
    assert!(workers(&fleet)[0] == before[0] && !process::is_alive(before[1]));
    assert_eq!(client.value("select 1"), "1");
    wait_for_orphans(&fleet);
    assert_exactly(&fleet, &server, SERVERS);
}

/// Whoever listens where a worker would and is none is neither adopted nor harmed.
#[test]
fn a_stranger_at_a_worker_s_door_is_ignored() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(2).start();
    let before = fleet.all_workers();
    kill(&mut fleet);
    let stranger = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let path = control_dir(&fleet).join("worker-7");
    bind(stranger.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();
    listen(&stranger, Backlog::new(1).unwrap()).unwrap();
    adopt(&mut fleet);
    fleet.wait_for_log(&format!("process {} listens where worker 7 would, and is none: ignored", std::process::id()));
    assert_eq!(workers(&fleet), before);
}

#[test]
fn nothing_is_left_over_by_twenty_kills() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(2).pool_size(4).start();
    let before = fleet.all_workers();
    let mut client = fleet.client();
    assert_eq!(client.value("select 1"), "1");
    let held = |pids: &[u32]| pids.iter().map(|pid| process::descriptors(*pid)).sum::<usize>();
    let first = (held(&before), held(&[fleet.pid()]));
    for round in 1..=20 {
        kill(&mut fleet);
        adopt(&mut fleet);
        wait_for_reload(&fleet, round);
        assert_eq!(client.value("select 1"), "1");
        assert_eq!(workers(&fleet), before);
    }
    let supervisor = fleet.pid();
    wait_until("what was opened twenty times to be closed", SOON, || {
        held(&before) < first.0 + 10 && held(&[supervisor]) < first.1 + 10
    });
}

/// A worker lets a guest go that says nothing for 10 s. Whoever was kept that long, by others or by a suspended host, comes once more.
#[test]
fn a_worker_that_was_kept_waiting_is_greeted_again() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(2).pool_size(SERVERS).start();
    let before = fleet.all_workers();
    let mut client = fleet.client_at(before[0]);
    assert_eq!(client.query("begin").status, 'T');
    kill(&mut fleet);
    // It keeps the next one waiting at its door.
    process::signal(before[1], Signal::SIGSTOP);
    let mut alone = 0;
    wait_until("the control socket to be closed", SOON, || {
        let now = process::descriptors(before[0]);
        fleet.logged("serving on without it") > 0 && std::mem::replace(&mut alone, now) == now
    });
    let has_guest = || process::descriptors(before[0]) > alone;
    let mut slow = fleet.command(&[]).spawn().unwrap();
    wait_until("a guest", SOON, has_guest);
    process::signal(slow.id(), Signal::SIGSTOP);
    wait_until("the guest to be sent away", SOON, || !has_guest());
    process::signal(slow.id(), Signal::SIGCONT);
    wait_until("a supervisor", SOON, || fleet.logged("going on with the workers of a supervisor that has died") > 0);
    wait_until("a successor of the other", SOON, || workers(&fleet).len() == 2);
    assert_eq!(workers(&fleet)[0], before[0]);
    assert_eq!(client.query("commit").status, 'I');
    process::signal(slow.id(), Signal::SIGKILL);
    slow.wait().unwrap();
    adopt(&mut fleet);
}

/// It has kept back what it takes to tell of what it has.
#[test]
fn a_worker_without_descriptors_is_adopted() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(2).pool_size(SERVERS).start();
    let before = fleet.all_workers();
    let mut clients: Vec<Client> = (0..4).map(|_| fleet.client_at(before[0])).collect();
    for client in &mut clients {
        assert_eq!(client.query("begin").status, 'T');
    }
    let most = process::lowest_free_descriptor(before[0]);
    kill(&mut fleet);
    process::limit_descriptors(before[0], most);
    adopt(&mut fleet);
    assert_eq!(workers(&fleet), before);
    for client in &mut clients {
        assert_eq!(client.query("commit").status, 'I');
    }
    wait_until("the worker to be asked", SOON, || fleet.logged("RELOAD") > 0);
    process::limit_descriptors(before[0], 4096);
    fleet.console().query("reload");
    assert_eq!(workers(&fleet), before);
    drop(clients);
    assert_exactly(&fleet, &server, SERVERS);
}

/// The one that was killed is a zombie still, and its number in the pidfile that of a process.
#[test]
fn a_predecessor_that_nobody_has_reaped() {
    let server = Postgres::start();
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let pidfile = folder.path().join("fleet.pid");
    let mut fleet = Fleet::builder(&server).workers(1).setting("pidfile", pidfile.display()).start();
    let (before, pid) = (fleet.all_workers(), fleet.pid());
    process::signal(pid, Signal::SIGKILL);
    fleet.wait_for_log("serving on without it");
    wait_until("the supervisor to be a zombie", SOON, || !process::is_alive(pid));
    let mut next = fleet.command(&[]).spawn().unwrap();
    fleet.wait_for_log("going on with the workers of a supervisor that has died");
    assert_eq!(workers(&fleet), before);
    assert_eq!(std::fs::read_to_string(&pidfile).unwrap(), format!("{}\n", next.id()));
    process::signal(next.id(), Signal::SIGQUIT);
    assert!(next.wait().unwrap().success());
    assert!(fleet.has_ended().is_some() && !pidfile.exists());
}
