//! auth_type = pam, with a service of the test's own whose module is a script.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{
    Builder, Client, Crowd, Fields, Fleet, Postgres, SOON, each_worker_count, frontend, process, program, wait_until,
};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const FAILED: &str = "PAM authentication failed";

/// pam_exec runs it with the password as its input and the user's name and address in its environment.
const SCRIPT: &str = r#"#!/bin/sh
password=$(tr -d '\000')
case $PAM_TYPE:$PAM_USER in
auth:hangs) exec sleep 30 ;;
auth:crashes) kill -SEGV $PPID; exit 1 ;;
auth:plain_user) [ "$password" = plain-password ] && [ "$PAM_RHOST" = 127.0.0.1 ] ;;
auth:expired) [ "$password" = plain-password ] ;;
account:expired) exit 1 ;;
account:*) exit 0 ;;
*) exit 1 ;;
esac
"#;

/// A file in /etc/pam.d, removed when dropped.
struct Service {
    name: String,
    _folder: TempDir,
}

impl Service {
    fn install() -> Service {
        let folder = tempfile::tempdir().unwrap();
        let open = |path: &Path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let script = folder.path().join("check");
        std::fs::write(&script, SCRIPT).unwrap();
        open(folder.path());
        open(&script);
        // PAM looks for the name in lower case.
        let unique = folder.path().file_name().unwrap().to_str().unwrap().to_lowercase();
        let name = format!("pgfleet-test{unique}");
        let run = script.display();
        let text = format!("auth required pam_exec.so quiet expose_authtok {run}\naccount required pam_exec.so quiet {run}\n");
        let service = Service { name, _folder: folder };
        let mut tee = as_root("tee").arg(service.file()).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        tee.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(tee.wait().unwrap().success(), "/etc/pam.d cannot be written to");
        service
    }

    fn file(&self) -> PathBuf {
        Path::new("/etc/pam.d").join(&self.name)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = as_root("rm").arg(self.file()).status();
    }
}

/// Only root may write to /etc/pam.d.
fn as_root(program: &str) -> Command {
    if nix::unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}

fn fleet(server: &Postgres, service: &Service) -> end_to_end::Builder {
    Fleet::builder(server).setting("auth_type", "pam").setting("auth_pam_service", &service.name)
}

fn log_in(fleet: &Fleet, user: &str, password: &str) -> Result<Client, Fields> {
    let mut client = Client::tcp(fleet.port());
    client.start(&[("user", user), ("database", "app")], Some(password)).map(|()| client)
}

#[track_caller]
fn assert_refused(fleet: &Fleet, user: &str, password: &str, text: &str) {
    let fields = log_in(fleet, user, password).expect_err("the login should be refused");
    assert_eq!((fields.severity(), fields.code(), fields.text()), ("FATAL", "28P01", text), "{user}");
}

/// The processes that run PAM's modules.
fn helpers(fleet: &Fleet) -> Vec<u32> {
    let is_helper = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "pgfleet pam");
    process::children(fleet.pid()).into_iter().filter(is_helper).collect()
}

#[test]
fn a_service_says_who_comes_in() {
    let (server, service) = (Postgres::start(), Service::install());
    let fleet = fleet(&server, &service).start();
    for _ in 0..3 {
        // PostgreSQL is told the same password.
        let mut client = log_in(&fleet, "plain_user", "plain-password").unwrap();
        assert_eq!(client.value("select current_user"), "plain_user");
    }
    let url = format!("host=127.0.0.1 port={} dbname=app user=plain_user password=plain-password", fleet.port());
    assert_eq!(program::psql(&url, "select current_user"), Ok("plain_user".to_owned()));
    assert_refused(&fleet, "plain_user", "wrong", FAILED);
    assert_refused(&fleet, "plain_user", "", "empty password returned by client");
    assert_refused(&fleet, "stranger", "plain-password", FAILED);
    // The password is right, but the account phase says no.
    assert_refused(&fleet, "expired", "plain-password", FAILED);
    assert!(!fleet.log().contains("plain-password"), "{}", fleet.log());
}

#[test]
fn rules_with_pam_among_others() {
    let (server, service) = (Postgres::start(), Service::install());
    let rules = "\
        host app plain_user 127.0.0.1/32 pam\n\
        host app plain_user all          reject\n\
        host app all        all          trust\n";
    let build = |builder: Builder| {
        let builder = builder.setting("auth_type", "hba").setting("auth_hba_file", "hba.conf").file("hba.conf", rules);
        builder.setting("auth_pam_service", &service.name)
    };
    each_worker_count(&server, build, |fleet| {
        let mut client = log_in(fleet, "plain_user", "plain-password").unwrap();
        assert_eq!(client.value("select current_user"), "plain_user");
        assert_refused(fleet, "plain_user", "wrong", FAILED);
        let mut elsewhere = Client::tcp_from(Ipv4Addr::new(127, 0, 0, 2), fleet.port());
        let fields = elsewhere.start(&[("user", "plain_user"), ("database", "app")], Some("plain-password")).unwrap_err();
        assert_eq!((fields.code(), fields.text()), ("28000", "login rejected"));
        // No service is asked about others.
        assert_eq!(fleet.client().value("select current_user"), "app");
    });
}

#[test]
fn a_service_that_does_not_exist_lets_nobody_in() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).setting("auth_type", "pam").setting("auth_pam_service", "pgfleet-test-none").start();
    assert_refused(&fleet, "plain_user", "plain-password", FAILED);
    let with_query = Fleet::builder(&server).setting("auth_type", "pam").setting("auth_user", "app").start();
    let mut client = Client::tcp(with_query.port());
    client.send(&frontend::startup(&[("user", "plain_user"), ("database", "app")]));
    assert_eq!(client.refusal().text(), "bouncer config error");
}

#[test]
fn a_module_that_crashes_takes_nothing_with_it() {
    let (server, service) = (Postgres::start(), Service::install());
    let fleet = fleet(&server, &service).start();
    let mut client = log_in(&fleet, "plain_user", "plain-password").unwrap();
    for _ in 0..3 {
        assert_refused(&fleet, "crashes", "plain-password", FAILED);
    }
    fleet.wait_for_log("a PAM module has ended the helper process");
    assert_eq!(client.value("select 1"), "1");
    assert_eq!(log_in(&fleet, "plain_user", "plain-password").unwrap().value("select 2"), "2");
}

#[test]
fn a_module_that_hangs_delays_nobody_else() {
    let (server, service) = (Postgres::start(), Service::install());
    let fleet = fleet(&server, &service).setting("client_login_timeout", 5).start();
    let clients: Vec<Client> = (0..64).map(|_| log_in(&fleet, "plain_user", "plain-password").unwrap()).collect();
    let mut crowd = Crowd::of(clients, "select 1");
    let mut hanging: Vec<Client> = (0..8)
        .map(|_| {
            let mut client = Client::tcp(fleet.port());
            client.send(&frontend::startup(&[("user", "hangs"), ("database", "app")]));
            assert_eq!(client.read().kind, b'R');
            client.send(&frontend::password(b"any\0"));
            client
        })
        .collect();
    let beside = crowd.run(Duration::from_secs(2));
    // The module hangs for longer than that.
    assert!(beside.longest() < Duration::from_secs(4), "{:?}", beside.longest());
    assert_eq!(log_in(&fleet, "plain_user", "plain-password").unwrap().value("select 1"), "1");
    for client in &mut hanging {
        let text = client.refusal().text().to_owned();
        assert!(text == "client_login_timeout" || text == FAILED, "{text}");
    }
    wait_until("the helpers that hung to be ended", SOON, || helpers(&fleet).len() < 8);
}
