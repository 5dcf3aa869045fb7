//! Records of a peer that keeps to the keys and to nothing else, or not even to them.

use super::cut;
use crate::tls::alert::Alert;
use crate::tls::direction::{Direction, HEADER, MOST_PLAIN, Version, content};
use crate::tls::session::{End, Role, Session};
use crate::tls::suite::{Cipher, IV_BYTES, Keys, TrafficSecret};

/// So many records without content may follow each other, and are still no reason to end a session.
const QUIET: usize = 31;

const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// The input: a byte that says which session it is, and turns of the peer's, each a byte that says what it does and with how many of the bytes that
/// follow. What it sends is read at once, and again in pieces, with a move to another process between them.
pub fn records(data: &[u8]) {
    let Some((&how, turns)) = data.split_first() else { return };
    let mut peer = Peer::new(how);
    peer.take(turns);
    let whole = hear(how, std::iter::once(&peer.wire[..]));
    let pieces = hear(how, cut(&peer.wire));
    assert!(whole == pieces, "how a session goes on depends on how its bytes are cut: {:?}, {:?}", whole.end, pieces.end);
    assert!(peer.content.starts_with(&whole.plain), "content that was not sent, or not there");
    if peer.is_honest {
        assert!((whole.end, whole.plain.len()) == (None, peer.content.len()), "what is right is refused: {:?}", whole.end);
    }
    assert_understood(direction(how, THEIRS), &whole);
}

/// One byte of each direction's keys.
const OURS: u8 = 1;
const THEIRS: u8 = 2;

fn direction(how: u8, towards: u8) -> Direction {
    let cipher = [Cipher::Aes128Gcm, Cipher::Aes256Gcm, Cipher::Chacha20Poly1305][usize::from(how % 3)];
    // One record was the handshake's last; or so many that keys wear out.
    let sequence = if how & 0x20 == 0 { 1 } else { (1 << 24) - 1 };
    if how & 0x80 == 0 {
        let keys = Keys { key: vec![towards; cipher.algorithm().key_len()], iv: [towards; IV_BYTES] };
        return Direction::new(Version::Tls12, cipher, keys, sequence);
    }
    let secret = TrafficSecret(vec![towards; if cipher == Cipher::Aes256Gcm { 48 } else { 32 }]);
    let keys = secret.keys(cipher).unwrap();
    Direction::new(Version::Tls13(secret), cipher, keys, sequence)
}

fn session(how: u8) -> Session {
    let role = if how & 0x40 == 0 { Role::Server } else { Role::Client };
    Session::new(role, direction(how, THEIRS), direction(how, OURS))
}

/// Who sends records to the session.
struct Peer {
    sending: Direction,
    wire: Vec<u8>,
    /// What a session that is not at an end would hear.
    content: Vec<u8>,
    /// It has done nothing wrong.
    is_honest: bool,
    quiet: usize,
    has_been_long: bool,
}

impl Peer {
    fn new(how: u8) -> Self {
        let sending = direction(how, OURS);
        Self { sending, wire: Vec::new(), content: Vec::new(), is_honest: true, quiet: 0, has_been_long: false }
    }

    fn take(&mut self, mut turns: &[u8]) {
        while let Some((&turn, rest)) = turns.split_first() {
            let (bytes, rest) = rest.split_at(usize::from(turn >> 3).min(rest.len()));
            turns = rest;
            self.turn(turn & 7, bytes);
        }
    }

    fn turn(&mut self, what: u8, bytes: &[u8]) {
        match what {
            0 => self.says(bytes),
            // The longest record, and one that is too long.
            1 if !self.has_been_long => {
                self.has_been_long = true;
                let excess = usize::from(bytes.first() == Some(&0));
                self.is_honest &= excess == 0;
                self.says(&vec![0x5a; MOST_PLAIN + excess]);
            }
            2 => self.seals(content::HANDSHAKE, bytes),
            3 => self.seals(content::ALERT, bytes),
            4 => {
                if let Some((&kind, bytes)) = bytes.split_first() {
                    self.seals(kind, bytes);
                }
            }
            5 => {
                let asks = bytes.first().copied().unwrap_or(0);
                self.sending.seal(content::HANDSHAKE, &[24, 0, 0, 1, asks], &mut self.wire).unwrap();
                self.is_honest = self.is_honest && self.sending.is_tls13() && asks < 2 && self.quiet < QUIET;
                self.quiet += 1;
                let _ = self.sending.update();
            }
            6 => {
                self.wire.extend_from_slice(bytes);
                self.is_honest &= bytes.is_empty();
            }
            7 => {
                let start = self.wire.len();
                self.seals(content::APPLICATION_DATA, bytes);
                let at = bytes.first().map_or(0, |&byte| usize::from(byte) % (self.wire.len() - start));
                self.wire[start + at] ^= 1 + bytes.get(1).copied().unwrap_or(0) % 255;
            }
            _ => {}
        }
    }

    fn says(&mut self, bytes: &[u8]) {
        self.quiet = if bytes.is_empty() { self.quiet + 1 } else { 0 };
        self.is_honest &= self.quiet < QUIET;
        self.content.extend_from_slice(bytes);
        self.sending.seal(content::APPLICATION_DATA, bytes, &mut self.wire).unwrap();
    }

    /// What only some peers may say, at some times.
    fn seals(&mut self, kind: u8, bytes: &[u8]) {
        self.is_honest = false;
        let padded = if kind == 0 && self.sending.is_tls13() { bytes.iter().rposition(|byte| *byte != 0) } else { None };
        let (inner, length) = padded.map_or((kind, bytes.len()), |end| (bytes[end], end));
        if inner == content::APPLICATION_DATA {
            self.content.extend_from_slice(&bytes[..length]);
        }
        self.sending.seal(kind, bytes, &mut self.wire).unwrap();
    }
}

/// What a session has made of the bytes it was sent.
#[derive(PartialEq)]
struct Heard {
    plain: Vec<u8>,
    end: Option<End>,
    /// What it says to that, and "answer" if it may.
    said: Vec<u8>,
}

fn hear<'a>(how: u8, pieces: impl Iterator<Item = &'a [u8]>) -> Heard {
    let mut session = session(how);
    let (mut heard, mut kept) = (Heard { plain: Vec::new(), end: None, said: Vec::new() }, Vec::new());
    for piece in pieces {
        kept.extend_from_slice(piece);
        let opened = session.open(&mut kept);
        heard.plain.extend_from_slice(&kept[..opened.plain]);
        kept.drain(..opened.rest);
        heard.end = opened.end;
        if heard.end.is_some() {
            break;
        }
        session = postcard::from_bytes(&postcard::to_stdvec(&session).unwrap()).unwrap();
    }
    assert!(heard.end.is_some() || kept.len() < HEADER + MOST_PLAIN + 2048, "a whole record is kept");
    session.take_replies(&mut heard.said);
    if matches!(heard.end, None | Some(End::Closed)) {
        session.seal(b"answer", &mut heard.said).unwrap();
    }
    heard
}

/// Whatever the peer did, what it is sent is under the keys that it expects.
fn assert_understood(mut receiving: Direction, heard: &Heard) {
    let (mut wire, mut last) = (&mut heard.said.clone()[..], (0, Vec::new()));
    while !wire.is_empty() {
        let length = HEADER + usize::from(u16::from_be_bytes([wire[3], wire[4]]));
        let (record, rest) = wire.split_at_mut(length);
        let (kind, range) = receiving.open(record).expect("a record that its receiver cannot open");
        last = (kind, record[range].to_vec());
        if last == (content::HANDSHAKE, KEY_UPDATE.to_vec()) {
            receiving.update().unwrap();
        }
        wire = rest;
    }
    match heard.end {
        None | Some(End::Closed) => assert_eq!(last, (content::APPLICATION_DATA, b"answer".to_vec())),
        Some(End::Broken(alert)) => assert_eq!(last, (content::ALERT, alert.encode().to_vec())),
        Some(End::Refused(alert)) => assert_ne!(alert, Alert::CLOSE_NOTIFY),
    }
}
