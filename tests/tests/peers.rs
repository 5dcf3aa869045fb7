//! Several fleets behind one address: a cancel request that lands on the wrong one is forwarded to the right one.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Client, Fleet, Port, Postgres, SOON, frontend, wait_for, wait_until};
use std::io::Read;
use std::net::{TcpListener, TcpStream};

fn is_running(server: &Postgres, text: &str) -> bool {
    let sql = "select count(*) from pg_stat_activity where state = 'active' and query = $1";
    server.admin().query_one(sql, &[&text]).unwrap().get::<_, i64>(0) > 0
}

/// Two fleets that are each other's peers 1 and 2; `host` says how they reach one another.
fn two_fleets(server: &Postgres, workers: usize, host: impl Fn(&Fleet) -> String) -> (Fleet, Fleet) {
    let build = |id: u16| Fleet::builder(server).workers(workers).setting("peer_id", id);
    let mut first = build(1).start();
    let second = build(2).peer(1, host(&first)).start();
    first.change_peer(2, host(&second));
    first.console().query("reload");
    (first, second)
}

fn cancels(server: &Postgres, client: &mut Client, at: &Fleet, text: &str) {
    let sql = format!("select pg_sleep(60), '{text}'");
    client.send(&frontend::query(&sql));
    wait_until("the query to run", SOON, || is_running(server, &sql));
    client.cancel(at.port());
    assert_eq!(client.answer().error().code(), "57014");
    assert_eq!(client.value("select 'still here'"), "still here");
}

#[test]
fn the_wrong_fleet_forwards() {
    let server = Postgres::start();
    for workers in [1, 2] {
        for kind in ["address", "name", "folder"] {
            let (first, second) = two_fleets(&server, workers, |fleet| {
                let host = match kind {
                    "address" => "127.0.0.1".to_owned(),
                    "name" => "localhost".to_owned(),
                    _ => fleet.folder().display().to_string(),
                };
                format!("host={host} port={}", fleet.port())
            });
            for round in 0..4 {
                cancels(&server, &mut first.client(), &second, &format!("{kind} first {round}"));
                cancels(&server, &mut second.client(), &first, &format!("{kind} second {round}"));
                cancels(&server, &mut second.client(), &second, &format!("{kind} own {round}"));
            }
            let line = second.wait_for_log("peer-1@127.0.0.1:");
            assert!(line.contains("closing because: successfully sent cancel request (age="), "{line}");
            assert!(second.log().lines().any(|line| line.contains(" S-") && line.contains(": peer-1@")), "both sides");
            let pools = second.console().query("show peer_pools");
            assert_eq!(pools.column("peer_id"), ["1"]);
            assert_eq!(second.console().query("show peers").lookup("peer_id", "1", "port"), first.port().to_string());
        }
    }
}

/// A key counts down how often it may still be forwarded, so that fleets that name each other wrongly do not play ball for ever.
#[test]
fn keys_that_lead_nowhere() {
    let server = Postgres::start();
    let (first, second) = two_fleets(&server, 2, |fleet| format!("host=127.0.0.1 port={}", fleet.port()));
    let client = first.client();
    assert_eq!((client.key[1], client.key[2], client.key[7] & 3), (1, 0, 3));
    let ask = |fleet: &Fleet, change: fn(&mut [u8]), reason: &str| {
        let mut key = client.key.clone();
        change(&mut key);
        let mut request = Client::tcp(fleet.port());
        request.send(&frontend::cancel(&key));
        request.expect_end();
        fleet.wait_for_log(&format!("closing because: {reason} (age="));
    };
    ask(&second, |key| key[7] &= !3, "failed to forward cancel request because its TTL was exhausted");
    ask(&second, |key| key[1] = 9, "could not find peer to forward request to");
    ask(&first, |key| key[5] ^= 1, "failed cancel request");
    ask(&second, |key| key[5] ^= 1, "successfully sent cancel request");
    ask(&first, |_| {}, "cancel request for idle client");
    // A peer that is itself, by another name: it comes back until it may not any more.
    let port = first.port();
    let mut first = first;
    first.change_peer(3, format!("host=127.0.0.1 port={port}"));
    first.console().query("reload");
    ask(&first, |key| key[1] = 3, "failed to forward cancel request because its TTL was exhausted");
    assert_eq!(first.logged("failed to forward cancel request"), 1);
}

/// A peer that takes connections, and says when it has let one go.
struct Peer(TcpListener);

impl Peer {
    fn accept(&self) -> (TcpStream, Vec<u8>) {
        let (mut stream, _) = self.0.accept().unwrap();
        let mut packet = vec![0; 16];
        stream.read_exact(&mut packet).unwrap();
        (stream, packet)
    }
}

#[test]
fn pool_size_bounds_what_is_on_its_way() {
    let server = Postgres::start();
    for workers in [1, 2] {
        let port = Port::take();
        let peer = Peer(TcpListener::bind(("127.0.0.1", port.number())).unwrap());
        let fleet = Fleet::builder(&server)
            .workers(workers)
            .setting("peer_id", 1)
            .setting("cancel_wait_timeout", 3)
            .peer(7, format!("host=127.0.0.1 port={} pool_size=2", port.number()))
            .peer(8, format!("host=127.0.0.1 port={} pool_size=0", port.number()))
            .start();
        let key = |id: u8, number: u8| [0x11, id, 0, 0x22, 0x33, 0x44, number, 0x57];
        let ask = |id: u8, number: u8| {
            let mut request = Client::tcp(fleet.port());
            request.send(&frontend::cancel(&key(id, number)));
            request
        };
        let mut requests: Vec<Client> = (0..5).map(|number| ask(7, number)).collect();
        let held = [peer.accept(), peer.accept()];
        assert_eq!(held[0].1[..15], frontend::cancel(&key(7, held[0].1[14]))[..15]);
        assert_eq!(held[0].1[15] & 3, 2, "the TTL has gone down");
        let mut console = fleet.console();
        let shown = wait_for("the console to show them", SOON, || {
            let row = console.query("show peer_pools").rows.into_iter().next()?;
            let row: Vec<String> = row.into_iter().flatten().collect();
            (row[1] == "2" && row[2] == "3").then_some(row)
        });
        assert_eq!(shown, ["7", "2", "3", "2", "0"]);
        let clients = console.query("show clients");
        let states = clients.column("state");
        let count = |state: &str| states.iter().filter(|shown| *shown == state).count();
        assert_eq!((count("active_cancel_req"), count("waiting_cancel_req")), (2, 3));
        assert_eq!(clients.lookup("state", "waiting_cancel_req", "user"), "(nouser)");
        assert_eq!(clients.lookup("state", "waiting_cancel_req", "database"), "(nodb)");
        assert_eq!(console.query("show servers").column("state"), ["active_cancel", "active_cancel"]);
        // One is done: the next has its turn.
        let [first, second] = held;
        drop(first);
        let third = peer.accept();
        // The others wait in vain.
        let mut never = ask(8, 0);
        never.expect_end();
        fleet.wait_for_log("peer-8@127.0.0.1");
        assert!(fleet.logged("closing because: cancel_wait_timeout") > 0);
        drop((second, third));
        for request in &mut requests {
            request.expect_end();
        }
    }
}

/// What is behind a peer's address may be away for a moment.
#[test]
fn a_peer_that_comes_up_late() {
    let server = Postgres::start();
    let port = Port::take();
    let fleet = Fleet::builder(&server).setting("peer_id", 1).peer(7, format!("host=localhost port={}", port.number())).start();
    let mut request = Client::tcp(fleet.port());
    request.send(&frontend::cancel(&[0x11, 7, 0, 0x22, 0x33, 0x44, 0x55, 0x57]));
    fleet.wait_for_log("closing because: connect failed");
    let peer = Peer(TcpListener::bind(("127.0.0.1", port.number())).unwrap());
    let (stream, _) = peer.accept();
    drop(stream);
    request.expect_end();
    fleet.wait_for_log("closing because: successfully sent cancel request");
}
