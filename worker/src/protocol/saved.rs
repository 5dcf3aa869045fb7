//! What of an exchange goes with its connections to another worker: where each side is in its stream, what is unanswered, which names mean which
//! statements. So a session can move at any moment, in the middle of a query or of a message too.

use super::backend::Backend;
use super::description::Description;
use super::frontend::Frontend;
use super::outstanding::{Outstanding, Request};
use super::retry::Retry;
use super::statements::{ClientStatements, Entry, Names, Registry, Statement, StatementId};
use serde::{Deserialize, Serialize};
use std::rc::Rc;

/// A statement, by which another worker knows the same one.
#[derive(Serialize, Deserialize)]
struct SavedStatement {
    text: [u8; 16],
    epoch: u32,
    #[serde(with = "serde_bytes")]
    identity: Vec<u8>,
    description: Option<Description>,
}

impl SavedStatement {
    fn of(statement: &Statement) -> Self {
        Self {
            text: statement.text,
            epoch: statement.epoch,
            identity: statement.identity.to_vec(),
            description: statement.description.get().cloned(),
        }
    }

    /// What its client was told elsewhere holds here too. Where others were told something else, the statement is retired, and this client's
    /// remembers on its own what it was.
    fn restore(self, registry: &mut Registry) -> Rc<Statement> {
        let statement = registry.of_epoch(self.text, self.epoch, &self.identity);
        let Some(told) = self.description else { return statement };
        if statement.description.get_or_init(|| told.clone()).agrees(&told) {
            return statement;
        }
        registry.renew(&statement);
        let Statement { id, server_name, text, epoch, .. } = *statement;
        Rc::new(Statement { id, server_name, identity: self.identity.into(), text, epoch, description: told.into() })
    }
}

/// One of a client's names.
#[derive(Serialize, Deserialize)]
struct SavedName {
    #[serde(with = "serde_bytes")]
    name: Vec<u8>,
    serial: u32,
    statement: SavedStatement,
    /// It was given up by the Close with this serial, which is unanswered.
    closed_by: Option<u32>,
}

/// A client's place in its stream.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(clippy::struct_excessive_bools)] // as `Frontend`
pub(crate) struct SavedFrontend {
    skip: usize,
    discard: bool,
    ignoring: bool,
    held_back: bool,
    has_startup_values: bool,
    reset: Option<String>,
    names: Vec<SavedName>,
    serial: u32,
}

impl SavedFrontend {
    pub(crate) fn of(front: &Frontend) -> Self {
        let name = |name: &[u8], entry: &Entry, closed_by| SavedName {
            name: name.to_vec(),
            serial: entry.serial,
            statement: SavedStatement::of(&entry.statement),
            closed_by,
        };
        let (names, serial) = match front.statements.0.as_deref() {
            None => (Vec::new(), 0),
            Some(Names { by_name, closed, serial }) => {
                let open = by_name.iter().map(|(text, entry)| name(text, entry, None));
                (open.chain(closed.iter().map(|(by, text, entry)| name(text, entry, Some(*by)))).collect(), *serial)
            }
        };
        Self {
            skip: front.skip,
            discard: front.discard,
            ignoring: front.ignoring,
            held_back: front.held_back,
            has_startup_values: front.has_startup_values,
            reset: front.reset.as_deref().cloned(),
            names,
            serial,
        }
    }

    /// The same client here, but for its scope, which follows from its values.
    pub(crate) fn restore(self, registry: &mut Registry) -> Frontend {
        let mut names = Names { serial: self.serial, ..Names::default() };
        let is_empty = self.names.is_empty();
        for SavedName { name, serial, statement, closed_by } in self.names {
            let entry = Entry { serial, statement: statement.restore(registry) };
            match closed_by {
                None => drop(names.by_name.insert(name.into(), entry)),
                Some(by) => names.closed.push((by, name.into(), entry)),
            }
        }
        Frontend {
            skip: self.skip,
            discard: self.discard,
            ignoring: self.ignoring,
            held_back: self.held_back,
            has_startup_values: self.has_startup_values,
            reset: self.reset.map(Box::new),
            statements: ClientStatements((!is_empty || self.serial > 0).then(|| Box::new(names))),
            ..Frontend::default()
        }
    }
}

/// A server's place in its stream. Which statements it holds is said with the connection.
#[derive(Serialize, Deserialize)]
#[serde(default)]
#[allow(clippy::struct_excessive_bools)] // as `Backend`
pub(crate) struct SavedBackend {
    requests: Outstanding,
    status: u8,
    copy_in: bool,
    single_statements: bool,
    describing: bool,
    parameters: Option<Box<[u8]>>,
    retry: Option<SavedRetry>,
    bound: Option<StatementId>,
    skip: usize,
    swallow: bool,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct SavedRetry {
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
    statement: Option<SavedStatement>,
    requests: Vec<Request>,
}

impl Default for SavedBackend {
    fn default() -> Self {
        Self::of(&Backend::default())
    }
}

impl SavedBackend {
    pub(crate) fn of(back: &Backend) -> Self {
        let Retry { bytes, statement, requests } = &back.retry;
        let retry = SavedRetry {
            bytes: bytes.clone(),
            statement: statement.as_deref().map(SavedStatement::of),
            requests: requests.clone(),
        };
        Self {
            requests: back.requests.clone(),
            status: back.status,
            copy_in: back.copy_in,
            single_statements: back.single_statements,
            describing: back.describing,
            parameters: back.parameters.clone(),
            retry: (statement.is_some() || !requests.is_empty()).then_some(retry),
            bound: back.bound,
            skip: back.skip,
            swallow: back.swallow,
        }
    }

    /// Puts a server that has just arrived where it was.
    pub(crate) fn restore(self, back: &mut Backend, registry: &mut Registry) {
        back.requests = self.requests;
        back.status = self.status;
        back.copy_in = self.copy_in;
        back.single_statements = self.single_statements;
        back.describing = self.describing;
        back.parameters = self.parameters;
        back.bound = self.bound;
        back.skip = self.skip;
        back.swallow = self.swallow;
        if let Some(SavedRetry { bytes, statement, requests }) = self.retry {
            back.retry = Retry { bytes, statement: statement.map(|statement| statement.restore(registry)), requests };
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::protocol::statements::Scope;

    const TEXT: &[u8] = b"select $1\0\0\0";

    fn told(parameter: u8) -> Description {
        Description::new(Some(Box::new([0, 0, 0, parameter])), b"").unwrap()
    }

    /// A worker where clients were told this of the statement.
    fn worker(parameter: u8) -> (Registry, Rc<Statement>) {
        let mut registry = Registry::default();
        let statement = registry.intern(Scope::default(), TEXT);
        statement.description.set(told(parameter)).unwrap();
        (registry, statement)
    }

    fn arrives(statement: &Rc<Statement>, registry: &mut Registry) -> Rc<Statement> {
        let mut front = Frontend::default();
        front.statements.add(b"s", Rc::clone(statement));
        let bytes = rmp_serde::to_vec_named(&SavedFrontend::of(&front)).unwrap();
        let front = rmp_serde::from_slice::<SavedFrontend>(&bytes).unwrap().restore(registry);
        Rc::clone(front.statements.get(b"s").unwrap())
    }

    #[test]
    fn what_a_client_was_told_of_a_statement_goes_with_it() {
        let (_, mine) = worker(23);
        let mut elsewhere = Registry::default();
        let there = arrives(&mine, &mut elsewhere);
        assert!(there.id == mine.id && there.description.get().unwrap().agrees(&told(23)));
        assert!(Rc::ptr_eq(&there, &elsewhere.intern(Scope::default(), TEXT)), "it is that worker's own");
    }

    #[test]
    fn where_others_were_told_something_else_the_statement_is_retired() {
        let ((_, mine), (mut elsewhere, theirs)) = (worker(23), worker(25));
        let there = arrives(&mine, &mut elsewhere);
        assert!(there.id == theirs.id && there.description.get().unwrap().agrees(&told(23)));
        assert!(theirs.description.get().unwrap().agrees(&told(25)));
        assert!(elsewhere.current(&there).id != there.id, "whoever uses it next prepares it anew");
    }

    #[test]
    fn a_batch_that_could_be_sent_again_still_can() {
        let (_, statement) = worker(23);
        let requests = vec![Request::Bind(Some(statement.id)), Request::Sync];
        let retry = Retry { bytes: b"B".to_vec(), statement: Some(Rc::clone(&statement)), requests: requests.clone() };
        let back = Backend { retry, ..Backend::default() };
        let bytes = rmp_serde::to_vec_named(&SavedBackend::of(&back)).unwrap();
        let mut there = Backend::default();
        rmp_serde::from_slice::<SavedBackend>(&bytes).unwrap().restore(&mut there, &mut Registry::default());
        let Retry { bytes, statement: named, requests: asked } = there.retry;
        assert_eq!((bytes, named.unwrap().id, asked), (b"B".to_vec(), statement.id, requests));
    }
}
