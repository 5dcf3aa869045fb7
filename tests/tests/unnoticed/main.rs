//! Where drivers notice other poolers and must not notice this one: each case runs a program against PostgreSQL itself and through a
//! fleet, and compares what it saw.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

mod altered;
mod errors;
mod names;
mod queue;
mod startup;

use end_to_end::{Builder, Fleet, Postgres, driver};

/// Each program prints the same directly and through fleets of one worker and of two.
#[track_caller]
fn same(programs: &[&str], scenario: &str, build: impl Fn(Builder) -> Builder) {
    let server = Postgres::start();
    for program in programs {
        let direct = driver::run(program, server.port(), &[scenario]);
        for workers in [1, 2] {
            let fleet = build(Fleet::builder(&server).workers(workers)).start();
            assert_eq!(driver::run(program, fleet.port(), &[scenario]), direct, "{program} {scenario}, {workers} workers");
        }
    }
}
