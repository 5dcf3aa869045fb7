//! What the fuzz targets in `fuzz/` run, and what the tests here run on their corpora and on seeded mutations of these.
//!
//! Each function takes any bytes and panics where the codec breaks a promise: whatever comes, in whatever pieces, is passed on, answered or
//! refused; how it was cut makes no difference; and nothing is kept that is not waited for.

use crate::protocol::frontend::{Need, Rules, Stop};
use crate::protocol::outstanding::Request;
use crate::protocol::rig::{ClientEnd, ServerEnd};
use crate::protocol::statements::Registry;
use shared::auth::hba::{Access, Asked, Files, Origin};
use shared::auth::scram::{ClientExchange, MECHANISM, MECHANISM_PLUS, ServerExchange, Verifier};
use shared::wire::header::{self, HEADER_BYTES, Peek};
use shared::wire::startup::first_packet;
use shared::wire::{backend, encode, frontend, proxy};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

mod authentication;
#[cfg(test)]
mod tests;

pub use authentication::{ldap, scram};

/// max_packet_size in these runs: low, so that its refusal is reached.
const MAX_PACKET: u32 = 1 << 16;

/// What comes before the first message of a session, and what the two authentications read.
pub fn startup(data: &[u8]) {
    let whole = first_packet(data);
    for cut in 0..data.len().min(64) {
        match first_packet(&data[..cut]) {
            Ok(None) => {}
            Ok(Some(early)) => assert_eq!(Ok(Some(early)), whole, "after {cut} bytes"),
            Err(_) => assert!(whole.is_err(), "refused after {cut} bytes only"),
        }
    }
    if let Ok(Some((_, length))) = whole {
        assert!(length <= data.len());
    }
    let _ = backend::authentication(data);
    let _ = backend::backend_key_data(data);
    let middle = data.len() / 2;
    for (endpoint, mechanism) in [(None, MECHANISM), (Some([7; 32].into()), MECHANISM), (Some([7; 32].into()), MECHANISM_PLUS)] {
        let mut server = ServerExchange::start(Verifier::mock("joe", b"secret", 1), [7; 18], endpoint);
        let _ = server.client_first(mechanism.as_bytes(), &data[..middle]);
        assert!(server.client_final(&data[middle..]).is_err(), "a mock verifier let somebody in");
    }
    let mut client = ClientExchange::new(b"secret", [7; 18]);
    client.first();
    let _ = client.challenge(data);
    assert!(client.server_final(data).is_err(), "a server that proved nothing was believed");
}

/// What a proxy puts before that.
pub fn proxy(data: &[u8]) {
    let whole = proxy::header(data);
    for cut in 0..data.len().min(256) {
        match proxy::header(&data[..cut]) {
            Ok(None) => {}
            Ok(Some(early)) => assert_eq!(Ok(Some(early)), whole, "after {cut} bytes"),
            Err(_) => assert!(whole.is_err(), "refused after {cut} bytes only"),
        }
    }
    if let Ok(Some((_, length))) = whole {
        assert!(length <= data.len());
    }
}

/// auth_hba_file and auth_ident_file, which the first zero byte separates. They may include each other.
pub fn access(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (rules, maps) = text.split_once('\0').unwrap_or((&text, ""));
    let mut findings = Vec::new();
    let mut files = Texts { rules, maps, reads: 0 };
    let access = Access::read(Path::new("hba"), Some(Path::new("ident")), &mut files, &mut findings);
    assert!(findings.iter().all(|finding| !finding.message.is_empty()));
    let tcp = |tls| Origin::Tcp { address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), tls };
    for from in [Origin::Unix, tcp(false), tcp(true)] {
        for physical_replication in [false, true] {
            let _ = access.find(&Asked { database: "app", user: "joe", physical_replication, from });
        }
    }
    let _ = access.maps("m", "app", |name| name == "joe");
}

/// Two texts as files, for a few reads.
struct Texts<'a> {
    rules: &'a str,
    maps: &'a str,
    reads: usize,
}

impl Files for Texts<'_> {
    fn read(&mut self, path: &Path) -> io::Result<String> {
        self.reads += 1;
        match path.to_str() {
            _ if self.reads > 4 => Err(io::ErrorKind::NotFound.into()),
            Some("hba") => Ok(self.rules.to_owned()),
            _ => Ok(self.maps.to_owned()),
        }
    }

    fn list(&mut self, _: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(vec!["a.conf".into(), "b.conf".into()])
    }
}

/// A linked client's stream: whole, and cut where its own bytes say.
pub fn client_stream(data: &[u8]) {
    let Some((&how, stream)) = data.split_first() else { return };
    let rules = rules(how);
    let run = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut client, mut server, mut registry) = (ClientEnd::default(), ServerEnd::default(), Registry::default());
        let mut stop = Stop::No;
        for piece in pieces {
            stop = client.send(&mut server, &mut registry, rules, piece);
            if stop != Stop::No {
                break;
            }
            assert_waits(&client.held, rules.max_packet);
        }
        (server.received, stop)
    };
    let whole = run(&mut std::iter::once(stream));
    let pieces = run(&mut cut(stream));
    assert_eq!(pieces.1, whole.1, "how the stream ends depends on how it is cut");
    assert!(pieces.0 == whole.0, "what the server is sent depends on how the stream is cut");
    read_bodies(stream);
}

/// A server's stream in answer to a fixed pipeline, or to nothing: whole, and cut where its own bytes say.
pub fn server_stream(data: &[u8]) {
    let Some((&how, stream)) = data.split_first() else { return };
    let rules = rules(how);
    let run = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut client, mut server, mut registry) = (ClientEnd::default(), ServerEnd::default(), Registry::default());
        let linked = how & 0xc0 != 0;
        match how >> 6 {
            1 => drop(client.send(&mut server, &mut registry, rules, PIPELINE)),
            2 => drop(client.send(&mut server, &mut registry, rules, b"Q\0\0\0\x0dselect 1\0")),
            3 => {}
            _ => server.back.requests.push(Request::HiddenQuery),
        }
        let mut broken = None;
        for piece in pieces {
            (_, broken) = server.answer(linked.then_some(&mut client), &mut registry, piece);
            if broken.is_some() {
                break;
            }
            assert_waits(&server.held, u32::MAX);
        }
        (client.received, broken, server.back.is_free())
    };
    let whole = run(&mut std::iter::once(stream));
    let pieces = run(&mut cut(stream));
    assert_eq!((pieces.1, pieces.2), (whole.1, whole.2), "how the stream ends depends on how it is cut");
    assert!(pieces.0 == whole.0, "what the client is sent depends on how the stream is cut");
    read_bodies(stream);
}

/// Both directions. The input is a list of turns: a byte that says whose turn it is and how many bytes follow, and these bytes.
pub fn exchange(data: &[u8]) {
    let Some((&how, mut turns)) = data.split_first() else { return };
    let rules = rules(how);
    let (mut client, mut server, mut registry) = (ClientEnd::default(), ServerEnd::default(), Registry::default());
    let mut linked = false;
    while let Some((&turn, rest)) = turns.split_first() {
        let length = match usize::from(turn >> 2) {
            long @ 60.. => (long - 59) * 64,
            short => short,
        };
        let (bytes, rest) = rest.split_at(length.min(rest.len()));
        turns = rest;
        match turn & 3 {
            0 | 1 if !linked => match client.ask(rules, bytes) {
                Need::Server(_) => linked = true,
                Need::Nothing(_) => {}
                Need::Terminate | Need::BadHeader(_) => return,
            },
            0 | 1 => {
                if client.send(&mut server, &mut registry, rules, bytes) != Stop::No {
                    return;
                }
                assert_waits(&client.held, rules.max_packet);
            }
            2 => {
                let (_, broken) = server.answer(linked.then_some(&mut client), &mut registry, bytes);
                if broken.is_some() {
                    return;
                }
                assert_waits(&server.held, u32::MAX);
            }
            _ if linked => linked = !server.back.is_free() || client.front.is_mid_message(),
            _ if server.back.is_free() => server.back.requests.push(Request::HiddenQuery),
            _ => {}
        }
    }
}

/// A pipeline that leaves one of every kind of request outstanding.
const PIPELINE: &[u8] = b"P\0\0\0\x11a\0select 1\0\0\0B\0\0\0\x0d\0a\0\0\0\0\0\0\0D\0\0\0\x06P\0E\0\0\0\x09\0\0\0\0\0\
    P\0\0\0\x11b\0select 1\0\0\0C\0\0\0\x07Sa\0P\0\0\0\x11c\0select 2\0\0\0P\0\0\0\x11d\0select 3\0\0\0D\0\0\0\x07Sb\0\
    C\0\0\0\x07Pp\0S\0\0\0\x04Q\0\0\0\x06;\0H\0\0\0\x04F\0\0\0\x0e\0\0\0\x01\0\0\0\0\0\0B\0\0\0\x0d\0d\0\0\0\0\0\0\0S\0\0\0\x04";

fn rules(how: u8) -> Rules {
    let max_statements = [0, 1, 2, 200][usize::from(how & 3)];
    Rules { max_packet: MAX_PACKET, max_statements, reuse_unnamed: how & 0x04 != 0, refuse_simple: how & 0x3c == 0x3c }
}

/// Pieces of 1 to 16 bytes, as many as each begins with.
fn cut(mut stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = 1 + usize::from(*stream.first()? & 15);
        let (piece, rest) = stream.split_at(length.min(stream.len()));
        stream = rest;
        Some(piece)
    })
}

/// What is held is the beginning of one message that has not come whole.
fn assert_waits(held: &[u8], max_packet: u32) {
    match header::peek(held, max_packet) {
        Peek::NeedMore => {}
        Peek::Header(header) => assert!(held.len() < header.total, "a whole message is held"),
        Peek::Bad => panic!("a bad header is held"),
    }
}

/// Reads every body in the stream as everything that has a reader; what it reads, written again, is the same.
fn read_bodies(mut stream: &[u8]) {
    while let Peek::Header(header) = header::peek(stream, MAX_PACKET) {
        let Some(body) = stream.get(HEADER_BYTES..header.total) else { return };
        stream = &stream[header.total..];
        let mut again = Vec::new();
        if let Ok(parse) = frontend::parse(body) {
            frontend::write_parse(&mut again, parse.name, parse.identity);
            assert_eq!(&again[HEADER_BYTES..], body);
        }
        again.clear();
        if let Ok(bind) = frontend::bind(body) {
            frontend::write_bind_front(&mut again, &bind, bind.statement, header.total);
            again.extend_from_slice(bind.rest);
            assert_eq!(&again[HEADER_BYTES..], body);
        }
        again.clear();
        if let Ok((name, value)) = backend::parameter_status(body)
            && let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value))
        {
            encode::parameter_status(&mut again, name, value);
            assert_eq!(&again[HEADER_BYTES..], body);
        }
        let _ = (frontend::target(body), backend::fields(body));
    }
}
