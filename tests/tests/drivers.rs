//! What people really use: psql, pgbench and the Rust driver on few servers. The drivers of other languages are in `mixed`.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::program::{postgres_program, psql, stderr, stdout};
use end_to_end::{Fleet, PoolMode, Postgres, each_fleet};
use std::io::Write;
use std::process::Stdio;

#[test]
fn psql_works() {
    let server = Postgres::start();
    each_fleet(
        &server,
        |builder| builder.pool_size(2),
        |fleet, _| {
            assert_eq!(psql(&fleet.url(), "select 1; select 'two'").unwrap(), "1\ntwo");
            assert!(psql(&fleet.url(), "select * from nowhere").unwrap_err().contains("relation \"nowhere\" does not exist"));
            let mut shell = postgres_program("psql");
            shell.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", &fleet.url()]);
            let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let script = "begin;\ncreate temp table t (x int) on commit drop;\n\\copy t from stdin\n1\n2\n3\n\\.\nselect sum(x) from t;\n\
                      \\copy t to stdout\ncommit;\nselect $1 || $2 \\bind a b \\g\n";
            // \bind came with psql 16.
            let script = if version_of_psql() >= 16 { script } else { script.split("select $1").next().unwrap() };
            shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
            let output = shell.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", stderr(&output));
            assert!(stdout(&output).starts_with("6\n1\n2\n3"), "{}", stdout(&output));
        },
    );
}

fn version_of_psql() -> u32 {
    let text = stdout(&postgres_program("psql").arg("--version").output().unwrap());
    text.split_whitespace().find_map(|word| word.split('.').next()?.parse().ok()).unwrap()
}

#[test]
fn the_rust_driver_works() {
    let server = Postgres::start();
    each_fleet(
        &server,
        |builder| builder.pool_size(2),
        |fleet, mode| {
            let fleet = &*fleet;
            std::thread::scope(|scope| {
                // A session keeps its server: two at a time then.
                for number in 0..if mode == PoolMode::Session { 2 } else { 8 } {
                    scope.spawn(move || {
                        let mut client = fleet.driver().connect(postgres::NoTls).unwrap();
                        let statement = client.prepare("select $1::int + $2::int").unwrap();
                        for round in 0..50 {
                            let sum: i32 = client.query_one(&statement, &[&number, &round]).unwrap().get(0);
                            assert_eq!(sum, number + round);
                            let mut transaction = client.transaction().unwrap();
                            let rows = transaction.query("select generate_series(1, $1)", &[&round]).unwrap();
                            assert_eq!(rows.len(), round as usize);
                            assert!(transaction.execute("select 1/$1::int", &[&0]).is_err());
                            transaction.rollback().unwrap();
                        }
                    });
                }
            });
        },
    );
}

#[test]
fn pgbench_initialises() {
    let server = Postgres::start();
    for mode in [PoolMode::Session, PoolMode::Transaction] {
        let fleet = Fleet::builder(&server).workers(2).pool_mode(mode).start();
        let output = postgres_program("pgbench").args(["-i", "-q", "-s", "1", &fleet.url()]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(fleet.client().value("select count(*) from pgbench_accounts"), "100000");
    }
}
