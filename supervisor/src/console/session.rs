//! One console session, from its greeting to its end: what it does whenever there is something to do. It never waits, its thread does that for
//! it ([`super::serve`]); so it can be parked at any time, whatever it waits for ([`super::parked`]).

use super::commands::{self, Reply};
use super::receive::{Broken, Inbound, Incoming};
use super::stream::Stream;
use super::{Console, encode};
use crate::engine::now;
use crate::fleet::{Answer, Event, Moment, Request};
use crate::office::{Input, Office};
use crate::process::peer_has_ended;
use crossbeam_channel::{Receiver, TryRecvError};
use shared::control::{Buffered, ConnectionRow, ConnectionState, ConsoleSession, Replication};
use shared::ids::Owner;
use shared::sys::clock;
use shared::wire::report::sqlstate;
use socket2::SockRef;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A client that does not take its answer for this long is left.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// What PgBouncer tells console clients about itself.
const PARAMETERS: [(&str, &str); 7] = [
    ("server_version", "1.26.1/bouncer"),
    ("client_encoding", "UTF8"),
    ("server_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("TimeZone", "GMT"),
    ("standard_conforming_strings", "on"),
    ("is_superuser", "on"),
];
/// Startup parameters that are told back to the client.
const TOLD_BACK: [&str; 2] = ["application_name", "IntervalStyle"];

/// See the module.
pub(super) struct Session {
    pub(super) client: ConsoleSession,
    pub(super) stream: Stream,
    pub(super) killed: Arc<AtomicBool>,
    pub(super) inbound: Inbound,
    pub(super) since: Moment,
    pub(super) phase: Phase,
    /// When the client last took something of what is unsent.
    pub(super) taken_at: Moment,
}

/// What it is about.
pub(super) enum Phase {
    /// The next command, when it comes.
    Listening,
    /// To run this command, or to run it once more.
    Given(String),
    /// This command is being run. Nothing of it has happened yet that must not happen twice.
    Running(String),
    /// The fleet has been asked for what is answered by this tag.
    Ordered { tag: String, answer: Receiver<Answer> },
    /// The end, without a word.
    Leaving,
}

/// What it waits for.
pub(super) enum Wait {
    /// That the client sends something.
    Input,
    /// That the client takes something.
    Room,
    /// The fleet's answer.
    Answer(Receiver<Answer>),
    /// The reply to this command.
    Reply(String),
    /// Nothing: it has ended.
    Over,
}

/// Why a session ends.
enum End {
    /// The client said goodbye.
    Request,
    /// The connection ended.
    Eof,
    /// With a FATAL: SQLSTATE and text.
    Fatal(&'static str, String),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Eof
    }
}

fn violation(broken: &Broken) -> End {
    End::Fatal(sqlstate::PROTOCOL_VIOLATION, broken.to_string())
}

impl Session {
    /// A session as its worker passes it on; the client is to be greeted. `None`: its TLS cannot go on here.
    pub(super) fn admit(mut client: ConsoleSession, socket: OwnedFd) -> Option<Self> {
        // The worker's loop had it so too, but who knows of which build it is.
        SockRef::from(&socket).set_nonblocking(true).ok()?;
        let mut inbound = Inbound::default();
        inbound.push(&std::mem::take(&mut client.unread));
        let state = ConnectionState { tls: client.tls.take(), ..ConnectionState::default() };
        let stream = Stream::new(Arc::new(socket), state)?;
        let since = now();
        let phase = Phase::Listening;
        Some(Self { client, stream, killed: Arc::default(), inbound, since, phase, taken_at: since })
    }

    /// As the rest of the supervisor sees it.
    pub(super) fn row(&self, office: &Office) -> ConnectionRow {
        let ConsoleSession { id, user, peer, connected_at, parameters, .. } = &self.client;
        let local = SockRef::from(self.stream.socket()).local_addr().ok().and_then(|address| address.as_socket());
        let port = office.config().settings.listen_port;
        let name = parameters.iter().find(|(name, _)| name == "application_name");
        ConnectionRow {
            id: *id,
            user: user.clone(),
            database: "pgbouncer".to_owned(),
            replication: Replication::None,
            state: "active".to_owned(),
            addr: peer.address.clone(),
            port: peer.port,
            local_addr: local.map_or_else(|| "unix".to_owned(), |at| at.ip().to_string()),
            local_port: local.map_or(port, |at| at.port()),
            connect_time: *connected_at,
            request_time: *connected_at,
            wait_us: 0,
            close_needed: false,
            link: None,
            remote_pid: peer.pid,
            tls: self.stream.tls_label().to_owned(),
            application_name: name.map_or_else(String::new, |(_, value)| value.clone()),
            prepared_statements: 0,
            fd: self.stream.socket().as_raw_fd(),
            cancel_key: u64::from_be_bytes(self.client.cancel_key),
            buffered: Buffered::default(),
        }
    }

    /// Turns the client away.
    pub(super) fn refuse(&mut self, office: &Office, text: &str) {
        let mut out = Vec::new();
        encode::error(&mut out, "FATAL", sqlstate::TOO_MANY_CONNECTIONS, text, None);
        let _ = self.stream.send(&out).and_then(|()| self.stream.flush());
        self.log_error(office, text);
    }

    /// The first that the client is told.
    pub(super) fn greet(&mut self) {
        let mut out = Vec::new();
        encode::authentication_ok(&mut out);
        for (name, value) in PARAMETERS {
            encode::parameter_status(&mut out, name, value);
        }
        for (name, value) in &self.client.parameters {
            if let Some(known) = TOLD_BACK.iter().find(|known| known.eq_ignore_ascii_case(name)) {
                encode::parameter_status(&mut out, known, value);
            }
        }
        encode::backend_key_data(&mut out, self.client.cancel_key);
        encode::ready_for_query(&mut out);
        if self.stream.send(&out).is_err() {
            self.phase = Phase::Leaving;
        }
    }

    /// Does what can be done now.
    pub(super) fn advance(&mut self, office: &Office) -> Wait {
        self.try_advance(office).unwrap_or_else(|end| {
            self.end(office, &end);
            Wait::Over
        })
    }

    fn try_advance(&mut self, office: &Office) -> Result<Wait, End> {
        if self.killed.load(Ordering::Acquire) {
            return Err(End::Fatal(sqlstate::ADMIN_SHUTDOWN, "admin forced disconnect".to_owned()));
        }
        self.settle(office)?;
        if self.stream.flush()? > 0 {
            self.taken_at = now();
        }
        if !self.stream.is_sent() {
            let is_late = now().saturating_sub(self.taken_at) >= WRITE_TIMEOUT;
            return if is_late { Err(End::Eof) } else { Ok(Wait::Room) };
        }
        match &self.phase {
            Phase::Leaving => Err(End::Eof),
            Phase::Ordered { .. } if peer_has_ended(self.stream.socket()) => Err(End::Eof),
            Phase::Ordered { answer, .. } => Ok(Wait::Answer(answer.clone())),
            Phase::Given(command) | Phase::Running(command) => Ok(self.run(office, command.clone())),
            Phase::Listening => self.listen(office),
        }
    }

    fn listen(&mut self, office: &Office) -> Result<Wait, End> {
        let mut has_read = false;
        loop {
            match self.inbound.next().map_err(|broken| violation(&broken))? {
                // One read at a time: whoever sends without end keeps nobody inside the gate.
                None if has_read => return Ok(Wait::Input),
                None => match self.stream.read() {
                    Ok([]) => return Err(End::Eof),
                    Ok(bytes) => self.inbound.push(bytes),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Wait::Input),
                    Err(error) => return Err(error.into()),
                },
                Some(Incoming::Terminate) => return Err(End::Request),
                Some(Incoming::Query(text)) => return Ok(self.run(office, text)),
                Some(Incoming::Extended) => {
                    return Err(self.refuse_message(office, "extended query protocol not supported by admin console"));
                }
                Some(Incoming::Other(kind)) => {
                    return Err(self.refuse_message(office, &format!("unsupported packet type for admin console: {kind}")));
                }
            }
            has_read = true;
        }
    }

    fn refuse_message(&mut self, office: &Office, text: &str) -> End {
        match self.reply(office, Reply::error(text)) {
            Ok(()) => violation(&Broken::Header),
            Err(error) => error.into(),
        }
    }

    fn run(&mut self, office: &Office, command: String) -> Wait {
        if let Some(console) = office.consoles().get_mut(&self.client.id) {
            console.row.request_time = clock::wall_us();
        }
        self.phase = Phase::Running(command.clone());
        Wait::Reply(command)
    }

    /// What the command that was being run has led to. Whatever must not happen twice happens here, where nobody can park the session
    /// in between.
    pub(super) fn reply(&mut self, office: &Office, reply: Reply) -> io::Result<()> {
        let mut out = Vec::new();
        match reply {
            Reply::Table(table) => {
                encode::table(&mut out, &table);
                encode::command_complete(&mut out, "SHOW");
            }
            Reply::Done(tag) => encode::command_complete(&mut out, &tag),
            Reply::Notice { text, detail, tag } => {
                encode::notice(&mut out, "NOTICE", &text, detail.as_deref());
                encode::command_complete(&mut out, tag);
            }
            Reply::Told { lines, tag } => {
                for (severity, line) in &lines {
                    encode::notice(&mut out, severity, line, None);
                }
                encode::command_complete(&mut out, &tag);
            }
            Reply::Error { code, text, detail } => {
                log::error!("{text}");
                self.log_error(office, &text);
                encode::error(&mut out, "ERROR", code, &text, detail.as_deref());
            }
            Reply::Kill(id) => {
                let killed = office.consoles().get(&id).map(Console::kill);
                let (request, tag) = (Request::KillClient(id), "KILL_CLIENT".to_owned());
                return self.reply(office, if killed.is_some() { Reply::Done(tag) } else { Reply::Order { request, tag } });
            }
            Reply::Order { request, tag } => {
                let answer = office.ask(request, Some(self.client.id));
                self.phase = Phase::Ordered { tag, answer };
                return Ok(());
            }
            Reply::Gone => {
                self.phase = Phase::Leaving;
                return Ok(());
            }
        }
        encode::ready_for_query(&mut out);
        self.phase = Phase::Listening;
        self.taken_at = now();
        self.stream.send(&out)
    }

    /// [`Self::reply`] from the session's thread.
    pub(super) fn take_up(&mut self, office: &Office, reply: Reply) {
        if self.reply(office, reply).is_err() {
            self.phase = Phase::Leaving;
        }
    }

    /// Takes the fleet's answer if it has come.
    pub(super) fn settle(&mut self, office: &Office) -> io::Result<()> {
        let Phase::Ordered { tag, answer } = &self.phase else { return Ok(()) };
        let reply = match answer.try_recv() {
            Ok(answer) => commands::answered(answer, tag),
            Err(TryRecvError::Disconnected) => Reply::Gone,
            Err(TryRecvError::Empty) => return Ok(()),
        };
        self.reply(office, reply)
    }

    fn end(&mut self, office: &Office, end: &End) {
        let reason = match end {
            End::Request => "client close request",
            End::Eof => "client unexpected eof",
            End::Fatal(_, text) => text.as_str(),
        };
        if office.config().settings.log_disconnections {
            let age = now().saturating_sub(self.since).as_secs();
            log::info!("{} closing because: {reason} (age={age}s)", self.prefix());
        }
        if let End::Fatal(code, text) = end {
            let mut out = Vec::new();
            encode::error(&mut out, "FATAL", code, text, None);
            let _ = self.stream.send(&out);
            self.log_error(office, text);
        }
        self.stream.close();
        self.leave(office);
    }

    /// The end of a session that the fleet knows of.
    pub(super) fn leave(&self, office: &Office) {
        office.consoles().remove(&self.client.id);
        office.shm.clients().leave(Owner::SUPERVISOR, self.client.seat);
        office.tell(Input::Event(Event::ConsoleClosed));
    }

    fn log_error(&self, office: &Office, text: &str) {
        if office.config().settings.log_pooler_errors {
            log::warn!("{} pooler error: {text}", self.prefix());
        }
    }

    /// How log lines name the session.
    fn prefix(&self) -> String {
        let ConsoleSession { id, user, peer, .. } = &self.client;
        let host = match peer.address.as_str() {
            "unix" => format!("unix({})", peer.pid),
            address if address.contains(':') => format!("[{address}]"),
            address => address.to_owned(),
        };
        format!("C-{id}: pgbouncer/{user}@{host}:{}", peer.port)
    }
}
