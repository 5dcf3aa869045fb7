//! auth_query's messages, both ways: the query with the user's name bound to it, and what PostgreSQL makes of it.
//!
//! The name is a value of the extended protocol and never part of a text that is parsed, so nothing in it can be SQL.

use shared::auth::Secret;
use shared::config::MAX_USER_NAME;
use shared::wire::backend::{self, Fields};
use shared::wire::cursor::{Cursor, Malformed};
use shared::wire::encode;

/// What has come so far.
#[derive(Default)]
pub(crate) struct Exchange {
    found: Option<Found>,
    trouble: Option<Trouble>,
}

/// A user as auth_query knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub(crate) name: String,
    /// NULL is no password, and none fits it.
    pub(crate) secret: Option<Secret>,
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Trouble {
    /// PostgreSQL refused the query: severity and message.
    Refused(String, String),
    Columns(u16),
    /// A name or secret that is no text, or a name that is too long.
    NotText,
    Unexpected,
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(severity, message) => write!(f, "error in auth_query: {severity}: {message}"),
            Self::Columns(count) => write!(f, "expected 2 columns from auth_query, not {count}"),
            Self::NotText => f.write_str("auth_query response contained a name or secret that is no text"),
            Self::Unexpected => f.write_str("unexpected response from auth_query"),
        }
    }
}

/// What one message leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    More,
    /// A parameter's value, unasked.
    Parameter(&'a [u8], &'a [u8]),
    /// PostgreSQL is done, in this transaction state. `None`: there is no such user.
    Done(Result<Option<Found>, Trouble>, u8),
    /// What comes next cannot be known: the connection is of no use.
    Broken,
}

/// Writes the query for `user`: Parse, Bind, Describe, Execute, Sync (PostgreSQL documentation, "Message Formats").
pub(crate) fn ask(out: &mut Vec<u8>, query: &str, user: &str) {
    encode::message(out, b'P', |body| {
        encode::cstr(body, b"");
        encode::cstr(body, query.as_bytes());
        body.extend_from_slice(&0_u16.to_be_bytes());
    });
    encode::message(out, b'B', |body| {
        // Portal and statement have no name, all formats are text.
        body.extend_from_slice(&[0, 0, 0, 0]);
        body.extend_from_slice(&1_u16.to_be_bytes());
        body.extend_from_slice(&(user.len() as u32).to_be_bytes());
        body.extend_from_slice(user.as_bytes());
        body.extend_from_slice(&0_u16.to_be_bytes());
    });
    encode::message(out, b'D', |body| body.extend_from_slice(b"P\0"));
    encode::message(out, b'E', |body| body.extend_from_slice(&[0; 5]));
    encode::message(out, b'S', |_| {});
}

impl Exchange {
    /// Takes PostgreSQL's next message.
    pub(crate) fn take<'a>(&mut self, tag: u8, body: &'a [u8]) -> Step<'a> {
        let read = match tag {
            b'1' | b'2' | b'C' | b'N' | b'A' => Ok(()),
            b'T' => self.columns(body),
            b'n' => {
                self.fail(Trouble::Columns(0));
                Ok(())
            }
            b'D' => self.row(body),
            b'I' => {
                self.fail(Trouble::Unexpected);
                Ok(())
            }
            b'E' => self.refused(body),
            b'S' => match backend::parameter_status(body) {
                Ok((name, value)) => return Step::Parameter(name, value),
                Err(malformed) => Err(malformed),
            },
            b'Z' => {
                let [status] = *body else { return Step::Broken };
                let found = self.found.take();
                return Step::Done(self.trouble.take().map_or(Ok(found), Err), status);
            }
            _ => return Step::Broken,
        };
        read.map_or(Step::Broken, |()| Step::More)
    }

    /// The first trouble is what is told; others follow from it.
    fn fail(&mut self, trouble: Trouble) {
        self.trouble.get_or_insert(trouble);
    }

    fn columns(&mut self, body: &[u8]) -> Result<(), Malformed> {
        let mut count = 0;
        backend::row_description(body, |_| count += 1)?;
        if count != 2 {
            self.fail(Trouble::Columns(count));
        }
        Ok(())
    }

    /// The last row is the one that counts, as in PgBouncer.
    fn row(&mut self, body: &[u8]) -> Result<(), Malformed> {
        let mut c = Cursor::new(body);
        let count = c.u16("number of values")?;
        if count != 2 {
            self.fail(Trouble::Columns(count));
            return Ok(());
        }
        let (name, secret) = (value(&mut c)?, value(&mut c)?);
        c.end("end of DataRow")?;
        self.found = None;
        let text = |bytes| std::str::from_utf8(bytes).ok().filter(|text: &&str| !text.contains('\0'));
        match (name, name.map(text), secret.map(text)) {
            // A name that is NULL is no user, and neither is an empty one.
            (None | Some(b""), ..) => {}
            (_, Some(Some(name)), secret) if secret != Some(None) && name.len() <= MAX_USER_NAME => {
                self.found = Some(Found { name: name.to_owned(), secret: secret.flatten().map(Secret::parse) });
            }
            _ => self.fail(Trouble::NotText),
        }
        Ok(())
    }

    fn refused(&mut self, body: &[u8]) -> Result<(), Malformed> {
        let Fields { severity, message, .. } = backend::fields(body)?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        self.fail(Trouble::Refused(text(severity), text(message)));
        Ok(())
    }
}

/// A value of a DataRow; `None` is NULL.
fn value<'a>(c: &mut Cursor<'a>) -> Result<Option<&'a [u8]>, Malformed> {
    match c.u32("length of a value")? {
        u32::MAX => Ok(None),
        length => c.bytes(length as usize, "value").map(Some),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const TWO: &[u8] =
        b"\0\x02a\0\0\0\0\0\0\0\0\0\0\x13\0\x40\xff\xff\xff\xff\0\0b\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0";
    const ONE: &[u8] = b"\0\x01a\0\0\0\0\0\0\0\0\0\0\x13\0\x40\xff\xff\xff\xff\0\0";

    fn row(values: &[Option<&str>]) -> Vec<u8> {
        let mut body = (values.len() as u16).to_be_bytes().to_vec();
        for value in values {
            body.extend_from_slice(&value.map_or(u32::MAX, |v| v.len() as u32).to_be_bytes());
            body.extend_from_slice(value.unwrap_or("").as_bytes());
        }
        body
    }

    fn answer(messages: &[(u8, &[u8])]) -> Result<Option<Found>, Trouble> {
        let mut exchange = Exchange::default();
        for (tag, body) in [(b'1', &b""[..]), (b'2', b"")].iter().chain(messages) {
            assert_eq!(exchange.take(*tag, body), Step::More, "{}", *tag as char);
        }
        match exchange.take(b'Z', b"I") {
            Step::Done(outcome, b'I') => outcome,
            other => panic!("{other:?}"),
        }
    }

    #[allow(clippy::unnecessary_wraps)] // as `answer` gives it
    fn found(name: &str, secret: Option<&str>) -> Result<Option<Found>, Trouble> {
        Ok(Some(Found { name: name.to_owned(), secret: secret.map(Secret::parse) }))
    }

    #[test]
    fn the_name_is_a_value() {
        let mut out = Vec::new();
        ask(&mut out, "select $1", "x'; drop table");
        let expected: &[u8] = b"P\0\0\0\x11\0select $1\0\0\0\
            B\0\0\0\x1e\0\0\0\0\0\x01\0\0\0\x0ex'; drop table\0\0\
            D\0\0\0\x06P\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04";
        assert_eq!(out.escape_ascii().to_string(), expected.escape_ascii().to_string());
        let bind = shared::wire::frontend::bind(&out[23..18 + 31]).unwrap();
        assert_eq!(bind.statement, b"");
    }

    #[test]
    fn a_row_is_a_user_and_the_last_one_counts() {
        let joe = row(&[Some("joe"), Some("secret")]);
        assert_eq!(answer(&[(b'T', TWO), (b'D', &joe), (b'C', b"SELECT 1\0")]), found("joe", Some("secret")));
        assert_eq!(answer(&[(b'T', TWO), (b'D', &row(&[Some("a"), None])), (b'D', &joe)]), found("joe", Some("secret")));
        assert_eq!(answer(&[(b'T', TWO), (b'C', b"SELECT 0\0")]), Ok(None));
    }

    #[test]
    fn null_is_neither_a_user_nor_a_password() {
        assert_eq!(answer(&[(b'T', TWO), (b'D', &row(&[Some("joe"), None]))]), found("joe", None));
        assert_eq!(answer(&[(b'T', TWO), (b'D', &row(&[None, Some("secret")]))]), Ok(None));
        assert_eq!(answer(&[(b'T', TWO), (b'D', &row(&[Some(""), Some("secret")]))]), Ok(None));
    }

    #[test]
    fn anything_else_is_trouble() {
        assert_eq!(answer(&[(b'T', ONE), (b'D', &row(&[Some("joe")]))]), Err(Trouble::Columns(1)));
        assert_eq!(answer(&[(b'n', b"")]), Err(Trouble::Columns(0)));
        assert_eq!(answer(&[(b'I', b"")]), Err(Trouble::Unexpected));
        let long = "x".repeat(MAX_USER_NAME + 1);
        assert_eq!(answer(&[(b'T', TWO), (b'D', &row(&[Some(&long), None]))]), Err(Trouble::NotText));
        let refused = Trouble::Refused("ERROR".to_owned(), "no".to_owned());
        assert_eq!(answer(&[(b'T', TWO), (b'E', b"SERROR\0VERROR\0C42501\0Mno\0\0")]), Err(refused));
    }

    #[test]
    fn what_cannot_follow_breaks_the_connection() {
        let bodies: [(u8, &[u8]); 8] = [
            (b'G', b"\0\0\0"),
            (b'Q', b""),
            (b'T', b"\0\x02"),
            (b'D', b""),
            (b'D', b"\0\x02\0\0\0\x09x"),
            (b'Z', b""),
            (b'E', b"S"),
            (b'S', b"x"),
        ];
        for (tag, body) in bodies {
            assert_eq!(Exchange::default().take(tag, body), Step::Broken, "{} {}", tag as char, body.escape_ascii());
        }
        assert_eq!(Exchange::default().take(b'S', b"a\0b\0"), Step::Parameter(b"a", b"b"));
    }
}
