//! Settings of sockets, as the kernel shows that they are in force.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Client, Fleet, Postgres, SOON, process, wait_until};
use nix::sys::signal::Signal;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// In how many seconds the keepalive timer of the connection from local port `local` to port `remote` fires; `None`: it has none. Columns of
/// /proc/net/tcp: 2 local address, 3 remote address, 6 which timer (2 is keepalive) and when, in hundredths of a second.
fn keepalive(local: u16, remote: u16) -> Option<u64> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next().unwrap(), 16).unwrap();
    let line = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut line = line.filter(|words| port(words[1]) == local && port(words[2]) == remote);
    let words = line.next().expect("the connection");
    let (timer, when) = words[5].split_once(':').unwrap();
    (timer == "02").then(|| u64::from_str_radix(when, 16).unwrap() / 100)
}

#[test]
fn keepalive_of_clients_and_servers() {
    let server = Postgres::start();
    let system: u64 = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_keepalive_time").unwrap().trim().parse().unwrap();
    for workers in [1, 2] {
        let mut fleet = Fleet::builder(&server).workers(workers).setting("tcp_keepidle", 1234).start();
        expect_keepalive(&fleet, &server, Some(1234));
        // Listeners kept 1234 when the setting went back to 0.
        fleet.change("tcp_keepidle", 0);
        fleet.console().query("reload");
        expect_keepalive(&fleet, &server, Some(system));
        fleet.change("tcp_keepalive", 0);
        fleet.console().query("reload");
        expect_keepalive(&fleet, &server, None);
    }
}

/// The fleet's side of a new client's connection and of a new server's; the server's is closed afterwards.
#[track_caller]
fn expect_keepalive(fleet: &Fleet, server: &Postgres, wanted: Option<u64>) {
    let mut client = fleet.client();
    client.query("select 1");
    let mut console = fleet.console();
    let server_side: u16 = console.query("show servers").column("local_port")[0].parse().unwrap();
    let fits = |seen: Option<u64>| match (seen, wanted) {
        (Some(seen), Some(wanted)) => (wanted - 60..=wanted).contains(&seen),
        (seen, wanted) => seen == wanted,
    };
    // While what was sent is not acknowledged, another timer stands in its place.
    wait_until("both connections to have the keepalive timer wanted", SOON, || {
        fits(keepalive(fleet.port(), client.local_port())) && fits(keepalive(server_side, server.port()))
    });
    server.admin().execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app'", &[]).unwrap();
    wait_until("the server connection to go", SOON, || console.query("show servers").rows.is_empty());
}

#[test]
fn the_backlog_is_as_long_as_listen_backlog_says() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server)
        .workers(1)
        .setting("listen_backlog", 3)
        .setting("tcp_defer_accept", 0)
        .setting("worker_hang_timeout", 0)
        .start();
    let worker = fleet.all_workers()[0];
    process::signal(worker, Signal::SIGSTOP);
    let address = SocketAddr::from(([127, 0, 0, 1], fleet.port()));
    let patience = Duration::from_millis(300);
    // The kernel lets in one more than the backlog before it drops what comes (listen(2)).
    let held: Vec<TcpStream> = (0..10).map_while(|_| TcpStream::connect_timeout(&address, patience).ok()).collect();
    process::signal(worker, Signal::SIGCONT);
    assert!((3..=5).contains(&held.len()), "{} connections were let in", held.len());
    drop(held);
    assert_eq!(fleet.client().value("select 1"), "1");
}

#[test]
fn a_connection_is_accepted_with_its_first_bytes() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).start();
    let in_login = |console: &mut Client| console.query("show lists").lookup("list", "login_clients", "items");
    let mut console = fleet.console();
    // The kernel gives up waiting after about a second: on a busy machine one look may come too late.
    let unseen = (0..10).any(|_| {
        let _silent = Client::tcp(fleet.port());
        in_login(&mut console) == "0"
    });
    assert!(unseen, "a connection without a byte was accepted at once");
    wait_until("those to have gone", SOON, || in_login(&mut console) == "0");
    fleet.change("tcp_defer_accept", 0);
    console.query("reload");
    let _silent = Client::tcp(fleet.port());
    wait_until("the connection to be accepted", Duration::from_millis(700), || in_login(&mut console) == "1");
}
