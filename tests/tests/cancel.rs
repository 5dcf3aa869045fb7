//! Cancel requests: they come on a connection of their own, which lands on any worker.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Client, Fleet, Postgres, SOON, each_fleet, frontend, wait_until};

fn is_running(server: &mut postgres::Client, text: &str) -> bool {
    let sql =
        "select count(*) from pg_stat_activity where state = 'active' and pid <> pg_backend_pid() and query like '%' || $1 || '%'";
    server.query_one(sql, &[&text]).unwrap().get::<_, i64>(0) > 0
}

#[test]
fn from_whichever_worker() {
    let server = Postgres::start();
    each_fleet(
        &server,
        |builder| builder.pool_size(4),
        |fleet, _| {
            let mut admin = server.admin();
            let mut client = fleet.client();
            // A request lands on a worker by chance: with 4 workers, all 24 of them beside the client's own is one chance in 10^14.
            for round in 0..24 {
                client.send(&frontend::query(&format!("select pg_sleep(60), {round}")));
                wait_until("the query to run", SOON, || is_running(&mut admin, &format!("pg_sleep(60), {round}")));
                client.cancel(fleet.port());
                let answer = client.answer();
                assert_eq!((answer.error().code(), answer.error().severity()), ("57014", "ERROR"));
                assert_eq!(client.value("select 'still here'"), "still here");
            }
        },
    );
}

/// The key is the client's, not the server's: it reaches whatever the client is doing, and never the next user of the server.
#[test]
fn only_the_clients_own_query() {
    let server = Postgres::start();
    each_fleet(
        &server,
        |builder| builder.pool_size(2),
        |fleet, _| {
            let mut admin = server.admin();
            let mut idle = fleet.client();
            let mut busy = fleet.client();
            assert_eq!(idle.value("select 1"), "1");
            busy.send(&frontend::query("select pg_sleep(1), 'undisturbed'"));
            wait_until("the query to run", SOON, || is_running(&mut admin, "undisturbed"));
            for _ in 0..8 {
                idle.cancel(fleet.port());
            }
            let mut stranger = Client::tcp(fleet.port());
            stranger.send(&frontend::cancel(&[0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0]));
            stranger.expect_end();
            assert_eq!(busy.answer().errors.len(), 0);
            assert_eq!(idle.value("select 2"), "2");
        },
    );
}

#[test]
fn malformed_requests_are_closed_without_a_word() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).start();
    for key in [&[][..], &[1, 2, 3, 4], &[0; 7], &[0; 9], &[7; 32]] {
        let mut client = Client::tcp(fleet.port());
        client.send(&frontend::cancel(key));
        client.expect_end();
    }
    assert_eq!(fleet.client().value("select 1"), "1");
}

#[test]
fn keys_differ() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(4).start();
    let clients: Vec<Client> = (0..50).map(|_| fleet.client()).collect();
    let mut keys: Vec<_> = clients.iter().map(|client| client.key.clone()).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 50);
}

#[test]
fn through_psql_and_its_library() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(4).start();
    let mut client = fleet.driver().connect(postgres::NoTls).unwrap();
    let token = client.cancel_token();
    let mut admin = server.admin();
    for round in 0..8 {
        std::thread::scope(|scope| {
            let query = scope.spawn(|| client.batch_execute(&format!("select pg_sleep(60), 'driver {round}'")));
            wait_until("the query to run", SOON, || is_running(&mut admin, &format!("driver {round}")));
            token.cancel_query(postgres::NoTls).unwrap();
            let error = query.join().unwrap().unwrap_err();
            assert_eq!(error.code().unwrap().code(), "57014");
        });
    }
}

/// Cancels under way while servers change hands: nobody else's query may be hit.
#[test]
fn a_storm_of_cancels_hits_nobody_else() {
    let server = Postgres::start();
    for workers in [2, 4] {
        let fleet = Fleet::builder(&server).workers(workers).pool_size(3).start();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let target = fleet.client();
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        target.cancel(fleet.port());
                    }
                });
            }
            let workers: Vec<_> = (0..6)
                .map(|_| {
                    scope.spawn(|| {
                        let mut client = fleet.client();
                        for number in 0..300 {
                            assert_eq!(client.value(&format!("select {number}")), number.to_string());
                        }
                    })
                })
                .collect();
            let results: Vec<_> = workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(results.iter().all(Result::is_ok));
        });
    }
}

/// A client that waits behind a full pool leaves its place, gets PostgreSQL's own error and goes on.
#[test]
fn a_query_that_waits_for_a_server() {
    let server = Postgres::start();
    each_fleet(
        &server,
        |builder| builder.pool_size(1),
        |fleet, _| {
            let lost = [frontend::query("select 'lost'"), frontend::extended("select 'lost'", &[])];
            for round in 0..6 {
                let mut holder = fleet.client();
                holder.query("begin");
                let mut waiting = fleet.client();
                waiting.send(&[&lost[round % 2][..], &frontend::query("select 'kept'")].concat());
                let waits = || fleet.console().query("show pools").lookup("database", "app", "cl_waiting") == "1";
                wait_until("the client to wait", SOON, waits);
                waiting.cancel(fleet.port());
                let answer = waiting.answer();
                assert_eq!((answer.error().code(), answer.error().severity()), ("57014", "ERROR"));
                assert_eq!(answer.error().text(), "canceling statement due to user request");
                assert!(answer.rows.is_empty());
                // What it sent behind the cancelled request still waits, and is served when its turn comes.
                drop(holder);
                assert_eq!(waiting.answer().value(), "kept");
            }
        },
    );
}

/// The same through a driver; and one that vanishes while it waits gives up its place.
#[test]
fn a_driver_cancels_or_leaves_while_it_waits() {
    let server = Postgres::start();
    each_fleet(
        &server,
        |builder| builder.pool_size(1),
        |fleet, _| {
            let mut holder = fleet.client();
            holder.query("begin");
            let waiting = || fleet.console().query("show pools").lookup("database", "app", "cl_waiting");
            let mut client = fleet.driver().connect(postgres::NoTls).unwrap();
            let token = client.cancel_token();
            std::thread::scope(|scope| {
                let query = scope.spawn(|| client.query_one("select $1::int", &[&1]));
                wait_until("the client to wait", SOON, || waiting() == "1");
                token.cancel_query(postgres::NoTls).unwrap();
                let error = query.join().unwrap().unwrap_err();
                assert_eq!(error.code().unwrap().code(), "57014");
            });
            assert_eq!(waiting(), "0");
            let mut leaving = fleet.client();
            leaving.send(&frontend::query("select 'unheard'"));
            wait_until("the other to wait", SOON, || waiting() == "1");
            drop(leaving);
            wait_until("its place to be given up", SOON, || waiting() == "0");
            holder.query("commit");
            drop(holder);
            assert_eq!(client.query_one("select $1::int", &[&2]).unwrap().get::<_, i32>(0), 2);
        },
    );
}

/// PostgreSQL is slow to take a request: who asked, what carries it and the server held back for it can be seen, and the log has both ends.
#[test]
fn requests_on_their_way_are_shown() {
    let server = Postgres::start();
    for workers in [1, 2] {
        let fleet = Fleet::builder(&server).workers(workers).start();
        let mut client = fleet.client();
        let mut admin = server.admin();
        client.send(&frontend::query("select pg_sleep(1), 'on its way'"));
        wait_until("the query to run", SOON, || is_running(&mut admin, "on its way"));
        server.freeze();
        let mut request = Client::tcp(fleet.port());
        request.send(&frontend::cancel(&client.key));
        let mut console = fleet.console();
        let mut shown = |column: &str| console.query("show pools").lookup("database", "app", column);
        wait_until("the request to be shown", SOON, || {
            (shown("cl_active_cancel_req"), shown("sv_active_cancel")) == ("1".into(), "1".into())
        });
        // The query ends by itself: its server serves nobody before the request has landed.
        assert_eq!(client.answer().errors.len(), 0);
        wait_until("the server to be held back", SOON, || shown("sv_being_canceled") == "1");
        let clients = console.query("show clients");
        assert_eq!(clients.lookup("state", "active_cancel_req", "user"), "(nouser)");
        assert_eq!(clients.lookup("state", "active_cancel_req", "database"), "app");
        let mut states = console.query("show servers").column("state");
        states.sort();
        assert_eq!(states, ["active_cancel", "being_canceled"]);
        server.thaw();
        request.expect_end();
        wait_until("the server to serve again", SOON, || {
            let pools = console.query("show pools");
            pools.lookup("database", "app", "sv_being_canceled") == "0" && pools.lookup("database", "app", "sv_idle") == "1"
        });
        wait_until("both ends in the log", SOON, || fleet.logged("closing because: successfully sent cancel request (age=") == 2);
        assert_eq!(fleet.logged(" app/(nouser)@127.0.0.1:"), 1);
        assert_eq!(client.value("select 1"), "1");
    }
}
