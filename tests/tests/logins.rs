//! Every way to prove who one is, by every driver.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Fleet, Postgres, driver};

/// Each driver's program, and what it is told before all else.
const DRIVERS: [(&str, &[&str]); 4] =
    [("login.py", &["psycopg"]), ("login.py", &["asyncpg"]), ("login.js", &[]), ("Login.java", &[])];

fn log_in((program, first): (&str, &[&str]), port: u16, arguments: &[&str]) -> String {
    driver::run(program, port, &[first, arguments].concat())
}

#[test]
fn passwords() {
    let server = Postgres::start();
    let verifier: String =
        server.admin().query_one("select rolpassword from pg_authid where rolname = 'scram_user'", &[]).unwrap().get(0);
    for method in ["plain", "md5", "scram-sha-256"] {
        let fleet = Fleet::builder(&server)
            .workers(2)
            .setting("auth_type", method)
            .secret("scram_user", &verifier)
            .secret("plain_user", "plain-password")
            .start();
        for driver in DRIVERS {
            let said = log_in(driver, fleet.port(), &["plain_user:plain-password,plain_user:wrong", "disable"]);
            let said: Vec<&str> = said.lines().collect();
            assert_eq!(said[0], "plain_user clear", "{method} {driver:?}");
            assert!(said[1].starts_with("refused"), "{method} {driver:?}: {said:?}");
            // What is told in clear text opens no server that asks for SCRAM.
            if method != "plain" {
                assert_eq!(
                    log_in(driver, fleet.port(), &["scram_user:scram-password", "disable"]),
                    "scram_user clear",
                    "{method} {driver:?}"
                );
            }
        }
    }
}
