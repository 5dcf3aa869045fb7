//! The header by which a proxy says for whom it connects: PROXY protocol, versions 1 and 2.
//!
//! It comes before anything else. Its specification is HAProxy's `doc/proxy-protocol.txt`. What stands in it is believed, so it is read only from
//! peers that are known to be proxies.

use super::cursor::{Cursor, Malformed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest line of version 1, its end included.
const MAX_LINE: usize = 107;

/// The longest body of version 2 that is taken: addresses and 1.5 KB of what a proxy has to add.
const MAX_BODY: usize = 2048;

/// For whom a proxy connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// For this client.
    Client(SocketAddr),
    /// For itself (a health check), or for somebody whose address it does not know: the connection's own address is the client's.
    Itself,
}

/// Why the first bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// Something else: a client that comes without a proxy, say.
    #[error("no PROXY header")]
    Missing,
    /// A header with something wrong in it: the field.
    #[error("malformed PROXY header: {0}")]
    Malformed(&'static str),
}

impl From<Malformed> for ProxyError {
    fn from(Malformed(field): Malformed) -> Self {
        Self::Malformed(field)
    }
}

/// Reads the header off the front of `bytes`. `None` when more bytes are needed; else what it says and its length.
pub fn header(bytes: &[u8]) -> Result<Option<(Source, usize)>, ProxyError> {
    let begins = |mark: &[u8]| bytes.iter().zip(mark).all(|(a, b)| a == b);
    if begins(SIGNATURE) {
        version_2(bytes)
    } else if begins(b"PROXY ") {
        version_1(bytes)
    } else {
        Err(ProxyError::Missing)
    }
}

/// `PROXY TCP4 192.0.2.1 192.0.2.2 56324 6432` and CR LF.
fn version_1(bytes: &[u8]) -> Result<Option<(Source, usize)>, ProxyError> {
    let seen = &bytes[..bytes.len().min(MAX_LINE)];
    let Some(end) = seen.windows(2).position(|pair| pair == b"\r\n") else {
        return if seen.len() < MAX_LINE { Ok(None) } else { Err(ProxyError::Malformed("end of line")) };
    };
    let line = std::str::from_utf8(&seen[..end]).map_err(|_| ProxyError::Malformed("line"))?;
    let mut words = line.split(' ').skip(1);
    let mut next = |field| words.next().ok_or(ProxyError::Malformed(field));
    let is_v4 = match next("protocol")? {
        "TCP4" => true,
        "TCP6" => false,
        // Whatever follows is to be ignored.
        "UNKNOWN" => return Ok(Some((Source::Itself, end + 2))),
        _ => return Err(ProxyError::Malformed("protocol")),
    };
    let address = |word: &str, field| {
        let address = word.parse::<IpAddr>().ok().filter(|address| address.is_ipv4() == is_v4);
        address.ok_or(ProxyError::Malformed(field))
    };
    let source = address(next("source address")?, "source address")?;
    address(next("destination address")?, "destination address")?;
    let source_port = port(next("source port")?, "source port")?;
    port(next("destination port")?, "destination port")?;
    match words.next() {
        None => Ok(Some((client(source, source_port), end + 2))),
        Some(_) => Err(ProxyError::Malformed("end of line")),
    }
}

/// Decimal, without a sign or leading zeros.
fn port(word: &str, field: &'static str) -> Result<u16, ProxyError> {
    let plain = word.bytes().all(|b| b.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| plain).ok_or(ProxyError::Malformed(field))
}

/// Signature, version and command, family and protocol, length, addresses, and fields (TLVs) that are not looked at.
fn version_2(bytes: &[u8]) -> Result<Option<(Source, usize)>, ProxyError> {
    let Some((head, rest)) = bytes.split_at_checked(SIGNATURE.len() + 4) else {
        return match bytes.get(SIGNATURE.len()) {
            Some(version) if version >> 4 != 2 => Err(ProxyError::Malformed("version")),
            _ => Ok(None),
        };
    };
    let mut head = Cursor::new(&head[SIGNATURE.len()..]);
    let (version, family) = (head.u8("version")?, head.u8("family")?);
    let length = usize::from(head.u16("length")?);
    if version >> 4 != 2 {
        return Err(ProxyError::Malformed("version"));
    }
    if length > MAX_BODY {
        return Err(ProxyError::Malformed("length"));
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    let source = match version & 0xf {
        0 => Source::Itself,
        1 => sender(family, body)?,
        _ => return Err(ProxyError::Malformed("command")),
    };
    Ok(Some((source, SIGNATURE.len() + 4 + length)))
}

fn sender(family: u8, body: &[u8]) -> Result<Source, ProxyError> {
    let mut body = Cursor::new(body);
    let both: (IpAddr, IpAddr) = match family {
        0x11 => (v4(&mut body)?, v4(&mut body)?),
        0x21 => (v6(&mut body)?, v6(&mut body)?),
        // A Unix socket's client, or somebody unknown: no address that could be compared with anything.
        0x31 => return body.bytes(216, "addresses").map(|_| Source::Itself).map_err(Into::into),
        0x00 => return Ok(Source::Itself),
        _ => return Err(ProxyError::Malformed("family")),
    };
    let source_port = body.u16("source port")?;
    body.u16("destination port")?;
    Ok(client(both.0, source_port))
}

fn v4(body: &mut Cursor<'_>) -> Result<IpAddr, Malformed> {
    body.u32("address").map(|bits| Ipv4Addr::from(bits).into())
}

fn v6(body: &mut Cursor<'_>) -> Result<IpAddr, Malformed> {
    let mut octets = [0; 16];
    octets.copy_from_slice(body.bytes(16, "address")?);
    Ok(Ipv6Addr::from(octets).into())
}

/// An IPv4 address in IPv6 clothes is the IPv4 one.
fn client(address: IpAddr, port: u16) -> Source {
    Source::Client(SocketAddr::new(address.to_canonical(), port))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([0x20 | command, family]);
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn said(bytes: &[u8]) -> Result<String, String> {
        match header(bytes) {
            Ok(Some((Source::Client(address), length))) => {
                assert_eq!(length, bytes.len());
                Ok(address.to_string())
            }
            Ok(Some((Source::Itself, length))) => {
                assert_eq!(length, bytes.len());
                Ok("itself".to_owned())
            }
            Ok(None) => Ok("more".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    const TCP4: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0x12, 0x34, 0x19, 0x20];

    #[test]
    fn both_versions_name_the_client() {
        let mut tcp6 = [0; 36];
        tcp6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        tcp6[15] = 1;
        tcp6[33] = 80;
        let mapped = [&[0_u8; 10][..], &[0xff, 0xff, 10, 0, 0, 1], &[0; 16], &[0, 7, 0, 8]].concat();
        for (bytes, expected) in [
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 6432\r\n".to_vec(), "192.0.2.1:56324"),
            (b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n".to_vec(), "[2001:db8::1]:1"),
            (b"PROXY TCP6 ::ffff:10.0.0.1 ::1 1 2\r\n".to_vec(), "10.0.0.1:1"),
            (b"PROXY UNKNOWN\r\n".to_vec(), "itself"),
            (b"PROXY UNKNOWN ffff:f...f:ffff nonsense 65535 65535\r\n".to_vec(), "itself"),
            (v2(1, 0x11, &TCP4), "192.0.2.1:4660"),
            (v2(1, 0x11, &[&TCP4[..], b"\x04\0\x03pad"].concat()), "192.0.2.1:4660"),
            (v2(1, 0x21, &tcp6), "[2001:db8::1]:80"),
            (v2(1, 0x21, &mapped), "10.0.0.1:7"),
            (v2(1, 0x31, &[b'x'; 216]), "itself"),
            (v2(1, 0x00, b""), "itself"),
            (v2(1, 0x00, b"whatever"), "itself"),
            (v2(0, 0x11, &TCP4), "itself"),
            (v2(0, 0x00, b""), "itself"),
        ] {
            assert_eq!(said(&bytes).as_deref(), Ok(expected), "{bytes:?}");
            for cut in 0..bytes.len() {
                assert_eq!(header(&bytes[..cut]), Ok(None), "{bytes:?} after {cut} bytes");
            }
            let followed = [&bytes[..], b"\0\0\0\x08"].concat();
            assert_eq!(header(&followed).unwrap().unwrap().1, bytes.len());
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(93));
        assert_eq!(long.len(), 109);
        for (bytes, expected) in [
            (b"\0\0\0\x08\x04\xd2\x16\x2f".to_vec(), "no PROXY header"),
            (b"GET / HTTP/1.1\r\n".to_vec(), "no PROXY header"),
            (b"PROXYTCP4".to_vec(), "no PROXY header"),
            (b"PROXY \r\n".to_vec(), "malformed PROXY header: protocol"),
            (b"PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n".to_vec(), "malformed PROXY header: protocol"),
            (b"PROXY TCP4 ::1 2.2.2.2 1 2\r\n".to_vec(), "malformed PROXY header: source address"),
            (b"PROXY TCP4 host 2.2.2.2 1 2\r\n".to_vec(), "malformed PROXY header: source address"),
            (b"PROXY TCP4 1.1.1.1 2.2.2 1 2\r\n".to_vec(), "malformed PROXY header: destination address"),
            (b"PROXY TCP4 1.1.1.1  2.2.2.2 1 2\r\n".to_vec(), "malformed PROXY header: destination address"),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n".to_vec(), "malformed PROXY header: source port"),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n".to_vec(), "malformed PROXY header: source port"),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n".to_vec(), "malformed PROXY header: source port"),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n".to_vec(), "malformed PROXY header: destination port"),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n".to_vec(), "malformed PROXY header: end of line"),
            (b"PROXY TCP4 \xff\r\n".to_vec(), "malformed PROXY header: line"),
            (long.into_bytes(), "malformed PROXY header: end of line"),
            ([&SIGNATURE[..], b"\x11"].concat(), "malformed PROXY header: version"),
            ([&SIGNATURE[..], b"\x11\x11\0\0"].concat(), "malformed PROXY header: version"),
            (v2(2, 0x11, &TCP4), "malformed PROXY header: command"),
            (v2(1, 0x12, &TCP4), "malformed PROXY header: family"),
            (v2(1, 0x41, &TCP4), "malformed PROXY header: family"),
            (v2(1, 0x11, &TCP4[..11]), "malformed PROXY header: destination port"),
            (v2(1, 0x11, b""), "malformed PROXY header: address"),
            (v2(1, 0x31, &[0; 215]), "malformed PROXY header: addresses"),
            ([&SIGNATURE[..], b"\x21\x11\x08\x01"].concat(), "malformed PROXY header: length"),
        ] {
            assert_eq!(said(&bytes), Err(expected.to_owned()), "{bytes:?}");
        }
    }
}
