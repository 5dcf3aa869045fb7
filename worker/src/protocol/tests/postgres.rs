//! A model of PostgreSQL as far as the protocol goes: statements, portals, transactions, what an error skips, COPY.
//!
//! It takes bytes and answers bytes at once. Its "SQL" is a few words, and a row holds the text that was executed, so that an answer
//! tells which statement it belongs to. Source: PostgreSQL documentation, "Message Flow"; `tcop/postgres.c` where that is silent.

use shared::wire::cursor::Cursor;
use shared::wire::header::{self, HEADER_BYTES, Peek};
use shared::wire::{encode, frontend};
use std::collections::BTreeMap;

/// In what transaction the server is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Transaction {
    #[default]
    None,
    /// Extended-protocol messages came since the last Sync.
    Implicit,
    Block,
    Failed,
}

/// Who is copying in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Copy {
    Simple,
    Extended,
}

#[derive(Clone, Debug)]
struct Portal {
    text: Vec<u8>,
    /// Rows given so far; `None` when it can give no more.
    given: Option<u32>,
}

/// SQLSTATE, and the routine that raised it.
type Error = (&'static str, &'static str);

/// One backend.
#[derive(Clone, Default, Debug)]
pub(super) struct Postgres {
    input: Vec<u8>,
    pub(super) statements: BTreeMap<Vec<u8>, Vec<u8>>,
    portals: BTreeMap<Vec<u8>, Portal>,
    pub(super) transaction: Transaction,
    skipping: bool,
    copy: Option<Copy>,
}

impl Postgres {
    /// Takes bytes in any pieces; its answers are appended to `out`.
    pub(super) fn receive(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        while let Peek::Header(header) = header::peek(rest, u32::MAX) {
            let Some(body) = rest.get(HEADER_BYTES..header.total) else { break };
            self.message(header.tag, body, out);
            rest = &rest[header.total..];
        }
        self.input = rest.to_vec();
    }

    /// It has nothing to do and nothing to remember but its statements.
    pub(super) fn is_idle(&self) -> bool {
        self.input.is_empty() && self.transaction == Transaction::None && !self.skipping && self.copy.is_none()
    }

    /// It takes COPY data.
    pub(super) fn is_copying(&self) -> bool {
        self.copy.is_some()
    }

    fn message(&mut self, tag: u8, body: &[u8], out: &mut Vec<u8>) {
        match (tag, self.copy) {
            (b'd' | b'c' | b'f', Some(copy)) => return self.copy_message(copy, tag, body, out),
            // Data that comes late; Flush.
            (b'd' | b'c' | b'f' | b'H', None) | (b'H' | b'S', Some(_)) => return,
            (other, Some(_)) => panic!("{:?} during COPY", char::from(other)),
            _ => {}
        }
        if tag == b'S' {
            self.skipping = false;
            self.end_implicit();
            return self.ready(out);
        }
        if self.skipping {
            return;
        }
        match tag {
            b'Q' => self.simple(body, out),
            b'F' => {
                let answer = if self.transaction == Transaction::Failed { Err(("25P02", "")) } else { Ok(()) };
                match answer {
                    Ok(()) => encode::message(out, b'V', |b| b.extend_from_slice(&[0xff; 4])),
                    Err(error) => self.error(error, out),
                }
                self.end_implicit();
                self.ready(out);
            }
            _ => {
                if self.transaction == Transaction::None {
                    self.transaction = Transaction::Implicit;
                }
                if let Err(error) = self.extended(tag, body, out) {
                    self.error(error, out);
                    self.skipping = true;
                }
            }
        }
    }

    fn simple(&mut self, body: &[u8], out: &mut Vec<u8>) {
        self.statements.remove(&b""[..]);
        self.portals.remove(&b""[..]);
        let text = body.strip_suffix(b"\0").unwrap();
        let result = if text.is_empty() {
            encode::message(out, b'I', |_| ());
            Ok(())
        } else {
            text.split(|b| *b == b';').try_for_each(|command| self.simple_command(command, out))
        };
        if self.copy.is_some() {
            return;
        }
        if let Err(error) = result {
            self.error(error, out);
        }
        self.end_implicit();
        self.ready(out);
    }

    fn simple_command(&mut self, command: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        self.analyse(command)?;
        if command.starts_with(b"unbound") {
            return Err(("22P02", ""));
        }
        if command == b"copy in" {
            self.copy = Some(Copy::Simple);
            encode::message(out, b'G', |b| b.extend_from_slice(b"\0\0\0"));
            return Ok(());
        }
        let text = match command.strip_prefix(b"EXECUTE ").or_else(|| command.strip_prefix(b"execute ")) {
            Some(name) => self.statements.get(name).ok_or(("26000", ""))?.clone(),
            None => command.to_vec(),
        };
        if rows_of(&text).is_some() {
            row_description(&text, out);
        }
        let mut portal = Portal { text, given: Some(0) };
        self.run(&mut portal, 0, out)
    }

    /// What the parser and the analysis have to say.
    fn analyse(&self, text: &[u8]) -> Result<(), Error> {
        if text == b"syntax" {
            return Err(("42601", ""));
        }
        let ends = matches!(text, b"commit" | b"rollback" | b"");
        if self.transaction == Transaction::Failed && !ends { Err(("25P02", "")) } else { Ok(()) }
    }

    fn extended(&mut self, tag: u8, body: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        match tag {
            b'P' => {
                let parse = frontend::parse(body).unwrap();
                let text = &parse.identity[..parse.identity.iter().position(|b| *b == 0).unwrap()];
                if parse.name.is_empty() {
                    self.statements.remove(parse.name);
                }
                self.analyse(text)?;
                if self.statements.contains_key(parse.name) {
                    return Err(("42P05", ""));
                }
                self.statements.insert(parse.name.to_vec(), text.to_vec());
                encode::message(out, b'1', |_| ());
            }
            b'B' => {
                let bind = frontend::bind(body).unwrap();
                let text = self.statements.get(bind.statement).ok_or(("26000", ""))?.clone();
                self.analyse(&text)?;
                match &text[..] {
                    b"unbound" => return Err(("22P02", "")),
                    b"unbound since" => return Err(("42804", "")),
                    _ => {}
                }
                if bind.portal.is_empty() {
                    self.portals.remove(bind.portal);
                } else if self.portals.contains_key(bind.portal) {
                    return Err(("42P03", ""));
                }
                self.portals.insert(bind.portal.to_vec(), Portal { text, given: Some(0) });
                encode::message(out, b'2', |_| ());
            }
            b'D' => match frontend::target(body).unwrap() {
                frontend::Target::Statement(name) => {
                    let text = self.statements.get(name).ok_or(("26000", ""))?.clone();
                    self.described(&text)?;
                    encode::message(out, b't', |b| b.extend_from_slice(b"\0\0"));
                    row_description(&text, out);
                }
                frontend::Target::Portal(name) => {
                    let text = self.portals.get(name).ok_or(("34000", ""))?.text.clone();
                    self.described(&text)?;
                    row_description(&text, out);
                }
            },
            b'E' => {
                let mut c = Cursor::new(body);
                let name = c.cstr("portal").unwrap().to_vec();
                let most = c.u32("rows").unwrap();
                let mut portal = self.portals.get(&name).ok_or(("34000", ""))?.clone();
                self.analyse(&portal.text)?;
                if portal.text == b"copy in" && portal.given.is_some() {
                    self.copy = Some(Copy::Extended);
                    portal.given = None;
                    encode::message(out, b'G', |b| b.extend_from_slice(b"\0\0\0"));
                } else {
                    self.run(&mut portal, most, out)?;
                }
                if let Some(kept) = self.portals.get_mut(&name) {
                    *kept = portal;
                }
            }
            b'C' => {
                match frontend::target(body).unwrap() {
                    frontend::Target::Statement(name) => drop(self.statements.remove(name)),
                    frontend::Target::Portal(name) => drop(self.portals.remove(name)),
                }
                encode::message(out, b'3', |_| ());
            }
            other => panic!("a message {:?}", char::from(other)),
        }
        Ok(())
    }

    /// What returns rows cannot be described in a failed transaction.
    fn described(&self, text: &[u8]) -> Result<(), Error> {
        if rows_of(text).is_some() { self.analyse(text) } else { Ok(()) }
    }

    /// Executes what a portal holds, up to `most` rows (0: all).
    fn run(&mut self, portal: &mut Portal, most: u32, out: &mut Vec<u8>) -> Result<(), Error> {
        let text = portal.text.clone();
        if let Some(rows) = rows_of(&text) {
            let given = portal.given.unwrap_or(rows);
            let now = if most == 0 { rows - given } else { most.min(rows - given) };
            for _ in 0..now {
                encode::message(out, b'D', |b| {
                    b.extend_from_slice(b"\0\x01");
                    encode::length_prefixed(b, |_| ());
                    b.extend_from_slice(&text);
                });
            }
            portal.given = (given + now < rows).then_some(given + now);
            if portal.given.is_some() {
                encode::message(out, b's', |_| ());
            } else {
                encode::command_complete(out, "SELECT");
            }
            return Ok(());
        }
        if portal.given.take().is_none() {
            return Err(("55000", ""));
        }
        let tag = match &text[..] {
            b"" => {
                encode::message(out, b'I', |_| ());
                return Ok(());
            }
            b"fail" => return Err(("22012", "")),
            b"begin" => {
                self.transaction = Transaction::Block;
                "BEGIN"
            }
            b"commit" | b"rollback" => {
                let failed = self.transaction == Transaction::Failed;
                self.end();
                if failed || text == b"rollback" { "ROLLBACK" } else { "COMMIT" }
            }
            b"copy out" => {
                encode::message(out, b'H', |b| b.extend_from_slice(b"\0\0\0"));
                encode::message(out, b'd', |b| b.extend_from_slice(b"a line"));
                encode::message(out, b'c', |_| ());
                "COPY"
            }
            b"notice" => {
                encode::message(out, b'N', |b| b.extend_from_slice(b"SNOTICE\0C00000\0Mhear\0\0"));
                "DO"
            }
            b"discard all" if self.transaction == Transaction::Block => return Err(("25001", "")),
            b"discard all" => {
                self.statements.clear();
                self.portals.clear();
                "DISCARD ALL"
            }
            b"deallocate all" => {
                self.statements.retain(|name, _| name.is_empty());
                "DEALLOCATE ALL"
            }
            other => {
                let name = other.strip_prefix(b"deallocate ").unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(other)));
                self.statements.remove(name).ok_or(("26000", ""))?;
                "DEALLOCATE"
            }
        };
        encode::command_complete(out, tag);
        Ok(())
    }

    fn copy_message(&mut self, copy: Copy, tag: u8, body: &[u8], out: &mut Vec<u8>) {
        let result = match tag {
            b'd' if body == b"bad" => Err(("22P04", "")),
            b'd' => return,
            b'c' => Ok(()),
            _ => Err(("57014", "")),
        };
        self.copy = None;
        match result {
            Ok(()) => encode::command_complete(out, "COPY"),
            Err(error) => {
                self.error(error, out);
                self.skipping = copy == Copy::Extended;
            }
        }
        if copy == Copy::Simple {
            self.end_implicit();
            self.ready(out);
        }
    }

    fn error(&mut self, (code, routine): Error, out: &mut Vec<u8>) {
        if self.transaction == Transaction::Block {
            self.transaction = Transaction::Failed;
        }
        encode::message(out, b'E', |b| {
            for (field, value) in [(b'S', "ERROR"), (b'V', "ERROR"), (b'C', code), (b'M', "no"), (b'R', routine)] {
                b.push(field);
                encode::cstr(b, value.as_bytes());
            }
            b.push(0);
        });
    }

    /// Commits or rolls back what no BEGIN has opened.
    fn end_implicit(&mut self) {
        if matches!(self.transaction, Transaction::Implicit | Transaction::None) {
            self.end();
        }
    }

    fn end(&mut self) {
        self.transaction = Transaction::None;
        self.portals.clear();
    }

    fn ready(&self, out: &mut Vec<u8>) {
        encode::ready_for_query(
            out,
            match self.transaction {
                Transaction::None | Transaction::Implicit => b'I',
                Transaction::Block => b'T',
                Transaction::Failed => b'E',
            },
        );
    }
}

/// How many rows a text gives; `None` when it gives none by its nature.
fn rows_of(text: &[u8]) -> Option<u32> {
    let last = text.last().filter(|_| text.starts_with(b"select "))?;
    Some(u32::from(last - b'0'))
}

fn row_description(text: &[u8], out: &mut Vec<u8>) {
    match rows_of(text) {
        Some(_) => encode::message(out, b'T', |b| {
            b.extend_from_slice(b"\0\x01");
            encode::cstr(b, text);
            b.extend_from_slice(&[0; 18]);
        }),
        None => encode::message(out, b'n', |_| ()),
    }
}
