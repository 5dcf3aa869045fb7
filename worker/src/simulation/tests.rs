//! The themes: in each, hundreds of seeds.
//!
//! `PGFLEET_SEED=… cargo test -p worker NAME_OF_THE_TEST` runs one again and tells what happens.

use super::Simulation;
use super::scenario::Plan;
use rand::rngs::SmallRng;

/// `PGFLEET_SEEDS` is another number of seeds, for a longer run.
fn simulate(seeds: u64, plan: impl Fn(&mut SmallRng) -> Plan) {
    let number = |name| std::env::var(name).ok().map(|number| number.parse::<u64>().unwrap());
    let one = number("PGFLEET_SEED");
    let seeds = number("PGFLEET_SEEDS").unwrap_or(seeds);
    for seed in one.map_or(0..seeds, |seed| seed..seed + 1) {
        Simulation::new(seed, one.is_some(), &plan).run();
    }
}

#[test]
fn all_is_calm() {
    simulate(300, Plan::calm);
}

#[test]
fn pools_share_limits() {
    simulate(300, Plan::shared);
}

#[test]
fn nobody_starves() {
    simulate(100, Plan::saturated);
}

#[test]
fn messages_are_lost_and_late() {
    simulate(300, Plan::lossy);
}

#[test]
fn workers_die() {
    simulate(300, Plan::deadly);
}

#[test]
fn workers_hang() {
    simulate(300, Plan::hanging);
}

#[test]
fn the_configuration_changes() {
    simulate(300, Plan::reloading);
}

#[test]
fn the_fleet_moves_to_another_region() {
    simulate(300, Plan::upgrading_calmly);
}

#[test]
fn workers_die_while_the_fleet_moves() {
    simulate(300, Plan::upgrading);
}

#[test]
fn postgresql_fails() {
    simulate(300, Plan::failing);
}

#[test]
fn a_seed_decides_everything() {
    for seed in 0..20 {
        for theme in
            [Plan::calm, Plan::shared, Plan::lossy, Plan::deadly, Plan::hanging, Plan::reloading, Plan::failing, Plan::upgrading]
        {
            let mut hashes = (0..2).map(|_| {
                let mut simulation = Simulation::new(seed, false, theme);
                simulation.run();
                simulation.trace.hash()
            });
            assert_eq!(hashes.next(), hashes.next(), "seed {seed}");
        }
    }
}
