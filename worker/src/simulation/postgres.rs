//! PostgreSQL as far as the pooler can tell: it takes connections, logs them in, answers queries after a while, honours cancel requests,
//! and its backends take a moment to end.
//!
//! It counts its backends, which is what every limit is about; a backend checks that nobody's query lands in another's transaction.

use super::Simulation;
use super::schedule::Event;
use nix::poll::PollFlags;
use shared::wire::encode;
use shared::wire::header::{self, HEADER_BYTES, Header, Peek};
use shared::wire::startup::{FirstPacket, first_packet};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

/// What it says at the start of every connection.
const PARAMETERS: [(&str, &str); 6] = [
    ("server_version", "17.0"),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("TimeZone", "UTC"),
    ("standard_conforming_strings", "on"),
    ("application_name", ""),
];

/// A database and a user.
pub(super) type Who = (String, String);

pub(super) struct Postgres {
    /// The directory of its socket, as a configuration names it.
    pub(super) directory: String,
    pub(super) listener: Option<UnixListener>,
    pub(super) backends: BTreeMap<u32, Backend>,
    last_pid: u32,
}

/// One backend, from when its connection is accepted until it closes the socket.
pub(super) struct Backend {
    pub(super) stream: UnixStream,
    /// Whose it is, once it has said so.
    pub(super) who: Option<Who>,
    pub(super) state: State,
    secret: u32,
    errand: u32,
    input: Vec<u8>,
    output: Vec<u8>,
    ended: bool,
    /// Whose transaction is open, or whose session this is until it is reset.
    transaction: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Its first packet has not come.
    Starting,
    LoggingIn,
    Idle,
    /// Works on this query.
    Busy(String),
    /// On its way out.
    Ending,
}

impl Backend {
    /// What it listens for.
    pub(super) fn interest(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        if matches!(self.state, State::Starting | State::Idle) && !self.ended {
            flags |= PollFlags::POLLIN;
        }
        if !self.output.is_empty() {
            flags |= PollFlags::POLLOUT;
        }
        flags
    }

    fn flush(&mut self) {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(written) => drop(self.output.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.ended = true;
                    self.output.clear();
                }
            }
        }
    }

    /// Reads all there is.
    fn read(&mut self) {
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => break self.ended = true,
                Ok(read) => self.input.extend_from_slice(&bytes[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => break self.ended = true,
            }
        }
    }

    /// The next whole message.
    fn message(&mut self) -> Option<(u8, Vec<u8>)> {
        match header::peek(&self.input, u32::MAX) {
            Peek::Header(Header { tag, total }) if self.input.len() >= total => {
                let body = self.input[HEADER_BYTES..total].to_vec();
                self.input.drain(..total);
                Some((tag, body))
            }
            Peek::Bad => panic!("PostgreSQL is sent {:?}", String::from_utf8_lossy(&self.input)),
            _ => None,
        }
    }
}

impl Postgres {
    pub(super) fn new(directory: String) -> Self {
        let mut postgres = Self { directory, listener: None, backends: BTreeMap::new(), last_pid: 0 };
        postgres.listen();
        postgres
    }

    /// Connections are accepted from now on.
    pub(super) fn listen(&mut self) {
        let name = format!("{}/.s.PGSQL.5432", &self.directory[1..]);
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.listener = Some(listener);
    }

    /// Backends of those that `of` picks.
    pub(super) fn count(&self, of: impl Fn(&Who) -> bool) -> usize {
        self.backends.values().filter(|backend| backend.who.as_ref().is_some_and(&of)).count()
    }
}

impl Simulation {
    /// Takes the connections that wait.
    pub(super) fn postgres_accepts(&mut self) {
        while let Some(Ok((stream, _))) = self.postgres.listener.as_ref().map(UnixListener::accept) {
            stream.set_nonblocking(true).unwrap();
            self.postgres.last_pid += 1;
            let pid = self.postgres.last_pid;
            let backend = Backend {
                stream,
                who: None,
                state: State::Starting,
                secret: pid.wrapping_mul(7919),
                errand: 0,
                input: Vec::new(),
                output: Vec::new(),
                ended: false,
                transaction: None,
            };
            self.postgres.backends.insert(pid, backend);
            self.backend_ready(pid, PollFlags::POLLIN);
        }
    }

    /// A backend's socket can be read or written.
    pub(super) fn backend_ready(&mut self, pid: u32, flags: PollFlags) {
        let Some(backend) = self.postgres.backends.get_mut(&pid) else { return };
        if flags.intersects(PollFlags::POLLOUT | PollFlags::POLLERR) {
            backend.flush();
        }
        if matches!(backend.state, State::Starting | State::Idle) {
            backend.read();
        }
        self.backend_goes_on(pid);
    }

    /// Does what it has been asked, one thing after the other.
    fn backend_goes_on(&mut self, pid: u32) {
        let Some(backend) = self.postgres.backends.get_mut(&pid) else { return };
        match backend.state {
            State::Starting => match first_packet(&backend.input).unwrap() {
                Some((FirstPacket::Startup(startup), length)) => {
                    backend.input.drain(..length);
                    let value = |name: &str| startup.parameters.iter().find(|(n, _)| n == name).unwrap().1.clone();
                    backend.who = Some((value("database"), value("user")));
                    backend.state = State::LoggingIn;
                    self.backend_opened(pid);
                    let delay = self.draw(&self.plan.login_time.clone());
                    self.errand(pid, delay);
                }
                Some((FirstPacket::Cancel(key), _)) => {
                    self.postgres.backends.remove(&pid);
                    self.cancel_asked(key);
                }
                Some(other) => panic!("PostgreSQL is sent {other:?}"),
                None if backend.ended => self.end_backend(pid),
                None => {}
            },
            State::Idle => match backend.message() {
                Some((b'Q', body)) => {
                    let text = String::from_utf8(body[..body.len() - 1].to_vec()).unwrap();
                    self.ask_backend(pid, text);
                }
                Some((b'X', _)) => self.end_backend(pid),
                Some((tag, _)) => panic!("PostgreSQL is sent a message {:?}", char::from(tag)),
                None if backend.ended => self.end_backend(pid),
                None => {}
            },
            State::LoggingIn | State::Busy(_) | State::Ending => {}
        }
    }

    fn ask_backend(&mut self, pid: u32, text: String) {
        let backend = self.postgres.backends.get_mut(&pid).unwrap();
        let query = Query::read(&text);
        if let (Some(open), Some(query)) = (backend.transaction, &query) {
            assert_eq!(open, query.client, "a query of one client's lands in the transaction of another: {text}");
        }
        let time = query.map_or(Duration::from_micros(300), |query| query.time);
        self.note("query", pid.into(), text.len() as u64);
        self.postgres.backends.get_mut(&pid).unwrap().state = State::Busy(text);
        self.errand(pid, time);
    }

    /// The backend will be done with what it does after this long.
    fn errand(&mut self, pid: u32, delay: Duration) {
        let backend = self.postgres.backends.get_mut(&pid).unwrap();
        backend.errand += 1;
        self.schedule.after(delay, Event::Backend(pid, backend.errand));
    }

    /// It goes, and takes its time.
    fn end_backend(&mut self, pid: u32) {
        self.postgres.backends.get_mut(&pid).unwrap().state = State::Ending;
        let delay = self.draw(&self.plan.linger.clone());
        self.errand(pid, delay);
    }

    /// A backend is done with what it was doing.
    pub(super) fn backend_done(&mut self, pid: u32, errand: u32) {
        let Some(backend) = self.postgres.backends.get_mut(&pid).filter(|backend| backend.errand == errand) else { return };
        match std::mem::replace(&mut backend.state, State::Idle) {
            State::Ending => {
                self.postgres.backends.remove(&pid);
                self.note("backend ends", pid.into(), 0);
                return;
            }
            State::LoggingIn => {
                encode::authentication_ok(&mut backend.output);
                for (name, value) in PARAMETERS {
                    encode::parameter_status(&mut backend.output, name, value);
                }
                encode::backend_key_data(&mut backend.output, encode::cancel_key(pid, backend.secret));
                encode::ready_for_query(&mut backend.output, b'I');
            }
            State::Busy(text) => backend.answer(&text),
            State::Starting | State::Idle => unreachable!("a backend without an errand"),
        }
        backend.flush();
        backend.read();
        self.backend_goes_on(pid);
    }

    /// One of the backends crashes, if there is one.
    pub(super) fn crash_backend(&mut self, nth: usize) {
        let count = self.postgres.backends.len().max(1);
        if let Some(pid) = self.postgres.backends.keys().nth(nth % count).copied() {
            self.note("backend crashes", pid.into(), 0);
            self.postgres.backends.remove(&pid);
        }
    }

    /// A cancel request: what runs ends with an error, soon.
    pub(super) fn cancel_asked(&mut self, key: [u8; 8]) {
        let found = self.postgres.backends.iter().find(|(pid, backend)| encode::cancel_key(**pid, backend.secret) == key);
        let Some(pid) = found.map(|(pid, _)| *pid) else { return };
        self.note("cancel", pid.into(), 0);
        let backend = self.postgres.backends.get_mut(&pid).unwrap();
        if let State::Busy(text) = &mut backend.state {
            *text = "cancelled".to_owned();
            self.errand(pid, Duration::from_micros(200));
        }
    }
}

impl Backend {
    /// The answer to a whole query.
    fn answer(&mut self, text: &str) {
        let out = &mut self.output;
        match Query::read(text) {
            Some(query) => {
                match query.what {
                    What::Begin => self.transaction = Some(query.client),
                    What::Commit => self.transaction = None,
                    What::Ask => {}
                }
                encode::message(out, b'T', |b| {
                    b.extend_from_slice(b"\0\x01");
                    encode::cstr(b, b"said");
                    b.extend_from_slice(&[0; 18]);
                });
                encode::message(out, b'D', |b| {
                    b.extend_from_slice(b"\0\x01");
                    encode::length_prefixed(b, |_| ());
                    b.extend_from_slice(text.as_bytes());
                    b.resize(b.len() + query.bytes, b' ');
                });
                encode::command_complete(out, "SELECT 1");
            }
            None if text == "cancelled" => encode::message(out, b'E', |b| {
                for (field, value) in [(b'S', "ERROR"), (b'V', "ERROR"), (b'C', "57014"), (b'M', "canceling statement")] {
                    b.push(field);
                    encode::cstr(b, value.as_bytes());
                }
                b.push(0);
            }),
            None if text.is_empty() => encode::message(out, b'I', |_| ()),
            None if text == "DISCARD ALL" => {
                encode::parameter_status(out, "application_name", "");
                encode::command_complete(out, text);
            }
            None if text.starts_with("SET application_name='") => {
                let name = text.split('\'').nth(1).unwrap();
                encode::parameter_status(out, "application_name", name);
                encode::command_complete(out, "SET");
            }
            None => panic!("PostgreSQL is asked {text}"),
        }
        encode::ready_for_query(&mut self.output, if self.transaction.is_some() { b'T' } else { b'I' });
    }
}

/// What clients ask, as text: `ask CLIENT SERIAL MICROSECONDS BYTES`, or `begin`, or `commit`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Query {
    pub(super) what: What,
    pub(super) client: u64,
    pub(super) serial: u64,
    pub(super) time: Duration,
    pub(super) bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    Begin,
    Ask,
    Commit,
}

impl Query {
    fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let what = match words.next()? {
            "begin" => What::Begin,
            "ask" => What::Ask,
            "commit" => What::Commit,
            _ => return None,
        };
        let mut number = || words.next()?.parse::<u64>().ok();
        let (client, serial) = (number()?, number()?);
        Some(Self { what, client, serial, time: Duration::from_micros(number()?), bytes: number()? as usize })
    }

    pub(super) fn text(&self) -> String {
        let Self { what, client, serial, time, bytes } = self;
        let word = match what {
            What::Begin => "begin",
            What::Ask => "ask",
            What::Commit => "commit",
        };
        format!("{word} {client} {serial} {} {bytes}", time.as_micros())
    }
}
