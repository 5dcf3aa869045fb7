//! A fleet that is drained: every client is sent away between two transactions, nobody is let in, and nobody is reset.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::frontend::{query, startup};
use end_to_end::wire::Fields;
use end_to_end::{Answer, Client, Fleet, PoolMode, Postgres, SOON, backends, process, wait_until};
use nix::sys::signal::Signal;
use std::io::ErrorKind;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

/// What a query comes to: its answer, or the FATAL that ends the connection, said before or instead.
fn ask(client: &mut Client, sql: &str) -> Result<Answer, Fields> {
    // Who has been sent away may be closed already; what was said is still there to be read.
    let _ = client.try_send(&query(sql));
    let mut order = Vec::new();
    loop {
        let message = client.try_read().unwrap_or_else(|error| panic!("{sql}: {error}, after {order:?}"));
        let message = message.unwrap_or_else(|| panic!("{sql}: closed without a word, after {order:?}"));
        match message.kind {
            b'Z' => return Ok(Answer::default()),
            b'E' if message.fields().severity() == "FATAL" => return Err(message.fields()),
            b'E' => panic!("{sql}: {:?}", message.fields()),
            kind => order.push(char::from(kind)),
        }
    }
}

#[track_caller]
fn is_sent_away(fields: &Fields) {
    assert_eq!((fields.severity(), fields.code(), fields.text()), ("FATAL", "57P01", "server shutting down"));
}

/// `pgfleet drain` on the fleet.
fn drain(fleet: &Fleet, options: &[&str]) -> Child {
    let arguments = [&["drain"], options].concat();
    fleet.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

fn is_refused(port: u16) -> bool {
    Client::try_tcp(port).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Transactions of up to a second, one after the other, until the client is sent away; the numbers it has committed.
fn work(mut client: Client, number: i32) -> Vec<i32> {
    let mut committed = Vec::new();
    for round in 0.. {
        match ask(&mut client, "begin") {
            Ok(_) => {}
            Err(fields) => {
                is_sent_away(&fields);
                client.expect_end();
                return committed;
            }
        }
        let value = number * 1000 + round;
        let inside = |client: &mut Client, sql: &str| {
            assert!(ask(client, sql).is_ok(), "sent away in the middle of a transaction, at {sql}");
        };
        inside(&mut client, &format!("insert into kept values ({value})"));
        inside(&mut client, &format!("select pg_sleep({})", f64::from((number * 7 + round * 3) % 10) / 10.0));
        inside(&mut client, "commit");
        committed.push(value);
    }
    unreachable!()
}

/// Sessions at work, idle ones, and in session mode one that listens: all are sent away, none in the middle of a transaction.
#[test]
fn nobody_is_cut_off_in_a_transaction() {
    let server = Postgres::start();
    server.admin().batch_execute("create table kept (value int primary key); grant all on kept to app").unwrap();
    for mode in [PoolMode::Session, PoolMode::Transaction] {
        server.admin().batch_execute("truncate kept").unwrap();
        let fleet = Fleet::builder(&server).workers(2).pool_mode(mode).pool_size(40).start();
        let mut idle: Vec<Client> = (0..6).map(|_| fleet.client()).collect();
        for client in &mut idle[..3] {
            assert_eq!(client.value("select 1"), "1");
        }
        if mode == PoolMode::Session {
            idle[0].query("listen news");
        }
        let workers: Vec<_> = (0..10).map(|number| (fleet.client(), number)).collect();
        let workers: Vec<_> =
            workers.into_iter().map(|(client, number)| std::thread::spawn(move || work(client, number))).collect();
        let rows = || server.admin().query_one("select count(*) from kept", &[]).unwrap().get::<_, i64>(0);
        wait_until("some transactions", SOON, || rows() >= 10);
        let output = drain(&fleet, &["--deadline", "60"]).wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        assert!(said(&output).ends_with("drained\n"), "{}", said(&output));
        let committed: usize = workers.into_iter().map(|worker| worker.join().unwrap().len()).sum();
        assert_eq!(rows(), i64::try_from(committed).unwrap(), "{mode:?}: what was committed is there, and nothing else");
        for client in &mut idle {
            is_sent_away(&client.refusal());
        }
        assert!(is_refused(fleet.port()));
        fleet.wait_for_log("drained: no client is left");
    }
}

/// 40 idle clients at 10 a second: never faster, and not for ever.
#[test]
fn idle_clients_leave_at_the_given_pace() {
    let server = Postgres::start();
    for mode in [PoolMode::Session, PoolMode::Transaction] {
        let fleet = Fleet::builder(&server).workers(4).pool_mode(mode).pool_size(60).start();
        let mut console = fleet.console();
        let mut clients: Vec<Client> = (0..40).map(|_| fleet.client()).collect();
        for client in &mut clients {
            assert_eq!(client.value("select 1"), "1");
        }
        let begun = Instant::now();
        let drain = drain(&fleet, &["--rate", "10/s"]);
        loop {
            let workers = console.query("show workers");
            let left: u64 = workers.column("clients").iter().map(|count| count.parse::<u64>().unwrap()).sum();
            // What an unlucky second may bring together, the command's own sessions left out.
            let most = 10.0 * (begun.elapsed().as_secs_f64() + 1.0) + 5.0;
            assert!((40 - left.min(40)) as f64 <= most, "{left} left after {:?}", begun.elapsed());
            if left == 0 {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{left} left");
            std::thread::yield_now();
        }
        assert!(begun.elapsed() > Duration::from_millis(2500), "{:?}", begun.elapsed());
        let output = drain.wait_with_output().unwrap();
        assert!(output.status.success() && said(&output).contains("clients left: "), "{}", said(&output));
        for client in &mut clients {
            is_sent_away(&client.refusal());
        }
    }
}

/// Before the deadline nobody begins a transaction any more, who waits for a server included; at the deadline the rest is cut off.
#[test]
fn the_deadline() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(2).pool_size(1).start();
    let mut stuck = fleet.client();
    stuck.query("begin");
    stuck.send(&query("select pg_sleep(600)"));
    wait_until("the query", SOON, || fleet.console().query("show pools").lookup("user", "app", "sv_active") == "1");
    let mut waiting = fleet.client();
    waiting.send(&query("select 1"));
    let mut idle = fleet.client();
    let drain = drain(&fleet, &["--rate", "1", "--deadline", "4s"]);
    is_sent_away(&waiting.refusal());
    is_sent_away(&idle.refusal());
    let output = drain.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("clients cut off at the deadline: 1"), "{}", said(&output));
    is_sent_away(&stuck.refusal());
    wait_until("its query to be cancelled", SOON, || backends(&mut server.admin()) == 0);
    fleet.wait_for_log("not drained at the deadline, clients cut off: 1");
}

/// Whoever connects is let in, told, or refused at the door, and never reset: before, while and after the port closes, and when it opens again.
#[test]
fn nobody_is_reset_at_the_door() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(4).start();
    let port = fleet.port();
    let mut refused = 0;
    std::thread::scope(|scope| {
        let visitors: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(move || {
                    let mut outcomes = (0, 0, 0);
                    while outcomes.2 < 20 {
                        let Ok(mut client) = Client::try_tcp(port) else {
                            outcomes.2 += 1;
                            continue;
                        };
                        client.send(&startup(&[("user", "app"), ("database", "app")]));
                        match client.authenticate("app", None).map(|()| ask(&mut client, "select 1")) {
                            Ok(Ok(_)) => outcomes.0 += 1,
                            Ok(Err(fields)) | Err(fields) => {
                                assert_eq!(fields.code(), "57P01", "{fields:?}");
                                outcomes.1 += 1;
                            }
                        }
                    }
                    outcomes
                })
            })
            .collect();
        wait_until("some logins", SOON, || fleet.logged("login attempt") > 50);
        let output = drain(&fleet, &["--rate", "1000"]).wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        for visitor in visitors {
            let (let_in, _, turned_away) = visitor.join().unwrap();
            assert!(let_in > 0);
            refused += turned_away;
        }
    });
    assert_eq!(refused, 80);
    let mut at_the_socket = Client::unix(fleet.folder(), port);
    let told = at_the_socket.start(&[("user", "app"), ("database", "app")], None).unwrap_err();
    assert_eq!((told.code(), told.text()), ("57P01", "pooler is shutting down"));
    let output = drain(&fleet, &["--undo"]).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    for pid in fleet.all_workers() {
        assert_eq!(fleet.client_at(pid).value("select 1"), "1");
    }
    let output = drain(&fleet, &["--undo"]).wait_with_output().unwrap();
    assert_eq!((output.status.code(), said(&output).as_str()), (Some(1), "pgfleet: pooler is not draining\n"));
}

/// A worker that dies meanwhile has a successor that lets nobody in either, until it is to.
#[test]
fn a_successor_is_drained_too() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(2).start();
    let mut console = fleet.console();
    assert_eq!(console.query("drain").tags, ["DRAIN"]);
    assert!(is_refused(fleet.port()));
    for pid in fleet.all_workers() {
        process::signal(pid, Signal::SIGKILL);
        wait_until("a successor", SOON, || fleet.workers().len() == 2 && !fleet.workers().contains(&pid));
    }
    wait_until("both to be ready", SOON, || fleet.logged("is ready") == 2);
    assert_eq!(console.query("show workers").column("state"), ["draining", "draining"]);
    assert!(is_refused(fleet.port()));
    assert_eq!(console.query("undrain").tags, ["UNDRAIN"]);
    for pid in fleet.all_workers() {
        assert_eq!(fleet.client_at(pid).value("select 1"), "1");
    }
    assert_eq!(console.query("show workers").column("state"), ["serving", "serving"]);
}

#[test]
fn the_consoles_command() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(2).start();
    let mut console = fleet.console();
    for wrong in ["drain rate", "drain rate 0", "drain now", "drain deadline 5 deadline 6", "undrain app"] {
        assert_eq!(console.query(wrong).error().text(), format!("invalid command '{wrong}', use SHOW HELP;"));
    }
    let mut onlooker = Client::login(fleet.port(), "stats", "pgbouncer");
    for command in ["drain", "undrain"] {
        assert_eq!(onlooker.query(command).error().text(), "admin access needed");
    }
    // Cancelled, it is taken back.
    let mut inside = fleet.client();
    inside.query("begin");
    let mut observer = fleet.console();
    console.send(&query("DRAIN RATE 5"));
    wait_until("the port to close", SOON, || is_refused(fleet.port()));
    let key = console.key.clone();
    let mut request = Client::unix(fleet.folder(), fleet.port());
    request.send(&end_to_end::frontend::cancel(&key));
    let answer = console.answer();
    assert_eq!((answer.error().code(), answer.error().text()), ("57014", "canceling statement due to user request"));
    wait_until("the port to open", SOON, || Client::try_tcp(fleet.port()).is_ok());
    assert_eq!(inside.query("commit").tags, ["COMMIT"]);
    assert_eq!(inside.value("select 1"), "1", "nobody is sent away any more");
    // Ended by somebody else.
    inside.query("begin");
    console.send(&query("drain"));
    fleet.wait_for_log("DRAIN command issued");
    wait_until("the workers to hear of it", SOON, || observer.query("show workers").column("state") == ["draining", "draining"]);
    assert_eq!(observer.query("undrain").tags, ["UNDRAIN"]);
    assert_eq!(console.answer().error().text(), "the drain was ended by UNDRAIN");
    assert_eq!(inside.query("commit").tags, ["COMMIT"]);
}

/// SIGTERM with shutdown_drain_timeout: everybody is sent away between two transactions, and then the fleet ends.
#[test]
fn term_drains_if_it_is_to() {
    let server = Postgres::start();
    for mode in [PoolMode::Session, PoolMode::Transaction] {
        let mut fleet = Fleet::builder(&server).workers(2).pool_mode(mode).setting("shutdown_drain_timeout", 60).start();
        let mut inside = fleet.client();
        inside.query("begin");
        let mut idle = fleet.client();
        fleet.signal(Signal::SIGTERM);
        fleet.wait_for_log("got SIGTERM, shutting down, draining for at most 60 s");
        is_sent_away(&idle.refusal());
        assert!(fleet.has_ended().is_none());
        assert!(ask(&mut inside, "select 1").is_ok());
        assert!(ask(&mut inside, "commit").is_ok());
        is_sent_away(&inside.refusal());
        assert_eq!(fleet.wait_for_exit().code(), Some(0));
    }
}

#[test]
fn term_cuts_off_at_its_time() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(2).setting("shutdown_drain_timeout", 2).start();
    let mut stuck = fleet.client();
    stuck.query("begin");
    let begun = Instant::now();
    fleet.signal(Signal::SIGTERM);
    assert_eq!(fleet.wait_for_exit().code(), Some(0));
    assert!(begun.elapsed() >= Duration::from_secs(2));
    stuck.expect_end();
    fleet.wait_for_log("not drained at the deadline, clients cut off: 1");
}

/// As a container is stopped: drained by its preStop, then SIGTERM.
#[test]
fn a_drained_fleet_ends_at_once() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).workers(2).start();
    let mut client = fleet.client();
    let output = drain(&fleet, &["--deadline", "30"]).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    is_sent_away(&client.refusal());
    fleet.signal(Signal::SIGTERM);
    assert_eq!(fleet.wait_for_exit().code(), Some(0));
    let output = drain(&fleet, &[]).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).starts_with("pgfleet: the fleet cannot be reached at its Unix socket: "), "{}", said(&output));
}
