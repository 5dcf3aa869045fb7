//! What is logged, and what is not when a setting says so.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Client, Fleet, Postgres, SOON, each_worker_count, frontend, wait_until};

/// A client that comes, uses a server and leaves, and one that is refused.
fn come_and_go(fleet: &Fleet) {
    let mut client = fleet.client();
    assert_eq!(client.value("select 1"), "1");
    client.send(&frontend::terminate());
    client.expect_end();
    let mut refused = Client::tcp(fleet.port());
    let error = refused.start(&[("user", "app"), ("database", "nowhere")], None).unwrap_err();
    assert_eq!(error.text(), "no such database: nowhere");
    // Those who left are off the books, and their lines written.
    wait_until("them to have left", SOON, || {
        fleet.console().query("show clients").column("user").iter().all(|user| user == "admin")
    });
    let mut console = fleet.console();
    console.query("reconnect");
    wait_until("the server to go", SOON, || console.query("show servers").rows.is_empty());
}

#[test]
fn connections_disconnections_and_errors() {
    let server = Postgres::start();
    let kinds: [(&str, &[&str]); 3] = [
        ("log_connections", &["login attempt: db=app user=app", "new connection to server"]),
        ("log_disconnections", &["closing because: client close request", "closing because: database configuration changed"]),
        ("log_pooler_errors", &["pooler error: no such database: nowhere"]),
    ];
    each_worker_count(
        &server,
        |builder| builder,
        |fleet| {
            for off in [None, Some(0), Some(1), Some(2)] {
                for (at, (setting, _)) in kinds.iter().enumerate() {
                    fleet.change(setting, i32::from(off != Some(at)));
                }
                assert_eq!(fleet.console().query("reload").tags, ["RELOAD"]);
                let before: Vec<usize> = kinds.iter().flat_map(|(_, texts)| texts.iter()).map(|text| fleet.logged(text)).collect();
                come_and_go(fleet);
                let mut before = before.into_iter();
                for (at, (setting, texts)) in kinds.iter().enumerate() {
                    for text in *texts {
                        let more = fleet.logged(text) > before.next().unwrap();
                        assert_eq!(more, off != Some(at), "{text:?} with {setting}={}", i32::from(off != Some(at)));
                    }
                }
            }
        },
    );
}

#[test]
fn a_line_of_totals_each_period() {
    let server = Postgres::start();
    for workers in [1, 2] {
        let mut fleet = Fleet::builder(&server).workers(workers).setting("stats_period", 1).setting("log_stats", 0).start();
        let average = || fleet.console().query("show stats").lookup("database", "app", "avg_query_time");
        // A period in which there was a query, and one without, are over.
        fleet.client().query("select pg_sleep(0.05)");
        wait_until("the query to show in the averages", SOON, || average() != "0");
        wait_until("it to have gone from them", SOON, || average() == "0");
        assert_eq!(fleet.logged("LOG stats: "), 0);
        fleet.change("log_stats", 1);
        fleet.console().query("reload");
        let line = fleet.wait_for_log("LOG stats: ");
        assert!(line.contains(" xacts/s, ") && line.contains(" queries/s, ") && line.ends_with(" us"), "{line}");
        wait_until("the next line", SOON, || fleet.logged("LOG stats: ") >= 2);
    }
}
