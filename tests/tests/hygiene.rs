//! What is done with a server connection before it serves and between two clients: connect_query, server_check_query, server_reset_query,
//! server_fast_close.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Client, Fleet, Postgres, each_fleet, each_worker_count};

fn entry(server: &Postgres) -> String {
    format!("host=127.0.0.1 port={} dbname=app", server.port())
}

#[test]
fn connect_query_is_run_before_the_first_use() {
    let server = Postgres::start();
    let query = "set work_mem = ''7MB''; set timezone = ''Asia/Tokyo''; select repeat(''x'', 100000)";
    each_fleet(
        &server,
        |builder| builder.setting("server_reset_query", "").database("app", format!("{} connect_query='{query}'", entry(&server))),
        |fleet, _| {
            for _ in 0..3 {
                let mut client = fleet.client();
                assert_eq!(client.value("show work_mem"), "7MB");
                // What it sets of the parameters that clients are told holds for them too.
                assert_eq!(client.value("show timezone"), "Asia/Tokyo");
            }
            assert_eq!(fleet.logged("exec_on_query"), 0);
        },
    );
}

#[test]
fn a_connect_query_that_fails_is_logged_and_no_more() {
    let server = Postgres::start();
    for workers in [1, 2] {
        let fleet = Fleet::builder(&server)
            .workers(workers)
            .database("app", format!("{} connect_query='select 1/0'", entry(&server)))
            .database("open", format!("{} connect_query='begin; set work_mem = ''7MB'''", entry(&server)))
            .database("broken", format!("{} connect_query='begin; select 1/0'", entry(&server)))
            .start();
        assert_eq!(fleet.client().value("select 1"), "1");
        fleet.wait_for_log("S: error while executing exec_on_query: ERROR: division by zero");
        // Nobody comes into a transaction that is not his.
        for database in ["open", "broken"] {
            let mut client = Client::login(fleet.port(), "app", database);
            assert_eq!(client.query("select 1").status, 'I', "{database}");
            assert_ne!(client.value("show work_mem"), "7MB", "{database}");
        }
        assert_eq!(fleet.logged("connect_query has left a transaction open"), 2);
    }
}

/// Connections that were opened with the old query are replaced.
#[test]
fn a_new_connect_query_replaces_connections() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder.database("app", format!("{} connect_query='set work_mem = ''7MB'''", entry(&server))),
        |fleet| {
            let mut client = fleet.client();
            assert_eq!(client.value("show work_mem"), "7MB");
            fleet.change_database("app", format!("{} connect_query='set work_mem = ''8MB'''", entry(&server)));
            fleet.console().query("reload");
            assert_eq!(client.value("show work_mem"), "8MB");
        },
    );
}
