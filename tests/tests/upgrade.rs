//! Another binary takes the running fleet over: the same process, the same clients, the same servers.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Fleet, Postgres};
use std::process::Stdio;

/// By the command line.
#[test]
fn from_the_shell() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).start();
    let before = fleet.all_workers();
    let pid = fleet.pid();
    let mut client = fleet.client();
    client.query("set application_name = 'stays'");
    let backend = client.value("select pg_backend_pid()");
    let upgrade = fleet.command(&["upgrade"]).stdout(Stdio::piped()).output().unwrap();
    assert!(upgrade.status.success(), "{upgrade:?}\n{}", fleet.log());
    assert!(String::from_utf8_lossy(&upgrade.stdout).ends_with("upgraded\n"), "{upgrade:?}");
    let after = fleet.all_workers();
    assert!(after.len() == before.len() && before.iter().all(|pid| !after.contains(pid)), "{before:?} {after:?}");
    assert_eq!(fleet.pid(), pid);
    assert_eq!(client.value("show application_name"), "stays");
    assert_eq!(client.value("select pg_backend_pid()"), backend);
}
