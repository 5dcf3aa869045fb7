//! From a client to its server: which messages are requests, which name a prepared statement, what goes out.

use super::command::{self, Command};
use super::message::{Pass, Step};
use super::outstanding::{Outstanding, Request};
use super::retry::{Retry, Shape};
use super::splice::Splice;
use super::statements::{ClientStatements, Registry, Scope, ServerStatements};
use shared::wire::encode;
use shared::wire::frontend::{self as messages, Target};
use shared::wire::header::{self, HEADER_BYTES, Header, Peek};
use shared::wire::report::{self, sqlstate};

/// So much more than its input, and [`forward`] stops: each short Bind may bring a long Parse along.
const MOST_ADDED: usize = 256 * 1024;

/// A client's place in its own stream.
#[derive(Default)]
#[allow(clippy::struct_excessive_bools)] // independent facts, not one state
pub(crate) struct Frontend {
    /// Bytes still to come of the message begun last.
    pub(super) skip: usize,
    /// Those bytes are not forwarded.
    pub(super) discard: bool,
    /// Everything up to the next Sync is ignored, as PostgreSQL does after an error.
    pub(super) ignoring: bool,
    /// What it has sent since is not looked at before the server has answered more.
    pub(super) held_back: bool,
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
pub(super) fn command_of(body: &[u8]) -> Option<Command<'_>> {
    let may_be = body.len() <= command::LONGEST && body.first().is_some_and(|first| command::may_begin(*first));
    may_be.then(|| command::parse(body.strip_suffix(b"\0")?)).flatten()
}

/// Answers `DEALLOCATE name` for a statement that the client has prepared by protocol: only the pooler knows it by that name.
pub(super) fn deallocate(front: &mut Frontend, name: &[u8], status: u8, replies: &mut Vec<u8>) -> bool {
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
