//! What a client may send before its first typed message: StartupMessage, SSLRequest, GSSENCRequest, CancelRequest.

use super::cursor::{Cursor, Malformed};
use super::header::hex_prefix;

/// Protocol 3.0 as a StartupMessage carries it.
pub const PROTOCOL_3_0: u32 = 0x0003_0000;
/// The code of a CancelRequest.
pub const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;

/// The longest StartupMessage, in bytes: a larger length has a second byte that is not zero, which PgBouncer takes for garbage.
const MAX_STARTUP: u32 = 65_535;

/// A first packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FirstPacket {
    /// Asks for TLS.
    SslRequest,
    /// Asks for GSSAPI encryption.
    GssEncRequest,
    /// Cancels the query of the client with this key.
    Cancel([u8; 8]),
    /// A CancelRequest whose key is not eight bytes long.
    BadCancel,
    /// Begins a session.
    Startup(Startup),
}

/// A StartupMessage of protocol 3.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Startup {
    /// Minor protocol version asked for.
    pub minor: u16,
    /// Parameters in order.
    pub parameters: Vec<(String, String)>,
}

/// Why the first packet is refused. `Display` is the text the client gets.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StartupError {
    /// Not a packet of any protocol version we know.
    #[error("bad packet header: '{0}'")]
    BadHeader(String),
    /// Protocol 2.0.
    #[error("old V2 protocol not supported")]
    OldProtocol,
    /// A `p` message.
    #[error("client password pkt before startup packet")]
    EarlyPassword,
    /// Bytes after the terminator, or none there.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    NoTerminator,
    /// Some other typed message, well-formed: the connection is closed without a word.
    #[error("bad packet")]
    OtherMessage,
}

/// Reads the first packet off the front of `bytes`. `None` when more bytes are needed; else the packet and its length.
pub fn first_packet(bytes: &[u8]) -> Result<Option<(FirstPacket, usize)>, StartupError> {
    let bad = || StartupError::BadHeader(hex_prefix(bytes));
    if let Some(&tag) = bytes.first()
        && tag != 0
    {
        return typed_message(tag, bytes).map_or(Ok(None), Err);
    }
    let Some(length) = bytes.first_chunk().map(|b| u32::from_be_bytes(*b)) else { return Ok(None) };
    if !(8..=MAX_STARTUP).contains(&length) {
        return Err(bad());
    }
    let Some(code) = bytes.get(4..8).and_then(|b| b.first_chunk()).map(|b| u32::from_be_bytes(*b)) else { return Ok(None) };
    match code {
        SSL_REQUEST | GSSENC_REQUEST | CANCEL_REQUEST => {}
        _ if code >> 16 == 3 => {}
        _ if code == 0x2_0000 => return Err(StartupError::OldProtocol),
        _ => return Err(bad()),
    }
    let length = length as usize;
    let Some(body) = bytes.get(8..length) else { return Ok(None) };
    let packet = match (code, body.len()) {
        (SSL_REQUEST, 0) => FirstPacket::SslRequest,
        (GSSENC_REQUEST, 0) => FirstPacket::GssEncRequest,
        (SSL_REQUEST | GSSENC_REQUEST, _) => return Err(bad()),
        (CANCEL_REQUEST, _) => body.try_into().map_or(FirstPacket::BadCancel, FirstPacket::Cancel),
        _ => FirstPacket::Startup(Startup { minor: (code & 0xffff) as u16, parameters: parameters(body)? }),
    };
    Ok(Some((packet, length)))
}

/// A client that begins with a typed message: a password, something else that is well-formed, or garbage.
fn typed_message(tag: u8, bytes: &[u8]) -> Option<StartupError> {
    let length = bytes.get(1..5).and_then(|b| b.first_chunk()).map(|b| u32::from_be_bytes(*b))?;
    Some(match (tag, length) {
        (b'p', 4..=MAX_STARTUP) => StartupError::EarlyPassword,
        (_, 4..=MAX_STARTUP) => StartupError::OtherMessage,
        _ => StartupError::BadHeader(hex_prefix(bytes)),
    })
}

fn parameters(body: &[u8]) -> Result<Vec<(String, String)>, StartupError> {
    let mut c = Cursor::new(body);
    let mut parameters = Vec::new();
    let read = |c: &mut Cursor<'_>, field| c.cstr(field).map(|s| String::from_utf8_lossy(s).into_owned());
    loop {
        let name = read(&mut c, "parameter name").map_err(|Malformed(_)| StartupError::NoTerminator)?;
        if name.is_empty() {
            return if c.end("terminator").is_ok() { Ok(parameters) } else { Err(StartupError::NoTerminator) };
        }
        let value = read(&mut c, "parameter value").map_err(|Malformed(_)| StartupError::NoTerminator)?;
        parameters.push((name, value));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::wire::encode;

    fn startup_packet(parameters: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        encode::startup(&mut out, parameters.iter().copied());
        out
    }

    #[test]
    fn a_startup_message_arrives_byte_by_byte() {
        let packet = startup_packet(&[("user", "joe"), ("database", "db")]);
        for cut in 0..packet.len() {
            assert_eq!(first_packet(&packet[..cut]), Ok(None), "after {cut} bytes");
        }
        let (first, length) = first_packet(&packet).unwrap().unwrap();
        assert_eq!(length, packet.len());
        let FirstPacket::Startup(startup) = first else { panic!("not a startup") };
        assert_eq!(startup.parameters, [("user".into(), "joe".into()), ("database".into(), "db".into())]);
    }

    #[test]
    fn what_is_not_a_first_packet_is_refused_at_once() {
        let refused = |bytes: &[u8]| first_packet(bytes).unwrap_err().to_string();
        assert_eq!(refused(b"\0\0\0\x04"), "bad packet header: '00000004'");
        assert_eq!(refused(b"\0\x01\0\0"), "bad packet header: '00010000'");
        assert_eq!(refused(b"\0\0\0\x08\0\x04\0\0"), "bad packet header: '0000000800040000'");
        assert_eq!(refused(b"\0\0\0\x08\0\x02\0\0"), "old V2 protocol not supported");
        assert_eq!(refused(b"GET / HTTP/1.1\r\n"), "bad packet header: '474554202f204854'");
        assert_eq!(refused(b"p\0\0\0\x05\0"), "client password pkt before startup packet");
        assert_eq!(refused(b"Q\0\0\0\x05\0"), "bad packet");
        assert_eq!(refused(b"\0\0\0\x0c\0\x03\0\0user"), "invalid startup packet layout: expected terminator as last byte");
        assert_eq!(refused(b"\0\0\0\x0a\0\x03\0\0\0x"), "invalid startup packet layout: expected terminator as last byte");
    }

    #[test]
    fn cancel_requests_carry_eight_bytes() {
        let packet = encode::cancel_request(*b"12345678");
        assert_eq!(first_packet(&packet), Ok(Some((FirstPacket::Cancel(*b"12345678"), 16))));
        assert_eq!(first_packet(b"\0\0\0\x0a\x04\xd2\x16\x2eab"), Ok(Some((FirstPacket::BadCancel, 10))));
    }
}
