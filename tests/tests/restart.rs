//! RESTART: by whom, and what becomes of it when workers die meanwhile. That no client notices is shown in `unbroken`.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Client, Fleet, Postgres, Regulars, SOON, Sampler, process, program, wait_until};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};
use std::collections::BTreeSet;
use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SERVERS: usize = 12;

fn backends(server: &Postgres) -> BTreeSet<i32> {
    let rows = server.admin().query("select pid from pg_stat_activity where usename = 'app'", &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Every connection of the pool is opened.
fn fill(fleet: &Fleet, server: &Postgres) -> BTreeSet<i32> {
    let mut clients: Vec<Client> = (0..SERVERS).map(|_| fleet.client()).collect();
    for client in &mut clients {
        assert_eq!(client.query("begin").status, 'T');
    }
    for client in &mut clients {
        client.query("commit");
    }
    backends(server)
}

/// By the command line too.
#[test]
fn from_the_shell() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(1).start();
    let before = fleet.all_workers();
    let mut client = fleet.client();
    let backend = client.value("select pg_backend_pid()");
    let restart = fleet.command(&["restart"]).stdout(Stdio::piped()).output().unwrap();
    assert!(restart.status.success(), "{restart:?}");
    assert!(String::from_utf8_lossy(&restart.stdout).ends_with("restarted\n"), "{restart:?}");
    assert_ne!(fleet.all_workers(), before);
    assert_eq!(client.value("select pg_backend_pid()"), backend);
}

/// Whoever dies meanwhile takes its own sessions with it and nothing else.
#[test]
fn workers_die_while_they_are_replaced() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(2).pool_size(SERVERS).start();
    fleet.all_workers();
    let sampler = Sampler::start(&server);
    let regulars = Regulars::start(fleet.port(), 16, "app", Duration::from_millis(20));
    for round in 0..6_usize {
        std::thread::scope(|scope| {
            scope.spawn(|| fleet.console().query("restart"));
            let seen = regulars.answered();
            wait_until("some traffic", SOON, || regulars.answered() > seen + 20 * (round as u64 % 3));
            let workers = fleet.workers();
            process::signal(workers[round % workers.len()], Signal::SIGKILL);
        });
        wait_until("two to serve", SOON, || fleet.console().query("show workers").column("state") == ["serving", "serving"]);
        let seen = regulars.answered();
        wait_until("the load to go on", SOON, || regulars.answered() > seen + 50);
    }
    regulars.finish();
    assert_eq!(fill(&fleet, &server).len(), SERVERS);
    assert!(sampler.finish().most <= SERVERS as i64);
}

/// A transaction of a paused pool stays where it is: nobody is to begin in the other worker with what it has not ended.
#[test]
fn what_cannot_move_is_cut_off_at_the_deadline() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(2).start();
    let pids = fleet.all_workers();
    let mut idle: Vec<Client> = pids.iter().map(|&pid| fleet.client_at(pid)).collect();
    let mut inside = fleet.client_at(pids[0]);
    assert_eq!(inside.query("begin").status, 'T');
    fleet.signal(Signal::SIGUSR1);
    fleet.wait_for_log("got SIGUSR1, pausing all activity");
    let restart = fleet.command(&["restart", "--deadline", "1"]).stdout(Stdio::piped()).output().unwrap();
    assert!(restart.status.success(), "{restart:?}\n{}", fleet.log());
    let said = String::from_utf8_lossy(&restart.stdout).into_owned();
    assert!(said.ends_with("clients cut off at the deadline: 1\nrestarted\n"), "{said}");
    let refusal = inside.refusal();
    assert_eq!((refusal.severity(), refusal.code()), ("FATAL", "57P01"));
    fleet.wait_for_log("leaves when its clients have gone: 1; they have 1 s");
    assert!(fleet.all_workers().iter().all(|pid| !pids.contains(pid)));
    fleet.signal(Signal::SIGUSR2);
    for client in &mut idle {
        assert_eq!(client.value("select 1"), "1");
    }
    for wrong in ["restart deadline", "restart deadline 0", "restart now"] {
        assert_eq!(fleet.console().query(wrong).error().text(), format!("invalid command '{wrong}', use SHOW HELP;"));
    }
}

#[track_caller]
fn restart(fleet: &Fleet) {
    let answer = fleet.console().query("restart");
    assert_eq!((answer.errors.len(), answer.tags.as_slice()), (0, &["RESTART".to_owned()][..]), "{answer:?}\n{}", fleet.log());
}

/// Each has its own session still.
fn go_on(clients: &mut [Client]) {
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.value("select current_setting('application_name')"), number.to_string());
    }
}

fn named(fleet: &Fleet, count: usize) -> Vec<Client> {
    let name = |number: usize| {
        let mut client = fleet.client();
        client.query(&format!("set application_name = '{number}'"));
        client
    };
    (0..count).map(name).collect()
}

/// Sessions that a worker has no descriptors for stay at the one that leaves, and are served there, until there is room.
#[test]
fn sessions_wait_where_descriptors_are_few() {
    let server = Postgres::start();
    let files = Fleet::builder(&server).workers(2).pool_size(4).write();
    let command = files.command_with_descriptors(100);
    let mut fleet = files.start_as(command);
    let pids = fleet.all_workers();
    let mut clients = named(&fleet, 90);
    fleet.resize(1);
    fleet.wait_for_log("leaves when its clients have gone");
    for _ in 0..3 {
        go_on(&mut clients);
    }
    assert!(process::is_alive(pids[1]), "they do not all fit into the other");
    clients.truncate(40);
    wait_until("the worker to leave", SOON, || !process::is_alive(pids[1]));
    go_on(&mut clients);
    restart(&fleet);
    go_on(&mut clients);
}

/// It says so, whichever worker it is at, and the others stay as they were.
#[test]
fn a_supervisor_without_descriptors_stops_a_restart() {
    let server = Postgres::start();
    let files = || Fleet::builder(&server).workers(2).pool_size(2).write();
    let in_use = |fleet: &Fleet| {
        fleet.all_workers();
        go_on(&mut named(fleet, 6));
        let _console = fleet.console();
        process::descriptors(fleet.pid())
    };
    let most = in_use(&files().start());
    let mut refused = 0;
    for spare in [2, 4, 6, 8, 12] {
        let files = files();
        let command = files.command_with_descriptors(most + spare);
        let fleet = files.start_as(command);
        let before = fleet.all_workers();
        let mut clients = named(&fleet, 6);
        go_on(&mut clients);
        let answer = fleet.console().query("restart");
        if let [error] = answer.errors.as_slice() {
            assert!(error.text().contains("RESTART stopped: ") && error.text().contains("open files"), "{error:?}");
            let after = fleet.all_workers();
            assert!(after.len() == before.len() && before.iter().any(|pid| after.contains(pid)), "{before:?} {after:?}");
            refused += 1;
        }
        go_on(&mut clients);
    }
    println!("refused: {refused} of 5");
    assert!((1..5).contains(&refused), "{refused}");
}

/// The limit of open files that the next test gives its fleet.
const FEW: usize = 100;

/// The kernel counts descriptors on their way between all processes of a user: whoever wants to send one more than it may have open cannot.
#[test]
fn other_processes_have_too_many_descriptors_on_their_way() {
    let server = Postgres::start();
    let files = Fleet::builder(&server).workers(2).pool_size(2).write();
    let command = files.command_with_descriptors(FEW);
    let fleet = files.start_as(command);
    fleet.all_workers();
    let mut clients = named(&fleet, 10);
    let mut crowd = program::ignored_test("crowd_the_way").spawn().unwrap();
    for _ in 0..10 {
        restart(&fleet);
        go_on(&mut clients);
    }
    assert_eq!(crowd.try_wait().unwrap(), None, "it still runs");
    crowd.kill().unwrap();
    crowd.wait().unwrap();
    assert_eq!((fleet.logged("SIGKILL"), fleet.logged("ERROR")), (0, 0), "{}", fleet.log());
}

/// More descriptors than that are on their way, half of the time.
#[test]
#[ignore = "a process of the test above"]
fn crowd_the_way() {
    let open = std::io::stdin();
    loop {
        let (from, to) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::empty()).unwrap();
        let fds = [open.as_raw_fd(); FEW + 1];
        sendmsg::<()>(from.as_raw_fd(), &[IoSlice::new(b"x")], &[ControlMessage::ScmRights(&fds)], MsgFlags::empty(), None)
            .unwrap();
        std::thread::sleep(Duration::from_millis(20));
        drop((from, to));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// SHOW CLIENTS and SHOW SOCKETS list everybody once, and KILL_CLIENT finds its client, wherever both are.
#[test]
fn clients_are_found_wherever_they_are() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(3).pool_size(4).start();
    fleet.all_workers();
    let mut clients = named(&fleet, 200);
    let mut victims = named(&fleet, 12);
    let (stop, mut console) = (AtomicBool::new(false), fleet.console());
    std::thread::scope(|scope| {
        let restarts = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                restart(&fleet);
            }
        });
        for victim in &mut victims {
            for what in ["show clients", "show sockets"] {
                let rows = console.query(what);
                let ours = rows.column("user").iter().zip(rows.column("addr")).filter(|(user, _)| *user == "app").count();
                let distinct: BTreeSet<String> = rows.column("id").into_iter().collect();
                assert_eq!(distinct.len(), rows.rows.len(), "{what}");
                assert!(ours >= clients.len(), "{what}: {ours}");
            }
            let port = victim.local_port().to_string();
            let id = console.query("show clients").lookup("port", &port, "id");
            assert_eq!(console.query(&format!("kill_client {id}")).tags, ["KILL_CLIENT"]);
            assert_eq!(victim.refusal().code(), "57P01");
        }
        stop.store(true, Ordering::Relaxed);
        restarts.join().unwrap();
    });
    go_on(&mut clients);
}
