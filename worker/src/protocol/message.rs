//! One message of a client's: passed on, rewritten, answered here, held back or refused.

use super::command::{self, Command};
use super::frontend::{Counts, Frontend, Rules, Server, Stop, command_of, deallocate};
use super::held::{GONE, Held};
use super::outstanding::Request;
use super::retry::{self, Shape};
use super::splice::Splice;
use super::statements::{Registry, StatementId};
use shared::wire::encode;
use shared::wire::frontend::{self as messages, Target};
use shared::wire::header::{HEADER_BYTES, Header};
use std::rc::Rc;

/// What happens to one message.
pub(super) enum Step {
    Pass,
    /// What stood before this offset has been written anew.
    PassFrom(usize),
    Drop,
    NeedWhole,
    Stop(Stop),
}

/// One look at what a client has sent, and what it is about.
pub(super) struct Pass<'a, 'b> {
    pub(super) front: &'a mut Frontend,
    pub(super) server: Server<'b>,
    pub(super) registry: &'a mut Registry,
    pub(super) rules: Rules,
    pub(super) counts: Counts,
    pub(super) shape: Shape,
    /// The statement of the unnamed portal, if it was bound just now and nobody has asked yet what it returns.
    pub(super) bound: Option<StatementId>,
    pub(super) replies: &'b mut Vec<u8>,
}

impl Pass<'_, '_> {
    #[inline]
    pub(super) fn message(&mut self, header: Header, rest: &[u8], out: &mut Splice<'_>) -> Step {
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
