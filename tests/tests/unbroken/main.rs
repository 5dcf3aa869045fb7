//! Workers are replaced, again and again, under everything that clients do: no client notices, and nothing grows.
//!
//! `scripts/soak` runs the long form: on a quiet machine nobody waits for a quarter of a second. The short one is held on any machine; clients of
//! PostgreSQL's own, and a time without events, tell what is the machine's.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

mod deaths;
mod footprint;
mod verdict;

use end_to_end::tls::Authority;
use end_to_end::traffic::{Phase, Plan, Traffic};
use end_to_end::{Event, Postgres, Sampler, network};
use footprint::Footprint;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use verdict::{Outcome, Resets};

const SHORT: Plan = Plan {
    each: 1,
    idle: 10,
    copied_bytes: 50_000_000,
    copy_rate: 10_000_000,
    longest: Duration::from_secs(2),
    thought: Duration::from_millis(40),
};
/// More clients, who ask as much in all.
const LONG: Plan = Plan { each: 2, idle: 50, copied_bytes: 500_000_000, thought: Duration::from_millis(80), ..SHORT };

/// Which events, in which order: as the environment says for the long form, five of each in the short one.
fn events() -> (bool, Vec<Event>) {
    let wanted = std::env::var("PGFLEET_SOAK").ok();
    let count = |kind: &str| {
        let words = wanted.as_deref()?.split_whitespace();
        words.filter_map(|word| word.split_once('=')).find(|(name, _)| *name == kind).map(|(_, count)| count.parse().unwrap())
    };
    let otherwise = if wanted.is_some() { 0 } else { 5 };
    let of = |event, kind| std::iter::repeat_n(event, count(kind).unwrap_or(otherwise));
    (wanted.is_some(), of(Event::Restart, "restarts").chain(of(Event::Upgrade, "upgrades")).collect())
}

fn backends(server: &Postgres) -> BTreeSet<i32> {
    let rows = server.admin().query("select pid from pg_stat_activity where usename = 'app'", &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[test]
fn nobody_notices() {
    let (long, events) = events();
    let plan = if long { LONG } else { SHORT };
    let counted = network::own();
    let authority = Authority::new();
    let server = Postgres::start_with(&authority.postgres("server"));
    let fleet = plan.fleet(&server, &authority).workers(2).start();
    fleet.all_workers();
    let traffic = Traffic::start(plan, &fleet, &server, &authority);
    let (before, sampler) = (backends(&server), Sampler::start(&server));
    let resets = counted.then(Resets::so_far);
    for _ in 0..3 {
        traffic.wait_for_everyone();
    }
    traffic.enter(Phase::Events);
    let (mut footprints, mut took) = (Vec::new(), Vec::new());
    for event in &events {
        let began = Instant::now();
        event.happen(&fleet);
        took.push(began.elapsed());
        traffic.wait_for_everyone();
        footprints.push(Footprint::of(&fleet));
    }
    let resets = resets.map(|before| Resets::so_far().since(&before));
    let (clients, opened) = (traffic.len(), backends(&server).symmetric_difference(&before).count());
    let seen = sampler.finish();
    let figures = traffic.finish();
    let outcome =
        Outcome { long, plan, events: &events, took, clients, figures, footprints, seen, opened, resets, log: fleet.log() };
    print!("{outcome}");
    let broken = outcome.broken();
    assert!(broken.is_empty(), "broken promises: {broken:#?}");
}
