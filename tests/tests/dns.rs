//! Hosts by name: what becomes of connections when the name's addresses change, and of clients when the name server is slow or silent.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::{Answer, Builder, Client, Fleet, Postgres, SOON, frontend, wait_until};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

const NAME: &str = "db.test.example";
const A: u16 = 1;
const SOA: u16 = 6;
const AAAA: u16 = 28;

/// What the name server says, and what it was asked.
#[derive(Default)]
struct Zone {
    addresses: Vec<IpAddr>,
    serial: u32,
    /// No such name.
    unknown: bool,
    /// No answer at all.
    silent: bool,
    /// Questions for A records.
    asked: usize,
}

/// A name server on a port of its own that knows one name.
struct NameServer {
    zone: Arc<Mutex<Zone>>,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    fn start(addresses: &[&str]) -> NameServer {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let zone = Zone { addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(), serial: 1, ..Zone::default() };
        let (zone, stop) = (Arc::new(Mutex::new(zone)), Arc::new(AtomicBool::new(false)));
        let address = socket.local_addr().unwrap();
        let (its, halt) = (Arc::clone(&zone), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut packet = [0; 512];
            while !halt.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut packet) else { continue };
                if let Some(answer) = answer(&packet[..length], &mut its.lock().unwrap()) {
                    socket.send_to(&answer, from).unwrap();
                }
            }
        });
        NameServer { zone, address, stop, thread: Some(thread) }
    }

    fn zone(&self) -> MutexGuard<'_, Zone> {
        self.zone.lock().unwrap()
    }

    fn move_to(&self, address: &str) {
        self.zone().addresses = vec![address.parse().unwrap()];
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

/// RFC 1035, section 4: header, the question as it came, the records.
fn answer(question: &[u8], zone: &mut Zone) -> Option<Vec<u8>> {
    let end = 12 + question[12..].iter().position(|&byte| byte == 0)?;
    let kind = u16::from_be_bytes([question[end + 1], question[end + 2]]);
    zone.asked += usize::from(kind == A);
    if zone.silent {
        return None;
    }
    let records: Vec<Vec<u8>> = match kind {
        SOA => {
            let mut data = vec![0, 0];
            data.extend(zone.serial.to_be_bytes());
            data.extend([0; 16]);
            vec![data]
        }
        A | AAAA if !zone.unknown => {
            let octets = |ip: &IpAddr| match ip {
                IpAddr::V4(ip) if kind == A => Some(ip.octets().to_vec()),
                IpAddr::V6(ip) if kind == AAAA => Some(ip.octets().to_vec()),
                _ => None,
            };
            zone.addresses.iter().filter_map(octets).collect()
        }
        _ => Vec::new(),
    };
    let mut packet = question[..2].to_vec();
    packet.extend([0x84, if zone.unknown { 3 } else { 0 }, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
    packet.extend(&question[12..end + 5]);
    for data in records {
        packet.extend([0xc0, 12]);
        packet.extend(kind.to_be_bytes());
        packet.extend([0, 1, 0, 0, 0, 60]);
        packet.extend((data.len() as u16).to_be_bytes());
        packet.extend(data);
    }
    Some(packet)
}

/// Fleets of 1 and 2 workers that look up [`NAME`] at `names`.
fn fleets(server: &Postgres, names: &NameServer, build: impl Fn(Builder) -> Builder, case: impl Fn(&Fleet)) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("nameserver {}\noptions timeout:1 attempts:1\n", names.address)).unwrap();
    std::fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    for workers in [1, 2] {
        let builder = Fleet::builder(server)
            .workers(workers)
            .setting("resolv_conf", file.path().display())
            .setting("server_login_retry", 1)
            .database("app", format!("host={NAME} port={}", server.port()));
        case(&build(builder).start());
    }
}

fn two_servers() -> (Postgres, Postgres) {
    let first = Postgres::start();
    let second = first.start_beside("listen_addresses = '127.0.0.2'");
    (first, second)
}

fn place(client: &mut Client) -> String {
    client.value("select host(inet_server_addr())")
}

fn places(fleet: &Fleet) -> Vec<String> {
    let servers: Answer = fleet.console().query("show servers");
    let (mut places, states) = (servers.column("addr"), servers.column("state"));
    let mut open = states.iter().map(|state| state != "closing");
    places.retain(|_| open.next().unwrap());
    places.sort();
    places
}

#[test]
fn a_name_that_moves_takes_its_connections_along() {
    let (first, _second) = two_servers();
    let names = NameServer::start(&[]);
    fleets(
        &first,
        &names,
        |builder| builder.setting("dns_max_ttl", 0),
        |fleet| {
            names.move_to("127.0.0.1");
            let mut clients: Vec<Client> = (0..6).map(|_| fleet.client()).collect();
            for client in &mut clients {
                client.query("begin");
                assert_eq!(place(client), "127.0.0.1");
            }
            // Three connections are idle, three are in transactions.
            for client in &mut clients[3..] {
                client.query("commit");
            }
            assert_eq!(places(fleet), ["127.0.0.1"; 6]);
            names.move_to("127.0.0.2");
            // What is in use stays where it is; a new connection asks again, and those that are opened meanwhile go to the old address.
            let mut more = Vec::new();
            wait_until("a new connection to go to the new address", SOON, || {
                let mut client = fleet.client();
                client.query("begin");
                let at = place(&mut client);
                more.push(client);
                at == "127.0.0.2"
            });
            drop(more);
            for client in &mut clients[..3] {
                assert_eq!(place(client), "127.0.0.1");
                client.query("commit");
            }
            wait_until("the old connections to go", SOON, || places(fleet).iter().all(|place| place == "127.0.0.2"));
            for client in &mut clients {
                assert_eq!(place(client), "127.0.0.2");
            }
            fleet.wait_for_log("closing because: obsolete connection");
            let hosts = fleet.console().query("show dns_hosts");
            assert_eq!(hosts.lookup("hostname", NAME, "addrs"), "127.0.0.2:0");
        },
    );
}

#[test]
fn a_name_that_does_not_exist_is_a_host_that_is_down() {
    let server = Postgres::start();
    let names = NameServer::start(&["127.0.0.1"]);
    fleets(
        &server,
        &names,
        |builder| builder.setting("dns_nxdomain_ttl", 1).setting("query_wait_timeout", 60),
        |fleet| {
            names.zone().unknown = true;
            let mut client = Client::tcp(fleet.port());
            client.send(&frontend::startup(&[("user", "app"), ("database", "app")]));
            fleet.wait_for_log("server DNS lookup failed");
            assert!(fleet.logged(&format!("DNS lookup failed: {NAME}")) > 0);
            names.zone().unknown = false;
            client.authenticate("app", None).unwrap();
            assert_eq!(client.value("select 1"), "1");
        },
    );
}

/// PgBouncer has no address while a name server is away; here the old ones do.
#[test]
fn a_silent_name_server_holds_nobody_up() {
    let server = Postgres::start();
    let names = NameServer::start(&["127.0.0.1"]);
    fleets(
        &server,
        &names,
        |builder| builder.setting("dns_max_ttl", 0).setting("dns_nxdomain_ttl", 0),
        |fleet| {
            names.zone().silent = false;
            assert_eq!(fleet.client().value("select 1"), "1");
            names.zone().silent = true;
            // Each new connection asks, in vain, and goes to the old address.
            let mut clients: Vec<Client> = (0..8).map(|_| fleet.client()).collect();
            for client in &mut clients {
                client.query("begin");
                assert_eq!(place(client), "127.0.0.1");
            }
            fleet.wait_for_log(&format!("DNS lookup failed: {NAME}"));
            assert_eq!(fleet.client().value("select 1"), "1");
        },
    );
}

/// However many clients and workers want it.
#[test]
fn one_look_up_at_a_time() {
    let server = Postgres::start();
    let names = NameServer::start(&["127.0.0.1"]);
    fleets(
        &server,
        &names,
        |builder| builder,
        |fleet| {
            names.zone().asked = 0;
            let mut clients: Vec<Client> = (0..20).map(|_| Client::tcp(fleet.port())).collect();
            for client in &mut clients {
                client.send(&frontend::startup(&[("user", "app"), ("database", "app")]));
            }
            for client in &mut clients {
                client.authenticate("app", None).unwrap();
                client.query("begin");
            }
            assert_eq!(names.zone().asked, 1);
            let lists = fleet.console().query("show lists");
            assert_eq!(
                (lists.lookup("list", "dns_names", "items"), lists.lookup("list", "dns_zones", "items")),
                ("1".into(), "1".into())
            );
        },
    );
}

#[test]
fn another_serial_number_has_the_zones_names_looked_up_again() {
    let (first, _second) = two_servers();
    let names = NameServer::start(&[]);
    fleets(
        &first,
        &names,
        |builder| builder.setting("dns_max_ttl", 1000).setting("dns_zone_check_period", "0.3"),
        |fleet| {
            names.move_to("127.0.0.1");
            names.zone().serial = 41;
            let mut client = fleet.client();
            assert_eq!(place(&mut client), "127.0.0.1");
            let mut console = fleet.console();
            wait_until("the serial number to be known", SOON, || {
                console.query("show dns_zones").find("zonename", "test.example", "serial").as_deref() == Some("41")
            });
            assert_eq!(console.query("show dns_zones").column("count"), ["1"]);
            names.move_to("127.0.0.2");
            names.zone().serial = 42;
            fleet.wait_for_log("zone 'test.example' serial changed: old=41 new=42");
            // Nobody asks for a connection: the idle one is closed all the same.
            wait_until("the old connection to go", SOON, || places(fleet).is_empty());
            assert_eq!(place(&mut client), "127.0.0.2");
        },
    );
}

#[test]
fn both_kinds_of_addresses_and_several_of_them() {
    let server = Postgres::start_with("listen_addresses = '127.0.0.1,::1'");
    let names = NameServer::start(&["127.0.0.1", "::1"]);
    fleets(
        &server,
        &names,
        |builder| builder,
        |fleet| {
            let mut clients: Vec<Client> = (0..8).map(|_| fleet.client()).collect();
            let mut seen = Vec::new();
            for client in &mut clients {
                client.query("begin");
                seen.push(place(client));
            }
            for address in ["127.0.0.1", "::1"] {
                assert!(seen.iter().any(|place| place == address), "{seen:?}");
            }
        },
    );
}

#[test]
fn a_resolv_conf_that_cannot_be_used_ends_the_start() {
    let server = Postgres::start();
    let fleet = Fleet::builder(&server).setting("resolv_conf", "/no/such/file").write();
    let status = fleet.command(&[]).status().unwrap();
    let log = std::fs::read_to_string(fleet.folder().join("log.txt")).unwrap();
    assert!(!status.success() && log.contains("FATAL dns setup failed: could not read /no/such/file"), "{log}");
}
