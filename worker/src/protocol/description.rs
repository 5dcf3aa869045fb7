//! What a client is told of a prepared statement: the types of its parameters, the names and types of its columns.
//!
//! Many drivers ask for it once, of the statement (asyncpg, tokio-postgres) or of its first portal (JDBC), and read every later result by it. On a connection of its own PostgreSQL sees to
//! it that the result never changes. Here a statement may have to be prepared anew, on another server or after it was evicted, and a
//! table may have changed meanwhile without anybody noticing: so what the server makes of it then is compared with what was told before.

use super::statements::StatementId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use shared::wire::backend as messages;
use shared::wire::cursor::Malformed;

/// A statement's description.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Description {
    /// Type OIDs, as on the wire; a portal's description has none.
    parameters: Option<Box<[u8]>>,
    /// A hash of the columns' names, types and type modifiers.
    columns: [u8; 16],
}

impl Description {
    /// From the OIDs of a ParameterDescription, and the body of a RowDescription or of NoData.
    pub(super) fn new(parameters: Option<Box<[u8]>>, row: &[u8]) -> Result<Self, Malformed> {
        let mut hash = Sha256::new();
        if !row.is_empty() {
            messages::row_description(row, |column| {
                hash.update((column.name.len() as u32).to_be_bytes());
                hash.update(column.name);
                hash.update(column.type_oid.to_be_bytes());
                hash.update(column.modifier.to_be_bytes());
            })?;
        }
        let mut columns = [0; 16];
        columns.copy_from_slice(&hash.finalize()[..16]);
        Ok(Self { parameters, columns })
    }

    /// Whether both say the same, as far as both say something.
    pub(super) fn agrees(&self, other: &Description) -> bool {
        let types = self.parameters.as_ref().zip(other.parameters.as_ref());
        self.columns == other.columns && types.is_none_or(|(mine, theirs)| mine == theirs)
    }

    /// A statement's text and types: the text of `identity` with these parameters, whatever it had itself.
    pub(super) fn identity(&self, identity: &[u8]) -> Vec<u8> {
        let Some(parameters) = &self.parameters else { return identity.to_vec() };
        let text = identity.iter().position(|&b| b == 0).map_or(identity, |end| &identity[..=end]);
        let count = (parameters.len() / 4) as u16;
        [text, &count.to_be_bytes(), parameters].concat()
    }
}

/// A server has described a statement.
#[derive(Debug)]
pub(crate) struct Described {
    pub(crate) id: StatementId,
    pub(crate) description: Description,
    /// The client that it was described for goes by it, not by what it was told before.
    pub(crate) learns: bool,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn row(columns: &[(&str, u32)]) -> Vec<u8> {
        let mut body = (columns.len() as u16).to_be_bytes().to_vec();
        for (name, type_oid) in columns {
            body.extend_from_slice(
                &[name.as_bytes(), b"\0\0\0\x40\x01\0\x01", &type_oid.to_be_bytes(), b"\0\x04\xff\xff\xff\xff\0\0"].concat(),
            );
        }
        body
    }

    #[test]
    fn names_and_types_are_what_counts() {
        let new = |parameters: Option<&[u8]>, columns: &[(&str, u32)]| {
            Description::new(parameters.map(Into::into), &row(columns)).unwrap()
        };
        let describe = |columns: &[(&str, u32)]| new(Some(&[0, 0, 0, 23]), columns);
        let one = describe(&[("a", 23)]);
        assert!(one.agrees(&describe(&[("a", 23)])) && one.agrees(&new(None, &[("a", 23)])));
        for other in [describe(&[("b", 23)]), describe(&[("a", 25)]), describe(&[("a", 23), ("b", 23)]), describe(&[])] {
            assert!(!one.agrees(&other));
        }
        assert!(!one.agrees(&new(Some(&[]), &[("a", 23)])));
        assert!(Description::new(None, &row(&[("a", 23)])[..5]).is_err());
        assert_eq!(one.identity(b"select $1\0\0\0"), b"select $1\0\0\x01\0\0\0\x17");
    }
}
