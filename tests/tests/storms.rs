//! Logins that cost the fleet much work, beside clients that are there already.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Client, Fleet, Postgres, each_worker_count};
use std::sync::atomic::{AtomicUsize, Ordering};

/// As many rounds as a stored verifier may ask for: some hundred milliseconds of work.
const SLOW: &str = "SCRAM-SHA-256$1000000:QtqbkfZjTmn8SjGPgaXcMg==$\
                    MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=:MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=";
const GUESSES: usize = 4;

fn guess(fleet: &Fleet) {
    let mut client = Client::tcp(fleet.port());
    let refusal = client.start(&[("user", "slow"), ("database", "app")], Some("a guess")).expect_err("a wrong password");
    assert_eq!(refusal.code(), "28P01");
}

/// Were each guess hashed at once, no more than one query could be answered before it, behind it, and between it and the next.
#[test]
fn queries_go_on_while_guesses_are_hashed() {
    let server = Postgres::start();
    let build = |builder: end_to_end::Builder| builder.setting("auth_type", "plain").secret("slow", SLOW);
    each_worker_count(&server, build, |fleet| {
        let mut client = Client::tcp(fleet.port());
        client.start(&[("user", "app"), ("database", "app")], Some("app-password")).unwrap();
        let (refused, mut answers) = (AtomicUsize::new(0), 0);
        std::thread::scope(|scope| {
            for _ in 0..GUESSES {
                let (fleet, refused) = (&*fleet, &refused);
                scope.spawn(move || {
                    guess(fleet);
                    refused.fetch_add(1, Ordering::Relaxed);
                });
            }
            while refused.load(Ordering::Relaxed) < GUESSES {
                assert_eq!(client.value("select 1"), "1");
                answers += 1;
            }
        });
        println!("{answers} queries during {GUESSES} guesses");
        assert!(answers > 10 * GUESSES, "{answers} queries during {GUESSES} guesses");
    });
}
