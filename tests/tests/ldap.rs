//! auth_type = ldap, with Debian's slapd as the server.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::directory::{BASE, Directory};
use end_to_end::{
    Builder, Client, Crowd, Fields, Fleet, Postgres, SOON, each_worker_count, frontend, process, program, wait_for, wait_until,
};
use nix::sys::signal::Signal;
use std::net::TcpListener;
use std::time::Duration;

/// Roles of the test's PostgreSQL that it asks for the same passwords: whoever is in has had them passed on.
const PEOPLE: [(&str, &str); 2] = [("plain_user", "plain-password"), ("scram_user", "scram-password")];

const FAILED: &str = "LDAP authentication failed";

fn log_in(fleet: &Fleet, user: &str, password: &str) -> Result<Client, Fields> {
    let mut client = Client::tcp(fleet.port());
    client.start(&[("user", user), ("database", "app")], Some(password)).map(|()| client)
}

#[track_caller]
fn assert_served(fleet: &Fleet, user: &str, password: &str) {
    let mut client = log_in(fleet, user, password).unwrap();
    assert_eq!(client.value("select current_user"), user);
}

#[track_caller]
fn assert_refused(fleet: &Fleet, user: &str, password: &str, text: &str) {
    let fields = log_in(fleet, user, password).expect_err("the login should be refused");
    let code = if text.contains("config") || text.contains("null") { "08P01" } else { "28P01" };
    assert_eq!((fields.severity(), fields.code(), fields.text()), ("FATAL", code, text), "{user}");
}

fn fleet(server: &Postgres, options: &str) -> end_to_end::Builder {
    Fleet::builder(server).setting("auth_type", "ldap").setting("auth_ldap_options", options).setting("server_login_retry", 1)
}

fn simple(port: u16) -> String {
    format!("ldapserver=127.0.0.1 ldapport={port} ldapprefix=\"uid=\" ldapsuffix=\",ou=people,{BASE}\"")
}

#[test]
fn simple_bind() {
    let (server, directory) = (Postgres::start(), Directory::start(&PEOPLE));
    let fleet = fleet(&server, &simple(directory.port())).setting("admin_users", "scram_user").start();
    for (user, password) in PEOPLE {
        assert_served(&fleet, user, password);
        assert_refused(&fleet, user, "wrong", FAILED);
        // An LDAP server takes an empty password for nobody's and says yes to it.
        assert_refused(&fleet, user, "", "empty password returned by client");
    }
    let url = format!("host=127.0.0.1 port={} dbname=app user=plain_user password=plain-password", fleet.port());
    assert_eq!(program::psql(&url, "select current_user"), Ok("plain_user".to_owned()));
    assert_refused(&fleet, "stranger", "plain-password", FAILED);
    // Would be plain_user's entry if it were pasted into the name.
    assert_refused(&fleet, &format!("plain_user,ou=people,{BASE}"), "plain-password", FAILED);
    // The password that is used with PostgreSQL is the latest that was right.
    directory.change_password("plain_user", "another");
    assert_refused(&fleet, "plain_user", "plain-password", FAILED);
    let mut admin = server.admin();
    admin.batch_execute("alter role plain_user password 'another'").unwrap();
    admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'plain_user'", &[]).unwrap();
    // The backend has ended before the fleet has seen it.
    let mut console = Client::tcp(fleet.port());
    console.start(&[("user", "scram_user"), ("database", "pgbouncer")], Some("scram-password")).unwrap();
    wait_until("the fleet to see it", SOON, || console.query("show servers").find("user", "plain_user", "state").is_none());
    assert_served(&fleet, "plain_user", "another");
}

#[test]
fn search_and_bind() {
    let (server, directory) = (Postgres::start(), Directory::start(&PEOPLE));
    let place = format!("ldapserver=127.0.0.1 ldapport={} ldapbasedn=\"{BASE}\"", directory.port());
    let searcher = format!("ldapbinddn=\"cn=manager,{BASE}\" ldapbindpasswd=manager-password");
    for matching in ["", "ldapsearchattribute=cn", "ldapsearchfilter=\"(|(uid=$username)(mail=$username))\""] {
        let fleet = fleet(&server, &format!("{place} {searcher} {matching}")).start();
        assert_served(&fleet, "plain_user", "plain-password");
        for (user, password) in
            [("plain_user", "wrong"), ("stranger", "plain-password"), ("*", "plain-password"), ("plain_use*", "plain-password")]
        {
            assert_refused(&fleet, user, password, FAILED);
        }
        // The filter finds both.
        assert_refused(&fleet, "all@example.net", "plain-password", FAILED);
        assert!(!fleet.log().contains("manager-password") && !fleet.log().contains("plain-password"), "{}", fleet.log());
    }
    // Who has not bound finds nothing.
    let anonymous = fleet(&server, &place).start();
    assert_refused(&anonymous, "plain_user", "plain-password", FAILED);
    let url = format!("ldapurl=\"ldap://127.0.0.1:{}/{BASE}?uid?sub\" {searcher}", directory.port());
    assert_served(&fleet(&server, &url).start(), "plain_user", "plain-password");
}

/// Whose certificates are believed is said where OpenLDAP's library looks for it.
#[test]
fn tls_from_the_start_and_on_request() {
    let (server, directory) = (Postgres::start(), Directory::start(&PEOPLE));
    let on_request = format!("{} ldaptls=1", simple(directory.port()));
    let from_the_start = format!("{} ldapscheme=ldaps", simple(directory.tls_port()));
    for options in [on_request, from_the_start] {
        let files = fleet(&server, &options).write();
        let mut command = files.command(&[]);
        command.env("LDAPTLS_CACERT", directory.authority());
        let believing = files.start_as(command);
        assert_served(&believing, "plain_user", "plain-password");
        assert_refused(&believing, "plain_user", "wrong", FAILED);
        let doubting = fleet(&server, &options).start();
        assert_refused(&doubting, "plain_user", "plain-password", FAILED);
        doubting.wait_for_log("invalid peer certificate");
        let files = fleet(&server, &options).write();
        let mut command = files.command(&[]);
        command.env("LDAPTLS_REQCERT", "never");
        assert_served(&files.start_as(command), "plain_user", "plain-password");
    }
}

#[test]
fn the_first_server_that_can_be_reached_is_asked() {
    let (server, directory) = (Postgres::start(), Directory::start(&PEOPLE));
    let options = simple(directory.port()).replace("127.0.0.1", "\"127.0.0.2 127.0.0.1\"");
    let fleet = fleet(&server, &options).start();
    assert_served(&fleet, "plain_user", "plain-password");
}

#[test]
fn what_cannot_be() {
    let server = Postgres::start();
    let unset = Fleet::builder(&server).setting("auth_type", "ldap").start();
    assert_refused_without_asking(&unset, "auth_ldap_options is null");
    let nowhere = fleet(&server, "ldapserver=127.0.0.1 ldapport=1 ldapprefix=uid=").start();
    assert_refused(&nowhere, "plain_user", "plain-password", FAILED);
    nowhere.wait_for_log("could not connect to LDAP server 127.0.0.1:1");
    let with_query = fleet(&server, "ldapserver=127.0.0.1 ldapprefix=uid=").setting("auth_user", "app").start();
    assert_refused_without_asking(&with_query, "bouncer config error");
}

#[track_caller]
fn assert_refused_without_asking(fleet: &Fleet, text: &str) {
    let mut client = Client::tcp(fleet.port());
    client.send(&frontend::startup(&[("user", "plain_user"), ("database", "app")]));
    let fields = client.refusal();
    assert_eq!((fields.code(), fields.text()), ("08P01", text));
}

/// Each rule asks where it says, or where `auth_ldap_options` does.
#[test]
fn rules_with_options_of_their_own() {
    let (server, directory) = (Postgres::start(), Directory::start(&PEOPLE));
    let rules = |own: &str| {
        format!(
            "host app plain_user 127.0.0.1/32 ldap {own}\n\
             host app plain_user all reject\n\
             host app scram_user all ldap\n\
             host app all all ldap ldapserver=127.0.0.1 ldapport=1 ldapprefix=uid=\n\
             host pgbouncer admin all trust\n"
        )
    };
    let searching = format!(
        "ldapserver=127.0.0.1 ldapport={} ldapbasedn=\"{BASE}\" ldapbinddn=\"cn=manager,{BASE}\" ldapbindpasswd=manager-password",
        directory.port()
    );
    let with_rules = |builder: Builder, own: &str| {
        builder.setting("auth_type", "hba").setting("auth_hba_file", "hba.conf").file("hba.conf", &rules(own))
    };
    let build = |builder| with_rules(builder, &simple(directory.port())).setting("auth_ldap_options", &searching);
    each_worker_count(&server, build, |fleet| {
        for (user, password) in PEOPLE {
            assert_served(fleet, user, password);
            assert_refused(fleet, user, "wrong", FAILED);
            assert_refused(fleet, user, "", "empty password returned by client");
        }
        assert_refused(fleet, "stranger", "plain-password", FAILED);
        fleet.wait_for_log("could not connect to LDAP server 127.0.0.1:1");
        // A reload makes the rule ask elsewhere; one with a mistake in it changes nothing.
        let hba = fleet.folder().join("hba.conf");
        std::fs::write(&hba, rules("ldapserver=127.0.0.1 ldapport=1 ldapprefix=uid=")).unwrap();
        reload(fleet);
        assert_refused(fleet, "plain_user", "plain-password", FAILED);
        assert_served(fleet, "scram_user", "scram-password");
        std::fs::write(&hba, rules("ldapserver=127.0.0.1 ldaptls=maybe ldapprefix=uid=")).unwrap();
        fleet.console().query("reload").error();
        fleet.wait_for_log("hba.conf:1: auth_hba_file: hba line 1: invalid ldaptls value: \"maybe\"");
    });
    let unset = with_rules(Fleet::builder(&server), &simple(directory.port())).start();
    assert_served(&unset, "plain_user", "plain-password");
    let mut client = Client::tcp(unset.port());
    client.send(&frontend::startup(&[("user", "scram_user"), ("database", "app")]));
    assert_eq!(client.refusal().text(), "auth_ldap_options is null");
}

/// There is room for so many logins at an LDAP server that hangs; who comes after them is told at once, and nobody else hears of it.
#[test]
fn a_full_queue_refuses_at_once() {
    let descriptors = process::allow_descriptors();
    assert!(descriptors >= 2200, "2200 descriptors are needed, and {descriptors} allowed");
    let server = Postgres::start();
    let (_listener, port) = silent_server();
    let fleet = fleet(&server, &simple(port)).setting("max_client_conn", 2000).start();
    let mut waiting: Vec<Client> = Vec::new();
    while fleet.logged("too many checks are waiting for an LDAP server") == 0 {
        assert!(waiting.len() < 1900, "nobody is refused");
        waiting.extend((0..20).map(|_| waiting_client(&fleet)));
    }
    assert!(waiting.len() > 1000, "{} clients are too many", waiting.len());
    let refused = |client: &mut Client| {
        client.patience(Duration::from_millis(50));
        client.try_read().ok().flatten().map(|message| message.fields())
    };
    let last = waiting.len() - 20;
    let told = wait_for("somebody to be told", SOON, || waiting[last..].iter_mut().find_map(refused));
    assert_eq!((told.severity(), told.code(), told.text()), ("FATAL", "28P01", FAILED));
    assert!(waiting[200..900].iter_mut().step_by(50).all(|client| refused(client).is_none()), "others go on waiting");
}

fn reload(fleet: &Fleet) {
    let before = fleet.logged("RELOAD done");
    fleet.signal(Signal::SIGHUP);
    wait_until("the reload", SOON, || fleet.logged("RELOAD done") > before);
}

/// Takes connections and never says a word.
fn silent_server() -> (TcpListener, u16) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A client that has sent its password and waits.
fn waiting_client(fleet: &Fleet) -> Client {
    let mut client = Client::tcp(fleet.port());
    client.send(&frontend::startup(&[("user", "plain_user"), ("database", "app")]));
    assert_eq!(client.read().kind, b'R', "asked for the password");
    client.send(&frontend::password(b"plain-password\0"));
    client
}

#[test]
fn a_server_that_hangs_costs_nobody_else_anything() {
    let (server, directory) = (Postgres::start(), Directory::start(&PEOPLE));
    let mut fleet = fleet(&server, &simple(directory.port())).start();
    let clients: Vec<Client> = (0..64).map(|_| log_in(&fleet, "plain_user", "plain-password").unwrap()).collect();
    let mut crowd = Crowd::of(clients, "select 1");
    let undisturbed = crowd.run(Duration::from_secs(2));

    let (_listener, port) = silent_server();
    fleet.change("auth_ldap_options", simple(port));
    reload(&fleet);
    let mut waiting: Vec<Client> = (0..200).map(|_| waiting_client(&fleet)).collect();
    let beside = crowd.run(Duration::from_secs(2));
    // On a busy machine no figure is steady; what a stall would look like is a server's time limit of seconds.
    assert!(beside.longest() < Duration::from_secs(4), "{:?} beside {:?}", beside.longest(), undisturbed.longest());
    // Some leave without an answer, and the others get one.
    waiting.truncate(20);
    for mut client in waiting {
        client.patience(Duration::from_secs(40));
        assert_eq!(client.refusal().text(), FAILED);
    }
    fleet.wait_for_log("LDAP authentication of user 'plain_user' from 127.0.0.1 is not possible");
    fleet.change("auth_ldap_options", simple(directory.port()));
    reload(&fleet);
    assert_served(&fleet, "plain_user", "plain-password");
}

#[test]
fn without_a_supervisor_nobody_is_let_in() {
    let server = Postgres::start();
    let (_listener, port) = silent_server();
    let mut fleet = fleet(&server, &simple(port)).start();
    fleet.all_workers();
    let mut waiting = waiting_client(&fleet);
    fleet.may_be_left = true;
    fleet.signal(Signal::SIGKILL);
    assert_eq!(waiting.refusal().text(), FAILED);
    wait_until("a worker to answer at once", SOON, || {
        log_in(&fleet, "plain_user", "plain-password").is_err_and(|fields| fields.text() == FAILED)
    });
}
