//! One console session, from its greeting to its end, in a thread of its own.

use super::Console;
use super::commands::{self, Context, Reply};
use super::encode;
use super::receive::{Broken, Inbound, Incoming};
use super::stream::Stream;
use crate::office::Office;
use shared::control::{Buffered, ConnectionRow, ConsoleSession, Replication};
use shared::sys::clock;
use shared::wire::report::sqlstate;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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
    office: Arc<Office>,
    greeting: ConsoleSession,
    stream: Stream,
    killed: Arc<AtomicBool>,
    inbound: Inbound,
    since: Instant,
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

fn violation(broken: &Broken) -> End {
    End::Fatal(sqlstate::PROTOCOL_VIOLATION, broken.to_string())
}

impl Session {
    /// `None`: the session's TLS cannot go on here.
    pub(super) fn new(office: Arc<Office>, mut greeting: ConsoleSession, socket: OwnedFd) -> Option<Self> {
        let mut inbound = Inbound::default();
        inbound.push(&std::mem::take(&mut greeting.unread));
        let tls = match greeting.tls.take() {
            Some(packed) => Some(packed.unpack()?),
            None => None,
        };
        let stream = Stream::new(Arc::new(socket.into()), tls);
        Some(Self { office, greeting, stream, killed: Arc::default(), inbound, since: Instant::now() })
    }

    pub(super) fn office(&self) -> &Arc<Office> {
        &self.office
    }

    /// Turns the client away.
    pub(super) fn refuse(&mut self, text: &str) {
        let mut out = Vec::new();
        encode::error(&mut out, "FATAL", sqlstate::TOO_MANY_CONNECTIONS, text, None);
        let _ = self.stream.socket().set_nonblocking(true);
        let _ = self.stream.write_all(&out);
        self.log_error(text);
    }

    /// Serves the client to its end.
    pub(super) fn run(&mut self) {
        let console = Console { row: self.row(), socket: Arc::clone(self.stream.socket()), killed: Arc::clone(&self.killed) };
        self.office.consoles().insert(self.greeting.id, console);
        let mut end = self.serve().unwrap_or(End::Eof);
        if self.killed.load(Ordering::Acquire) {
            end = End::Fatal(sqlstate::ADMIN_SHUTDOWN, "admin forced disconnect".to_owned());
        }
        let reason = match &end {
            End::Request => "client close request",
            End::Eof => "client unexpected eof",
            End::Fatal(_, text) => text.as_str(),
        };
        let settings = &self.office.config().settings;
        if settings.log_disconnections {
            log::info!("{} closing because: {reason} (age={}s)", self.prefix(), self.since.elapsed().as_secs());
        }
        if let End::Fatal(code, text) = &end {
            let mut out = Vec::new();
            encode::error(&mut out, "FATAL", code, text, None);
            let _ = self.stream.write_all(&out);
            self.log_error(text);
        }
        self.stream.close();
        self.office.consoles().remove(&self.greeting.id);
    }

    fn serve(&mut self) -> io::Result<End> {
        // The worker's loop had it non-blocking; here it has a thread to itself.
        self.stream.socket().set_nonblocking(false)?;
        self.stream.socket().set_write_timeout(Some(WRITE_TIMEOUT))?;
        self.greet()?;
        loop {
            match self.inbound.next() {
                Err(broken) => return Ok(violation(&broken)),
                Ok(None) => match self.stream.read()? {
                    [] => return Ok(End::Eof),
                    bytes => self.inbound.push(bytes),
                },
                Ok(Some(Incoming::Terminate)) => return Ok(End::Request),
                Ok(Some(Incoming::Query(text))) => {
                    let Some(out) = self.answer(&text) else { return Ok(End::Eof) };
                    self.stream.write_all(&out)?;
                }
                Ok(Some(Incoming::Extended)) => {
                    return self.refuse_message("extended query protocol not supported by admin console");
                }
                Ok(Some(Incoming::Other(kind))) => {
                    return self.refuse_message(&format!("unsupported packet type for admin console: {kind}"));
                }
            }
        }
    }

    fn refuse_message(&mut self, text: &str) -> io::Result<End> {
        let mut out = Vec::new();
        self.error(&mut out, sqlstate::PROTOCOL_VIOLATION, text, None);
        encode::ready_for_query(&mut out);
        self.stream.write_all(&out)?;
        Ok(violation(&Broken::Header))
    }

    fn greet(&mut self) -> io::Result<()> {
        let mut out = Vec::new();
        encode::authentication_ok(&mut out);
        for (name, value) in PARAMETERS {
            encode::parameter_status(&mut out, name, value);
        }
        for (name, value) in &self.greeting.parameters {
            if let Some(known) = TOLD_BACK.iter().find(|known| known.eq_ignore_ascii_case(name)) {
                encode::parameter_status(&mut out, known, value);
            }
        }
        encode::backend_key_data(&mut out, self.greeting.cancel_key);
        encode::ready_for_query(&mut out);
        self.stream.write_all(&out)
    }

    /// Runs one command; `None`: the session ends without a word (SHUTDOWN, or the client has left while it waited).
    fn answer(&mut self, text: &str) -> Option<Vec<u8>> {
        if let Some(console) = self.office.consoles().get_mut(&self.greeting.id) {
            console.row.request_time = clock::wall_us();
        }
        let context =
            Context { office: &self.office, admin: self.greeting.admin, socket: self.stream.socket(), session: self.greeting.id };
        let mut out = Vec::new();
        match commands::run(&context, text) {
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
            Reply::Error { code, text, detail } => self.error(&mut out, code, &text, detail.as_deref()),
            Reply::Gone => return None,
        }
        encode::ready_for_query(&mut out);
        Some(out)
    }

    fn error(&self, out: &mut Vec<u8>, code: &str, text: &str, detail: Option<&str>) {
        log::error!("{text}");
        self.log_error(text);
        encode::error(out, "ERROR", code, text, detail);
    }

    fn log_error(&self, text: &str) {
        if self.office.config().settings.log_pooler_errors {
            log::warn!("{} pooler error: {text}", self.prefix());
        }
    }

    /// How log lines name the session.
    fn prefix(&self) -> String {
        let ConsoleSession { id, user, peer, .. } = &self.greeting;
        let host = match peer.address.as_str() {
            "unix" => format!("unix({})", peer.pid),
            address if address.contains(':') => format!("[{address}]"),
            address => address.to_owned(),
        };
        format!("C-{id}: pgbouncer/{user}@{host}:{}", peer.port)
    }

    /// The session as SHOW CLIENTS lists it.
    fn row(&self) -> ConnectionRow {
        let ConsoleSession { id, user, peer, connected_at, parameters, .. } = &self.greeting;
        let local = self.stream.socket().local_addr().ok().and_then(|address| address.as_socket());
        let port = self.office.config().settings.listen_port;
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
            cancel_key: u64::from_be_bytes(self.greeting.cancel_key),
            buffered: Buffered::default(),
        }
    }
}
