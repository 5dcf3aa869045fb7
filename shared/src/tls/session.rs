//! A session after its handshake: what the peer has sent is opened, what it is sent is sealed.
//!
//! Sans-IO. [`Session::open`] takes bytes as they came from the socket and leaves what they carried; [`Session::seal`] makes records. Everything
//! else that TLS does after a handshake happens in between and shows only in [`Session::take_replies`]: new keys (KeyUpdate), tickets from
//! a server, refused renegotiation, alerts.

use super::alert::Alert;
use super::direction::{Direction, HEADER, MOST_PLAIN, content};
use serde::{Deserialize, Serialize};

/// How many records without content may follow each other: each costs as much as one with.
const MOST_EMPTY: u8 = 32;

/// The longest message behind a handshake that is taken: a ticket, with room to spare.
const LONGEST_MESSAGE: usize = 64 * 1024;

/// After so many records AES keys are replaced (RFC 8446, 5.5: 2^24.5).
const WORN_OUT: u64 = 1 << 24;

const HELLO_REQUEST: u8 = 0;
const CLIENT_HELLO: u8 = 1;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// Which side of the session is ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Role {
    /// The peer is a client.
    Server,
    /// The peer is PostgreSQL.
    Client,
}

/// How far the bytes of a peer have been opened.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened {
    /// How many bytes of content stand at the beginning of the buffer now.
    pub plain: usize,
    /// Where in the buffer the beginning of a record lies whose end has not come; it reaches to the buffer's end.
    pub rest: usize,
    /// The session is over in this direction.
    pub end: Option<End>,
}

/// How a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The peer will send no more.
    Closed,
    /// The peer says why it ends it.
    Refused(Alert),
    /// What it sent is wrong; it is being told.
    Broken(Alert),
}

/// See the module.
#[derive(Serialize, Deserialize)]
pub struct Session {
    role: Role,
    sending: Direction,
    receiving: Direction,
    /// The beginning of a handshake message whose end has not come.
    message: Vec<u8>,
    /// Records for the peer that no content of ours asked for.
    replies: Vec<u8>,
    /// The peer has asked for new keys, which go before the next content.
    update_owed: bool,
    empty: u8,
    close_sent: bool,
}

impl Session {
    pub(super) fn new(role: Role, sending: Direction, receiving: Direction) -> Self {
        Self { role, sending, receiving, message: Vec::new(), replies: Vec::new(), update_owed: false, empty: 0, close_sent: false }
    }

    /// Opens every record that `data` holds in full, in place, and moves what they carried to its front.
    pub fn open(&mut self, data: &mut [u8]) -> Opened {
        let (mut plain, mut at) = (0, 0);
        loop {
            let end = match self.open_record(data, at) {
                Ok(Some((kind, content, next))) => {
                    at = next;
                    match self.take(kind, data, content, &mut plain) {
                        Ok(None) => continue,
                        Ok(Some(end)) => end,
                        Err(alert) => self.broken(alert),
                    }
                }
                Ok(None) => return Opened { plain, rest: at, end: None },
                Err(alert) => self.broken(alert),
            };
            return Opened { plain, rest: data.len(), end: Some(end) };
        }
    }

    /// The record at `at`: its type, where its content lies, where the next one begins. `None`: its end has not come.
    #[allow(clippy::type_complexity)] // the three facts of the line above
    fn open_record(&mut self, data: &mut [u8], at: usize) -> Result<Option<(u8, std::ops::Range<usize>, usize)>, Alert> {
        let Some(header) = data.get(at..at + HEADER) else { return Ok(None) };
        let body = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if header[1] != 3 {
            return Err(Alert::PROTOCOL_VERSION);
        }
        // In TLS 1.3 everything is sealed as application data, and nothing comes unsealed any more.
        if self.receiving.is_tls13() && header[0] != content::APPLICATION_DATA {
            return Err(Alert::UNEXPECTED_MESSAGE);
        }
        if body > self.receiving.most_body() {
            return Err(Alert::RECORD_OVERFLOW);
        }
        let next = at + HEADER + body;
        let Some(record) = data.get_mut(at..next) else { return Ok(None) };
        let (kind, content) = self.receiving.open(record)?;
        Ok(Some((kind, at + content.start..at + content.end, next)))
    }

    fn take(
        &mut self,
        kind: u8,
        data: &mut [u8],
        content: std::ops::Range<usize>,
        plain: &mut usize,
    ) -> Result<Option<End>, Alert> {
        if content.is_empty() {
            self.empty += 1;
            let may_be_empty = kind == content::APPLICATION_DATA && self.empty < MOST_EMPTY;
            return if may_be_empty { Ok(None) } else { Err(Alert::UNEXPECTED_MESSAGE) };
        }
        // A message that was begun goes on in the next record.
        if kind != content::HANDSHAKE && !self.message.is_empty() {
            return Err(Alert::UNEXPECTED_MESSAGE);
        }
        match kind {
            content::APPLICATION_DATA => {
                self.empty = 0;
                data.copy_within(content.clone(), *plain);
                *plain += content.len();
                Ok(None)
            }
            content::ALERT => self.alerted(&data[content]),
            content::HANDSHAKE => self.handshake(&data[content]).map(|()| None),
            _ => Err(Alert::UNEXPECTED_MESSAGE),
        }
    }

    fn alerted(&mut self, alert: &[u8]) -> Result<Option<End>, Alert> {
        let &[level, description] = alert else { return Err(Alert::DECODE_ERROR) };
        match Alert(description) {
            Alert::CLOSE_NOTIFY => Ok(Some(End::Closed)),
            // The only warning of TLS 1.3, and what a server says that will not renegotiate.
            Alert::USER_CANCELED => self.ignore(),
            _ if level == 1 && !self.receiving.is_tls13() => self.ignore(),
            alert => Ok(Some(End::Refused(alert))),
        }
    }

    /// Nothing is to be done, but not for ever.
    fn ignore(&mut self) -> Result<Option<End>, Alert> {
        self.empty += 1;
        if self.empty < MOST_EMPTY { Ok(None) } else { Err(Alert::UNEXPECTED_MESSAGE) }
    }

    /// A piece of the messages that may still come when the handshake is over.
    fn handshake(&mut self, piece: &[u8]) -> Result<(), Alert> {
        self.message.extend_from_slice(piece);
        while let Some(&[kind, high, middle, low]) = self.message.first_chunk() {
            let length = 4 + usize::from(high) * 65_536 + usize::from(middle) * 256 + usize::from(low);
            if length > LONGEST_MESSAGE {
                return Err(Alert::DECODE_ERROR);
            }
            if self.message.len() < length {
                break;
            }
            let message: Vec<u8> = self.message.drain(..length).collect();
            self.handshake_message(kind, &message[4..])?;
        }
        if self.message.is_empty() {
            self.message = Vec::new();
        }
        Ok(())
    }

    fn handshake_message(&mut self, kind: u8, body: &[u8]) -> Result<(), Alert> {
        match (kind, self.role, self.receiving.is_tls13()) {
            (KEY_UPDATE, _, true) => self.keys_updated(body),
            (NEW_SESSION_TICKET, Role::Client, true) => {
                self.ignore()?;
                Ok(())
            }
            (HELLO_REQUEST, Role::Client, false) | (CLIENT_HELLO, Role::Server, false) => {
                self.ignore()?;
                self.reply(content::ALERT, &Alert::NO_RENEGOTIATION.encode())
            }
            _ => Err(Alert::UNEXPECTED_MESSAGE),
        }
    }

    fn keys_updated(&mut self, body: &[u8]) -> Result<(), Alert> {
        let asked = match body {
            [0] => false,
            [1] => true,
            _ => return Err(Alert::DECODE_ERROR),
        };
        // What follows in this record would be under the old keys.
        if !self.message.is_empty() {
            return Err(Alert::UNEXPECTED_MESSAGE);
        }
        self.ignore()?;
        self.receiving.update()?;
        // However often it asks before we send: one answer is enough (RFC 8446, 4.6.3).
        self.update_owed |= asked;
        Ok(())
    }

    fn reply(&mut self, kind: u8, content: &[u8]) -> Result<(), Alert> {
        let mut replies = std::mem::take(&mut self.replies);
        let sealed = self.sending.seal(kind, content, &mut replies);
        self.replies = replies;
        sealed
    }

    /// What the peer sent is wrong: it is told, and nothing more is taken from it.
    fn broken(&mut self, alert: Alert) -> End {
        if !self.close_sent {
            self.close_sent = true;
            // A key that does not work leaves nothing to say.
            let _ = self.reply(content::ALERT, &alert.encode());
        }
        End::Broken(alert)
    }

    /// Appends records that carry `plain`. `Err`: nothing can be sent any more.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Alert> {
        for piece in plain.chunks(MOST_PLAIN) {
            let worn_out = self.sending.is_tls13() && self.sending.cipher().wears_out() && self.sending.sequence() >= WORN_OUT;
            if self.update_owed || worn_out {
                self.update_owed = false;
                self.sending.seal(content::HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 0], out)?;
                self.sending.update()?;
            }
            self.sending.seal(content::APPLICATION_DATA, piece, out)?;
        }
        Ok(())
    }

    /// Appends what the peer is to be sent although nobody asked for it: refusals and alerts. Before anything that is sealed later.
    pub fn take_replies(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.replies);
        self.replies = Vec::new();
    }

    /// Appends the announcement that nothing more will be sent, once.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.close_sent, true) {
            let _ = self.sending.seal(content::ALERT, &Alert::CLOSE_NOTIFY.encode(), out);
        }
    }

    /// Keys of TLS 1.2 cannot be replaced: a session that could be opened anew is not to go on with these.
    pub fn is_worn_out(&self) -> bool {
        let worn =
            |direction: &Direction| !direction.is_tls13() && direction.cipher().wears_out() && direction.sequence() >= WORN_OUT;
        worn(&self.sending) || worn(&self.receiving)
    }

    /// Drops what can be made again: the session rests.
    pub fn rest(&mut self) {
        self.sending.rest();
        self.receiving.rest();
    }
}
