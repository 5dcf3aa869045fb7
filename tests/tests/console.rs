//! The console: reached through any worker, speaking for the whole fleet.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::frontend::{parse, sync};
use end_to_end::program::psql;
use end_to_end::{Answer, Client, Fields, Fleet, Postgres, SOON, each_worker_count, frontend::query, process, wait_until};

fn open(fleet: &Fleet, user: &str, database: &str) -> Result<Client, Fields> {
    let mut client = Client::tcp(fleet.port());
    client.start(&[("user", user), ("database", database)], None).map(|()| client)
}

fn names(answer: &Answer) -> Vec<&str> {
    answer.columns.iter().map(|(name, _)| name.as_str()).collect()
}

const CONNECTION: &str = "type user database replication state addr port local_addr local_port connect_time request_time wait wait_us \
                          close_needed ptr link remote_pid tls application_name prepared_statements id";

/// Column order is part of the interface: scripts go by position.
#[test]
fn the_columns_of_every_show() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).start();
    let mut client = fleet.client();
    assert_eq!(client.value("select 1"), "1");
    let mut console = fleet.console();
    let sockets = format!("{CONNECTION} recv_pos pkt_pos pkt_remain send_pos send_remain pkt_avail send_avail");
    for (what, columns) in [
        ("version", "version"),
        (
            "pools",
            "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active sv_active_cancel sv_being_canceled \
             sv_idle sv_used sv_tested sv_login maxwait maxwait_us pool_mode load_balance_hosts",
        ),
        (
            "databases",
            "name host port database force_user pool_size min_pool_size reserve_pool_size server_lifetime pool_mode load_balance_hosts \
             max_connections current_connections max_client_connections current_client_connections paused disabled",
        ),
        ("clients", CONNECTION),
        ("servers", CONNECTION),
        ("config", "key value default changeable"),
        ("sockets", &sockets),
        ("mem", "name size used free memtotal"),
        ("lists", "list items"),
    ] {
        for spelling in [format!("show {what}"), format!("SHOW {};", what.to_uppercase()), format!("  select {what} ; ")] {
            let answer = console.query(&spelling);
            assert_eq!(names(&answer), columns.split_whitespace().collect::<Vec<_>>(), "{spelling}");
            assert_eq!((answer.tags.as_slice(), answer.status), (&["SHOW".to_owned()][..], 'I'), "{spelling}");
            assert!(answer.errors.is_empty() && !answer.rows.is_empty(), "{spelling}");
        }
    }
    let fds = console.query("show fds");
    assert!(names(&fds).starts_with(&["fd", "task", "user", "database", "addr", "port", "cancel", "link"]), "{:?}", names(&fds));
    let workers = console.query("show workers");
    for name in ["slot", "pid", "state", "uptime", "clients", "servers", "restarts"] {
        assert!(names(&workers).contains(&name), "{:?}", names(&workers));
    }
    let help = console.query("show help");
    assert_eq!((help.tags[0].as_str(), help.rows.len()), ("SHOW", 0));
    assert_eq!((help.notices[0].text(), help.notices[0].code()), ("Console usage", "00000"));
    assert!(help.notices[0].0[&'D'].contains("SHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|USERS|VERSION"));
}

#[test]
fn the_types_of_the_columns() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).start();
    let mut console = fleet.console();
    let pools = console.query("show pools");
    let kinds: Vec<u32> = pools.columns.iter().map(|(_, kind)| *kind).collect();
    assert_eq!(kinds, [25, 25, 23, 23, 23, 23, 23, 23, 23, 23, 23, 23, 23, 23, 23, 25, 25]);
    let config = console.query("show config");
    assert!(config.columns.iter().all(|(_, kind)| *kind == 25));
}

/// One row per pool, whatever the number of workers; counts are sums.
#[test]
fn it_counts_for_the_whole_fleet() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder.pool_size(3),
        |fleet| {
            fleet.all_workers();
            let mut clients: Vec<Client> = (0..12).map(|_| fleet.client()).collect();
            for client in &mut clients[..3] {
                client.query("begin");
            }
            for client in &mut clients[3..5] {
                client.send(&query("select 1"));
            }
            let mut console = fleet.console();
            wait_until("two to wait", SOON, || console.query("show pools").lookup("user", "app", "cl_waiting") == "2");
            let pools = console.query("show pools");
            assert_eq!(pools.column("user").iter().filter(|user| *user == "app").count(), 1, "one row per pool");
            let cell = |name: &str| pools.lookup("user", "app", name);
            assert_eq!((cell("cl_active"), cell("sv_active"), cell("sv_idle")), ("10".to_owned(), "3".to_owned(), "0".to_owned()));
            assert_eq!((cell("pool_mode"), cell("database")), ("transaction".to_owned(), "app".to_owned()));
            let all = console.query("show clients");
            assert_eq!(all.column("user").iter().filter(|user| *user == "app").count(), 12);
            let states = all.column("state");
            let count =
                |state: &str| all.column("user").iter().zip(&states).filter(|(user, own)| *user == "app" && *own == state).count();
            assert_eq!((count("active"), count("waiting"), count("idle")), (3, 2, 7));
            let mut ids = all.column("id");
            ids.sort();
            ids.dedup();
            assert_eq!(ids.len(), all.rows.len(), "ids are unique in the fleet");
            assert!(ids.iter().all(|id| id.parse::<i32>().is_ok()), "and fit int4");
            let mut ports = all.column("port");
            ports.retain(|port| clients.iter().any(|client| client.local_port().to_string() == *port));
            assert_eq!(ports.len(), 12);
            let servers = console.query("show servers");
            assert_eq!(servers.rows.len(), 3);
            for (link, pid) in servers.column("link").iter().zip(servers.column("remote_pid")) {
                assert!(all.column("ptr").contains(link), "a server's link is a client's ptr");
                assert!(process::is_alive(pid.parse().unwrap()), "remote_pid is the backend's");
            }
            let databases = console.query("show databases");
            assert_eq!(databases.lookup("name", "app", "current_connections"), "3");
            assert_eq!(databases.lookup("name", "app", "pool_size"), "3");
            assert_eq!(databases.lookup("name", "app", "current_client_connections"), "12");
            let lists = console.query("show lists");
            assert_eq!(lists.lookup("list", "used_clients", "items"), "13", "twelve and this console");
            assert_eq!(lists.lookup("list", "used_servers", "items"), "3");
            let workers = console.query("show workers");
            let pids: Vec<u32> = workers.column("pid").iter().map(|pid| pid.parse().unwrap()).collect();
            let mut sorted = pids.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, fleet.workers());
            assert!(workers.column("state").iter().all(|state| state == "serving"), "{workers:?}");
            // A worker publishes its counts now and then.
            wait_until("the workers' own counts", SOON, || {
                let workers = console.query("show workers");
                let sum = |name: &str| workers.column(name).iter().map(|cell| cell.parse::<u32>().unwrap()).sum::<u32>();
                (12..=13).contains(&sum("clients")) && sum("servers") == 3
            });
        },
    );
}

/// Sockets of all kinds, and what is in their buffers.
#[test]
fn sockets_and_memory() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder.pool_size(1),
        |fleet| {
            let (mut busy, mut waiting, idle) = (fleet.client(), fleet.client(), fleet.client());
            let mut silent = Client::tcp(fleet.port());
            silent.send(&[0, 0]);
            busy.query("begin");
            let asked = query("select 'what waits is kept'");
            waiting.send(&asked);
            let mut console = fleet.console();
            let of =
                |sockets: &Answer, client: &Client, column: &str| sockets.find("port", &client.local_port().to_string(), column);
            wait_until("one to wait", SOON, || {
                let sockets = console.query("show sockets");
                of(&sockets, &waiting, "state").as_deref() == Some("cl_waiting") && of(&sockets, &silent, "state").is_some()
            });
            let sockets = console.query("show sockets");
            for (client, state) in [(&busy, "cl_active"), (&waiting, "cl_waiting"), (&idle, "cl_active"), (&silent, "cl_login")] {
                assert_eq!(of(&sockets, client, "state").unwrap(), state);
            }
            assert_eq!(sockets.column("state").iter().filter(|state| *state == "sv_active").count(), 1);
            assert_eq!(sockets.column("type").iter().filter(|kind| *kind == "S").count(), 1);
            assert_eq!(of(&sockets, &waiting, "pkt_avail").unwrap(), asked.len().to_string());
            assert_eq!(of(&sockets, &idle, "pkt_avail").unwrap(), "0");
            let active = console.query("show active_sockets");
            assert!(of(&active, &waiting, "state").is_some() && of(&active, &idle, "state").is_none());
            let memory = console.query("show mem");
            for (name, used) in [("client_cache", 4), ("server_cache", 1), ("db_cache", fleet.worker_count())] {
                assert_eq!(memory.lookup("name", name, "used"), used.to_string(), "{name}");
            }
            let total: u64 = memory.column("memtotal").iter().map(|bytes| bytes.parse::<u64>().unwrap()).sum();
            assert!(total > 100_000, "{memory:?}");
        },
    );
}

#[test]
fn who_may_do_what() {
    let server = Postgres::start();
    each_worker_count(
        &server,
        |builder| builder,
        |fleet| {
            for database in ["pgbouncer", "pgfleet"] {
                for _ in 0..4 {
                    let mut admin = open(fleet, "admin", database).unwrap();
                    assert_eq!(admin.query("reload").tags, ["RELOAD"]);
                    let mut stats = open(fleet, "stats", database).unwrap();
                    assert!(!stats.query("show pools").rows.is_empty());
                    for command in ["reload", "shutdown", "show fds", "pause", "set pool_mode = session"] {
                        let answer = stats.query(command);
                        let error = answer.error();
                        assert_eq!(
                            (error.severity(), error.code(), error.text()),
                            ("ERROR", "08P01", "admin access needed"),
                            "{command}"
                        );
                    }
                    let fields = open(fleet, "app", database).err().unwrap();
                    assert_eq!((fields.severity(), fields.text()), ("FATAL", "not allowed"));
                }
            }
        },
    );
}

/// Everybody gives a password; only then are those turned away who may not use the console.
#[test]
fn it_asks_for_the_password() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).setting("auth_type", "scram-sha-256").start();
    let mut admin = Client::tcp(fleet.port());
    admin.start(&[("user", "admin"), ("database", "pgbouncer")], Some("admin-password")).unwrap();
    assert_eq!(admin.query("show version").rows.len(), 1);
    let mut wrong = Client::tcp(fleet.port());
    let fields = wrong.start(&[("user", "admin"), ("database", "pgbouncer")], Some("wrong")).unwrap_err();
    assert_eq!((fields.code(), fields.text()), ("28P01", "SASL authentication failed"));
    let mut member_of_nothing = Client::tcp(fleet.port());
    // Only after the password: who is an admin is nobody's business before.
    let fields = member_of_nothing.start(&[("user", "app"), ("database", "pgbouncer")], Some("app-password")).unwrap_err();
    assert_eq!(fields.text(), "not allowed");
}

#[test]
fn what_it_does_not_understand() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).start();
    let mut console = fleet.console();
    for command in ["nonsense", "show nonsense", "select 1", "show pools; show lists", "", "show", "drop table x"] {
        let answer = console.query(command);
        let error = answer.error();
        assert_eq!((error.severity(), error.code()), ("ERROR", "08P01"), "{command}");
        assert_eq!(error.text(), format!("invalid command '{command}', use SHOW HELP;"));
        assert_eq!(answer.status, 'I');
    }
    for setting in ["client_encoding", "extra_float_digits", "standard_conforming_strings", "datestyle", "timezone"] {
        let value = if setting == "extra_float_digits" { "3" } else { "'x'" };
        assert_eq!(console.query(&format!("set {setting} = {value}")).tags, ["SET"], "what drivers send at connect: {setting}");
    }
    for command in ["SET SESSION timezone TO 'UTC'", "SET NAMES 'UTF8'", "set time zone 'UTC'", "SET extra_float_digits = 3"] {
        assert_eq!(console.query(command).tags, ["SET"], "{command}");
    }
    console.send(&[parse("", "show pools"), sync()].concat());
    let answer = console.answer();
    assert_eq!(answer.error().text(), "extended query protocol not supported by admin console");
    assert_eq!(console.refusal().text(), "bad packet");
    assert_eq!(fleet.console().query("show version").rows.len(), 1);
}

#[test]
fn a_console_query_may_come_in_pieces() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).start();
    let mut console = fleet.console();
    for byte in query("show version") {
        console.send(&[byte]);
    }
    assert_eq!(console.answer().rows.len(), 1);
    console.send(&[query("show version"), query("show lists"), query("show version")].concat());
    assert_eq!((console.answer().rows.len(), console.answer().rows.len() > 5, console.answer().rows.len()), (1, true, 1));
}

#[test]
fn psql_and_the_unix_socket() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).start();
    let tcp = format!("host=127.0.0.1 port={} user=admin dbname=pgbouncer", fleet.port());
    assert!(psql(&tcp, "show version").unwrap().to_lowercase().contains("pgfleet"));
    let local = format!("host={} port={} user=admin dbname=pgfleet", fleet.folder().display(), fleet.port());
    assert!(psql(&local, "show databases").unwrap().starts_with("app|127.0.0.1|"));
    assert!(psql(&tcp, "show config").unwrap().contains("max_client_conn|1000|100|yes"));
}

/// SHOW CONFIG is what the file says, and the defaults of what it does not.
#[test]
fn show_config() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).setting("server_idle_timeout", "12.5").setting("unix_socket_mode", "0770").start();
    let config = fleet.console().query("show config");
    for (key, value, default) in [
        ("server_idle_timeout", "12.5", "600"),
        ("unix_socket_mode", "504", "0777"),
        ("pool_mode", "transaction", "session"),
        ("server_reset_query", "DISCARD ALL", "DISCARD ALL"),
        ("listen_addr", "127.0.0.1", ""),
        ("workers", "2", ""),
    ] {
        assert_eq!(config.lookup("key", key, "value"), value);
        if key != "workers" {
            assert_eq!(config.lookup("key", key, "default"), default, "{key}");
        }
    }
    let changeable = config.lookup("key", "listen_port", "changeable") + &config.lookup("key", "pool_mode", "changeable");
    assert_eq!(changeable, "noyes");
}

/// A worker's death does not take consoles with it: they are the supervisor's.
#[test]
fn it_outlives_a_worker() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).workers(2).start();
    let mut consoles: Vec<Client> = (0..6).map(|_| fleet.console()).collect();
    for pid in fleet.all_workers() {
        process::signal(pid, nix::sys::signal::Signal::SIGKILL);
    }
    fleet.all_workers();
    for console in &mut consoles {
        wait_until("answers from the new workers", SOON, || console.query("show workers").rows.len() == 2);
    }
}
