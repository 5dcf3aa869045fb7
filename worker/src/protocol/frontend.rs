//! From a client to its server: which messages are requests, which name a prepared statement, what goes out.

use super::outstanding::{Outstanding, Request};
use super::splice::Splice;
use super::statements::{ClientStatements, Registry, ServerStatements, Statement};
use shared::wire::encode;
use shared::wire::frontend::{self as messages, Target};
use shared::wire::header::{self, HEADER_BYTES, Header, Peek};
use std::rc::Rc;

/// So much more than its input, and [`forward`] stops: each short Bind may bring a long Parse along.
const MOST_ADDED: usize = 256 * 1024;

/// A client's place in its own stream.
#[derive(Default)]
pub(crate) struct Frontend {
    /// Bytes still to come of the message begun last.
    skip: usize,
    /// Those bytes are not forwarded.
    discard: bool,
    pub(crate) statements: ClientStatements,
}

impl Frontend {
    /// A message is only half sent.
    #[inline]
    pub(crate) fn is_mid_message(&self) -> bool {
        self.skip > 0
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
    /// The client has only a part of the server's last message: nothing of ours may come before its end.
    pub(crate) mid_message: bool,
}

/// What holds for this client's pool.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    /// max_packet_size.
    pub(crate) max_packet: u32,
    /// max_prepared_statements; 0 where names are passed on as they are (session mode, or switched off).
    pub(crate) max_statements: usize,
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
            Peek::Header(_) => return Need::Server(at),
        }
    }
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
    let mut pass = Pass { front, server, registry, rules, counts: Counts::default() };
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
    if pass.server.requests.only_local() && !pass.server.mid_message {
        answer_local(pass.server.requests, pass.front, replies);
    }
    Forwarded { to_server: out.finish(), consumed: at, stop, counts: pass.counts }
}

/// Answers the local requests at the head of the queue.
pub(crate) fn answer_local(requests: &mut Outstanding, front: &mut Frontend, replies: &mut Vec<u8>) {
    while let Some(request) = requests.take_local() {
        if let Request::LocalClose(serial) = request {
            front.statements.confirm_close(serial);
            replies.extend_from_slice(encode::CLOSE_COMPLETE);
        } else {
            replies.extend_from_slice(encode::PARSE_COMPLETE);
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

struct Pass<'a, 'b> {
    front: &'a mut Frontend,
    server: Server<'b>,
    registry: &'a mut Registry,
    rules: Rules,
    counts: Counts,
}

impl Pass<'_, '_> {
    #[inline]
    fn message(&mut self, header: Header, rest: &[u8], out: &mut Splice<'_>) -> Step {
        let ignored = self.server.requests.is_ignoring();
        match header.tag {
            b'S' => {
                // During COPY IN the server takes no notice of Sync.
                if !*self.server.copy_in {
                    self.server.requests.push(Request::Sync);
                }
                Step::Pass
            }
            b'X' => Step::Stop(Stop::Terminate),
            b'Q' | b'F' | b'P' | b'B' | b'D' | b'E' | b'C' | b'H' | b'd' | b'c' | b'f' if ignored => Step::Drop,
            b'Q' if self.rules.refuse_simple => Step::Stop(Stop::Violation("PQexec disallowed")),
            b'Q' => self.request(Request::Query),
            b'F' => self.request(Request::FunctionCall),
            b'E' => self.request(Request::Execute),
            b'd' | b'H' => Step::Pass,
            b'c' | b'f' => {
                *self.server.copy_in = false;
                Step::Pass
            }
            b'P' if self.rules.max_statements == 0 => self.request(Request::Parse(None)),
            b'B' if self.rules.max_statements == 0 => self.request(Request::Bind),
            b'D' if self.rules.max_statements == 0 => self.request(Request::Describe),
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
        Step::Pass
    }

    fn parse(&mut self, header: Header, rest: &[u8], out: &mut Splice<'_>) -> Step {
        if header.total == HEADER_BYTES {
            return Step::Stop(Stop::Violation("broken Parse packet"));
        }
        match rest.get(HEADER_BYTES) {
            None => return Step::NeedWhole,
            Some(0) => return self.request(Request::Parse(None)),
            Some(_) => {}
        }
        let Some(body) = rest.get(HEADER_BYTES..header.total) else { return Step::NeedWhole };
        let Ok(parse) = messages::parse(body) else { return Step::Stop(Stop::Violation("broken Parse packet")) };
        if self.front.statements.get(parse.name).is_some() {
            return Step::Stop(Stop::Violation("prepared statement name is already in use"));
        }
        self.counts.client_parses += 1;
        let statement = self.registry.intern(parse.identity);
        let serial = self.front.statements.add(parse.name, Rc::clone(&statement));
        if self.server.statements.touch(statement.id) {
            self.server.requests.push(Request::LocalParse(serial));
        } else {
            self.make_room(out);
            messages::write_parse(out.edit(), &statement.server_name, &statement.identity);
            self.server.statements.insert(statement.id);
            self.server.requests.push(Request::Parse(Some((statement.id, serial))));
            self.counts.server_parses += 1;
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
        if bind.statement.is_empty() {
            return self.request(Request::Bind);
        }
        let Some(statement) = self.held(bind.statement, out) else {
            return Step::Stop(Stop::Violation("prepared statement did not exist"));
        };
        self.counts.binds += 1;
        messages::write_bind_front(out.edit(), &bind, &statement.server_name, header.total);
        self.server.requests.push(Request::Bind);
        Step::PassFrom(HEADER_BYTES + body.len() - bind.rest.len())
    }

    /// Describe and Close.
    fn target(&mut self, header: Header, rest: &[u8], out: &mut Splice<'_>) -> Step {
        let (request, broken) = match header.tag {
            b'D' => (Request::Describe, "broken Describe packet"),
            _ => (Request::Close, "broken Close packet"),
        };
        let Some(body) = rest.get(HEADER_BYTES..header.total) else { return Step::NeedWhole };
        match messages::target(body) {
            Err(_) => Step::Stop(Stop::Violation(broken)),
            Ok(Target::Portal(_) | Target::Statement([])) => self.request(request),
            Ok(Target::Statement(name)) if request == Request::Close => {
                let serial = self.front.statements.close(name);
                self.server.requests.push(Request::LocalClose(serial));
                Step::Drop
            }
            Ok(Target::Statement(name)) => {
                let Some(statement) = self.held(name, out) else {
                    return Step::Stop(Stop::Violation("prepared statement did not exist"));
                };
                messages::write_statement_target(out.edit(), b'D', &statement.server_name);
                self.server.requests.push(Request::Describe);
                Step::Drop
            }
        }
    }

    /// The statement of the client's `name`, which the server holds when this returns.
    fn held(&mut self, name: &[u8], out: &mut Splice<'_>) -> Option<Rc<Statement>> {
        let statement = Rc::clone(self.front.statements.get(name)?);
        if !self.server.statements.touch(statement.id) {
            self.make_room(out);
            messages::write_parse(out.edit(), &statement.server_name, &statement.identity);
            self.server.statements.insert(statement.id);
            self.server.requests.push(Request::HiddenParse(statement.id));
            self.counts.server_parses += 1;
        }
        Some(statement)
    }

    fn make_room(&mut self, out: &mut Splice<'_>) {
        while let Some(evicted) = self.server.statements.evict(self.rules.max_statements - 1) {
            messages::write_statement_target(out.edit(), b'C', &evicted.server_name());
            self.server.requests.push(Request::HiddenClose(evicted));
        }
    }
}
