//! From a client to its server: which messages are requests, which name a prepared statement, what goes out.

use super::command::{self, Command};
use super::held::{GONE, Held};
use super::outstanding::{Outstanding, Request};
use super::retry::{self, Retry, Shape};
use super::splice::Splice;
use super::statements::{ClientStatements, Registry, Scope, ServerStatements, StatementId};
use shared::wire::encode;
use shared::wire::frontend::{self as messages, Target};
use shared::wire::header::{self, HEADER_BYTES, Header, Peek};
use shared::wire::report::{self, sqlstate};
use std::rc::Rc;

/// So much more than its input, and [`forward`] stops: each short Bind may bring a long Parse along.
const MOST_ADDED: usize = 256 * 1024;

/// A client's place in its own stream.
#[derive(Default)]
#[allow(clippy::struct_excessive_bools)] // independent facts, not one state
pub(crate) struct Frontend {
    /// Bytes still to come of the message begun last.
    skip: usize,
    /// Those bytes are not forwarded.
    discard: bool,
    /// Everything up to the next Sync is ignored, as PostgreSQL does after an error.
    ignoring: bool,
    /// What it has sent since is not looked at before the server has answered more.
    held_back: bool,
    /// The client has startup values, which are set again after a RESET or DISCARD ALL: nothing goes past one.
    pub(crate) has_startup_values: bool,
    /// What the client has asked to RESET, until the answer comes.
    #[allow(clippy::box_collection)] // a pointer in every client, a string in next to none
    pub(super) reset: Option<Box<String>>,
    pub(crate) statements: ClientStatements,
    /// Where its statements mean what they mean.
    pub(crate) scope: Scope,
}

impl Frontend {
    /// Bytes still to come of a message that is half sent.
    pub(crate) fn still_to_come(&self) -> usize {
        self.skip
    }

    /// A message is only half sent.
    #[inline]
    pub(crate) fn is_mid_message(&self) -> bool {
        self.skip > 0
    }

    /// What was kept of its input waits for the server's answers ([`Stop::Wait`]).
    #[inline]
    pub(crate) fn is_held_back(&self) -> bool {
        self.held_back
    }

    /// The server has answered something.
    #[inline]
    pub(super) fn let_go(&mut self) {
        self.held_back = false;
    }

    /// Takes the rest of a message begun earlier off `data`: how many bytes, and whether they are to be forwarded.
    fn take_rest(&mut self, data: &[u8]) -> (usize, bool) {
        let taken = self.skip.min(data.len());
        self.skip -= taken;
        (taken, !self.discard)
    }

    /// A message of which `available` bytes are there is passed (or not) as it comes.
    #[inline]
    fn begin(&mut self, total: usize, available: usize, discard: bool) -> usize {
        let taken = total.min(available);
        self.skip = total - taken;
        self.discard = discard;
        taken
    }
}

/// The server's side of the exchange, as far as the client's messages change it.
pub(crate) struct Server<'a> {
    pub(crate) requests: &'a mut Outstanding,
    pub(crate) statements: &'a mut ServerStatements,
    /// PostgreSQL has answered CopyInResponse and the client has not ended the copy.
    pub(crate) copy_in: &'a mut bool,
    /// What the server is asked to describe for us is still to come: until then nothing more is sent.
    pub(crate) describing: &'a mut bool,
    /// What could be sent once more.
    pub(crate) retry: &'a mut Retry,
    /// Transaction status of the last ReadyForQuery.
    pub(crate) status: u8,
    /// The client has only a part of the server's last message: nothing of ours may come before its end.
    pub(crate) mid_message: bool,
}

/// What holds for this client's pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// max_packet_size.
    pub(crate) max_packet: u32,
    /// max_prepared_statements; 0 where names are passed on as they are (session mode, or switched off).
    pub(crate) max_statements: usize,
    /// Unnamed statements are prepared under names of ours too, so that the servers keep their plans.
    pub(crate) reuse_unnamed: bool,
    /// disable_pqexec.
    pub(crate) refuse_simple: bool,
}

/// Why reading stops before the end of the input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// It does not; what is not consumed is the beginning of a message.
    No,
    /// Enough has been written for one turn: the rest is to be shown again when that has gone out.
    Enough,
    /// What follows relies on what the server has yet to answer: the rest is to be shown again then.
    Wait,
    /// Terminate.
    Terminate,
    /// The client gets this text and is closed.
    Violation(&'static str),
    /// The client gets `bad packet header` with the bytes at the stop, and is closed.
    BadHeader,
}

/// What to do with the input.
#[derive(Debug)]
pub(crate) struct Forwarded<'a> {
    pub(crate) to_server: &'a [u8],
    /// Bytes of the input that are dealt with; the rest is to be shown again with more behind it.
    pub(crate) consumed: usize,
    pub(crate) stop: Stop,
    pub(crate) counts: Counts,
}

/// SHOW STATS' counters of prepared statements.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Counts {
    pub(crate) client_parses: u32,
    pub(crate) server_parses: u32,
    pub(crate) binds: u32,
}

/// What an unlinked client's next message asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Need {
    /// A server, to answer what begins at this offset.
    Server(usize),
    /// Nothing so far; this many bytes are dealt with.
    Nothing(usize),
    Terminate,
    BadHeader(usize),
}

/// Looks at what an unlinked client sent. COPY data that comes late, after the error that ended the copy, is dropped; a Close of a tracked
/// name is answered into `replies`.
pub(crate) fn need(front: &mut Frontend, rules: Rules, data: &[u8], replies: &mut Vec<u8>) -> Need {
    let (mut at, _) = front.take_rest(data);
    loop {
        let rest = &data[at..];
        match header::peek(rest, rules.max_packet) {
            Peek::NeedMore => return Need::Nothing(at),
            Peek::Bad => return Need::BadHeader(at),
            Peek::Header(Header { tag: b'X', .. }) => return Need::Terminate,
            Peek::Header(Header { tag, total }) if front.ignoring => {
                if tag == b'S' {
                    front.ignoring = false;
                    encode::ready_for_query(replies, b'I');
                }
                at += front.begin(total, rest.len(), true);
            }
            Peek::Header(Header { tag: b'd' | b'c' | b'f', total }) => at += front.begin(total, rest.len(), true),
            Peek::Header(Header { tag: b'C', total }) if rules.max_statements > 0 => {
                match rest.get(HEADER_BYTES..total).map(messages::target) {
                    Some(Ok(Target::Statement(name))) if !name.is_empty() => {
                        let serial = front.statements.close(name);
                        front.statements.confirm_close(serial);
                        replies.extend_from_slice(encode::CLOSE_COMPLETE);
                        at += total;
                    }
                    Some(_) => return Need::Server(at),
                    None => return Need::Nothing(at),
                }
            }
            Peek::Header(Header { tag: b'Q', total }) if !front.statements.is_empty() => {
                let Some(Command::Deallocate(name)) = rest.get(HEADER_BYTES..total).and_then(command_of) else {
                    return Need::Server(at);
                };
                if !deallocate(front, &name, b'I', replies) {
                    return Need::Server(at);
                }
                at += total;
            }
            Peek::Header(_) => return Need::Server(at),
        }
    }
}

/// The command that the body of a Query is.
fn command_of(body: &[u8]) -> Option<Command<'_>> {
    let may_be = body.len() <= command::LONGEST && body.first().is_some_and(|first| command::may_begin(*first));
    may_be.then(|| command::parse(body.strip_suffix(b"\0")?)).flatten()
}

/// Answers `DEALLOCATE name` for a statement that the client has prepared by protocol: only the pooler knows it by that name.
fn deallocate(front: &mut Frontend, name: &[u8], status: u8, replies: &mut Vec<u8>) -> bool {
    let known = front.statements.get(name).is_some();
    if known {
        let serial = front.statements.close(name);
        front.statements.confirm_close(serial);
        encode::command_complete(replies, "DEALLOCATE");
        encode::ready_for_query(replies, status);
    }
    known
}

/// A client that waits for a server has its first request cancelled: the error and what follows from it go to `replies`. Gives how much of
/// what it has sent is dealt with.
pub(crate) fn cancel_first(front: &mut Frontend, data: &[u8], replies: &mut Vec<u8>) -> usize {
    let Peek::Header(Header { tag, total }) = header::peek(data, u32::MAX) else { return 0 };
    report::error(replies, sqlstate::QUERY_CANCELED, "canceling statement due to user request");
    if matches!(tag, b'Q' | b'F') {
        encode::ready_for_query(replies, b'I');
        return front.begin(total, data.len(), true);
    }
    front.ignoring = true;
    0
}

/// Takes what a linked client sent. `scratch` holds the output when it is not a slice of the input; answers of our own that cannot wait for
/// one of the server's go to `replies`.
pub(crate) fn forward<'a>(
    front: &mut Frontend,
    server: Server<'_>,
    registry: &mut Registry,
    rules: Rules,
    data: &'a [u8],
    scratch: &'a mut Vec<u8>,
    replies: &mut Vec<u8>,
) -> Forwarded<'a> {
    let mut out = Splice::new(data, scratch);
    let (mut at, pass) = front.take_rest(data);
    if at > 0 && pass {
        out.pass(0..at);
    }
    let fresh = rules.max_statements > 0 && at == 0 && server.status == b'I' && server.requests.is_settled() && !server.mid_message;
    let mut pass =
        Pass { front, server, registry, rules, counts: Counts::default(), shape: Shape::new(fresh), bound: None, replies };
    let mut stop = Stop::No;
    while at < data.len() {
        if out.copied() > data.len() + MOST_ADDED {
            stop = Stop::Enough;
            break;
        }
        let rest = &data[at..];
        let header = match header::peek(rest, rules.max_packet) {
            Peek::Header(header) => header,
            Peek::NeedMore => break,
            Peek::Bad => {
                stop = Stop::BadHeader;
                break;
            }
        };
        match pass.message(header, rest, &mut out) {
            Step::Pass => {
                let taken = pass.front.begin(header.total, rest.len(), false);
                out.pass(at..at + taken);
                at += taken;
            }
            Step::PassFrom(offset) => {
                let taken = pass.front.begin(header.total, rest.len(), false);
                out.pass(at + offset..at + taken);
                at += taken;
            }
            Step::Drop => at += pass.front.begin(header.total, rest.len(), true),
            Step::NeedWhole => break,
            Step::Stop(why) => {
                stop = why;
                break;
            }
        }
    }
    let Pass { front, server, counts, shape, replies, .. } = pass;
    front.held_back = stop == Stop::Wait;
    if server.requests.only_local() && !server.mid_message {
        answer_local(server.requests, front, replies);
    }
    let to_server = out.finish();
    shape.finish(to_server, stop == Stop::No && !front.is_mid_message(), server.retry);
    Forwarded { to_server, consumed: at, stop, counts }
}

/// Answers the local requests at the head of the queue.
pub(crate) fn answer_local(requests: &mut Outstanding, front: &mut Frontend, replies: &mut Vec<u8>) {
    while let Some(request) = requests.take_local() {
        match request {
            Request::LocalClose(serial) => {
                front.statements.confirm_close(serial);
                replies.extend_from_slice(encode::CLOSE_COMPLETE);
            }
            Request::LocalParse(serial) => {
                front.statements.confirm_add(serial);
                replies.extend_from_slice(encode::PARSE_COMPLETE);
            }
            _ => {}
        }
    }
}

/// What happens to one message.
enum Step {
    Pass,
    /// What stood before this offset has been written anew.
    PassFrom(usize),
    Drop,
    NeedWhole,
    Stop(Stop),
}

pub(super) struct Pass<'a, 'b> {
    pub(super) front: &'a mut Frontend,
    pub(super) server: Server<'b>,
    pub(super) registry: &'a mut Registry,
    pub(super) rules: Rules,
    pub(super) counts: Counts,
    shape: Shape,
    /// The statement of the unnamed portal, if it was bound just now and nobody has asked yet what it returns.
    bound: Option<StatementId>,
    replies: &'b mut Vec<u8>,
}

impl Pass<'_, '_> {
    #[inline]
    fn message(&mut self, header: Header, rest: &[u8], out: &mut Splice<'_>) -> Step {
        let ignored = self.server.requests.is_ignoring();
        if self.front.has_startup_values
            && self.server.requests.is_forgetting()
            && matches!(header.tag, b'Q' | b'F' | b'P' | b'B' | b'D' | b'E' | b'C')
        {
            return Step::Stop(Stop::Wait);
        }
        match header.tag {
            b'S' => {
                // During COPY IN the server takes no notice of Sync.
                if !*self.server.copy_in {
                    self.server.requests.push(Request::Sync);
                }
                self.shape.sync();
                Step::Pass
            }
            b'X' => Step::Stop(Stop::Terminate),
            b'Q' | b'F' | b'P' | b'B' | b'D' | b'E' | b'C' | b'H' | b'd' | b'c' | b'f' if ignored => Step::Drop,
            b'Q' if self.rules.refuse_simple => Step::Stop(Stop::Violation("PQexec disallowed")),
            b'Q' => self.query(header, rest, out),
            b'F' => self.request(Request::FunctionCall),
            b'E' => {
                self.shape.execute();
                self.server.requests.push(Request::Execute);
                Step::Pass
            }
            b'd' | b'H' => self.unasked(),
            b'c' | b'f' => {
                if !std::mem::take(self.server.copy_in) {
                    self.server.requests.copy_ended_early();
                }
                self.unasked()
            }
            b'P' if self.rules.max_statements == 0 => self.request(Request::Parse(None)),
            b'B' if self.rules.max_statements == 0 => self.request(Request::Bind(None)),
            b'D' if self.rules.max_statements == 0 => self.request(Request::Describe(None)),
            b'C' if self.rules.max_statements == 0 => self.request(Request::Close),
            b'P' => self.parse(header, rest, out),
            b'B' => self.bind(header, rest, out),
            b'D' | b'C' => self.target(header, rest, out),
            _ => Step::Stop(Stop::Violation("unknown pkt")),
        }
    }

    #[inline]
    fn request(&mut self, request: Request) -> Step {
        self.server.requests.push(request);
        self.unasked()
    }

    /// Passed on without an answer being waited for.
    #[inline]
    fn unasked(&mut self) -> Step {
        self.shape.other();
        Step::Pass
    }

    /// A simple query: PostgreSQL's, unless it names one of the client's prepared statements.
    #[inline]
    fn query(&mut self, header: Header, rest: &[u8], out: &mut Splice<'_>) -> Step {
        match rest.get(HEADER_BYTES) {
            Some(first) if command::may_begin(*first) && header.total <= command::LONGEST => self.command(header, rest, out),
            None if header.total > HEADER_BYTES => Step::NeedWhole,
            _ => self.request(Request::Query),
        }
    }

    fn command(&mut self, header: Header, rest: &[u8], out: &mut Splice<'_>) -> Step {
        let Some(body) = rest.get(HEADER_BYTES..header.total) else { return Step::NeedWhole };
        match command_of(body) {
            // Behind something unanswered, or in a transaction that has failed, PostgreSQL says what there is to say.
            Some(Command::Deallocate(name))
                if self.server.status != b'E'
                    && self.server.requests.is_settled()
                    && !self.server.mid_message
                    && deallocate(self.front, &name, self.server.status, self.replies) =>
            {
                Step::Drop
            }
            Some(Command::Execute(name, arguments)) if self.server.status != b'E' && self.front.statements.get(&name).is_some() => {
                if self.must_wait(&name) {
                    return Step::Stop(Stop::Wait);
                }
                let was_open = self.server.requests.has_open_batch();
                let Held::Ready(statement) = self.held(&name, || true, out) else { return Step::Stop(Stop::Wait) };
                if !was_open && self.server.requests.has_open_batch() {
                    encode::message(out.edit(), b'S', |_| ());
                    self.server.requests.push(Request::HiddenSync);
                }
                let text = [b"EXECUTE ", &statement.server_name[..], arguments].concat();
                encode::message(out.edit(), b'Q', |b| encode::cstr(b, &text));
                self.server.requests.push(Request::Query);
                self.shape.other();
                Step::Drop
            }
            command => {
                self.front.reset = match command {
                    Some(Command::Reset(name)) => Some(Box::new(String::from_utf8_lossy(&name).into_owned())),
                    _ => None,
                };
                let all = body.len() < 64 && body.to_ascii_lowercase().windows(3).any(|word| word == b"all");
                let all = all || self.front.reset.is_some() && self.front.has_startup_values;
                let step = self.request(Request::Query);
                if all {
                    // DEALLOCATE ALL or DISCARD ALL, perhaps: its tag will tell.
                    self.server.requests.may_forget_all();
                }
                step
            }
        }
    }

    fn parse(&mut self, header: Header, rest: &[u8], out: &mut Splice<'_>) -> Step {
        if header.total == HEADER_BYTES {
            return Step::Stop(Stop::Violation("broken Parse packet"));
        }
        match rest.get(HEADER_BYTES) {
            None => return Step::NeedWhole,
            Some(0) if !self.rules.reuse_unnamed => return self.request(Request::Parse(None)),
            Some(_) => {}
        }
        let Some(body) = rest.get(HEADER_BYTES..header.total) else { return Step::NeedWhole };
        let Ok(parse) = messages::parse(body) else { return Step::Stop(Stop::Violation("broken Parse packet")) };
        if self.server.requests.is_forgetting() {
            return Step::Stop(Stop::Wait);
        }
        if !parse.name.is_empty() && self.front.statements.get(parse.name).is_some() {
            // The Parse before it may yet fail.
            if self.front.statements.serial(parse.name).is_some_and(|serial| self.server.requests.ends_a_batch_behind(serial)) {
                return Step::Stop(Stop::Wait);
            }
            return Step::Stop(Stop::Violation("prepared statement name is already in use"));
        }
        let statement = self.registry.intern(self.front.scope, parse.identity);
        if self.is_unsettled(statement.id) {
            return Step::Stop(Stop::Wait);
        }
        self.counts.client_parses += 1;
        let serial = if parse.name.is_empty() {
            self.front.statements.replace_unnamed(Rc::clone(&statement))
        } else {
            self.front.statements.add(parse.name, Rc::clone(&statement))
        };
        self.shape.parse(statement.id);
        if self.server.statements.touch(statement.id) {
            self.server.requests.push(Request::LocalParse(serial));
        } else {
            self.make_room(out);
            messages::write_parse(out.edit(), &statement.server_name, &statement.identity);
            self.server.statements.insert(statement.id);
            self.server.requests.changes_statements();
            self.server.requests.push(Request::Parse(Some((statement.id, serial))));
            self.counts.server_parses += 1;
            self.compare(&statement, out);
        }
        Step::Drop
    }

    fn bind(&mut self, header: Header, rest: &[u8], out: &mut Splice<'_>) -> Step {
        let whole = rest.len() >= header.total;
        let body = &rest[HEADER_BYTES..header.total.min(rest.len())];
        let bind = match messages::bind(body) {
            Ok(bind) => bind,
            Err(_) if whole => return Step::Stop(Stop::Violation("broken Bind packet")),
            Err(_) => return Step::NeedWhole,
        };
        if self.must_wait(bind.statement) {
            return Step::Stop(Stop::Wait);
        }
        // Described before it is executed, a portal tells its client which columns it gets.
        let describes = matches!(rest.get(header.total..), Some([b'D', _, _, _, _, b'P', ..]));
        let learns = || describes && retry::takes_any_columns(&bind);
        let statement = match self.held(bind.statement, learns, out) {
            Held::Ready(statement) => statement,
            Held::Wait => return Step::Stop(Stop::Wait),
            Held::Gone => {
                messages::write_bind_front(out.edit(), &bind, GONE, header.total);
                self.server.requests.push(Request::Gone);
                self.shape.other();
                return Step::PassFrom(HEADER_BYTES + body.len() - bind.rest.len());
            }
            Held::Unknown if bind.statement.is_empty() => {
                self.bound = None;
                return self.request(Request::Bind(None));
            }
            Held::Unknown => return Step::Stop(Stop::Violation("prepared statement did not exist")),
        };
        self.counts.binds += 1;
        let out = out.edit();
        let at = out.len();
        messages::write_bind_front(out, &bind, &statement.server_name, header.total);
        self.server.requests.push(Request::Bind(Some(statement.id)));
        let of_interest = bind.portal.is_empty() && statement.description.get().is_none();
        self.bound = of_interest.then_some(statement.id);
        self.shape.name(at, statement, false);
        Step::PassFrom(HEADER_BYTES + body.len() - bind.rest.len())
    }

    /// Describe and Close.
    fn target(&mut self, header: Header, rest: &[u8], out: &mut Splice<'_>) -> Step {
        let is_close = header.tag == b'C';
        let Some(body) = rest.get(HEADER_BYTES..header.total) else { return Step::NeedWhole };
        match messages::target(body) {
            Err(_) if is_close => Step::Stop(Stop::Violation("broken Close packet")),
            Err(_) => Step::Stop(Stop::Violation("broken Describe packet")),
            Ok(Target::Portal(_)) if is_close => self.request(Request::Close),
            Ok(Target::Portal(portal)) => {
                self.server.requests.push(Request::Describe(self.bound.filter(|_| portal.is_empty())));
                self.shape.describe_portal();
                Step::Pass
            }
            Ok(Target::Statement(b"")) if self.front.statements.get(b"").is_none() => {
                self.request(if is_close { Request::Close } else { Request::Describe(None) })
            }
            Ok(Target::Statement(name)) if is_close => {
                let serial = self.front.statements.close(name);
                self.server.requests.push(Request::LocalClose(serial));
                self.shape.other();
                Step::Drop
            }
            Ok(Target::Statement(name)) if self.must_wait(name) => Step::Stop(Stop::Wait),
            Ok(Target::Statement(name)) => {
                let statement = match self.held(name, || true, out) {
                    Held::Ready(statement) => statement,
                    Held::Wait => return Step::Stop(Stop::Wait),
                    Held::Gone | Held::Unknown => {
                        return Step::Stop(Stop::Violation("prepared statement did not exist"));
                    }
                };
                let out = out.edit();
                let at = out.len();
                messages::write_statement_target(out, b'D', &statement.server_name);
                self.server.requests.push(Request::Describe(Some(statement.id)));
                self.shape.name(at, statement, true);
                Step::Drop
            }
        }
    }

    /// Whether it is not certain yet that the server has what this name means, or has it not.
    #[inline]
    fn must_wait(&self, name: &[u8]) -> bool {
        self.server.requests.is_uncertain() && self.front.statements.get(name).is_some_and(|s| self.is_unsettled(s.id))
    }

    /// Whether it is not certain yet that the server has this statement, or has it not, or which one would make room for it.
    #[inline]
    pub(super) fn is_unsettled(&self, id: StatementId) -> bool {
        let Server { requests, statements, .. } = &self.server;
        requests.is_uncertain()
            && (requests.is_uncertain_of(id) || statements.len() >= self.rules.max_statements && !statements.has(id))
    }
}
