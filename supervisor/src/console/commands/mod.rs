//! The console's commands: one verb, one file.

mod disable;
mod drain;
mod enable;
mod kill;
mod kill_client;
mod names;
mod news;
mod options;
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
use super::serve::LOOK;
use crate::fleet::{Answer, Failure, Request};
use crate::office::Office;
use crossbeam_channel::RecvTimeoutError;
use shared::ids::ConnectionId;
use shared::wire::report::sqlstate;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// What a command may look at.
pub(super) struct Context<'a> {
    pub(super) office: &'a Arc<Office>,
    pub(super) admin: bool,
    pub(super) socket: &'a OwnedFd,
    /// The session that runs it.
    pub(super) session: ConnectionId,
}

/// What a command leads to: what the client is told, or what the session has to do first.
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
    /// The fleet is asked; if it does that, the client is told the tag.
    Order { request: Request, tag: String },
    /// The client with this number is ended, wherever it is.
    Kill(ConnectionId),
    /// Nothing: the session ends.
    Gone,
}

impl Reply {
    pub(super) fn error(text: impl Into<String>) -> Self {
        Self::Error { code: sqlstate::PROTOCOL_VIOLATION, text: text.into(), detail: None }
    }

    fn done(tag: &str) -> Self {
        Self::Done(tag.to_owned())
    }

    /// For commands whose answer is only yes or no.
    fn order(request: Request, tag: &str) -> Self {
        Self::Order { request, tag: tag.to_owned() }
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
const ADMIN: [&str; 11] =
    ["disable", "enable", "kill", "kill_client", "pause", "reconnect", "reload", "resume", "shutdown", "undrain", "wait_close"];

/// Runs one command text.
pub(super) fn run(context: &Context<'_>, text: &str) -> Reply {
    let invalid = || Reply::error(format!("invalid command '{}', use SHOW HELP;", quoted(text)));
    let (word, argument) = match grammar::parse(text) {
        Err(Bad::Syntax) => return invalid(),
        Err(Bad::Arguments) => return Reply::error("bad arguments"),
        Ok(Command::Set { key, value }) => return set::run(context, &key, &value),
        Ok(Command::Drain(_) | Command::Restart(_) | Command::Upgrade(_)) if !context.admin => {
            return Reply::error("admin access needed");
        }
        Ok(Command::Drain(options)) => return drain::run(&options).unwrap_or_else(invalid),
        Ok(Command::Restart(options)) => return restart::run(&options).unwrap_or_else(invalid),
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
        ("reload", None) => Ok(reload::run()),
        ("undrain", None) => Ok(undrain::run()),
        ("shutdown", mode) => shutdown::run(mode).ok_or_else(invalid),
        ("pause", database) => pause::run(context, database),
        ("resume", database) => resume::run(context, database),
        ("disable", database) => disable::run(context, database),
        ("enable", database) => enable::run(context, database),
        ("reconnect", database) => reconnect::run(context, database),
        ("wait_close", database) => wait_close::run(context, database),
        ("kill", database) => kill::run(context, database),
        ("kill_client", id) => Ok(kill_client::run(id)),
        _ => Err(invalid()),
    };
    reply.unwrap_or_else(|error| error)
}

/// A command as errors and the log quote it: up to where it names a password, lest that be what follows.
fn quoted(text: &str) -> String {
    let secret = text.to_ascii_lowercase().find("passw");
    secret.map_or_else(|| text.to_owned(), |at| format!("{}****", &text[..at]))
}

/// What the fleet's answer to an order means.
pub(super) fn answered(answer: Answer, tag: &str) -> Reply {
    match answer {
        Answer::Done | Answer::Restarted(0) => Reply::done(tag),
        Answer::Restarted(cut_off) => {
            let line = ("WARNING", format!("clients cut off at the deadline: {cut_off}"));
            Reply::Told { lines: vec![line], tag: tag.to_owned() }
        }
        Answer::InForce(what) => Reply::Told { lines: news::lines(what), tag: tag.to_owned() },
        Answer::Failed(failure) => Reply::failed(&failure),
        _ => Reply::Gone,
    }
}

impl Context<'_> {
    /// Asks the fleet for what can be asked for again and waits for its answer; `None` when the client has left meanwhile or the supervisor is ending.
    fn ask(&self, request: Request) -> Option<Answer> {
        let answer = self.office.ask(request, Some(self.session));
        loop {
            match answer.recv_timeout(LOOK) {
                Ok(answer) => return Some(answer),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) if self.client_left() => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn client_left(&self) -> bool {
        crate::process::peer_has_ended(self.socket)
    }
}
