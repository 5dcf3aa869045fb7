//! A batch that fails because of what the pooler prepared, not because of what the client asked, is sent once more.
//!
//! After ALTER TABLE a prepared `select *` fails with `cached plan must not change result type`. On a connection of its own a client would
//! close the statement and prepare it anew; here others had prepared it too, and a client that never prepares twice would fail for
//! ever. So the batch is repeated under the text's next epoch, unseen, if that cannot be noticed: the batch was the first of its transaction, nothing
//! of its answer has reached the client, and the client learns from it which columns it gets: it prepares the statement in the same batch,
//! or describes it or its portal. A client that goes by what it was told before must see the error, or it would misread the rows. So it is with a
//! type that was dropped and made anew (`cache lookup failed for type`), if the client sends text.

use super::backend::Backend;
use super::frontend::Frontend;
use super::outstanding::Request;
use super::statements::{NAME_BYTES, Registry, Statement, StatementId};
use shared::wire::frontend::{Bind, bind, write_parse, write_statement_target};
use shared::wire::header::{self, HEADER_BYTES, Header, Peek};
use std::rc::Rc;

/// A longer batch is not kept.
const LONGEST: usize = 16 * 1024;

/// The batch in flight, from the first message that names its statement to its Sync, while it can be sent again.
#[derive(Default)]
pub(crate) struct Retry {
    pub(super) bytes: Vec<u8>,
    pub(super) statement: Option<Rc<Statement>>,
    /// What it asks for, once it has failed.
    pub(super) requests: Vec<Request>,
}

impl Retry {
    /// What has just been sent can be sent again.
    fn arm(&mut self, batch: &[u8], statement: Rc<Statement>) {
        self.bytes.clear();
        self.bytes.extend_from_slice(batch);
        self.statement = Some(statement);
    }

    /// It has been answered in part, or something else was sent behind it.
    #[inline]
    pub(super) fn disarm(&mut self) {
        self.statement = None;
    }

    /// Whether `request` is the first of that batch.
    pub(super) fn is_of(&self, request: Request) -> bool {
        let Some(Statement { id, .. }) = self.statement.as_deref() else { return false };
        matches!(request, Request::Bind(Some(named)) | Request::Describe(Some(named)) if named == *id)
    }

    /// The parameters are all sent as text, which means the same when a type has been made anew. Binary ones may not.
    pub(super) fn sends_text(&self) -> bool {
        self.binds_are(sends_text)
    }

    /// Whichever columns there are will do.
    pub(super) fn takes_any_columns(&self) -> bool {
        self.binds_are(takes_any_columns)
    }

    fn binds_are(&self, so: impl Fn(&Bind<'_>) -> bool) -> bool {
        let mut rest = &self.bytes[..];
        while let Peek::Header(Header { tag, total }) = header::peek(rest, u32::MAX) {
            let Some(body) = rest.get(HEADER_BYTES..total) else { return false };
            if tag == b'B' && !bind(body).is_ok_and(|bind| so(&bind)) {
                return false;
            }
            rest = &rest[total..];
        }
        true
    }
}

fn sends_text(bind: &Bind<'_>) -> bool {
    bind.sends_text()
}

/// It names no format for each of so many columns.
pub(super) fn takes_any_columns(bind: &Bind<'_>) -> bool {
    bind.result_formats().is_ok_and(|formats| formats <= 1)
}

/// How far what is being sent has the shape of a batch that can be sent again: one about one statement, from the first message that names
/// it to its Sync, with nothing before it in its transaction.
pub(super) struct Shape {
    stage: Stage,
    /// The client learns from the answers which columns it gets.
    learns: bool,
    /// The statement that was prepared first.
    parsed: Option<StatementId>,
    /// Where in the output the statement is named first.
    named: Option<(usize, Rc<Statement>)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It cannot be sent again.
    Other,
    /// No statement was named yet.
    Fresh,
    Open,
    Synced,
}

impl Shape {
    /// `fresh`: the server has nothing else to do and is in no transaction.
    pub(super) fn new(fresh: bool) -> Self {
        Self { stage: if fresh { Stage::Fresh } else { Stage::Other }, learns: false, parsed: None, named: None }
    }

    #[inline]
    pub(super) fn other(&mut self) {
        self.stage = Stage::Other;
    }

    pub(super) fn parse(&mut self, id: StatementId) {
        if self.stage != Stage::Fresh || self.parsed.replace(id).is_some() {
            self.other();
        }
    }

    /// A Bind or Describe of a statement.
    #[inline]
    pub(super) fn name(&mut self, at: usize, statement: Rc<Statement>, learns: bool) {
        match (self.stage, &self.named) {
            (Stage::Fresh, _) => {
                self.learns = learns || self.parsed == Some(statement.id);
                self.named = Some((at, statement));
                self.stage = Stage::Open;
            }
            (Stage::Open, Some((_, named))) if named.id == statement.id => self.learns |= learns,
            _ => self.other(),
        }
    }

    #[inline]
    pub(super) fn describe_portal(&mut self) {
        match self.stage {
            Stage::Open => self.learns = true,
            _ => self.other(),
        }
    }

    #[inline]
    pub(super) fn execute(&mut self) {
        if self.stage != Stage::Open || !self.learns {
            self.other();
        }
    }

    #[inline]
    pub(super) fn sync(&mut self) {
        self.stage = if self.stage == Stage::Open && self.learns { Stage::Synced } else { Stage::Other };
    }

    /// `output` goes to the server; `complete`: no message of it is left half sent.
    #[inline]
    pub(super) fn finish(self, output: &[u8], complete: bool, retry: &mut Retry) {
        match self.named {
            Some((at, statement)) if self.stage == Stage::Synced && complete && output.len() - at <= LONGEST => {
                retry.arm(&output[at..], statement);
            }
            _ if output.is_empty() => {}
            _ => retry.disarm(),
        }
    }
}

/// The failed batch once more, under its statement's next name: what goes to the server. The server's ErrorResponse has been swallowed.
pub(crate) fn again(back: &mut Backend, front: &mut Frontend, registry: &mut Registry) -> Vec<u8> {
    let mut out = Vec::new();
    let Some(old) = back.retry.statement.take() else { return out };
    let batch = std::mem::take(&mut back.retry.requests);
    let new = registry.renew(&old);
    front.statements.renew(old.id, &new);
    if back.statements.remove(old.id) {
        write_statement_target(&mut out, b'C', &old.server_name);
        back.requests.push(Request::HiddenClose(None));
    }
    if back.statements.touch(new.id) {
        // It may be out of date as well: then the next epoch's turn comes.
        back.retry.statement = Some(Rc::clone(&new));
    } else {
        write_parse(&mut out, &new.server_name, &new.identity);
        back.statements.insert(new.id);
        back.requests.push(Request::HiddenParse(new.id));
        if new.description.get().is_some() {
            write_statement_target(&mut out, b'D', &new.server_name);
            back.requests.push(Request::HiddenDescribe(new.id, true));
        }
    }
    rename(&mut back.retry.bytes, &old, &new);
    out.extend_from_slice(&back.retry.bytes);
    for request in batch {
        back.requests.push(match request {
            Request::Bind(Some(_)) => Request::Bind(Some(new.id)),
            Request::Describe(Some(_)) => Request::Describe(Some(new.id)),
            other => other,
        });
    }
    out
}

/// Puts the new name of a statement, which is as long as the old one, wherever a Bind or Describe has the old one.
fn rename(batch: &mut [u8], old: &Statement, new: &Statement) {
    let mut at = 0;
    while let Peek::Header(Header { tag, total }) = header::peek(&batch[at..], u32::MAX) {
        let body = &batch[at + HEADER_BYTES..];
        let name = match tag {
            b'B' => body.iter().position(|&b| b == 0).map(|portal| portal + 1),
            b'D' => Some(1),
            _ => None,
        };
        let name = name.and_then(|name| batch.get_mut(at + HEADER_BYTES + name..)?.get_mut(..NAME_BYTES));
        if let Some(name) = name.filter(|name| **name == old.server_name) {
            name.copy_from_slice(&new.server_name);
        }
        at += total;
    }
}
