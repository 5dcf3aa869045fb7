//! The console's commands: one verb, one file.

mod disable;
mod drain;
mod enable;
mod kill;
mod kill_client;
mod names;
mod news;
mod pause;
mod reconnect;
mod reload;
mod restart;
mod resume;
mod set;
mod show;
mod shutdown;
mod undrain;
mod upgrade;
mod wait_close;

use super::encode::Table;
use super::grammar::{self, Bad, Command};
use crate::fleet::{Answer, Failure, Request};
use crate::office::Office;
use crossbeam_channel::RecvTimeoutError;
use shared::ids::ConnectionId;
use shared::wire::report::sqlstate;
use socket2::Socket;
use std::sync::Arc;
use std::time::Duration;

/// What a command may look at.
pub(super) struct Context<'a> {
    pub(super) office: &'a Arc<Office>,
    pub(super) admin: bool,
    pub(super) socket: &'a Socket,
    /// The session that runs it.
    pub(super) session: ConnectionId,
}

/// What the client is told.
#[derive(Debug, PartialEq)]
pub(super) enum Reply {
    /// Rows, then the tag SHOW.
    Table(Table),
    /// The command's tag.
    Done(String),
    /// A notice, then the tag.
    Notice { text: String, detail: Option<String>, tag: &'static str },
    /// Notices with their severities, then the tag.
    Told { lines: Vec<(&'static str, String)>, tag: String },
    /// An error; the session goes on.
    Error { code: &'static str, text: String, detail: Option<String> },
    /// Nothing: the session ends.
    Gone,
}

impl Reply {
    fn error(text: impl Into<String>) -> Self {
        Self::Error { code: sqlstate::PROTOCOL_VIOLATION, text: text.into(), detail: None }
    }

    fn done(tag: &str) -> Self {
        Self::Done(tag.to_owned())
    }

    fn failed(failure: &Failure) -> Self {
        let code = match failure {
            Failure::Reload(_) => "F0000",
            Failure::Cancelled => sqlstate::QUERY_CANCELED,
            _ => sqlstate::PROTOCOL_VIOLATION,
        };
        let detail = match failure {
            Failure::Reload(reasons) | Failure::Set(reasons) => news::reasons(reasons),
            _ => None,
        };
        Self::Error { code, text: failure.to_string(), detail }
    }
}

/// Commands that only an admin may give.
const ADMIN: [&str; 12] = [
    "disable",
    "enable",
    "kill",
    "kill_client",
    "pause",
    "reconnect",
    "reload",
    "restart",
    "resume",
    "shutdown",
    "undrain",
    "wait_close",
];

/// Runs one command text.
pub(super) fn run(context: &Context<'_>, text: &str) -> Reply {
    let invalid = || Reply::error(format!("invalid command '{}', use SHOW HELP;", quoted(text)));
    let (word, argument) = match grammar::parse(text) {
        Err(Bad::Syntax) => return invalid(),
        Err(Bad::Arguments) => return Reply::error("bad arguments"),
        Ok(Command::Set { key, value }) => return set::run(context, &key, &value),
        Ok(Command::Drain(_) | Command::Upgrade(_)) if !context.admin => return Reply::error("admin access needed"),
        Ok(Command::Drain(options)) => return drain::run(context, &options).unwrap_or_else(invalid),
        Ok(Command::Upgrade(binary)) => return upgrade::run(context, binary.as_deref()),
        Ok(Command::Plain { word, argument }) => (word, argument),
    };
    let argument = argument.as_deref();
    if matches!(word.as_str(), "show" | "select") {
        return argument.and_then(|item| show::run(context, item)).unwrap_or_else(invalid);
    }
    if !context.admin {
        return if ADMIN.contains(&word.as_str()) { Reply::error("admin access needed") } else { invalid() };
    }
    let reply = match (word.as_str(), argument) {
        ("reload", None) => Ok(reload::run(context)),
        ("undrain", None) => Ok(undrain::run(context)),
        ("restart", None) => Ok(restart::run(context)),
        ("shutdown", mode) => shutdown::run(context, mode).ok_or_else(invalid),
        ("pause", database) => pause::run(context, database),
        ("resume", database) => resume::run(context, database),
        ("disable", database) => disable::run(context, database),
        ("enable", database) => enable::run(context, database),
        ("reconnect", database) => reconnect::run(context, database),
        ("wait_close", database) => wait_close::run(context, database),
        ("kill", database) => kill::run(context, database),
        ("kill_client", id) => Ok(kill_client::run(context, id)),
        _ => Err(invalid()),
    };
    reply.unwrap_or_else(|error| error)
}

/// A command as errors and the log quote it: up to where it names a password, lest that be what follows.
fn quoted(text: &str) -> String {
    let secret = text.to_ascii_lowercase().find("passw");
    secret.map_or_else(|| text.to_owned(), |at| format!("{}****", &text[..at]))
}

impl Context<'_> {
    /// Asks the fleet and waits for its answer; `None` when the client has left meanwhile or the supervisor is ending.
    fn ask(&self, request: Request) -> Option<Answer> {
        let answer = self.office.ask(request, Some(self.session));
        loop {
            match answer.recv_timeout(Duration::from_millis(500)) {
                Ok(answer) => return Some(answer),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) if self.client_left() => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// For commands whose answer is only yes or no.
    fn order(&self, request: Request, tag: &str) -> Reply {
        match self.ask(request) {
            Some(Answer::Done) => Reply::done(tag),
            Some(Answer::InForce(what)) => Reply::Told { lines: news::lines(what), tag: tag.to_owned() },
            Some(Answer::Failed(failure)) => Reply::failed(&failure),
            Some(_) | None => Reply::Gone,
        }
    }

    fn client_left(&self) -> bool {
        crate::process::peer_has_ended(self.socket)
    }
}
