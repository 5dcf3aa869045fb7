//! What logins have taught one worker about logging in to PostgreSQL the others know too, and those that come after it; and what is known when
//! a password changes.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Client, Fleet, Postgres, SOON, frontend, process, wait_for, wait_until};
use nix::sys::signal::Signal;
use std::net::Ipv4Addr;

/// From here clients prove who they are; from 127.0.0.1 nobody asks them.
const ASKED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const RULES: &str = "host app scram_user 127.0.0.2/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n";

fn proven(fleet: &Fleet) -> Client {
    let mut client = Client::tcp_from(ASKED, fleet.port());
    client.start(&[("user", "scram_user"), ("database", "app")], Some("scram-password")).unwrap();
    client
}

/// A client of that worker, which logs in with this password if it is asked for one.
#[track_caller]
fn client_at(fleet: &Fleet, worker: u32, password: &str) -> Client {
    let mut others = Vec::new();
    wait_for("a client at a given worker", SOON, || {
        let mut client = Client::tcp(fleet.port());
        client.start(&[("user", "scram_user"), ("database", "app")], Some(password)).unwrap();
        if fleet.worker_of(&client) == worker {
            return Some(client);
        }
        others.push(client);
        None
    })
}

/// Every worker has heard what the others have learned: whoever has told the supervisor answers it afterwards, and whoever was told does so next.
fn all_have_heard(fleet: &Fleet) {
    let mut console = console(fleet);
    for _ in 0..2 {
        console.query("show clients");
    }
}

fn console(fleet: &Fleet) -> Client {
    let mut client = Client::tcp(fleet.port());
    client.start(&[("user", "admin"), ("database", "pgbouncer")], Some("admin-password")).unwrap();
    client
}

fn verifier(server: &Postgres) -> String {
    let query = "select rolpassword from pg_authid where rolname = 'scram_user'";
    server.admin().query_one(query, &[]).unwrap().get(0)
}

/// Takes a server for itself.
#[track_caller]
fn begin(client: &mut Client) {
    client.query("begin");
    assert_eq!(client.value("select current_user"), "scram_user");
}

#[test]
fn keys_of_a_client_open_servers_in_every_worker() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server)
        .setting("auth_type", "hba")
        .setting("server_login_retry", 1)
        .setting("auth_hba_file", "hba.conf")
        .file("hba.conf", RULES)
        .secret("scram_user", &verifier(&server))
        .start();
    begin(&mut proven(&fleet));
    all_have_heard(&fleet);
    // Each needs a server of its own, as the others' are in transactions.
    let mut busy: Vec<Client> = fleet.all_workers().into_iter().map(|worker| client_at(&fleet, worker, "")).collect();
    busy.iter_mut().for_each(begin);
    for dead in fleet.all_workers() {
        process::signal(dead, Signal::SIGKILL);
        wait_until("a successor", SOON, || fleet.all_workers().len() == 2 && !fleet.all_workers().contains(&dead));
    }
    let mut busy: Vec<Client> = fleet.all_workers().into_iter().map(|worker| client_at(&fleet, worker, "")).collect();
    busy.iter_mut().for_each(begin);
    drop(busy);
    // A verifier that has gone and come again is nobody's meanwhile.
    let own = verifier(&server);
    for secret in ["another", &own] {
        fleet.change_secret("scram_user", secret);
        console(&fleet).query("reload");
    }
    console(&fleet).query("reconnect");
    let mut refused = Client::tcp(fleet.port());
    let hears = match refused.start(&[("user", "scram_user"), ("database", "app")], None) {
        Ok(()) => {
            refused.send(&frontend::query("select 1"));
            refused.refusal()
        }
        Err(fields) => fields,
    };
    assert_eq!(hears.text(), "server login failed: wrong password type");
    begin(&mut proven(&fleet));
    let log = fleet.log();
    assert!(!log.contains(&own) && !log.contains("scram-password"), "no secret is in the log");
}

/// A client that was there before a password was changed cannot prove the new one, but another one has.
#[test]
fn a_password_that_is_changed_reaches_every_worker() {
    let server = Postgres::start();
    let mut admin = server.admin();
    let fleet = Fleet::builder(&server).setting("auth_type", "scram-sha-256").setting("auth_user", "postgres").start();
    let workers = fleet.all_workers();
    let mut old: Vec<Client> = workers.iter().map(|&worker| client_at(&fleet, worker, "scram-password")).collect();
    old.iter_mut().for_each(begin);
    for client in &mut old {
        client.query("commit");
    }
    for (round, &worker) in workers.iter().enumerate() {
        let password = format!("changed-{round}");
        admin.batch_execute(&format!("alter role scram_user password '{password}'")).unwrap();
        admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'scram_user'", &[]).unwrap();
        let mut console = console(&fleet);
        wait_until("the fleet to see it", SOON, || console.query("show servers").find("user", "scram_user", "state").is_none());
        let mut new = client_at(&fleet, worker, &password);
        begin(&mut new);
        all_have_heard(&fleet);
        old.iter_mut().for_each(begin);
        for client in old.iter_mut().chain([&mut new]) {
            client.query("commit");
        }
    }
}

/// Connections that are there stay; new ones are opened with what a reload has brought.
#[test]
fn an_entrys_password_is_changed_by_a_reload() {
    let server = Postgres::start();
    let mut admin = server.admin();
    let entry =
        |user: &str, password: &str| format!("host=127.0.0.1 port={} dbname=app user={user} password={password}", server.port());
    let users = [("plain_user", "scram-sha-256"), ("md5_user", "md5"), ("scram_user", "scram-sha-256")];
    let mut builder = Fleet::builder(&server);
    for (user, _) in users {
        builder = builder.database(user, entry(user, &user.replace("_user", "-password")));
    }
    let mut fleet = builder.start();
    for (user, encryption) in users {
        let mut client = Client::login(fleet.port(), "app", user);
        let before = client.value("select pg_backend_pid()");
        admin.batch_execute(&format!("set password_encryption = '{encryption}'; alter role {user} password 'new'")).unwrap();
        fleet.change_database(user, entry(user, "new"));
        console(&fleet).query("reload");
        assert_eq!(client.value("select pg_backend_pid()"), before, "{user}");
        let mut clients: Vec<Client> = fleet.all_workers().iter().map(|_| Client::login(fleet.port(), "app", user)).collect();
        for client in clients.iter_mut().chain([&mut client]) {
            client.query("begin");
            assert_eq!(client.value("select current_user"), user);
        }
    }
}
