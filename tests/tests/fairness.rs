//! Unlike clients that compete for servers: whoever they are, nobody's wait grows without bound.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Client, Crowd, Fleet, Postgres, Tally, each_worker_count};
use std::time::Duration;

/// How long each case loads each fleet.
const TIME: Duration = Duration::from_secs(5);

fn login(count: usize, fleet: &Fleet, user: &str) -> Vec<Client> {
    (0..count).map(|_| Client::login(fleet.port(), user, "app")).collect()
}

fn report(who: &str, tally: &Tally) {
    println!("{who}: {:.0}/s, evenness {:.2}, longest {:?}", tally.rate(), tally.evenness(), tally.longest());
}

/// A hundred clients of one user and two of another share four servers. The two must not be crowded out, nor keep servers that they
/// hardly use: each waits about as long as everyone.
#[test]
fn two_pools_under_one_limit() {
    let server = Postgres::start();
    let entry = format!("host=127.0.0.1 port={} max_db_connections=4", server.port());
    each_worker_count(
        &server,
        |builder| builder.pool_size(4).database("app", &entry).setting("log_disconnections", 0),
        |fleet| {
            let mut crowd = Crowd::default();
            let many = crowd.join(login(100, fleet, "app"), "select pg_sleep(0.005)");
            let few = crowd.join(login(2, fleet, "other"), "select pg_sleep(0.005)");
            let tally = crowd.run(TIME);
            let (many, few) = (tally.of(many), tally.of(few));
            report("the hundred", &many);
            report("the two", &few);
            // A round of everyone's takes 0.13 s if the servers are always busy.
            assert!(many.longest() < Duration::from_secs(2) && few.longest() < Duration::from_secs(2));
            assert!(many.evenness() >= 0.3, "x{:.2}", many.evenness());
            let each = |tally: &Tally, count: f64| tally.served() as f64 / count;
            let ratio = each(&few, 2.0) / each(&many, 100.0);
            assert!(ratio > 0.3, "each of the two gets x{ratio:.2} of what each of the hundred gets");
        },
    );
}

/// Who asks for 200 ms waits no longer for a server than who asks for 1 ms.
#[test]
fn short_and_long_queries() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder.pool_size(10),
        |fleet| {
            let mut crowd = Crowd::default();
            let short = crowd.join(login(30, fleet, "app"), "select pg_sleep(0.001)");
            let long = crowd.join(login(15, fleet, "app"), "select pg_sleep(0.2)");
            let tally = crowd.run(TIME);
            let (short, long) = (tally.of(short), tally.of(long));
            report("1 ms", &short);
            report("200 ms", &long);
            for (tally, time) in [(&short, Duration::from_millis(1)), (&long, Duration::from_millis(200))] {
                assert!(tally.evenness() >= 0.6, "x{:.2} for {time:?}", tally.evenness());
                assert!(tally.longest() < time + Duration::from_secs(2), "{:?} for {time:?}", tally.longest());
            }
        },
    );
}

/// Clients that stay and clients that come anew for each query take the same servers in turn.
#[test]
fn clients_that_stay_and_clients_that_come_for_each_query() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder.pool_size(4).setting("log_connections", 0).setting("log_disconnections", 0),
        |fleet| {
            let mut crowd = Crowd::default();
            let staying = crowd.join(login(30, fleet, "app"), "select pg_sleep(0.005)");
            let coming = crowd.join_connecting(10, fleet.port(), "app", "select pg_sleep(0.005)");
            let tally = crowd.run(TIME);
            let (staying, coming) = (tally.of(staying), tally.of(coming));
            report("those who stay", &staying);
            report("those who come", &coming);
            for tally in [&staying, &coming] {
                assert!(tally.evenness() >= 0.6, "x{:.2}", tally.evenness());
                assert!(tally.longest() < Duration::from_secs(2), "{:?}", tally.longest());
            }
        },
    );
}
