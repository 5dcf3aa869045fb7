//! The console's commands: one verb, one file.

mod pause;
mod reload;
mod set;
mod show;
mod shutdown;

use super::encode::Table;
use super::grammar::{self, Bad, Command};
use crate::fleet::{Answer, Failure, Request};
use crate::office::Office;
use crossbeam_channel::RecvTimeoutError;
use socket2::Socket;
use std::sync::Arc;
use std::time::Duration;

/// What a command may look at.
pub(super) struct Context<'a> {
    pub(super) office: &'a Arc<Office>,
    pub(super) admin: bool,
    pub(super) socket: &'a Socket,
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
    /// An error; the session goes on.
    Error { code: &'static str, text: String },
    /// Nothing: the session ends.
    Gone,
}

impl Reply {
    fn error(text: impl Into<String>) -> Self {
        Self::Error { code: "08P01", text: text.into() }
    }

    fn done(tag: &str) -> Self {
        Self::Done(tag.to_owned())
    }

    fn failed(failure: &Failure) -> Self {
        let code = if *failure == Failure::Reload { "F0000" } else { "08P01" };
        Self::Error { code, text: failure.to_string() }
    }
}

/// Commands that PgBouncer has and that act on what workers cannot do yet.
const NOT_YET: [&str; 8] = ["disable", "enable", "kill", "kill_client", "reconnect", "wait_close", "suspend", "drain"];

/// Runs one command text.
pub(super) fn run(context: &Context<'_>, text: &str) -> Reply {
    let invalid = || Reply::error(format!("invalid command '{text}', use SHOW HELP;"));
    let (word, argument) = match grammar::parse(text) {
        Err(Bad::Syntax) => return invalid(),
        Err(Bad::Arguments) => return Reply::error("bad arguments"),
        Ok(Command::Set { key, value }) => return set::run(context, &key, &value),
        Ok(Command::Plain { word, argument }) => (word, argument),
    };
    let argument = argument.as_deref();
    if matches!(word.as_str(), "show" | "select") {
        return argument.and_then(|item| show::run(context, item)).unwrap_or_else(invalid);
    }
    if !context.admin {
        let known = matches!(word.as_str(), "reload" | "pause" | "resume" | "shutdown") || NOT_YET.contains(&word.as_str());
        return if known { Reply::error("admin access needed") } else { invalid() };
    }
    match (word.as_str(), argument) {
        ("reload", None) => reload::run(context),
        ("pause", None) => pause::pause(context),
        ("resume", None) => pause::resume(context),
        ("pause", Some(_)) => Reply::error("PAUSE of one database is not supported yet"),
        ("resume", Some(_)) => Reply::error("RESUME of one database is not supported yet"),
        ("shutdown", mode) => shutdown::run(context, mode).unwrap_or_else(invalid),
        (word, _) if NOT_YET.contains(&word) => Reply::error(format!("{} is not supported yet", word.to_ascii_uppercase())),
        _ => invalid(),
    }
}

impl Context<'_> {
    /// Asks the fleet and waits for its answer; `None` when the client has left meanwhile or the supervisor is ending.
    fn ask(&self, request: Request) -> Option<Answer> {
        let answer = self.office.ask(request);
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
            Some(Answer::Failed(failure)) => Reply::failed(&failure),
            Some(_) | None => Reply::Gone,
        }
    }

    fn client_left(&self) -> bool {
        crate::process::peer_has_ended(self.socket)
    }
}
