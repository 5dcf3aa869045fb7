//! TLS on a connection of ours, against rustls at the other end of the socket.

#![allow(clippy::unwrap_used)]
use super::*;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion};
use shared::config::Settings;
use shared::tls::{Acceptor, Connector, Established, Files, Handshake, Pem, Progress, Role};
use std::io::{Read as _, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

const TOKEN: Token = Token(7);
const READ: usize = 64 * 1024;

struct Case {
    conn: Conn,
    buffers: Buffers,
    buffer: Vec<u8>,
    peer: Connection,
    socket: UnixStream,
    /// What the peer has heard.
    heard: Vec<u8>,
}

/// A handshake of ours, and who is at the other end.
fn ends(role: Role, version: &'static SupportedProtocolVersion) -> (Box<Handshake>, Connection) {
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let provider = || Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let folder = tempfile::tempdir().unwrap();
    let pem = |name: &str, text: String| {
        std::fs::write(folder.path().join(name), text).unwrap();
        Some(Pem::read(&folder.path().join(name)).unwrap())
    };
    let mut files = Files::default();
    let mut settings = Settings::default();
    if role == Role::Server {
        for (name, value) in [("sslmode", "require"), ("cert_file", "cert"), ("key_file", "key")] {
            settings.set(&format!("client_tls_{name}"), value).unwrap();
        }
        (files.certificate, files.key) = (pem("cert", cert.pem()), pem("key", signing_key.serialize_pem()));
        let ours = Acceptor::new(&settings, &files, None).unwrap().unwrap().accept().unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let theirs = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
        let theirs = theirs.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        return (ours, ClientConnection::new(Arc::new(theirs), name).unwrap().into());
    }
    let ours = Connector::new(&settings, &files).unwrap().unwrap().connect("localhost").unwrap();
    let theirs = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let theirs = theirs.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
    (ours, ServerConnection::new(Arc::new(theirs)).unwrap().into())
}

fn sends(peer: &mut Connection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while peer.wants_write() {
        peer.write_tls(&mut bytes).unwrap();
    }
    bytes
}

impl Case {
    /// A session; `early` is sent by a client right behind its handshake, and the end of the session behind that if it `leaves`. Gives what came of that.
    fn begin(role: Role, version: &'static SupportedProtocolVersion, early: &[u8], leaves: bool) -> (Case, Vec<u8>) {
        let speak = |peer: &mut Connection, early: &[u8]| {
            peer.writer().write_all(early).unwrap();
            if leaves {
                peer.send_close_notify();
            }
        };
        let (mut ours, mut peer) = ends(role, version);
        let mut early = Some(early);
        let established: Established = loop {
            if !peer.is_handshaking()
                && let Some(early) = early.take()
            {
                speak(&mut peer, early);
            }
            let (bytes, mut out) = (sends(&mut peer), Vec::new());
            let progress = ours.advance(&bytes, &mut out).unwrap();
            let mut out = &out[..];
            while !out.is_empty() {
                peer.read_tls(&mut out).unwrap();
                peer.process_new_packets().unwrap();
            }
            match progress {
                Progress::Pending(next) => ours = next,
                Progress::Done(established) => break *established,
            }
        };
        let (fd, socket) = UnixStream::pair().unwrap();
        fd.set_nonblocking(true).unwrap();
        socket.set_nonblocking(true).unwrap();
        let (mut conn, mut buffers) = (Conn::new(fd.into()), Buffers::default());
        let plain = conn.secure(TOKEN, role, established, &mut buffers);
        let mut case = Case { conn, buffers, buffer: vec![0; READ], peer, socket, heard: Vec::new() };
        if let Some(early) = early.take() {
            speak(&mut case.peer, early);
        }
        // Tickets of a server.
        let rest = sends(&mut case.peer);
        case.deliver(&rest);
        let (more, ended) = case.hear_all();
        assert_eq!(ended, leaves);
        (case, [plain, more].concat())
    }

    fn new(role: Role, version: &'static SupportedProtocolVersion) -> Case {
        Self::begin(role, version, b"", false).0
    }

    /// Everything, in both roles and versions.
    fn each(mut run: impl FnMut(Case)) {
        for version in [&TLS12, &TLS13] {
            for role in [Role::Server, Role::Client] {
                run(Self::new(role, version));
            }
        }
    }

    /// The records that carry `plain`.
    fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in plain.chunks(READ / 2) {
            self.peer.writer().write_all(piece).unwrap();
            bytes.extend(sends(&mut self.peer));
        }
        bytes
    }

    fn deliver(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    fn read(&mut self) -> Read {
        self.conn.readable = true;
        self.conn.read(&mut self.buffer, &mut self.buffers)
    }

    /// Reads as the event loop does: until nothing is readable any more.
    fn hear(&mut self) -> Vec<u8> {
        let (heard, ended) = self.hear_all();
        assert!(!ended, "the connection has ended");
        heard
    }

    /// The same, and whether that was all.
    fn hear_all(&mut self) -> (Vec<u8>, bool) {
        let mut heard = Vec::new();
        self.conn.readable = true;
        while self.conn.readable {
            match self.conn.read(&mut self.buffer, &mut self.buffers) {
                Read::Full(n) | Read::Drained(n) => heard.extend_from_slice(&self.buffer[..n]),
                Read::Blocked => {}
                Read::End => return (heard, true),
                Read::Broken => panic!("the connection is broken"),
            }
        }
        (heard, false)
    }

    fn say(&mut self, plain: &[u8]) {
        self.conn.send(plain, &mut self.buffers).unwrap();
    }

    /// The peer takes all that is there; an error is what rustls says to it.
    fn listen(&mut self) -> Result<(), rustls::Error> {
        let mut bytes = vec![0; READ];
        while let Ok(n @ 1..) = self.socket.read(&mut bytes) {
            let mut rest = &bytes[..n];
            while !rest.is_empty() {
                self.peer.read_tls(&mut rest).unwrap();
                self.peer.process_new_packets()?;
                let _ = self.peer.reader().read_to_end(&mut self.heard);
            }
        }
        Ok(())
    }
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

#[test]
fn a_record_that_comes_byte_by_byte_is_content_when_its_end_has_come() {
    Case::each(|mut case| {
        let bytes = case.seal(b"hello");
        let (last, first) = bytes.split_last().unwrap();
        for byte in first {
            case.deliver(&[*byte]);
            assert!(matches!(case.read(), Read::Blocked));
            assert!(!case.conn.readable, "the next edge tells of more");
        }
        case.deliver(&[*last]);
        assert!(matches!(case.read(), Read::Drained(5)) && case.buffer.starts_with(b"hello"));
    });
}

#[test]
fn records_may_end_anywhere() {
    Case::each(|mut case| {
        let plain = content(100_000);
        let bytes = case.seal(&plain);
        for piece in [1, 5, 6, 1_000, 16_383, 16_384, 16_411, 70_000] {
            let mut heard = Vec::new();
            let bytes = if piece == 1 { bytes.clone() } else { case.seal(&plain) };
            for piece in bytes.chunks(piece) {
                case.deliver(piece);
                heard.extend(case.hear());
            }
            assert!(heard == plain, "pieces of {piece} bytes");
            assert_eq!(case.conn.tls.as_ref().unwrap().partial(), 0);
        }
    });
}

#[test]
fn several_records_are_one_read_and_their_beginning_waits_for_its_end() {
    Case::each(|mut case| {
        let bytes = [case.seal(b"one"), case.seal(b"two"), case.seal(b"three")].concat();
        let (now, later) = bytes.split_at(bytes.len() - 4);
        case.deliver(now);
        assert!(matches!(case.read(), Read::Drained(6)) && case.buffer.starts_with(b"onetwo"));
        case.deliver(later);
        assert!(matches!(case.read(), Read::Drained(5)) && case.buffer.starts_with(b"three"));
    });
}

#[test]
fn a_read_that_fills_the_buffer_says_that_there_may_be_more() {
    let mut case = Case::new(Role::Server, &TLS13);
    let plain = content(3 * READ);
    let bytes = case.seal(&plain);
    case.deliver(&bytes);
    let Read::Full(first) = case.read() else { panic!("not full") };
    assert!(case.conn.readable && first < READ);
    let mut heard = case.buffer[..first].to_vec();
    heard.extend(case.hear());
    assert!(heard == plain);
}

#[test]
fn what_comes_in_one_breath_with_the_end_of_the_handshake_is_not_lost() {
    for version in [&TLS12, &TLS13] {
        for early in [1, 100, 40_000] {
            let early = content(early);
            for leaves in [false, true] {
                let (_, heard) = Case::begin(Role::Server, version, &early, leaves);
                assert!(heard == early, "{version:?}, {leaves}: {} of {}", heard.len(), early.len());
            }
        }
    }
}

#[test]
fn what_a_full_socket_does_not_take_waits_sealed_and_in_order() {
    Case::each(|mut case| {
        let plain = content(3_000_000);
        for piece in plain.chunks(100_000) {
            case.say(piece);
        }
        assert!(case.conn.is_backed_up());
        while case.conn.is_backed_up() {
            case.listen().unwrap();
            case.conn.flush(&mut case.buffers).unwrap();
        }
        case.listen().unwrap();
        assert!(case.heard == plain);
    });
}

#[test]
fn the_peers_new_keys_are_followed_and_answered_with_ours() {
    for role in [Role::Server, Role::Client] {
        let mut case = Case::new(role, &TLS13);
        for round in 0..5 {
            case.peer.refresh_traffic_keys().unwrap();
            let bytes = case.seal(b"under new keys");
            case.deliver(&bytes);
            assert_eq!(case.hear(), b"under new keys", "round {round}");
            case.say(b"under ours");
            case.listen().unwrap();
            assert_eq!(std::mem::take(&mut case.heard), b"under ours");
        }
    }
}

#[test]
fn a_client_that_ends_the_session_has_left() {
    for version in [&TLS12, &TLS13] {
        let mut case = Case::new(Role::Server, version);
        let mut bytes = case.seal(b"last words");
        case.peer.send_close_notify();
        bytes.extend(sends(&mut case.peer));
        case.deliver(&bytes);
        assert!(matches!(case.read(), Read::Full(10)) && case.conn.readable, "its end is still to be read");
        assert!(matches!(case.read(), Read::End));
        assert_eq!(case.conn.tls_failure(), None);
    }
}

/// PostgreSQL ends the session before its backend is gone, whose seat is taken until the connection ends.
#[test]
fn a_server_has_ended_when_the_connection_has() {
    for version in [&TLS12, &TLS13] {
        let mut case = Case::new(Role::Client, version);
        case.peer.send_close_notify();
        let bytes = sends(&mut case.peer);
        case.deliver(&bytes);
        assert!(case.hear().is_empty(), "not the end");
        case.socket.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(matches!(case.read(), Read::End));
    }
}

#[test]
fn a_broken_record_breaks_the_connection_and_the_peer_is_told_why() {
    Case::each(|mut case| {
        let mut bytes = case.seal(b"good");
        let good = bytes.len();
        bytes.extend(case.seal(b"bad"));
        bytes[good + 9] ^= 1;
        case.deliver(&bytes);
        assert!(matches!(case.read(), Read::Full(4)), "what came before is good");
        assert!(case.conn.readable);
        assert!(matches!(case.read(), Read::Broken));
        assert_eq!(case.conn.tls_failure().as_deref(), Some("bad record mac"));
        assert_eq!(case.conn.send(b"more", &mut case.buffers), Err(Errno::EPIPE));
        let told = case.listen().unwrap_err();
        assert!(matches!(told, rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac)), "{told}");
    });
}

#[test]
fn closing_tells_the_peer_once_that_nothing_more_comes() {
    Case::each(|mut case| {
        case.say(b"goodbye");
        case.conn.shutdown_write(&mut case.buffers);
        case.conn.close_notify(&mut case.buffers);
        case.listen().unwrap();
        assert_eq!(case.heard, b"goodbye");
        assert!(case.peer.process_new_packets().unwrap().peer_has_closed());
    });
}

#[test]
fn a_connection_goes_on_elsewhere_in_the_middle_of_a_record() {
    Case::each(|mut case| {
        let bytes = case.seal(b"over two processes");
        let (here, there) = bytes.split_at(11);
        case.deliver(here);
        assert!(case.hear().is_empty());
        let packed: shared::tls::Packed = postcard::from_bytes(&postcard::to_stdvec(&case.conn.pack().unwrap()).unwrap()).unwrap();
        assert!(!format!("{packed:?}").contains(", "), "its secrets are not printed: {packed:?}");
        let role = case.conn.tls.as_ref().unwrap().role;
        let label = case.conn.tls_label().to_owned();
        case.conn = Conn::new(case.conn.as_fd().try_clone_to_owned().unwrap());
        assert!(case.conn.unpack(role, &packed));
        assert_eq!(case.conn.tls_label(), label);
        case.deliver(there);
        assert_eq!(case.hear(), b"over two processes");
        case.say(b"answer");
        case.listen().unwrap();
        assert_eq!(case.heard, b"answer");
    });
}

#[test]
fn nothing_is_allocated_for_a_message_while_a_connection_is_in_use() {
    Case::each(|mut case| {
        let bytes = case.seal(b"warm");
        case.deliver(&bytes);
        assert_eq!(case.hear(), b"warm");
        case.say(b"warm");
        let bytes = case.seal(b"select 1");
        case.deliver(&bytes);
        let allocated = allocation_counter::measure(|| {
            assert!(matches!(case.read(), Read::Drained(8)));
            case.conn.send(b"one", &mut case.buffers).unwrap();
        });
        assert_eq!(allocated.count_total, 0);
    });
}

#[test]
fn a_connection_at_rest_has_no_expanded_keys_and_says_when_it_has_again() {
    let mut case = Case::new(Role::Server, &TLS13);
    case.say(b"x");
    assert_eq!(case.buffers.warm, [TOKEN], "listed once");
    assert!(case.conn.cool_down(false), "in use since it was looked at");
    assert!(!case.conn.cool_down(false), "at rest");
    case.buffers.warm.clear();
    case.say(b"x");
    assert_eq!(case.buffers.warm, [TOKEN]);
    assert!(!case.conn.cool_down(true));
    case.listen().unwrap();
    assert_eq!(case.heard, b"xx");
}

#[test]
fn a_plain_connection_pays_a_pointer() {
    assert!(size_of::<Conn>() <= 80, "{}", size_of::<Conn>());
}
