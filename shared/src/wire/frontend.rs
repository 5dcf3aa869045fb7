//! The messages from clients that pooling looks inside: those that name a prepared statement.

use super::cursor::{Cursor, Malformed};
use super::encode;

/// A Parse message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parse<'a> {
    /// The statement's name, empty for the unnamed one.
    pub name: &'a [u8],
    /// Query text with its zero byte, parameter count and types: what makes two statements the same.
    pub identity: &'a [u8],
}

/// Reads the body of a Parse.
pub fn parse(body: &[u8]) -> Result<Parse<'_>, Malformed> {
    let mut c = Cursor::new(body);
    let name = c.cstr("statement name")?;
    let identity = c.rest();
    c.cstr("query")?;
    let types = c.u16("number of parameter types")?;
    c.bytes(usize::from(types) * 4, "parameter types")?;
    c.end("end of Parse")?;
    Ok(Parse { name, identity })
}

/// A Bind message's names and the rest of its body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bind<'a> {
    /// Portal name.
    pub portal: &'a [u8],
    /// Statement name.
    pub statement: &'a [u8],
    /// Formats and values as far as they are there.
    pub rest: &'a [u8],
}

impl Bind<'_> {
    /// How many result formats it names: 0 or 1 hold for any number of columns. An error as well when the message is not all there.
    pub fn result_formats(&self) -> Result<u16, Malformed> {
        let mut c = Cursor::new(self.rest);
        let formats = c.u16("number of parameter formats")?;
        c.bytes(usize::from(formats) * 2, "parameter formats")?;
        for _ in 0..c.u16("number of parameters")? {
            match c.u32("length of a parameter")? {
                u32::MAX => {}
                length => drop(c.bytes(length as usize, "parameter")?),
            }
        }
        c.u16("number of result formats")
    }

    /// Every parameter is sent as text. False as well when the formats are not all there.
    pub fn sends_text(&self) -> bool {
        let mut c = Cursor::new(self.rest);
        let formats = c.u16("number of parameter formats").and_then(|count| c.bytes(usize::from(count) * 2, "parameter formats"));
        formats.is_ok_and(|formats| formats.iter().all(|&byte| byte == 0))
    }
}

/// Reads the front of a Bind's body, which need not be whole.
pub fn bind(body: &[u8]) -> Result<Bind<'_>, Malformed> {
    let mut c = Cursor::new(body);
    Ok(Bind { portal: c.cstr("portal name")?, statement: c.cstr("statement name")?, rest: c.rest() })
}

/// What a Describe or Close is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target<'a> {
    /// A prepared statement.
    Statement(&'a [u8]),
    /// A portal.
    Portal(&'a [u8]),
}

/// Reads the body of a Describe or Close.
pub fn target(body: &[u8]) -> Result<Target<'_>, Malformed> {
    let mut c = Cursor::new(body);
    let kind = c.u8("kind of target")?;
    let name = c.cstr("name of target")?;
    c.end("end of message")?;
    match kind {
        b'S' => Ok(Target::Statement(name)),
        b'P' => Ok(Target::Portal(name)),
        _ => Err(Malformed("kind of target")),
    }
}

/// Appends a Parse of `identity` under another name.
pub fn write_parse(out: &mut Vec<u8>, name: &[u8], identity: &[u8]) {
    encode::message(out, b'P', |b| {
        encode::cstr(b, name);
        b.extend_from_slice(identity);
    });
}

/// Appends the front of a Bind under another statement name: header, portal and name. The header's length is that of the original
/// message of `original_total` bytes, corrected by the difference of the names; `bind.rest` and what follows it come after.
pub fn write_bind_front(out: &mut Vec<u8>, bind: &Bind<'_>, name: &[u8], original_total: usize) {
    out.push(b'B');
    let length = original_total - 1 - bind.statement.len() + name.len();
    out.extend_from_slice(&(length as u32).to_be_bytes());
    encode::cstr(out, bind.portal);
    encode::cstr(out, name);
}

/// Appends a Describe (`D`) or Close (`C`) of a statement.
pub fn write_statement_target(out: &mut Vec<u8>, tag: u8, name: &[u8]) {
    encode::message(out, tag, |b| {
        b.push(b'S');
        encode::cstr(b, name);
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn parse_counts_its_types() {
        let p = parse(b"s\0select $1\0\0\x01\0\0\0\x17").unwrap();
        assert_eq!((p.name, p.identity), (&b"s"[..], &b"select $1\0\0\x01\0\0\0\x17"[..]));
        assert!(parse(b"s\0select $1\0\0\x02\0\0\0\x17").is_err());
        assert!(parse(b"s\0select\0\0\0x").is_err());
        assert!(parse(b"s\0select").is_err());
    }

    #[test]
    fn the_result_formats_of_a_bind_are_behind_its_values() {
        let formats = |body: &[u8]| bind(body).unwrap().result_formats();
        assert_eq!(formats(b"\0s\0\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\x03\0\0\0\0\0\0"), Ok(3));
        assert_eq!(formats(b"\0s\0\0\0\0\0\0\0"), Ok(0));
        assert!(formats(b"\0s\0\0\0\0\x01\x7f\0\0\0x").is_err());
    }

    #[test]
    fn a_bind_is_renamed_without_its_values() {
        let body = b"\0s1\0\0\0\0\0\0\0";
        let total = body.len() + 5;
        let mut out = Vec::new();
        let b = bind(body).unwrap();
        write_bind_front(&mut out, &b, b"longer", total);
        out.extend_from_slice(b.rest);
        assert_eq!(out, b"B\0\0\0\x12\0longer\0\0\0\0\0\0\0");
        assert_eq!(u32::from_be_bytes([out[1], out[2], out[3], out[4]]) as usize + 1, out.len());
    }
}
