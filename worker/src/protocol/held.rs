//! Which statement of the server's a client's name means, and how the server comes to hold it.

use super::message::Pass;
use super::outstanding::Request;
use super::splice::Splice;
use super::statements::Statement;
use shared::wire::encode;
use shared::wire::frontend as messages;
use std::rc::Rc;

/// A name that no statement has: what is asked of a statement that is out of date for its client goes there, so that PostgreSQL fails it, and the
/// transaction with it, as it would fail on a connection of the client's own.
pub(super) const GONE: &[u8] = b"pgfleet_gone";

/// What a client's name comes to.
pub(super) enum Held {
    /// The server has this statement, or will have when it comes to it.
    Ready(Rc<Statement>),
    /// The server describes it first; then the same is asked again.
    Wait,
    /// The server makes something else of it than the client was told.
    Gone,
    /// The client has not prepared it.
    Unknown,
}

impl Pass<'_, '_> {
    /// The statement of the client's `name`. `learns`: what is asked tells the client which columns it gets, it does not go by what it was
    /// told before.
    pub(super) fn held(&mut self, name: &[u8], learns: impl FnOnce() -> bool, out: &mut Splice<'_>) -> Held {
        let Some(mine) = self.front.statements.get(name).cloned() else { return Held::Unknown };
        if *self.server.describing {
            return Held::Wait;
        }
        if self.server.statements.touch(mine.id) {
            // PostgreSQL itself sees to it that its result does not change.
            return Held::Ready(mine);
        }
        let wary = mine.description.get().is_some() && !learns();
        let target = self.registry.current(&mine);
        let renewed = target.id != mine.id;
        if renewed && self.is_unsettled(target.id) {
            return Held::Wait;
        }
        if renewed && self.server.statements.touch(target.id) {
            if wary && target.description.get().is_none() {
                return self.ask(&target, out);
            }
            if wary && !target.agrees(&mine) {
                return Held::Gone;
            }
        } else {
            self.make_room(out);
            match mine.description.get().filter(|_| !renewed) {
                Some(told) => messages::write_parse(out.edit(), &target.server_name, &told.identity(&target.identity)),
                None => messages::write_parse(out.edit(), &target.server_name, &target.identity),
            }
            self.server.statements.insert(target.id);
            if self.server.status != b'I' || self.server.requests.is_waiting() {
                self.server.requests.changes_statements();
            }
            self.server.requests.push(Request::HiddenParse(target.id));
            self.counts.server_parses += 1;
            if wary {
                return self.ask(&target, out);
            }
            self.compare(&target, out);
        }
        if renewed {
            self.front.statements.renew(mine.id, &target);
        }
        Held::Ready(target)
    }

    /// Has the server describe a statement, and waits for that.
    fn ask(&mut self, statement: &Statement, out: &mut Splice<'_>) -> Held {
        messages::write_statement_target(out.edit(), b'D', &statement.server_name);
        out.edit().extend_from_slice(encode::FLUSH);
        self.server.requests.push(Request::HiddenDescribe(statement.id, false));
        *self.server.describing = true;
        Held::Wait
    }

    /// Has a statement that was described before described again, now that the server has prepared it: others may go by what they were told.
    pub(super) fn compare(&mut self, statement: &Statement, out: &mut Splice<'_>) {
        if statement.description.get().is_some() {
            messages::write_statement_target(out.edit(), b'D', &statement.server_name);
            self.server.requests.push(Request::HiddenDescribe(statement.id, true));
        }
    }

    /// Makes the statement that was used least recently give way, if there are as many as there may be.
    pub(super) fn make_room(&mut self, out: &mut Splice<'_>) {
        while let Some((evicted, spoiled)) = self.server.statements.evict(self.rules.max_statements - 1) {
            messages::write_statement_target(out.edit(), b'C', &evicted.server_name());
            self.server.requests.push(Request::HiddenClose((!spoiled).then_some(evicted)));
        }
    }
}
