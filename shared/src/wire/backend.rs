//! The messages from PostgreSQL that pooling looks inside.

use super::cursor::{Cursor, Malformed};

/// An Authentication… request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Authentication<'a> {
    /// Logged in.
    Ok,
    /// AuthenticationCleartextPassword.
    Cleartext,
    /// AuthenticationMD5Password with its salt.
    Md5([u8; 4]),
    /// AuthenticationSASL with the mechanisms offered.
    Sasl(Vec<&'a [u8]>),
    /// AuthenticationSASLContinue.
    SaslContinue(&'a [u8]),
    /// AuthenticationSASLFinal.
    SaslFinal(&'a [u8]),
    /// Anything else: Kerberos, GSSAPI, SSPI and what is yet to come.
    Unsupported(u32),
}

/// Reads the body of an `R` message.
pub fn authentication(body: &[u8]) -> Result<Authentication<'_>, Malformed> {
    let mut c = Cursor::new(body);
    match c.u32("authentication request code")? {
        0 => Ok(Authentication::Ok),
        3 => Ok(Authentication::Cleartext),
        5 => c.bytes(4, "MD5 salt").map(|s| Authentication::Md5([s[0], s[1], s[2], s[3]])),
        10 => {
            let mut mechanisms = Vec::new();
            loop {
                match c.cstr("SASL mechanism")? {
                    [] => break Ok(Authentication::Sasl(mechanisms)),
                    name => mechanisms.push(name),
                }
            }
        }
        11 => Ok(Authentication::SaslContinue(c.take_rest())),
        12 => Ok(Authentication::SaslFinal(c.take_rest())),
        other => Ok(Authentication::Unsupported(other)),
    }
}

/// Reads the body of a ParameterStatus.
pub fn parameter_status(body: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let mut c = Cursor::new(body);
    let pair = (c.cstr("parameter name")?, c.cstr("parameter value")?);
    c.end("end of ParameterStatus")?;
    Ok(pair)
}

/// One column of a RowDescription, as far as the pooler looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Column<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// The OID of its type.
    pub type_oid: u32,
    /// Its type modifier.
    pub modifier: u32,
}

/// Reads the body of a RowDescription; `each` is given its columns in order.
pub fn row_description<'a>(body: &'a [u8], mut each: impl FnMut(Column<'a>)) -> Result<(), Malformed> {
    let mut c = Cursor::new(body);
    for _ in 0..c.u16("number of columns")? {
        let name = c.cstr("column name")?;
        c.bytes(6, "table and attribute of a column")?;
        let type_oid = c.u32("type of a column")?;
        c.bytes(2, "size of a column")?;
        let modifier = c.u32("type modifier of a column")?;
        c.bytes(2, "format of a column")?;
        each(Column { name, type_oid, modifier });
    }
    c.end("end of RowDescription")
}

/// Reads the body of a ParameterDescription: the OIDs of the types, as they stand.
pub fn parameter_description(body: &[u8]) -> Result<&[u8], Malformed> {
    let mut c = Cursor::new(body);
    let count = c.u16("number of parameters")?;
    let types = c.bytes(usize::from(count) * 4, "parameter types")?;
    c.end("end of ParameterDescription")?;
    Ok(types)
}

/// Reads the body of a BackendKeyData: process id, and the first four bytes of the secret.
pub fn backend_key_data(body: &[u8]) -> Result<(u32, u32), Malformed> {
    let mut c = Cursor::new(body);
    Ok((c.u32("backend process id")?, c.u32("cancel secret")?))
}

/// The fields of an ErrorResponse or NoticeResponse that the pooler reads. A field the server left out is empty.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Fields<'a> {
    /// Severity in English (`V`; before 9.6, or when missing, the localised `S`).
    pub severity: &'a [u8],
    /// SQLSTATE.
    pub code: &'a [u8],
    /// Primary message.
    pub message: &'a [u8],
    /// The source-code routine that reported it: what an error is, whatever language its message is in.
    pub routine: &'a [u8],
}

impl Fields<'_> {
    /// Whether the server ends the connection after this message.
    pub fn ends_connection(&self) -> bool {
        matches!(self.severity, b"FATAL" | b"PANIC")
    }
}

/// Reads the body of an ErrorResponse or NoticeResponse.
pub fn fields(body: &[u8]) -> Result<Fields<'_>, Malformed> {
    let mut c = Cursor::new(body);
    let mut fields = Fields::default();
    let mut localised: &[u8] = &[];
    loop {
        match c.u8("field type")? {
            0 => break,
            tag => {
                let value = c.cstr("field value")?;
                match tag {
                    b'S' => localised = value,
                    b'V' => fields.severity = value,
                    b'C' => fields.code = value,
                    b'M' => fields.message = value,
                    b'R' => fields.routine = value,
                    _ => {}
                }
            }
        }
    }
    if fields.severity.is_empty() {
        fields.severity = localised;
    }
    Ok(fields)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_error_without_sqlstate_is_read() {
        // CVE-2026-6666: PgBouncer crashed on an error that had no C field.
        let f = fields(b"SFATAL\0Mgone\0\0").unwrap();
        assert_eq!((f.severity, f.code, f.message), (&b"FATAL"[..], &b""[..], &b"gone"[..]));
        assert!(f.ends_connection());
        assert!(fields(b"SFATAL\0Mgone").is_err());
    }

    #[test]
    fn sasl_mechanisms_end_with_an_empty_name() {
        assert_eq!(
            authentication(b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0").unwrap(),
            Authentication::Sasl(vec![b"SCRAM-SHA-256-PLUS", b"SCRAM-SHA-256"])
        );
        assert!(authentication(b"\0\0\0\x0aSCRAM").is_err());
        assert!(authentication(b"\0\0\0\x05abc").is_err());
    }
}
