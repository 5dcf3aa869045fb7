//! Sessions over socket pairs: what a client is told when its session is parked, whatever it waits for, and another image goes on with it.
#![allow(clippy::unwrap_used)]

use super::stream::Stream;
use super::*;
use crate::fleet::Request;
use crate::office::tests::office;
use crossbeam_channel::Sender;
use shared::config::Settings;
use shared::control::{ConnectionState, PeerName, ReportKind};
use shared::encoding::{decode_named, encode_named};
use shared::orders::Scope;
use shared::tls::{Acceptor, Connector, Files, Handshake, Packed, Pem, Progress, Secured};
use shared::wire::header::HEADER_BYTES;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);
const ID: ConnectionId = ConnectionId(7);
const KEY: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

/// A supervisor's image as far as the console goes, with a test in the place of the fleet's thread.
struct Image {
    office: Arc<Office>,
    inputs: Receiver<Input>,
}

impl Image {
    fn new() -> Self {
        let (office, inputs) = office();
        Self { office, inputs }
    }

    /// The next question to the fleet, by whom, and where it is answered.
    fn asked(&self) -> (Request, Sender<Answer>) {
        loop {
            if let Input::Ask(request, session, answer) = self.inputs.recv_timeout(SOON).unwrap() {
                assert_eq!(session, Some(ID));
                return (request, answer);
            }
        }
    }

    /// Waits until the session has ended.
    fn is_left(&self) {
        let closed = |input| matches!(input, Input::Event(Event::ConsoleClosed));
        while !closed(self.inputs.recv_timeout(SOON).unwrap()) {}
        assert!(self.office.consoles().is_empty());
    }

    /// Another image takes the place of this one, of which nothing moves any more; what the fleet owes the session comes by `answer`.
    fn upgraded(self, answer: Option<&Receiver<Answer>>) -> Self {
        self.replaced(|| {}, answer)
    }

    /// The same; when nothing moves any more, the fleet does one thing more.
    fn replaced(self, at_last: impl FnOnce(), answer: Option<&Receiver<Answer>>) -> Self {
        let closed = self.office.gate.close();
        at_last();
        let mut luggage = Luggage::default();
        let bytes = encode_named(&[], &park(&self.office, &closed, &mut luggage)).unwrap();
        std::mem::forget(closed);
        let mut arrived = crate::luggage::carry(&luggage);
        let next = Self::new();
        let parked: Vec<Parked> = decode_named(&bytes).unwrap();
        assert_eq!(parked.len(), 1);
        for session in parked {
            resume(&next.office, session, &mut arrived, |id| answer.cloned().filter(|_| id == ID));
        }
        next
    }
}

/// The other end of a session.
struct Client {
    stream: Stream,
    heard: Vec<u8>,
}

impl Client {
    /// A session in the clear.
    fn plain(image: &Image) -> Self {
        Self::admitted(image, None)
    }

    fn admitted(image: &Image, tls: Option<(Packed, Packed)>) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (server, client) = tls.unzip();
        let session = ConsoleSession {
            id: ID,
            user: "admin".into(),
            database: "pgbouncer".into(),
            admin: true,
            seat: shared::ids::SeatIndex(0),
            cancel_key: KEY,
            tls: server,
            unread: Vec::new(),
            parameters: vec![("application_name".into(), "psql".into())],
            peer: PeerName { address: "unix".into(), port: 6432, pid: 1 },
            connected_at: 1_000_000,
        };
        admit(&image.office, session, Some(theirs.into()));
        let state = ConnectionState { tls: client, ..ConnectionState::default() };
        let mut client = Self { stream: Stream::new(Arc::new(ours.into()), state).unwrap(), heard: Vec::new() };
        assert!(client.hears_until_ready().ends_with(b"Z\0\0\0\x05I"));
        client
    }

    fn says(&mut self, bytes: &[u8]) {
        self.stream.send(bytes).unwrap();
        self.stream.flush().unwrap();
        assert!(self.stream.is_sent());
    }

    fn asks(&mut self, command: &str) {
        self.says(&query(command));
    }

    /// Up to the next ReadyForQuery or FATAL, or to the end of the connection.
    fn hears_until_ready(&mut self) -> Vec<u8> {
        let start = Instant::now();
        loop {
            let mut at = 0;
            while let Some(header) = self.heard.get(at..at + HEADER_BYTES) {
                let length = u32::from_be_bytes(header[1..].try_into().unwrap()) as usize + 1;
                if self.heard.len() < at + length {
                    break;
                }
                let is_last = header[0] == b'Z' || self.heard[at..at + length].windows(6).any(|part| part == b"SFATAL");
                at += length;
                if is_last {
                    return self.heard.drain(..at).collect();
                }
            }
            match self.stream.read() {
                Ok([]) => return std::mem::take(&mut self.heard),
                Ok(bytes) => self.heard.extend_from_slice(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(1)),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return std::mem::take(&mut self.heard),
                Err(error) => panic!("{error}"),
            }
            assert!(start.elapsed() < SOON, "heard so far: {}", String::from_utf8_lossy(&self.heard));
        }
    }

    fn hears(&mut self, text: &str) {
        let heard = self.hears_until_ready();
        assert!(heard.windows(text.len()).any(|part| part == text.as_bytes()), "{text}: {}", String::from_utf8_lossy(&heard));
    }
}

fn query(command: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    shared::wire::encode::message(&mut bytes, b'Q', |out| {
        out.extend(command.bytes());
        out.push(0);
    });
    bytes
}

/// Both ends of a TLS session, the server's first.
fn tls() -> (Packed, Packed) {
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let pem = |name: &str, text: String| {
        std::fs::write(folder.path().join(name), text).unwrap();
        Some(Pem::read(&folder.path().join(name)).unwrap())
    };
    let files = Files { authorities: None, certificate: pem("cert", cert.pem()), key: pem("key", signing_key.serialize_pem()) };
    let mut settings = Settings::default();
    for (name, value) in [
        ("client_tls_sslmode", "require"),
        ("client_tls_cert_file", "cert"),
        ("client_tls_key_file", "key"),
        ("server_tls_sslmode", "require"),
    ] {
        settings.set(name, value).unwrap();
    }
    let server = Acceptor::new(&settings, &files, None).unwrap().unwrap().accept().unwrap();
    let client = Connector::new(&settings, &Files::default()).unwrap().unwrap().connect("localhost").unwrap();
    let (mut ends, mut packed) = ([Some(client), Some(server)], [None, None]);
    let mut flight = Vec::new();
    for turn in (0..2).cycle().take(8) {
        let Some(handshake): Option<Box<Handshake>> = ends[turn].take() else { continue };
        let mut out = Vec::new();
        match handshake.advance(&flight, &mut out).unwrap() {
            Progress::Pending(handshake) => ends[turn] = Some(handshake),
            Progress::Done(done) => {
                let secured = Secured { session: done.session, partial: done.sealed, label: done.agreed.label().into() };
                packed[turn] = Some(secured.pack());
            }
        }
        flight = out;
    }
    let [client, server] = packed.map(Option::unwrap);
    (server, client)
}

/// In the clear and inside TLS.
fn each(mut run: impl FnMut(Image, Client)) {
    for tls in [None, Some(tls())] {
        let image = Image::new();
        let client = Client::admitted(&image, tls);
        run(image, client);
    }
}

#[test]
fn a_session_that_listens_goes_on_in_the_middle_of_a_message() {
    each(|image, mut client| {
        let row = image.office.consoles()[&ID].row.clone();
        let bytes = query("SHOW VERSION");
        client.says(&bytes[..9]);
        let image = image.upgraded(None);
        client.says(&bytes[9..11]);
        let image = image.upgraded(None);
        client.says(&bytes[11..]);
        client.hears(crate::NAME);
        let mut now = image.office.consoles()[&ID].row.clone();
        assert!(now.request_time > row.request_time);
        (now.request_time, now.fd) = (row.request_time, row.fd);
        assert_eq!(now, row);
    });
}

#[test]
fn a_session_that_waits_for_the_fleet_is_told_by_the_next_image() {
    each(|image, mut client| {
        client.asks("PAUSE");
        let (request, owed) = image.asked();
        assert_eq!(request, Request::Pause(Scope::All));
        let (answer, answers) = crossbeam_channel::bounded(1);
        let image = image.upgraded(Some(&answers));
        drop(owed);
        answer.send(Answer::Done).unwrap();
        client.hears("PAUSE");
        client.asks("SHOW VERSION");
        client.hears("SHOW");
        assert!(image.inputs.try_iter().all(|input| !matches!(input, Input::Ask(..))), "it is not asked twice");
    });
}

#[test]
fn what_the_fleet_answers_at_last_is_not_lost() {
    each(|image, mut client| {
        client.asks("RESUME");
        let (_, answer) = image.asked();
        let _image = image.replaced(|| answer.send(Answer::Done).unwrap(), None);
        client.hears("RESUME");
    });
}

#[test]
fn an_order_whose_answer_is_lost_is_said_to_be() {
    let image = Image::new();
    let mut client = Client::plain(&image);
    client.asks("RECONNECT");
    let _owed = image.asked();
    let _image = image.upgraded(None);
    client.hears("it is not known what has become of the command");
}

#[test]
fn a_show_is_run_again() {
    each(|image, mut client| {
        client.asks("SHOW LISTS");
        let (request, _rows) = image.asked();
        assert_eq!(request, Request::Report(ReportKind::Pools));
        client.asks("SHOW VERSION");
        let image = image.upgraded(None);
        let (request, rows) = image.asked();
        assert_eq!(request, Request::Report(ReportKind::Pools));
        let (live, retired, removed, forgotten) = Default::default();
        rows.send(Answer::Rows { live, retired, removed, forgotten }).unwrap();
        client.hears("used_clients");
        client.hears(crate::NAME);
    });
}

#[test]
fn an_answer_that_the_client_does_not_take_is_told_to_its_end() {
    each(|image, mut client| {
        client.asks("SHOW CONFIG");
        let answer = client.hears_until_ready();
        let console = Arc::clone(&image.office.consoles()[&ID].socket);
        SockRef::from(&console).set_send_buffer_size(4096).unwrap();
        drop(console);
        (0..50).for_each(|_| client.asks("SHOW CONFIG"));
        let image = image.upgraded(None).upgraded(None);
        for _ in 0..50 {
            assert_eq!(client.hears_until_ready(), answer);
        }
        drop(client);
        image.is_left();
    });
}

#[test]
fn it_has_its_key_and_its_number() {
    each(|image, mut client| {
        client.asks("WAIT_CLOSE");
        let _owed = image.asked();
        let (_answer, answers) = crossbeam_channel::bounded(1);
        let image = image.upgraded(Some(&answers));
        cancel(&image.office, KEY);
        assert!(matches!(image.inputs.recv_timeout(SOON), Ok(Input::Cancel(ID))));
        image.office.consoles()[&ID].kill();
        client.hears("admin forced disconnect");
        image.is_left();
    });
}

#[test]
fn one_that_was_killed_stays_so() {
    let image = Image::new();
    let mut client = Client::plain(&image);
    let office = Arc::clone(&image.office);
    let image = image.replaced(|| office.consoles()[&ID].kill(), None);
    client.hears("admin forced disconnect");
    image.is_left();
}

#[test]
fn one_that_cannot_go_on_is_not_counted_any_more() {
    let image = Image::new();
    let _client = Client::plain(&image);
    let mut luggage = Luggage::default();
    let parked = park(&image.office, &image.office.gate.close(), &mut luggage).remove(0);
    let next = Image::new();
    resume(&next.office, parked, &mut Arrived::default(), |_| None);
    assert!(matches!(next.inputs.try_recv(), Ok(Input::Event(Event::ConsoleClosed))));
    assert!(next.office.consoles().is_empty());
}

#[test]
fn all_go_on_where_they_were_if_there_is_no_next_image() {
    each(|image, mut client| {
        client.asks("PAUSE");
        let (_, answer) = image.asked();
        drop(park(&image.office, &image.office.gate.close(), &mut Luggage::default()));
        answer.send(Answer::Done).unwrap();
        client.hears("PAUSE");
        client.asks("RESUME");
        let (_, answer) = image.asked();
        let closed = image.office.gate.close();
        answer.send(Answer::Done).unwrap();
        drop(park(&image.office, &closed, &mut Luggage::default()));
        drop(closed);
        client.hears("RESUME");
    });
}
