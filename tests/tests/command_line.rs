//! The command line: starting, checking, converting, refusing.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::program::{binary, stderr, stdout};
use end_to_end::{Client, Fleet, Postgres, SOON, process, wait_for, wait_until};
use nix::sys::signal::Signal;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

fn pgfleet(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).output().unwrap()
}

fn all(output: &Output) -> String {
    format!("{}\n{}", stdout(output), stderr(output))
}

/// A folder with an auth_file in it, and the lines that every configuration in it begins with: a program is checked in any folder.
fn folder() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let secrets = file(folder.path(), "userlist.txt", "\"app\" \"app-password\"\n");
    std::fs::set_permissions(&secrets, std::fs::Permissions::from_mode(0o600)).unwrap();
    let start = format!("[pgbouncer]\nauth_type = trust\nauth_file = {}\n", secrets.display());
    (folder, start)
}

fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn version_and_help() {
    for flag in ["-V", "--version"] {
        let output = pgfleet(&[flag]);
        assert!(output.status.success());
        assert!(stdout(&output).to_lowercase().starts_with("pgfleet "), "{}", stdout(&output));
    }
    let output = pgfleet(&["--help"]);
    assert!(output.status.success());
    for word in ["check", "convert", "-d", "-q", "-v", "-u"] {
        assert!(stdout(&output).contains(word), "{word}: {}", stdout(&output));
    }
    assert!(!pgfleet(&[]).status.success(), "a configuration must be named");
    assert!(!pgfleet(&["--no-such-option", "x.ini"]).status.success());
}

#[test]
fn check_finds_every_problem() {
    let (folder, start) = folder();
    let good = file(folder.path(), "good.ini", &format!("{start}pool_mode = transaction\n[databases]\napp = host=127.0.0.1\n"));
    let output = pgfleet(&["check", good.to_str().unwrap()]);
    assert!(output.status.success(), "{}", all(&output));
    let wrong = "listen_port = many\npol_mode = session\n\npool_mode = sometimes\n[databases]\napp = host=127.0.0.1 prot=5432\n";
    let bad = file(folder.path(), "bad.ini", &format!("{start}{wrong}"));
    let output = pgfleet(&["check", bad.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = all(&output);
    for (line, word) in [(4, "listen_port"), (5, "pol_mode"), (7, "pool_mode"), (9, "prot")] {
        let found = said.lines().any(|text| text.contains(&format!("bad.ini:{line}")) && text.contains(word));
        assert!(found, "line {line}, {word}: {said}");
    }
    let nearest = |text: &str| text.contains("pol_mode") && text.replace("pol_mode", "").contains("pool_mode");
    assert!(said.lines().any(nearest), "the nearest name: {said}");
    let output = pgfleet(&["check", folder.path().join("absent.ini").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(all(&output).contains("absent.ini"), "{}", all(&output));
}

#[test]
fn check_names_settings_that_do_nothing() {
    let (folder, start) = folder();
    let path = file(folder.path(), "quiet.ini", &format!("{start}job_name = x\n[databases]\napp =\n"));
    let output = pgfleet(&["check", path.to_str().unwrap()]);
    assert!(output.status.success(), "{}", all(&output));
    assert!(all(&output).contains("job_name"), "{}", all(&output));
}

#[test]
fn a_broken_configuration_does_not_start() {
    let server = Postgres::start();
    for (name, value) in [("pool_mode", "sometimes"), ("no_such_setting", "1")] {
        let unstarted = Fleet::builder(&server).setting(name, value).write();
        assert_eq!(unstarted.command(&[]).status().unwrap().code(), Some(1));
        let log = std::fs::read_to_string(unstarted.folder().join("log.txt")).unwrap();
        assert!(log.contains(name) && log.contains("pgfleet.ini"), "{log}");
    }
}

/// A fleet converted to TOML is the same fleet: SHOW CONFIG and SHOW DATABASES agree.
#[test]
fn convert_keeps_everything() {
    let server = Postgres::start();
    let build = || {
        Fleet::builder(&server)
            .setting("server_idle_timeout", "12.5")
            .setting("ignore_startup_parameters", "extra_float_digits, search_path")
            .setting("server_reset_query", "DISCARD ALL; SELECT 'it''s \"quoted\" \\ here'")
            .setting("unix_socket_mode", "0770")
            .database(
                "other",
                format!("host=127.0.0.1 port={} dbname=app user=app pool_size=3 connect_query='select ''x'''", server.port()),
            )
            .database("*", format!("host=127.0.0.1 port={}", server.port()))
            .user("other", "pool_mode=session max_user_connections=4")
    };
    let ini = build().start();
    let toml = build().toml(true).start();
    assert!(toml.config_path().extension().is_some_and(|extension| extension == "toml"));
    for command in ["show config", "show databases"] {
        let text = |fleet: &Fleet| {
            let rows = fleet.console().query(command).rows;
            let text = format!("{rows:?}").replace(&fleet.folder().display().to_string(), "FOLDER");
            text.replace(&fleet.port().to_string(), "PORT").replace("pgfleet.toml", "CONFIG").replace("pgfleet.ini", "CONFIG")
        };
        assert_eq!(text(&ini), text(&toml), "{command}");
    }
    assert_eq!(Client::login(toml.port(), "app", "other").value("select 1"), "1");
    assert_eq!(Client::login(toml.port(), "app", "app").value("select current_database()"), "app");
}

#[test]
fn included_files() {
    let server = Postgres::start();
    let unstarted = Fleet::builder(&server).write();
    let more = file(unstarted.folder(), "more.ini", "default_pool_size = 7\n");
    let text = std::fs::read_to_string(unstarted.config_path()).unwrap() + &format!("%include {}\n", more.display());
    std::fs::write(unstarted.config_path(), text).unwrap();
    let fleet = unstarted.start();
    assert_eq!(fleet.console().query("show config").lookup("key", "default_pool_size", "value"), "7");
}

#[test]
fn quiet_and_verbose() {
    let server = Postgres::start();
    let unstarted = Fleet::builder(&server).setting("verbose", 2).write();
    let fleet = unstarted.start();
    assert_eq!(fleet.client().value("select 1"), "1");
    // PgBouncer's form, every line: time, zone, process, level.
    for line in fleet.log().lines().filter(|line| !line.starts_with('\t')) {
        let words: Vec<&str> = line.split(' ').collect();
        assert!(words.len() > 4 && words[0].len() == 10 && words[1].len() == 12 && words[3].starts_with('['), "{line:?}");
        assert!(["FATAL", "ERROR", "WARNING", "LOG", "DEBUG", "NOISE"].contains(&words[4]), "{line:?}");
    }
}

/// `-d`: the command returns when the fleet is up, and the fleet goes on without it.
#[test]
fn daemon() {
    let server = Postgres::start();
    let unstarted = Fleet::builder(&server).workers(2).write();
    let text = std::fs::read_to_string(unstarted.config_path()).unwrap();
    let folder = unstarted.folder().display();
    std::fs::write(unstarted.config_path(), format!("{text}pidfile = {folder}/pid\nlogfile = {folder}/own.log\n")).unwrap();
    assert_eq!(unstarted.command(&["-d"]).status().unwrap().code(), Some(0));
    let read_pid = || std::fs::read_to_string(unstarted.folder().join("pid")).ok()?.trim().parse::<u32>().ok();
    let pid = wait_for("the pidfile", SOON, read_pid);
    let mut client = None;
    wait_until("the fleet to serve", SOON, || {
        client = Client::try_tcp(unstarted.port()).ok();
        client.is_some()
    });
    let mut client = client.unwrap();
    client.start(&[("user", "app"), ("database", "app")], None).unwrap();
    assert_eq!(client.value("select 1"), "1");
    process::signal(pid, Signal::SIGQUIT);
    wait_until("it to end", SOON, || !process::is_alive(pid));
    client.expect_end();
    assert!(!unstarted.folder().join("pid").exists());
}

#[test]
fn a_daemon_needs_a_pidfile() {
    let server = Postgres::start();
    let unstarted = Fleet::builder(&server).write();
    assert_eq!(unstarted.command(&["-d"]).status().unwrap().code(), Some(1));
    let log = std::fs::read_to_string(unstarted.folder().join("log.txt")).unwrap();
    assert!(log.contains("daemon needs pidfile"), "{log}");
}

#[test]
fn two_fleets_on_one_port_are_refused() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).start();
    let second = Fleet::builder(&server).setting("unix_socket_dir", "").write();
    let text = std::fs::read_to_string(second.config_path()).unwrap();
    let text = text.replace(&format!("listen_port = {}", second.port()), &format!("listen_port = {}", fleet.port()));
    std::fs::write(second.config_path(), text).unwrap();
    assert_eq!(second.command(&[]).status().unwrap().code(), Some(1), "so_reuseport = 0: the port is one fleet's");
    assert_eq!(fleet.client().value("select 1"), "1");
}
