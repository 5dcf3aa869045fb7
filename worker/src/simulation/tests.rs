//! The themes: in each, thousands of seeds.
//!
//! `PGFLEET_SEED=… cargo test -p worker NAME_OF_THE_TEST` runs one again and tells what happens.

use super::Simulation;
use super::scenario::Plan;
use rand::rngs::SmallRng;

fn simulate(seeds: u64, plan: impl Fn(&mut SmallRng) -> Plan) {
    let one = std::env::var("PGFLEET_SEED").ok().map(|seed| seed.parse().unwrap());
    for seed in one.map_or(0..seeds, |seed: u64| seed..seed + 1) {
        Simulation::new(seed, one.is_some(), &plan).run();
    }
}

#[test]
fn all_is_calm() {
    simulate(500, Plan::calm);
}

#[test]
fn a_seed_decides_everything() {
    for seed in 0..20 {
        let mut hashes = (0..2).map(|_| {
            let mut simulation = Simulation::new(seed, false, Plan::calm);
            simulation.run();
            simulation.trace.hash()
        });
        assert_eq!(hashes.next(), hashes.next(), "seed {seed}");
    }
}
