//! From a server to its client: which answers end a request, which are ours to swallow, when the server is ready again.

use super::description::{Described, Description};
use super::frontend::{self, Frontend, answer_local};
use super::outstanding::{Ended, Outstanding, Request};
use super::retry::{self, Retry};
use super::splice::Splice;
use super::statements::{Registry, ServerStatements, StatementId};
use shared::wire::backend::{self as messages, Fields};
use shared::wire::encode;
use shared::wire::header::{self, HEADER_BYTES, Header, Peek};

/// An ErrorResponse longer than this is passed on without having been looked into.
const LONGEST_ERROR_READ: usize = 64 * 1024;

/// The longest message that is held until it is whole: a parameter's value, a command tag.
const LONGEST_HELD: usize = 1024 * 1024;

/// A server connection's place in the exchange.
#[allow(clippy::struct_excessive_bools)] // independent facts, not one state
pub(crate) struct Backend {
    pub(crate) requests: Outstanding,
    pub(crate) statements: ServerStatements,
    /// Transaction status of the last ReadyForQuery.
    pub(crate) status: u8,
    /// PostgreSQL takes COPY data.
    pub(crate) copy_in: bool,
    /// CopyBoth: both sides send until one of them has enough.
    pub(crate) streaming: bool,
    /// Statement pooling: no transaction may outlast the statement that opened it.
    pub(crate) single_statements: bool,
    /// It is to describe a statement for us before anything else is sent.
    pub(crate) describing: bool,
    /// The first half of a description under way.
    pub(super) parameters: Option<Box<[u8]>>,
    /// The batch in flight, if it can be sent once more.
    pub(crate) retry: Retry,
    /// The statement of the last Bind that was answered.
    pub(super) bound: Option<StatementId>,
    /// Bytes still to come of the message begun last.
    pub(super) skip: usize,
    /// Those bytes are swallowed.
    pub(super) swallow: bool,
}

impl Default for Backend {
    fn default() -> Self {
        Self {
            requests: Outstanding::default(),
            statements: ServerStatements::default(),
            status: b'I',
            copy_in: false,
            streaming: false,
            single_statements: false,
            describing: false,
            parameters: None,
            retry: Retry::default(),
            bound: None,
            skip: 0,
            swallow: false,
        }
    }
}

impl Backend {
    /// Bytes still to come of a message of which the client has a part.
    pub(crate) fn still_to_come(&self) -> usize {
        self.skip
    }

    /// The client has only a part of the last message.
    pub(crate) fn is_mid_message(&self) -> bool {
        self.skip > 0
    }

    /// As the client's direction sees it.
    #[inline]
    pub(crate) fn side(&mut self) -> frontend::Server<'_> {
        let mid_message = self.is_mid_message();
        let Self { requests, statements, copy_in, describing, retry, status, .. } = self;
        frontend::Server { requests, statements, copy_in, describing, retry, status: *status, mid_message }
    }

    /// The server owes nothing and is in no transaction.
    #[inline]
    pub(crate) fn is_free(&self) -> bool {
        self.status == b'I' && self.skip == 0 && self.requests.is_settled()
    }
}

/// What to do with the input.
#[derive(Debug)]
pub(crate) struct Relayed<'a> {
    pub(crate) to_client: &'a [u8],
    /// Bytes of the input that are dealt with; the rest is to be shown again with more behind it.
    pub(crate) consumed: usize,
    /// What happened on the way.
    pub(crate) seen: Seen,
    /// The server broke the protocol; the text is the reason.
    pub(crate) violation: Option<&'static str>,
}

/// An error in the answer to a query of the pooler's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HiddenError {
    pub(crate) severity: String,
    pub(crate) code: String,
    pub(crate) message: String,
}

impl From<Fields<'_>> for HiddenError {
    fn from(fields: Fields<'_>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { severity: text(fields.severity), code: text(fields.code), message: text(fields.message) }
    }
}

/// What the client has set back to the server's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reset {
    /// RESET ALL, DISCARD ALL, or something that is not known.
    All,
    /// RESET of this parameter, in lower case.
    One(String),
}

/// What the caller has to act on.
#[derive(Default, Debug)]
pub(crate) struct Seen {
    /// How many batches or queries of the client's ended.
    pub(crate) queries_ended: u32,
    /// How many of them left the server outside a transaction.
    pub(crate) transactions_ended: u32,
    /// The pooler's own query ended.
    pub(crate) hidden_ended: bool,
    /// An error has come that nobody had asked for.
    pub(crate) stray_error: bool,
    /// An error after which the server ends the connection has been passed on.
    pub(crate) last_words: bool,
    /// What most answers do not bring.
    pub(crate) rare: Option<Box<Rare>>,
}

impl Seen {
    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }
}

/// What the caller has to act on now and then.
#[derive(Default, Debug)]
pub(crate) struct Rare {
    /// The pooler's own query failed.
    pub(crate) hidden_error: Option<HiddenError>,
    /// ParameterStatus, in order.
    pub(crate) parameters: Vec<(String, String)>,
    /// RESET or DISCARD ALL was answered.
    pub(crate) reset: Option<Reset>,
    /// The server has refused this statement because a table or type has changed: it is to be retired.
    stale: Option<StatementId>,
    /// Statements that the server has described.
    described: Vec<Described>,
    /// A batch that failed is to be sent again.
    retry: bool,
}

impl Rare {
    /// Draws the conclusions about statements; gives what is to be sent to the server.
    pub(crate) fn settle(&self, back: &mut Backend, front: &mut Frontend, registry: &mut Registry) -> Vec<u8> {
        if let Some(stale) = self.stale {
            registry.retire(stale);
        }
        for described in &self.described {
            if let Some(new) = registry.described(described) {
                back.statements.spoil(described.id);
                if described.learns {
                    front.statements.renew(described.id, &new);
                }
            }
        }
        if self.retry { retry::again(back, front, registry) } else { Vec::new() }
    }
}

/// Takes what a server sent. `client` is `None` while only the pooler's own query runs: then nothing is for a client.
pub(crate) fn relay<'a>(
    back: &mut Backend,
    mut client: Option<&mut Frontend>,
    max_packet: u32,
    data: &'a [u8],
    scratch: &'a mut Vec<u8>,
) -> Relayed<'a> {
    if let Some(front) = client.as_deref_mut() {
        front.let_go();
    }
    let mut out = Splice::new(data, scratch);
    let mut seen = Seen::default();
    let mut violation = None;
    let mut at = back.skip.min(data.len());
    if at > 0 {
        back.skip -= at;
        if !back.swallow {
            out.pass(0..at);
        }
    }
    while at < data.len() {
        let rest = &data[at..];
        let Header { tag, total } = match header::peek(rest, max_packet) {
            Peek::Header(header) => header,
            Peek::NeedMore => break,
            Peek::Bad => {
                violation = Some("bad pkt header");
                break;
            }
        };
        if back.requests.has_local()
            && let Some(front) = client.as_deref_mut()
        {
            answer_local(&mut back.requests, front, out.edit());
        }
        let fate = match tag {
            // The bulk of every result.
            b'D' | b'd' => Fate::Pass,
            _ => answer(back, &mut client, Header { tag, total }, rest, &mut seen),
        };
        let taken = total.min(rest.len());
        match fate {
            Fate::Pass if client.is_some() => out.pass(at..at + taken),
            Fate::OutOfDate => out_of_date(out.edit()),
            Fate::Pass | Fate::Swallow => {}
            Fate::NeedWhole if total > LONGEST_HELD => {
                violation = Some("bad pkt header");
                break;
            }
            Fate::NeedWhole => break,
            Fate::Violation(why) => {
                violation = Some(why);
                break;
            }
        }
        back.swallow = client.is_none() || matches!(fate, Fate::Swallow | Fate::OutOfDate);
        back.skip = total - taken;
        at += taken;
    }
    if let Some(front) = client
        && back.skip == 0
        && back.requests.only_local()
    {
        answer_local(&mut back.requests, front, out.edit());
    }
    Relayed { to_client: out.finish(), consumed: at, seen, violation }
}

enum Fate {
    Pass,
    Swallow,
    /// PostgreSQL's error takes the place of another of its own.
    OutOfDate,
    NeedWhole,
    Violation(&'static str),
}

fn answer(back: &mut Backend, client: &mut Option<&mut Frontend>, header: Header, rest: &[u8], seen: &mut Seen) -> Fate {
    let hidden = matches!(back.requests.head(), Some(Request::HiddenQuery));
    let requests = &mut back.requests;
    match header.tag {
        b'Z' => match rest.get(HEADER_BYTES..header.total) {
            Some(&[status]) => {
                let refused = back.single_statements && status != b'I' && client.is_some();
                let fate = ready(back, client, status, seen);
                // In place of the ReadyForQuery: the client must not take its transaction for open.
                if refused { Fate::Violation("transaction blocks not allowed in statement pooling mode") } else { fate }
            }
            Some(_) => Fate::Violation("unknown pkt"),
            None => Fate::NeedWhole,
        },
        b'S' => {
            let Some(body) = rest.get(HEADER_BYTES..header.total) else { return Fate::NeedWhole };
            let Ok((name, value)) = messages::parameter_status(body) else {
                return Fate::Violation("broken ParameterStatus packet");
            };
            seen.rare().parameters.push((String::from_utf8_lossy(name).into_owned(), String::from_utf8_lossy(value).into_owned()));
            if hidden { Fate::Swallow } else { Fate::Pass }
        }
        b'E' => {
            let body = match rest.get(HEADER_BYTES..header.total) {
                Some(body) => body,
                None if header.total > LONGEST_ERROR_READ => &[],
                None => return Fate::NeedWhole,
            };
            error(back, client, body, hidden, seen)
        }
        b'C' => {
            let Some(body) = rest.get(HEADER_BYTES..header.total) else { return Fate::NeedWhole };
            requests.answered(|r| matches!(r, Request::Execute));
            if let b"DISCARD ALL\0" | b"DEALLOCATE ALL\0" | b"RESET\0" = body {
                cleared(back, client.as_deref_mut().filter(|_| !hidden), body, seen);
            }
            if hidden { Fate::Swallow } else { Fate::Pass }
        }
        b'G' | b'W' if hidden => Fate::Violation("unknown pkt"),
        _ if hidden => Fate::Swallow,
        b'1' => match requests.answered(|r| matches!(r, Request::Parse(_) | Request::HiddenParse(_))) {
            Some(Request::HiddenParse(_)) => Fate::Swallow,
            Some(Request::Parse(Some((_, serial)))) => {
                if let Some(front) = client {
                    front.statements.confirm_add(serial);
                }
                Fate::Pass
            }
            _ => Fate::Pass,
        },
        b'2' => {
            if let Some(Request::Bind(statement)) = requests.answered(|r| matches!(r, Request::Bind(_))) {
                back.bound = statement;
                back.retry.disarm();
            }
            Fate::Pass
        }
        b't' if requests.head().is_some_and(is_described) => {
            let Some(body) = rest.get(HEADER_BYTES..header.total) else { return Fate::NeedWhole };
            back.parameters = messages::parameter_description(body).ok().map(Into::into);
            if matches!(requests.head(), Some(Request::HiddenDescribe(..))) {
                return Fate::Swallow;
            }
            back.retry.disarm();
            Fate::Pass
        }
        b'T' | b'n' if requests.head().is_some_and(is_described) => {
            let Some(body) = rest.get(HEADER_BYTES..header.total) else { return Fate::NeedWhole };
            described(back, body, seen)
        }
        b'3' => match requests.answered(|r| matches!(r, Request::Close | Request::HiddenClose(_))) {
            Some(Request::HiddenClose(_)) => Fate::Swallow,
            _ => Fate::Pass,
        },
        b'T' | b'n' => {
            requests.answered(|r| matches!(r, Request::Describe(_)));
            Fate::Pass
        }
        b'I' | b's' => {
            requests.answered(|r| matches!(r, Request::Execute));
            Fate::Pass
        }
        b'G' => {
            back.copy_in = requests.copy_in_started();
            Fate::Pass
        }
        b'W' => {
            back.streaming = true;
            Fate::Pass
        }
        b'H' | b'c' | b't' | b'V' | b'N' | b'A' => Fate::Pass,
        _ => Fate::Violation("unknown pkt"),
    }
}

fn ready(back: &mut Backend, client: &mut Option<&mut Frontend>, status: u8, seen: &mut Seen) -> Fate {
    back.status = status;
    (back.copy_in, back.streaming) = (false, false);
    let Backend { requests, statements, .. } = back;
    match requests.ready(|request| undo(request, statements, client)) {
        Ended::Hidden => {
            seen.hidden_ended = true;
            Fate::Swallow
        }
        Ended::HiddenSync => Fate::Swallow,
        Ended::Client => {
            seen.queries_ended += 1;
            seen.transactions_ended += u32::from(status == b'I');
            Fate::Pass
        }
        Ended::Unasked => Fate::Pass,
    }
}

/// A Describe of a tracked statement, the client's or ours.
fn is_described(request: &Request) -> bool {
    matches!(request, Request::Describe(Some(_)) | Request::HiddenDescribe(..))
}

/// The second half of a description.
fn described(back: &mut Backend, row: &[u8], seen: &mut Seen) -> Fate {
    let (id, learns, fate) = match back.requests.answered(is_described) {
        Some(Request::HiddenDescribe(id, learns)) => {
            back.describing = false;
            (id, learns, Fate::Swallow)
        }
        Some(Request::Describe(Some(id))) => (id, true, Fate::Pass),
        _ => return Fate::Pass,
    };
    let description = Description::new(back.parameters.take(), row);
    if let Ok(description) = description {
        seen.rare().described.push(Described { id, description, learns });
    }
    fate
}

fn error(back: &mut Backend, client: &mut Option<&mut Frontend>, body: &[u8], hidden: bool, seen: &mut Seen) -> Fate {
    let fields = messages::fields(body).unwrap_or_default();
    back.copy_in = false;
    back.describing = false;
    back.parameters = None;
    if let Some(front) = client {
        front.reset = None;
    }
    if hidden {
        seen.rare().hidden_error = Some(fields.into());
        if !fields.ends_connection() {
            return Fate::Swallow;
        }
    }
    let head = back.requests.head().copied();
    let stale = head.and_then(|request| stale_statement(request, back.bound, &fields));
    if stale.is_some() {
        seen.rare().stale = stale;
    }
    let may_repeat =
        |retry: &Retry| retry.takes_any_columns() && (result_has_changed(&fields) || type_is_gone(&fields) && retry.sends_text());
    if stale.is_some() && client.is_some() && head.is_some_and(|r| back.retry.is_of(r)) && may_repeat(&back.retry) {
        back.retry.requests = back.requests.take_batch();
        seen.rare().retry = true;
        return Fate::Swallow;
    }
    if let (Some(Request::Parse(Some((_, serial)))), Some(front)) = (head, client.as_deref_mut()) {
        // One that has failed itself has put an end to the unnamed statement before it; one that is ignored has not.
        front.statements.confirm_add(serial);
    }
    let Backend { requests, statements, .. } = back;
    requests.failed(|request| undo(request, statements, client));
    if head == Some(Request::Gone) && !fields.ends_connection() {
        return Fate::OutOfDate;
    }
    seen.last_words |= fields.ends_connection();
    seen.stray_error |= client.is_none();
    Fate::Pass
}

/// `cached plan must not change result type`, in whatever language: PostgreSQL's plancache.c.
fn result_has_changed(fields: &Fields<'_>) -> bool {
    fields.routine == b"RevalidateCachedQuery"
}

/// A type was dropped, and perhaps made anew under its name.
fn type_is_gone(fields: &Fields<'_>) -> bool {
    fields.code == b"XX000" && fields.message.starts_with(b"cache lookup failed for type")
}

/// The statement that an error of the server's shows to be out of date. When a prepared statement's tables have changed it is analysed again, at Bind
/// and Describe, with the parameter types of the first time: whatever the analysis then finds wrong (class 42) may be right for a new one.
fn stale_statement(request: Request, bound: Option<StatementId>, fields: &Fields<'_>) -> Option<StatementId> {
    let changed = type_is_gone(fields) || result_has_changed(fields);
    match request {
        Request::Bind(statement) | Request::Describe(statement) if changed || fields.code.starts_with(b"42") => statement,
        Request::Execute if changed => bound,
        _ => None,
    }
}

/// The tag of a command that forgets prepared statements, or sets parameters back. `front`: unless the command was the pooler's own.
fn cleared(back: &mut Backend, front: Option<&mut Frontend>, tag: &[u8], seen: &mut Seen) {
    let is_reset = tag == b"RESET\0";
    if !is_reset {
        back.statements.clear();
    }
    let mut name = None;
    if let Some(front) = front {
        name = front.reset.take().filter(|_| is_reset).map(|name| *name);
        if !is_reset {
            front.statements.clear();
        }
    }
    if tag != b"DEALLOCATE ALL\0" {
        seen.rare().reset = Some(name.map_or(Reset::All, Reset::One));
    }
}

/// The error that PostgreSQL gives when a statement's result is not what it was, with the fields by which drivers know it.
fn out_of_date(out: &mut Vec<u8>) {
    encode::message(out, b'E', |b| {
        b.extend_from_slice(b"SERROR\0VERROR\0C0A000\0Mcached plan must not change result type\0RRevalidateCachedQuery\0\0");
    });
}

/// A request that the server has ignored, or that has failed, leaves nothing behind.
fn undo(request: Request, server: &mut ServerStatements, client: &mut Option<&mut Frontend>) {
    match request {
        Request::Parse(Some((id, _))) | Request::HiddenParse(id) => {
            server.remove(id);
        }
        Request::HiddenClose(Some(id)) => server.insert(id),
        _ => {}
    }
    let Some(front) = client.as_deref_mut() else { return };
    match request {
        Request::Parse(Some((_, serial))) | Request::LocalParse(serial) => front.statements.undo_add(serial),
        Request::LocalClose(serial) => front.statements.undo_close(serial),
        _ => {}
    }
}
