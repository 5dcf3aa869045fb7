//! The fleet is one pool, whatever worker the clients are on: as much is done, and everyone gets a share.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Crowd, Fleet, Postgres, Sampler, place};
use std::time::Duration;

const SERVERS: usize = 20;
const QUERY: &str = "select pg_sleep(0.005)";

/// Two hundred clients, evenly, all at one worker, and in between.
const EVEN: [usize; 4] = [50, 50, 50, 50];
const SKEWED: [usize; 4] = [200, 0, 0, 0];
const MIXED: [usize; 4] = [140, 40, 15, 5];

fn four_workers(server: &Postgres) -> Fleet {
    let builder = Fleet::builder(server).workers(4).pool_size(SERVERS).setting("accept_balance", 0);
    let fleet = builder.setting("max_client_conn", 2000).start();
    fleet.all_workers();
    fleet
}

fn crowd(fleet: &Fleet, counts: [usize; 4]) -> Crowd {
    Crowd::of(place(fleet, &counts, || fleet.client()), QUERY)
}

/// Turns of a second by both, one after the other, so that what else the machine does falls on both.
#[test]
fn a_crowd_at_one_worker_gets_as_much_as_one_at_all() {
    let server = Postgres::start();
    let fleet = four_workers(&server);
    let (mut even, mut skewed) = (crowd(&fleet, EVEN), crowd(&fleet, SKEWED));
    let sampler = Sampler::start(&server);
    let mut ratios: Vec<f64> = Vec::new();
    for _ in 0..11 {
        let [even, skewed] = [&mut even, &mut skewed].map(|crowd| crowd.run(Duration::from_secs(1)).rate());
        println!("{even:.0}/s evenly, {skewed:.0}/s at one worker");
        ratios.push(skewed / even);
    }
    let seen = sampler.finish();
    assert_eq!((seen.most, seen.busiest), (SERVERS as i64, SERVERS as i64), "{seen:?}");
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios[ratios.len() / 2];
    assert!(ratio >= 0.9, "at one worker x{ratio:.2} of what is done evenly: {ratios:.2?}");
}

fn everyone_gets_a_share(counts: [usize; 4]) {
    let server = Postgres::start();
    let fleet = four_workers(&server);
    let mut crowd = crowd(&fleet, counts);
    let sampler = Sampler::start(&server);
    let tally = crowd.run(Duration::from_secs(20));
    let seen = sampler.finish();
    println!("{counts:?}: {:.0}/s, evenness {:.2}, longest {:?}", tally.rate(), tally.evenness(), tally.longest());
    assert_eq!((seen.most, seen.busiest), (SERVERS as i64, SERVERS as i64), "{seen:?}");
    assert!(tally.evenness() >= 0.6, "the slowest client got x{:.2} of the fastest's", tally.evenness());
}

#[test]
fn everyone_gets_a_share_of_clients_spread_evenly() {
    everyone_gets_a_share(EVEN);
}

#[test]
fn everyone_gets_a_share_of_clients_at_one_worker() {
    everyone_gets_a_share(SKEWED);
}

#[test]
fn everyone_gets_a_share_of_clients_spread_unevenly() {
    everyone_gets_a_share(MIXED);
}
