//! A session at the console of another process.

use crate::{listen, privileges};
use shared::config::Settings;
use shared::wire::header::{self, HEADER_BYTES, Peek};
use shared::wire::{backend, encode};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The longest message that is read, in bytes.
const LONGEST: u32 = 16 * 1024 * 1024;

/// See the module.
pub(super) struct Session {
    stream: UnixStream,
    input: Vec<u8>,
}

/// What a command has led to.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// The columns' names.
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
    /// What it has said besides.
    pub(super) notices: Vec<String>,
    /// Its error, if it has failed.
    pub(super) error: Option<String>,
}

impl Answer {
    /// A column of every row.
    pub(super) fn column<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let at = self.columns.iter().position(|column| column == name);
        self.rows.iter().filter_map(move |row| row.get(at?).map(String::as_str))
    }
}

impl Session {
    /// Logs in to the fleet that runs on these settings. The error is a line for the user.
    pub(super) fn open(settings: &Settings) -> Result<Self, String> {
        if let Some(file) = listen::file(settings) {
            privileges::become_owner(&file)?;
        }
        let socket = listen::connect(settings).ok_or("unix_socket_dir is empty: the command must be given at the console")?;
        let socket =
            socket.map_err(|error| format!("the fleet cannot be reached at its Unix socket: {}", listen::reason(&error)))?;
        let mut session = Self { stream: OwnedFd::from(socket).into(), input: Vec::new() };
        let mut startup = Vec::new();
        encode::startup(&mut startup, [("user", "pgbouncer"), ("database", "pgbouncer")].into_iter());
        let lost = |error: io::Error| format!("the fleet's console does not answer: {}", listen::reason(&error));
        session.stream.write_all(&startup).map_err(lost)?;
        match session.answer(None).map_err(lost)? {
            Some(Answer { error: None, .. }) => Ok(session),
            Some(Answer { error: Some(error), .. }) => Err(format!("the fleet's console refuses: {error}")),
            None => Err("the fleet's console does not answer".to_owned()),
        }
    }

    /// Sends a command.
    pub(super) fn send(&mut self, command: &str) -> io::Result<()> {
        let mut message = Vec::new();
        encode::query(&mut message, command);
        self.stream.write_all(&message)
    }

    /// Reads up to the end of an answer. `None`: it is not there within `limit`, and is to be asked for again.
    pub(super) fn answer(&mut self, limit: Option<Duration>) -> io::Result<Option<Answer>> {
        self.stream.set_read_timeout(limit)?;
        loop {
            if let Some(answer) = self.take_answer()? {
                return Ok(Some(answer));
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.input.extend_from_slice(&buffer[..n]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The answer at the front of the input, if it is all there: up to ReadyForQuery, or to an error that ends the session.
    fn take_answer(&mut self) -> io::Result<Option<Answer>> {
        let (mut answer, mut at) = (Answer::default(), 0);
        loop {
            let header = match header::peek(&self.input[at..], LONGEST) {
                Peek::Header(header) => header,
                Peek::NeedMore => return Ok(None),
                Peek::Bad => return Err(malformed("a message's length")),
            };
            let Some(body) = self.input[at..].get(HEADER_BYTES..header.total) else { return Ok(None) };
            at += header.total;
            if answer.take(header.tag, body)? {
                self.input.drain(..at);
                return Ok(Some(answer));
            }
        }
    }
}

impl Answer {
    /// True: that was the last message.
    fn take(&mut self, tag: u8, body: &[u8]) -> io::Result<bool> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match tag {
            b'R' if body != [0; 4] => {
                self.error = Some("it asks for a password; run this as the user that the fleet runs as".to_owned());
                return Ok(true);
            }
            b'T' => {
                let columns = &mut self.columns;
                backend::row_description(body, |column| columns.push(text(column.name)))
                    .map_err(|error| malformed(&error.to_string()))?;
            }
            b'D' => self.rows.push(values(body).ok_or_else(|| malformed("a row"))?),
            b'N' => {
                let fields = backend::fields(body).map_err(|error| malformed(&error.to_string()))?;
                self.notices.push(text(fields.message));
            }
            b'E' => {
                let fields = backend::fields(body).map_err(|error| malformed(&error.to_string()))?;
                self.error = Some(text(fields.message));
                return Ok(fields.ends_connection());
            }
            b'Z' => return Ok(true),
            _ => {}
        }
        Ok(false)
    }
}

/// A DataRow's values; NULL is an empty text.
fn values(body: &[u8]) -> Option<Vec<String>> {
    let (count, mut rest) = body.split_first_chunk().map(|(count, rest)| (u16::from_be_bytes(*count), rest))?;
    let mut values = Vec::new();
    for _ in 0..count {
        let (length, behind) = rest.split_first_chunk()?;
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
        values.push(String::from_utf8_lossy(behind.get(..length)?).into_owned());
        rest = &behind[length..];
    }
    rest.is_empty().then_some(values)
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("malformed: {what}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use shared::wire::report;

    fn session() -> (Session, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Session { stream: ours, input: Vec::new() }, theirs)
    }

    #[test]
    fn an_answer_comes_byte_by_byte() {
        let (mut session, mut fleet) = session();
        let soon = Some(Duration::from_millis(1));
        let mut bytes = b"T\0\0\0\x20\0\x01clients\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0".to_vec();
        bytes.extend(b"D\0\0\0\x0c\0\x01\0\0\0\x0242D\0\0\0\x0a\0\x01\xff\xff\xff\xff");
        encode::command_complete(&mut bytes, "SHOW");
        encode::ready_for_query(&mut bytes, b'I');
        let (last, rest) = bytes.split_last().unwrap();
        for byte in rest {
            fleet.write_all(&[*byte]).unwrap();
            assert!(session.answer(soon).unwrap().is_none());
        }
        fleet.write_all(&[*last]).unwrap();
        let answer = session.answer(None).unwrap().unwrap();
        assert_eq!(answer.column("clients").collect::<Vec<_>>(), ["42", ""]);
        assert_eq!(answer.column("servers").count(), 0);
        assert!(answer.error.is_none() && session.input.is_empty());
    }

    #[test]
    fn errors_and_the_end() {
        let (mut session, mut fleet) = session();
        let mut bytes = Vec::new();
        report::error(&mut bytes, "08P01", "not now");
        encode::ready_for_query(&mut bytes, b'I');
        report::fatal(&mut bytes, "57P01", "server shutting down");
        fleet.write_all(&bytes).unwrap();
        drop(fleet);
        assert_eq!(session.answer(None).unwrap().unwrap().error.as_deref(), Some("not now"));
        assert_eq!(session.answer(None).unwrap().unwrap().error.as_deref(), Some("server shutting down"));
        assert_eq!(session.answer(None).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn nonsense_is_an_error() {
        for bytes in [&b"D\0\0\0\x08\0\x01\0\0"[..], b"D\0\0\0\x03", b"Z\xff\xff\xff\xff", b"D\0\0\0\x06\0\x01"] {
            let (mut session, mut fleet) = session();
            fleet.write_all(bytes).unwrap();
            assert_eq!(session.answer(None).unwrap_err().kind(), ErrorKind::InvalidData, "{bytes:?}");
        }
    }
}
