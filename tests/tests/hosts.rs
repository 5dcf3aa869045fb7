//! Entries that list several hosts: who is asked, in which order, and what becomes of one that is down.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Client, Fleet, Postgres, SOON, frontend, wait_until};
use std::collections::BTreeMap;

/// PostgreSQL twice, at 127.0.0.1 and 127.0.0.2, with the same port.
fn two_servers() -> (Postgres, Postgres) {
    let first = Postgres::start();
    let second = first.start_beside("listen_addresses = '127.0.0.2'");
    (first, second)
}

/// Runs a case with 1 and 2 workers and this list of hosts. A failure that PgBouncer would wait for would be the case's last.
fn fleets(server: &Postgres, list: &str, more: &str, case: impl Fn(&Fleet)) {
    for workers in [1, 2] {
        let entry = format!("host={list} port={} {more}", server.port());
        case(&Fleet::builder(server).workers(workers).setting("server_login_retry", 60).database("app", entry).start());
    }
}

/// Where each of `count` clients ends up, all in a transaction at once.
fn spread(fleet: &Fleet, count: usize) -> (Vec<Client>, BTreeMap<String, usize>) {
    let mut clients: Vec<Client> = (0..count).map(|_| fleet.client()).collect();
    let mut places = BTreeMap::new();
    for client in &mut clients {
        client.query("begin");
        *places.entry(client.value("select coalesce(host(inet_server_addr()), 'unix')")).or_default() += 1;
    }
    (clients, places)
}

fn counts(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(place, count)| ((*place).to_owned(), *count)).collect()
}

#[test]
fn connections_go_to_each_host_in_turn() {
    let (first, _second) = two_servers();
    fleets(&first, "127.0.0.1,127.0.0.2", "", |fleet| {
        let (_clients, places) = spread(fleet, 6);
        assert_eq!(places, counts(&[("127.0.0.1", 3), ("127.0.0.2", 3)]));
        let mut console = fleet.console();
        assert_eq!(console.query("show databases").lookup("name", "app", "load_balance_hosts"), "round-robin");
        assert_eq!(console.query("show pools").lookup("database", "app", "load_balance_hosts"), "round-robin");
    });
}

/// PgBouncer waits server_login_retry after the first failure, although another host is up.
#[test]
fn a_host_that_is_down_is_passed_over_at_once() {
    let server = Postgres::start();
    for order in ["round-robin", "disable"] {
        // Nobody listens on 127.0.0.3, and there is no such folder.
        fleets(&server, "127.0.0.3,/no/such/folder,127.0.0.1", &format!("load_balance_hosts={order}"), |fleet| {
            let (_clients, places) = spread(fleet, 6);
            assert_eq!(places, counts(&[("127.0.0.1", 6)]));
            assert!(fleet.logged("failed to connect to 127.0.0.3") > 0);
            assert_eq!(fleet.logged("server login has been failing"), 0);
        });
    }
}

/// One that is starting up or shutting down answers, but cannot serve either.
#[test]
fn a_host_that_goes_away_and_one_that_stays() {
    for workers in [1, 2] {
        let (first, mut second) = two_servers();
        let entry = format!("host=127.0.0.1,127.0.0.2 port={}", first.port());
        let fleet = Fleet::builder(&first).workers(workers).setting("server_login_retry", 60).database("app", entry).start();
        let (clients, _) = spread(&fleet, 4);
        second.stop();
        drop(clients);
        let (_clients, places) = spread(&fleet, 4);
        assert_eq!(places, counts(&[("127.0.0.1", 4)]));
    }
}

#[test]
fn without_balancing_the_first_that_answers() {
    for workers in [1, 2] {
        let (mut first, second) = two_servers();
        let entry = format!("host=127.0.0.1,127.0.0.2 port={} load_balance_hosts=disable", first.port());
        let fleet = Fleet::builder(&first).workers(workers).setting("server_login_retry", 1).database("app", entry).start();
        assert_eq!(spread(&fleet, 4).1, counts(&[("127.0.0.1", 4)]));
        first.stop();
        assert_eq!(spread(&fleet, 4).1, counts(&[("127.0.0.2", 4)]));
        first.start_again();
        assert_eq!(spread(&fleet, 8).1, counts(&[("127.0.0.2", 8)]), "there is no reason to go back");
        drop(second);
        assert_eq!(spread(&fleet, 4).1, counts(&[("127.0.0.1", 4)]));
        let shown = fleet.console().query("show databases").lookup("name", "app", "load_balance_hosts");
        assert_eq!(shown, "disable");
    }
}

#[test]
fn all_hosts_down_is_the_only_reason_to_wait() {
    for workers in [1, 2] {
        let (mut first, mut second) = two_servers();
        let entry = format!("host=127.0.0.1,127.0.0.2 port={}", first.port());
        let fleet = Fleet::builder(&first).workers(workers).setting("server_login_retry", 3).database("app", entry).start();
        assert_eq!(fleet.client().value("select 1"), "1");
        first.stop();
        second.stop();
        let mut patient = fleet.client();
        patient.send(&frontend::query("select 'at last'"));
        wait_until("both hosts to have failed", SOON, || {
            ["127.0.0.1", "127.0.0.2"].iter().all(|host| fleet.logged(&format!("failed to connect to {host}")) > 0)
        });
        let mut client = fleet.client();
        client.send(&frontend::query("select 1"));
        let text = client.refusal().text().to_owned();
        assert_eq!(text, "server login has been failing, cached error: connect failed (server_login_retry)");
        second.start_again();
        assert_eq!(patient.answer().value(), "at last");
    }
}

/// PgBouncer chooses a host anew for a cancel request, and may ask the wrong one.
#[test]
fn a_cancel_request_goes_to_the_query_s_own_host() {
    let (first, second) = two_servers();
    fleets(&first, "127.0.0.1,127.0.0.2", "", |fleet| {
        let (mut clients, places) = spread(fleet, 4);
        assert_eq!(places, counts(&[("127.0.0.1", 2), ("127.0.0.2", 2)]));
        for client in &mut clients {
            client.send(&frontend::query("select pg_sleep(60)"));
        }
        let running = "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'";
        wait_until("all queries to run", SOON, || {
            [&first, &second].iter().all(|server| server.admin().query_one(running, &[]).unwrap().get::<_, i64>(0) == 2)
        });
        for client in &mut clients {
            client.cancel(fleet.port());
            assert_eq!(client.answer().error().code(), "57014");
        }
    });
}

#[test]
fn folders_abstract_names_and_both_kinds_of_addresses_in_one_list() {
    let mut server = Postgres::start_with("listen_addresses = '127.0.0.1,::1'");
    let name = format!("@pgfleet-test-{}", std::process::id());
    let folder = server.socket_dir().display().to_string();
    let sockets = format!("alter system set unix_socket_directories = '{folder}', '{name}'");
    server.admin().batch_execute(&sockets).unwrap();
    server.stop();
    server.start_again();
    fleets(&server, &format!("{folder},{name},127.0.0.1,::1"), "", |fleet| {
        let (mut clients, places) = spread(fleet, 8);
        assert_eq!(places, counts(&[("unix", 4), ("127.0.0.1", 2), ("::1", 2)]));
        let addresses = fleet.console().query("show servers").column("addr");
        assert_eq!(addresses.iter().filter(|address| *address == "unix").count(), 4, "{addresses:?}");
        for client in &mut clients {
            client.send(&frontend::query("select pg_sleep(60)"));
        }
        let running = "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'";
        wait_until("all queries to run", SOON, || server.admin().query_one(running, &[]).unwrap().get::<_, i64>(0) == 8);
        for client in &mut clients {
            client.cancel(fleet.port());
            assert_eq!(client.answer().error().code(), "57014");
        }
    });
    for list in [&folder, &name, "127.0.0.1", "::1"] {
        fleets(&server, list, "", |fleet| assert_eq!(fleet.client().value("select 1"), "1", "{list}"));
    }
}
