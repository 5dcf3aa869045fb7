//! Which worker serves a client: everybody has about as many, whoever accepted them.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Answer, Builder, Client, Fleet, Postgres, SOON, frontend, holds_within, process, wait_until};
use nix::sys::signal::Signal;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const APP: [(&str, &str); 2] = [("user", "app"), ("database", "app")];

/// By which listener a case's clients come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Tcp,
    Unix,
    /// In turns.
    Both,
}

fn connect(fleet: &Fleet, by: By, number: usize) -> Client {
    if by == By::Tcp || (by == By::Both && number.is_multiple_of(2)) {
        Client::tcp(fleet.port())
    } else {
        Client::unix(fleet.folder(), fleet.port())
    }
}

/// Logs in this many clients of the user `app`, from as many threads as told.
fn log_in(fleet: &Fleet, by: By, count: usize, threads: usize) -> Vec<Client> {
    let clients = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let mut client = connect(fleet, by, number);
                    client.start(&APP, None).expect("logged in");
                    clients.lock().unwrap().push(client);
                }
            });
        }
    });
    clients.into_inner().unwrap()
}

fn four(server: &Postgres) -> Builder {
    Fleet::builder(server).workers(4).setting("max_client_conn", 3000).setting("listen_backlog", 4096)
}

/// How many clients of the user `app` each worker serves: a client's number begins with the slot (its bits from the 25th on).
fn served(fleet: &Fleet, console: &mut Client) -> Vec<usize> {
    let mut counts = vec![0; fleet.worker_count()];
    slots(&console.query("show clients")).for_each(|slot| counts[slot] += 1);
    counts
}

fn slots(clients: &Answer) -> impl Iterator<Item = usize> {
    let rows = clients.column("user").into_iter().zip(clients.column("id"));
    rows.filter(|(user, _)| user == "app").map(|(_, id)| slot(&id))
}

fn slot(id: &str) -> usize {
    id.parse::<usize>().unwrap() >> 25
}

fn slots_by_port(clients: &Answer) -> HashMap<u16, usize> {
    let rows = clients.column("port").into_iter().zip(clients.column("id"));
    rows.map(|(port, id)| (port.parse().unwrap(), slot(&id))).collect()
}

/// How many clients all workers together have passed on.
fn handed_over(console: &mut Client) -> u32 {
    console.query("show workers").column("handed_over").iter().map(|count| count.parse::<u32>().unwrap()).sum()
}

fn leave(clients: Vec<Client>, fleet: &Fleet, console: &mut Client) {
    drop(clients);
    wait_until("the clients to be gone", SOON, || served(fleet, console).iter().sum::<usize>() == 0);
}

fn signal_all(pids: &[u32], signal: Signal) {
    for &pid in pids {
        process::signal(pid, signal);
    }
}

#[track_caller]
fn assert_within(counts: &[usize], percent: usize, what: &str) {
    println!("{what}: {counts:?}");
    let mean = counts.iter().sum::<usize>() / counts.len();
    let off = counts.iter().map(|count| count.abs_diff(mean)).max().unwrap();
    assert!(off * 100 <= mean * percent, "{what}: {counts:?}");
}

#[test]
fn a_thousand_clients_are_spread_evenly() {
    let server = Postgres::start();
    let fleet = four(&server).start();
    let mut console = fleet.console();
    for by in [By::Tcp, By::Unix, By::Both] {
        for threads in [1, 40] {
            let clients = log_in(&fleet, by, 1000, threads);
            assert_within(&served(&fleet, &mut console), 5, &format!("by {by:?} from {threads} threads"));
            leave(clients, &fleet, &mut console);
        }
    }
}

/// They connect before anybody accepts: the workers are stopped, so that all come in the same turns of all workers.
#[test]
fn a_thousand_clients_that_waited_in_the_backlog_are_spread_evenly() {
    let server = Postgres::start();
    let fleet = four(&server).setting("worker_hang_timeout", 0).setting("tcp_defer_accept", 0).start();
    let mut console = fleet.console();
    for by in [By::Tcp, By::Both] {
        let workers = fleet.all_workers();
        signal_all(&workers, Signal::SIGSTOP);
        let mut clients: Vec<Client> = (0..1000).map(|number| connect(&fleet, by, number)).collect();
        for client in &mut clients {
            client.send(&frontend::startup(&APP));
        }
        signal_all(&workers, Signal::SIGCONT);
        for client in &mut clients {
            client.authenticate("app", None).expect("logged in");
        }
        assert_within(&served(&fleet, &mut console), 5, &format!("by {by:?}"));
        leave(clients, &fleet, &mut console);
    }
}

#[test]
fn none_of_four_workers_has_more_than_five_of_sixteen_clients() {
    let server = Postgres::start();
    let fleet = four(&server).start();
    let mut console = fleet.console();
    for round in 0..5 {
        for (by, threads) in [(By::Tcp, 1), (By::Tcp, 16), (By::Unix, 1), (By::Unix, 16), (By::Both, 16)] {
            let clients = log_in(&fleet, by, 16, threads);
            let counts = served(&fleet, &mut console);
            assert!(counts.iter().all(|&count| count <= 5), "round {round}, by {by:?} from {threads} threads: {counts:?}");
            leave(clients, &fleet, &mut console);
        }
    }
}

#[test]
fn newcomers_fill_the_emptiest_worker() {
    let server = Postgres::start();
    let fleet = four(&server).start();
    let mut console = fleet.console();
    let mut clients = log_in(&fleet, By::Tcp, 400, 8);
    let of_port = slots_by_port(&console.query("show clients"));
    // All of the first worker's leave, and half of the second's.
    let mut number = 0;
    clients.retain(|client| {
        number += 1;
        match of_port[&client.local_port()] {
            0 => false,
            1 => number % 2 == 0,
            _ => true,
        }
    });
    let left = clients.len();
    wait_until("them to be gone", SOON, || served(&fleet, &mut console).iter().sum::<usize>() == left);
    let before = served(&fleet, &mut console);
    assert!(before[0] == 0 && before[1] < 80, "{before:?}");
    let newcomers = log_in(&fleet, By::Both, 400 - left, 8);
    assert_within(&served(&fleet, &mut console), 5, &format!("after {before:?}"));
    drop((clients, newcomers));
}

#[test]
fn whoever_serves_it_a_client_is_shown_alike() {
    let server = Postgres::start();
    let fleet = four(&server).start();
    let mut console = fleet.console();
    let clients = log_in(&fleet, By::Tcp, 60, 8);
    assert!(handed_over(&mut console) > 0, "the kernel alone has never spread 60 clients so evenly");
    let rows = console.query("show clients");
    let now = rows.lookup("user", "admin", "request_time");
    for client in &clients {
        let port = client.local_port().to_string();
        assert_eq!(rows.lookup("port", &port, "addr"), "127.0.0.1");
        assert_eq!(rows.lookup("port", &port, "local_port"), fleet.port().to_string());
        let connected = rows.lookup("port", &port, "connect_time");
        // The same day or the one before: both are local time to the second.
        assert!(connected.len() == now.len() && connected <= now, "{connected} and {now}");
        assert!(fleet.wait_for_log(&format!("@127.0.0.1:{port} login attempt")).contains("C-0x"));
    }
    let through_unix = log_in(&fleet, By::Unix, 20, 4);
    let rows = console.query("show clients");
    let pid = std::process::id().to_string();
    let from_here = rows.column("remote_pid").iter().filter(|seen| **seen == pid).count();
    assert_eq!(from_here, through_unix.len());
    assert!(rows.column("addr").iter().filter(|addr| *addr == "unix").count() >= through_unix.len());
}

#[test]
fn the_login_timeout_counts_from_the_accept() {
    let server = Postgres::start();
    let fleet = four(&server).setting("client_login_timeout", 1).start();
    let mut console = fleet.console();
    let mut silent: Vec<Client> = (0..20).map(|_| Client::unix(fleet.folder(), fleet.port())).collect();
    for client in &mut silent {
        assert_eq!(client.refusal().text(), "client_login_timeout");
    }
    assert!(handed_over(&mut console) > 0);
}

#[test]
fn consoles_and_cancel_requests_arrive_all_the_same() {
    let server = Postgres::start();
    let fleet = four(&server).start();
    // One of many: whoever accepts the next has more than its share.
    let _clients = log_in(&fleet, By::Both, 60, 4);
    let mut consoles: Vec<Client> = (0..12).map(|_| fleet.console()).collect();
    for console in &mut consoles {
        assert_eq!(console.query("show workers").rows.len(), 4);
    }
    let mut sleeper = fleet.client();
    let mut admin = server.admin();
    let sleeping = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    for _ in 0..12 {
        sleeper.send(&frontend::query("select pg_sleep(60)"));
        // PostgreSQL ignores a request that comes before it has begun with the query.
        wait_until("the query to run", SOON, || admin.query_one(sleeping, &[]).unwrap().get::<_, i64>(0) == 1);
        sleeper.cancel(fleet.port());
        assert_eq!(sleeper.answer().error().code(), "57014");
    }
}

#[test]
fn a_reload_turns_it_off_and_on() {
    let server = Postgres::start();
    let mut fleet = four(&server).setting("accept_balance", 0).start();
    let mut console = fleet.console();
    let clients = log_in(&fleet, By::Both, 200, 8);
    assert_eq!(handed_over(&mut console), 0);
    println!("where they were accepted: {:?}", served(&fleet, &mut console));
    leave(clients, &fleet, &mut console);
    fleet.change("accept_balance", 1);
    console.query("reload");
    let clients = log_in(&fleet, By::Both, 200, 8);
    let passed_on = handed_over(&mut console);
    assert!(passed_on > 0);
    assert_within(&served(&fleet, &mut console), 5, "turned on");
    leave(clients, &fleet, &mut console);
    console.query("set accept_balance = 0");
    let _clients = log_in(&fleet, By::Both, 200, 8);
    assert_eq!(handed_over(&mut console), passed_on);
}

#[test]
fn one_worker_passes_nothing_on() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(1).start();
    let _clients = log_in(&fleet, By::Both, 50, 4);
    assert_eq!(handed_over(&mut fleet.console()), 0);
}

#[test]
fn a_worker_that_hangs_is_given_no_clients() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(3).setting("worker_hang_timeout", 0).start();
    let mut console = fleet.console();
    let hung = fleet.all_workers()[1];
    process::signal(hung, Signal::SIGSTOP);
    // Until its heart is seen to have stopped, it is given its share; these clients wait for it.
    let mut waiting = Vec::new();
    let mut in_a_row = 0;
    wait_until("the others to notice", SOON, || {
        let mut client = ask_by_unix(&fleet);
        client.patience(Duration::from_millis(500));
        in_a_row = if matches!(client.try_read(), Ok(Some(_))) { in_a_row + 1 } else { 0 };
        client.patience(SOON);
        waiting.push(client);
        in_a_row == 20
    });
    let before = handed_over(&mut console);
    let mut clients = Vec::new();
    wait_until("the others to share", SOON, || {
        clients.extend(log_in(&fleet, By::Unix, 60, 4));
        handed_over(&mut console) > before
    });
    process::signal(hung, Signal::SIGCONT);
    for mut client in waiting {
        client.authenticate("app", None).expect("logged in");
        clients.push(client);
    }
    for client in &mut clients {
        assert_eq!(client.value("select 1"), "1");
    }
}

/// A client on the Unix socket, which every worker accepts from, that has sent its startup message.
fn ask_by_unix(fleet: &Fleet) -> Client {
    let mut client = Client::unix(fleet.folder(), fleet.port());
    client.send(&frontend::startup(&APP));
    client
}

/// Stops one of two workers, lets clients come of which the other passes some on to it, and kills it. Returns all of them.
fn kill_with_clients_unread(fleet: &Fleet, console: &mut Client, victim: u32) -> Vec<Client> {
    let mut clients = Vec::new();
    let before = handed_over(console);
    wait_until("clients to be passed on to the stopped worker", SOON, || {
        process::signal(victim, Signal::SIGSTOP);
        clients.extend((0..20).map(|_| ask_by_unix(fleet)));
        // On a busy machine its heart may be seen to have stopped before they are accepted.
        let passed_on = holds_within(Duration::from_secs(1), || handed_over(console) > before);
        process::signal(victim, if passed_on { Signal::SIGKILL } else { Signal::SIGCONT });
        passed_on
    });
    clients
}

#[test]
fn a_successor_serves_the_clients_that_its_predecessor_was_given() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(2).start();
    let mut console = fleet.console();
    for _ in 0..2 {
        let victim = fleet.all_workers()[0];
        let clients = kill_with_clients_unread(&fleet, &mut console, victim);
        for mut client in clients {
            client.authenticate("app", None).expect("logged in");
            assert_eq!(client.value("select 1"), "1");
        }
        wait_until("a successor", SOON, || fleet.workers().len() == 2 && !fleet.workers().contains(&victim));
    }
}

#[test]
fn the_other_worker_serves_them_when_a_successor_is_long_in_coming() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(2).start();
    let mut console = fleet.console();
    let state = |console: &mut Client| console.query("show workers").lookup("slot", "1", "state");
    let pid = |console: &mut Client| console.query("show workers").lookup("slot", "1", "pid").parse::<u32>().unwrap();
    let looping = || fleet.logged("its workers die in a loop");
    // Three in a row that die young: the next one is not started before a second has passed. On a busy machine one may have lived too long.
    wait_until("a successor to be held back", 3 * SOON, || {
        for _ in 0..2 {
            wait_until("a worker", SOON, || state(&mut console) == "serving");
            let victim = pid(&mut console);
            process::signal(victim, Signal::SIGKILL);
            wait_until("a successor", SOON, || state(&mut console) == "serving" && pid(&mut console) != victim);
        }
        let (before, victim) = (looping(), pid(&mut console));
        let mut clients = kill_with_clients_unread(&fleet, &mut console, victim);
        for client in &mut clients {
            client.authenticate("app", None).expect("logged in");
        }
        let held_back = looping() > before;
        if held_back {
            let counts = served(&fleet, &mut console);
            assert_eq!(counts, [clients.len(), 0], "the worker that was there all the time serves them");
        }
        leave(clients, &fleet, &mut console);
        held_back
    });
}
