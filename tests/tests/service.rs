//! How a fleet lives on its machine: addresses, accounts, systemd.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Client, Fleet, Postgres, SOON, each_worker_count, process, wait_until};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

#[test]
fn every_address_is_served_by_every_worker() {
    let server = Postgres::start();
    let mut hosts = vec!["127.0.0.1"];
    if TcpListener::bind(("::1", 0)).is_ok() {
        hosts.push("::1");
    }
    each_worker_count(
        &server,
        |builder| builder.setting("listen_addr", hosts.join(", ")),
        |fleet| {
            let workers: BTreeSet<u32> = fleet.all_workers().into_iter().collect();
            for host in &hosts {
                let mut reached = BTreeSet::new();
                let mut clients = Vec::new();
                while reached.len() < workers.len() {
                    let client = fleet.driver().hostaddr(host.parse().unwrap()).connect(postgres::NoTls).unwrap();
                    clients.push(client);
                    // The log names the worker of each login.
                    let shown = if host.contains(':') { format!("@[{host}]:") } else { format!("@{host}:") };
                    let lines = fleet.log();
                    let logins = lines.lines().filter(|line| line.contains("login attempt") && line.contains(&shown));
                    reached = logins.filter_map(|line| line.split(['[', ']']).nth(1)?.parse().ok()).collect();
                }
                assert_eq!(reached, workers, "{host}");
            }
        },
    );
}

#[test]
fn without_a_tcp_listener() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).setting("listen_addr", "").start();
    assert!(Client::try_tcp(fleet.port()).is_err());
    for _ in 0..4 {
        let mut client = Client::unix(fleet.folder(), fleet.port());
        client.start(&[("user", "app"), ("database", "app")], None).unwrap();
        assert_eq!(client.value("select 1"), "1");
    }
}

/// Through one Unix socket to every worker.
#[test]
fn the_unix_socket_is_served_by_every_worker() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder.pool_size(40),
        |fleet| {
            let workers: BTreeSet<u32> = fleet.all_workers().into_iter().collect();
            let mut clients = Vec::new();
            wait_until("every worker to accept one", SOON, || {
                let mut client = Client::unix(fleet.folder(), fleet.port());
                client.start(&[("user", "app"), ("database", "app")], None).unwrap();
                clients.push(client);
                let log = fleet.log();
                let logins = log.lines().filter(|line| line.contains("login attempt") && line.contains("@unix"));
                let reached: BTreeSet<u32> = logins.filter_map(|line| line.split(['[', ']']).nth(1)?.parse().ok()).collect();
                reached == workers
            });
        },
    );
}

#[test]
fn root_is_left_behind() {
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let server = Postgres::start();
    let refused = Fleet::builder(&server).write();
    assert_eq!(refused.root_command(&[]).status().unwrap().code(), Some(1));
    let log = std::fs::read_to_string(refused.folder().join("log.txt")).unwrap();
    assert!(log.contains("should not run as root"), "{log}");
    for by_option in [false, true] {
        let builder = Fleet::builder(&server).workers(2);
        let builder = if by_option { builder } else { builder.setting("user", "nobody") };
        let unstarted = builder.write();
        let secrets = unstarted.folder().join("userlist.txt");
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        for path in [unstarted.folder(), &secrets] {
            nix::unistd::chown(path, Some(nobody.uid), Some(nobody.gid)).unwrap();
        }
        let command = unstarted.root_command(if by_option { &["-u", "nobody"] } else { &[] });
        let fleet = unstarted.start_as(command);
        for pid in [vec![fleet.pid()], fleet.all_workers()].concat() {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            for line in ["Uid:", "Gid:"] {
                let ids: Vec<&str> = status.lines().find_map(|text| text.strip_prefix(line)).unwrap().split_whitespace().collect();
                let own = if line == "Uid:" { nobody.uid.to_string() } else { nobody.gid.to_string() };
                assert!(ids.iter().all(|id| *id == own), "{line} {ids:?}");
            }
        }
        assert_eq!(fleet.client().value("select 1"), "1");
    }
}

/// What systemd hears, with Type=notify-reload and a watchdog.
#[test]
fn the_service_manager_is_told() {
    let server = Postgres::start();
    let unstarted = Fleet::builder(&server).workers(2).write();
    let path = unstarted.folder().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let mut command = unstarted.command(&[]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    let fleet = unstarted.start_as(command);
    let wait_for = |what: &str| {
        let mut buffer = [0; 4096];
        let limit = Instant::now() + SOON;
        loop {
            let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("waiting for {what}: {error}"));
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.lines().any(|line| line.starts_with(what)) {
                return text;
            }
            assert!(Instant::now() < limit, "waiting for {what}");
        }
    };
    wait_for("READY=1");
    assert_eq!(fleet.client().value("select 1"), "1", "ready means ready");
    for _ in 0..3 {
        let start = Instant::now();
        wait_for("WATCHDOG=1");
        assert!(start.elapsed() < Duration::from_millis(400), "the watchdog waits 400 ms");
    }
    fleet.signal(Signal::SIGHUP);
    assert!(wait_for("RELOADING=1").contains("MONOTONIC_USEC="), "notify-reload needs the time");
    wait_for("READY=1");
    fleet.signal(Signal::SIGTERM);
    wait_for("STOPPING=1");
}

/// Descriptors of connections that have gone are closed, in every process.
#[test]
fn no_descriptor_is_left_over() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(2).pool_size(5).start();
    fleet.all_workers();
    let count = || fleet.processes().iter().map(|&pid| process::descriptors(pid)).sum::<usize>();
    let round = || {
        let mut clients: Vec<Client> = (0..40).map(|_| fleet.client()).collect();
        for client in &mut clients {
            assert_eq!(client.value("select 1"), "1");
        }
        let consoles: Vec<Client> = (0..4).map(|_| fleet.console()).collect();
        for client in &clients {
            client.cancel(fleet.port());
        }
        drop((clients, consoles));
        fleet.console().query("reload");
    };
    round();
    let mut least = usize::MAX;
    wait_until("the first round's connections to be closed", SOON, || {
        let now = count();
        let settled = now == least;
        least = least.min(now);
        settled && fleet.console().query("show lists").lookup("list", "used_clients", "items") == "1"
    });
    let before = least;
    for _ in 0..5 {
        round();
    }
    wait_until("the descriptors to be back at what they were", SOON, || count() <= before + 6);
}
