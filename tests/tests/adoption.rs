//! The supervisor is killed, and another one goes on with its workers.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Fleet, Postgres};
use nix::sys::signal::Signal;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

fn control_dir(fleet: &Fleet) -> PathBuf {
    fleet.folder().join(format!(".s.PGFLEET.{}", fleet.port()))
}

#[test]
fn a_second_fleet_is_told_the_first_ones_pid() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).start();
    assert_eq!(fleet.command(&[]).status().unwrap().code(), Some(1));
    fleet.wait_for_log(&format!("FATAL another fleet runs on this configuration: pid {}", fleet.pid()));
    assert_eq!(fleet.client().value("select 1"), "1", "it has touched nothing of the first one's");
    assert_eq!(fleet.console().query("show workers").column("slot").len(), fleet.worker_count());
    fleet.signal(Signal::SIGQUIT);
    fleet.wait_for_exit();
    assert!(!control_dir(&fleet).exists());
}

#[test]
fn a_control_directory_of_others_is_refused() {
    let server = Postgres::start();
    let mut fleet = Fleet::builder(&server).start();
    let directory = control_dir(&fleet);
    fleet.signal(Signal::SIGQUIT);
    fleet.wait_for_exit();
    std::fs::create_dir(&directory).unwrap();
    std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o700)).unwrap();
    let refused = |fleet: &Fleet, why: &str| {
        assert_eq!(fleet.command(&[]).status().unwrap().code(), Some(1));
        let line = fleet.wait_for_log(&format!("FATAL control directory {}: {why}", directory.display()));
        assert!(line.contains("must be a directory of user"), "{line}");
    };
    if nix::unistd::geteuid().is_root() {
        refused(&fleet, "owner 0, mode 0700");
    }
    std::fs::remove_dir(&directory).unwrap();
    std::os::unix::fs::symlink("/tmp", &directory).unwrap();
    refused(&fleet, "no directory, or a symbolic link");
    std::fs::remove_file(&directory).unwrap();
    fleet.start_again(|files| files.command(&[]));
    std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o750)).unwrap();
    refused(&fleet, "owner");
}
