//! The messages that the console sends, as bytes (PostgreSQL documentation, "Message Formats").
//!
//! Errors and notices carry severity, code, message and perhaps a detail: PgBouncer's fields, in its order.

use shared::wire::encode::message;
pub(crate) use shared::wire::encode::{authentication_ok, backend_key_data, parameter_status};
use std::borrow::Cow;

/// A column's type: its oid and length as RowDescription gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// text
    Text,
    /// int4
    Int4,
    /// int8
    Int8,
    /// numeric: counters that may outgrow an int8
    Numeric,
}

impl Kind {
    fn oid_and_length(self) -> (u32, i16) {
        match self {
            Kind::Text => (25, -1),
            Kind::Int4 => (23, 4),
            Kind::Int8 => (20, 8),
            Kind::Numeric => (1700, -1),
        }
    }
}

/// A column: its name and type.
pub(crate) type Column = (Cow<'static, str>, Kind);

/// A result set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    /// The columns, in order.
    pub(crate) columns: Vec<Column>,
    /// The rows; `None` is NULL.
    pub(crate) rows: Vec<Vec<Option<String>>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(columns: &[(&'static str, Kind)]) -> Self {
        Self::with_columns(columns.iter().map(|&(name, kind)| (name.into(), kind)))
    }

    /// The same for columns whose names are put together.
    pub(crate) fn with_columns(columns: impl IntoIterator<Item = Column>) -> Self {
        Self { columns: columns.into_iter().collect(), rows: Vec::new() }
    }

    /// Adds a row; it has a cell for each column.
    pub(crate) fn row(&mut self, cells: Vec<Option<String>>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }
}

/// A cell that is not NULL.
#[allow(clippy::needless_pass_by_value, clippy::unnecessary_wraps)] // so that rows read as lists of values, NULLs among them
pub(crate) fn cell(value: impl ToString) -> Option<String> {
    Some(value.to_string())
}

/// A string with its terminator. A zero byte inside would end it early, so it is left out.
fn string(out: &mut Vec<u8>, text: &str) {
    out.extend(text.bytes().filter(|&byte| byte != 0));
    out.push(0);
}

/// ReadyForQuery, idle: the console knows no transactions.
pub(crate) fn ready_for_query(out: &mut Vec<u8>) {
    shared::wire::encode::ready_for_query(out, b'I');
}

/// CommandComplete.
pub(crate) fn command_complete(out: &mut Vec<u8>, tag: &str) {
    message(out, b'C', |out| string(out, tag));
}

/// RowDescription and DataRows.
pub(crate) fn table(out: &mut Vec<u8>, table: &Table) {
    message(out, b'T', |out| {
        out.extend((table.columns.len() as u16).to_be_bytes());
        for (name, kind) in &table.columns {
            let (oid, length) = kind.oid_and_length();
            string(out, name);
            out.extend([0; 6]); // no table, no attribute number
            out.extend(oid.to_be_bytes());
            out.extend(length.to_be_bytes());
            out.extend((-1i32).to_be_bytes());
            out.extend([0; 2]); // text
        }
    });
    for row in &table.rows {
        message(out, b'D', |out| {
            out.extend((row.len() as u16).to_be_bytes());
            for cell in row {
                match cell {
                    None => out.extend((-1i32).to_be_bytes()),
                    Some(text) => {
                        out.extend((text.len() as u32).to_be_bytes());
                        out.extend(text.as_bytes());
                    }
                }
            }
        });
    }
}

fn report(out: &mut Vec<u8>, tag: u8, fields: &[(u8, &str)]) {
    message(out, tag, |out| {
        for (field, text) in fields {
            out.push(*field);
            string(out, text);
        }
        out.push(0);
    });
}

/// ErrorResponse; `severity` is ERROR or FATAL.
pub(crate) fn error(out: &mut Vec<u8>, severity: &str, code: &str, text: &str, detail: Option<&str>) {
    let detail = detail.map(|detail| (b'D', detail));
    report(out, b'E', &[(b'S', severity), (b'C', code), (b'M', text)].into_iter().chain(detail).collect::<Vec<_>>());
}

/// NoticeResponse; `severity` is NOTICE or WARNING.
pub(crate) fn notice(out: &mut Vec<u8>, severity: &str, text: &str, detail: Option<&str>) {
    let code = if severity == "WARNING" { "01000" } else { "00000" };
    let detail = detail.map(|detail| (b'D', detail));
    report(out, b'N', &[(b'S', severity), (b'C', code), (b'M', text)].into_iter().chain(detail).collect::<Vec<_>>());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_set_byte_by_byte() {
        let mut t = Table::new(&[("a", Kind::Text), ("b", Kind::Int4)]);
        t.row(vec![cell("x"), None]);
        let mut out = vec![];
        table(&mut out, &t);
        let mut expected = b"T\0\0\0\x2e\0\x02".to_vec();
        expected.extend(b"a\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0");
        expected.extend(b"b\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0");
        expected.extend(b"D\0\0\0\x0f\0\x02\0\0\0\x01x\xff\xff\xff\xff");
        assert_eq!(out, expected);
    }

    #[test]
    fn errors_have_three_fields() {
        let mut out = vec![];
        error(&mut out, "ERROR", "08P01", "no\0no", None);
        assert_eq!(out, b"E\0\0\0\x19SERROR\0C08P01\0Mnono\0\0");
    }

    #[test]
    fn small_ones() {
        let mut out = vec![];
        authentication_ok(&mut out);
        backend_key_data(&mut out, [1, 2, 3, 4, 5, 6, 7, 8]);
        command_complete(&mut out, "SHOW");
        ready_for_query(&mut out);
        assert_eq!(out, b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08C\0\0\0\x09SHOW\0Z\0\0\0\x05I");
    }
}
