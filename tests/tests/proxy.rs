//! Clients behind a proxy that says for whom it connects (PROXY protocol).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::program::psql;
use end_to_end::tls::{Authority, TLS13};
use end_to_end::{Builder, Client, Fleet, Port, Postgres, each_worker_count, frontend, wait_until};
use std::net::Ipv4Addr;
use std::process::{Child, Command};

/// Where the proxies are; the harness's own clients come from 127.0.0.1.
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

fn behind_proxies(builder: Builder) -> Builder {
    builder.setting("proxy_protocol_networks", "127.0.0.2/32, 10.0.0.0/8")
}

fn startup() -> Vec<u8> {
    frontend::startup(&[("user", "app"), ("database", "app")])
}

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u16).to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x20 | command, family], &length, body].concat()
}

fn from_proxy(fleet: &Fleet, header: &[u8]) -> Client {
    let mut client = Client::tcp_from(PROXY, fleet.port());
    client.send(&[header, &startup()].concat());
    client.authenticate("app", None).unwrap();
    client
}

#[test]
fn the_client_is_who_the_header_says() {
    let server = Postgres::start();
    let build = |builder: Builder| behind_proxies(builder).setting("application_name_add_host", 1);
    each_worker_count(&server, build, |fleet| {
        let tcp4 = [192, 0, 2, 1, 192, 0, 2, 2, 0x12, 0x34, 0x19, 0x20];
        let with_fields = [&tcp4[..], b"\x04\0\x05hello"].concat();
        let mut tcp6 = [0; 36];
        tcp6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        tcp6[33] = 9;
        for (header, address, port) in [
            (b"PROXY TCP4 192.0.2.7 192.0.2.2 56324 6432\r\n".to_vec(), "192.0.2.7", "56324"),
            (b"PROXY TCP6 2001:db8::7 ::1 77 6432\r\n".to_vec(), "2001:db8::7", "77"),
            (v2(1, 0x11, &with_fields), "192.0.2.1", "4660"),
            (v2(1, 0x21, &tcp6), "2001:db8::", "9"),
        ] {
            let mut client = from_proxy(fleet, &header);
            let name = client.value("show application_name");
            assert!(name.contains(address) && name.contains(port), "{name}");
            assert_eq!(fleet.console().query("show clients").lookup("addr", address, "port"), port);
            let shown = if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") };
            fleet.wait_for_log(&format!("app/app@{shown} login attempt"));
        }
        for header in [b"PROXY UNKNOWN\r\n".to_vec(), v2(0, 0x11, &tcp4), v2(1, 0, b"")] {
            let client = from_proxy(fleet, &header);
            let port = client.local_port().to_string();
            assert_eq!(fleet.console().query("show clients").lookup("port", &port, "addr"), "127.0.0.2");
        }
    });
}

#[test]
fn the_header_may_come_in_pieces_and_with_what_follows() {
    let server = Postgres::start();
    let fleet = behind_proxies(Fleet::builder(&server)).start();
    let mut client = Client::tcp_from(PROXY, fleet.port());
    for byte in [&b"PROXY TCP4 192.0.2.9 192.0.2.2 4711 6432\r\n"[..], &startup()].concat() {
        client.send(&[byte]);
    }
    client.authenticate("app", None).unwrap();
    fleet.wait_for_log("app/app@192.0.2.9:4711 login attempt");
    let mut client = Client::tcp_from(PROXY, fleet.port());
    client.send(&[&b"PROXY TCP4 192.0.2.9 192.0.2.2 4712 6432\r\n"[..], &startup(), &frontend::query("select 7")].concat());
    client.authenticate("app", None).unwrap();
    assert_eq!(client.answer().value(), "7");
    // A cancel request comes through the proxy as everything does.
    let mut victim = from_proxy(&fleet, b"PROXY TCP4 192.0.2.9 192.0.2.2 4713 6432\r\n");
    victim.send(&frontend::query("select pg_sleep(100)"));
    let mut admin = server.admin();
    wait_until("the query to run", end_to_end::SOON, || {
        let running = "select count(*) from pg_stat_activity where query = 'select pg_sleep(100)' and state = 'active'";
        admin.query_one(running, &[]).unwrap().get::<_, i64>(0) == 1
    });
    let mut canceller = Client::tcp_from(PROXY, fleet.port());
    canceller.send(&[&b"PROXY TCP4 192.0.2.9 192.0.2.2 4714 6432\r\n"[..], &frontend::cancel(&victim.key)].concat());
    assert_eq!(victim.answer().error().code(), "57014");
}

#[test]
fn proxies_must_send_a_header_and_nobody_else_may() {
    let server = Postgres::start();
    each_worker_count(&server, behind_proxies, |fleet| {
        let mut without = Client::tcp_from(PROXY, fleet.port());
        without.send(&startup());
        without.expect_end();
        fleet.wait_for_log("from one of proxy_protocol_networks: no PROXY header");
        let mut broken = Client::tcp_from(PROXY, fleet.port());
        broken.send(b"PROXY TCP4 192.0.2.1 nonsense 1 2\r\n");
        broken.expect_end();
        fleet.wait_for_log("malformed PROXY header: destination address");
        // From elsewhere it is nothing that a client may say.
        for bytes in [b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(), v2(0, 0, b"")] {
            let mut stranger = Client::tcp_from(STRANGER, fleet.port());
            stranger.send(&bytes);
            assert!(stranger.refusal().text().starts_with("bad packet header"));
        }
        assert_eq!(fleet.client().value("select 1"), "1");
        assert_eq!(Client::tcp_from(STRANGER, fleet.port()).start(&[("user", "app")], None), Ok(()));
        let mut unix = Client::unix(fleet.folder(), fleet.port());
        unix.start(&[("user", "app")], None).unwrap();
    });
}

#[test]
fn a_header_that_does_not_get_to_its_end_runs_into_the_timeout_of_the_login() {
    let server = Postgres::start();
    let build = |builder: Builder| behind_proxies(builder).setting("client_login_timeout", 1);
    each_worker_count(&server, build, |fleet| {
        let mut slow = Client::tcp_from(PROXY, fleet.port());
        slow.send(b"PROXY TCP4 192.0.2.1");
        assert_eq!(slow.refusal().text(), "client_login_timeout");
    });
}

#[test]
fn rules_go_by_the_clients_own_address_and_a_reload_by_the_new_networks() {
    let server = Postgres::start();
    let rules = "host all all 192.0.2.0/24 trust\nhost pgbouncer admin 127.0.0.1/32 trust\nhost all all all reject\n";
    let mut fleet = behind_proxies(Fleet::builder(&server))
        .setting("auth_type", "hba")
        .setting("auth_hba_file", "hba.conf")
        .file("hba.conf", rules)
        .start();
    let log_in = |fleet: &Fleet, from: Ipv4Addr, header: &[u8]| {
        let mut client = Client::tcp_from(from, fleet.port());
        client.send(&[header, &startup()].concat());
        client.authenticate("app", None).map_err(|fields| fields.text().to_owned())
    };
    let inside: &[u8] = b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n";
    assert_eq!(log_in(&fleet, PROXY, inside), Ok(()));
    assert_eq!(log_in(&fleet, PROXY, b"PROXY TCP4 198.51.100.1 127.0.0.1 1 2\r\n"), Err("login rejected".to_owned()));
    assert_eq!(log_in(&fleet, PROXY, b"PROXY UNKNOWN\r\n"), Err("login rejected".to_owned()));
    fleet.change("proxy_protocol_networks", "127.0.0.3/32");
    assert_eq!(fleet.console().query("reload").tags, ["RELOAD"]);
    assert_eq!(log_in(&fleet, STRANGER, inside), Ok(()));
    assert_eq!(log_in(&fleet, PROXY, b""), Err("login rejected".to_owned()));
    fleet.change("proxy_protocol_addresses", "127.0.0.77");
    assert_eq!(fleet.console().query("reload").tags, ["RELOAD"]);
    assert_eq!(log_in(&fleet, STRANGER, b""), Err("login rejected".to_owned()), "no header is asked for at 127.0.0.1");
}

/// HAProxy, ended with the value.
struct HaProxy(Child);

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn haproxy_speaks_both_versions() {
    let server = Postgres::start();
    let fleet = behind_proxies(Fleet::builder(&server)).start();
    for how in ["send-proxy", "send-proxy-v2"] {
        let port = Port::take();
        let config = format!(
            "global\n maxconn 100\ndefaults\n mode tcp\n timeout connect 10s\n timeout client 60s\n timeout server 60s\n\
             listen pooler\n bind 127.0.0.1:{}\n server fleet 127.0.0.1:{} {how} source 127.0.0.2 check\n",
            port.number(),
            fleet.port()
        );
        let path = fleet.folder().join("haproxy.cfg");
        std::fs::write(&path, config).unwrap();
        let proxy =
            HaProxy(Command::new("haproxy").arg("-q").arg("-db").arg("-f").arg(&path).spawn().expect("this case needs haproxy"));
        wait_until("HAProxy to listen", end_to_end::SOON, || Client::try_tcp(port.number()).is_ok());
        let url = format!("host=127.0.0.1 port={} user=app dbname=app sslmode=prefer", port.number());
        assert_eq!(psql(&url, "select 7").unwrap(), "7", "{how}");
        let mut client = Client::login(port.number(), "app", "app");
        assert_eq!(client.value("select 1"), "1");
        let seen = fleet.console().query("show clients").lookup("port", &client.local_port().to_string(), "addr");
        assert_eq!(seen, "127.0.0.1", "the address of HAProxy's client, not HAProxy's 127.0.0.2");
        drop(proxy);
    }
}

/// TLS begins behind the header, asked for or at once; rules and certificates are the client's own.
#[test]
fn inside_tls() {
    let (server, authority) = (Postgres::start(), Authority::new());
    authority.sign("app", &[]);
    let rules = "hostssl app app 192.0.2.7/32 cert\nhost all all all reject\n";
    let fleet = behind_proxies(Fleet::builder(&server))
        .client_tls(&authority, "require")
        .setting("client_tls_ca_file", authority.file("ca.crt").display())
        .setting("auth_type", "hba")
        .setting("auth_hba_file", "hba.conf")
        .file("hba.conf", rules)
        .start();
    let config = authority.client(&TLS13, Some("app"));
    for (address, direct) in [("192.0.2.7", false), ("192.0.2.7", true), ("192.0.2.8", false)] {
        let mut client = Client::tcp_from(PROXY, fleet.port());
        let header = format!("PROXY TCP4 {address} 192.0.2.2 4711 6432\r\n").into_bytes();
        if direct {
            client.send(&header);
        } else {
            client.send(&[header, frontend::untyped(frontend::SSL_REQUEST, b"")].concat());
            assert_eq!(client.read_byte(), b'S');
        }
        let mut client = client.encrypt(&config).unwrap();
        client.send(&startup());
        let outcome = client.authenticate("app", None).map_err(|refused| refused.text().to_owned());
        if address == "192.0.2.7" {
            assert_eq!(outcome, Ok(()));
            assert_eq!(client.value("select 1"), "1");
        } else {
            assert_eq!(outcome, Err("login rejected".to_owned()));
        }
    }
}
