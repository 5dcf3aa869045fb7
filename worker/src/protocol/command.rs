//! The few SQL commands that pooling must understand, where a whole query is one of them.
//!
//! A client's prepared statements have other names on the servers, so SQL that names one has to be answered here or rewritten; and what RESET
//! sets back is not what the client asked for at startup. Everything else in a query's text is PostgreSQL's business.

/// A query that is one of these commands and nothing else.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command<'a> {
    /// `DEALLOCATE name`.
    Deallocate(Vec<u8>),
    /// `EXECUTE name`, and what follows the name.
    Execute(Vec<u8>, &'a [u8]),
    /// `RESET name`, in lower case; not `RESET ALL`.
    Reset(Vec<u8>),
}

/// The longest query that is looked at.
pub(crate) const LONGEST: usize = 4096;

/// Whether a query that begins with this byte can be a command: one comparison for most queries.
#[inline]
pub(crate) fn may_begin(byte: u8) -> bool {
    matches!(byte | 0x20, b'd' | b'e' | b'r') || byte.is_ascii_whitespace()
}

/// The command that `text` (without its zero byte) is.
pub(crate) fn parse(text: &[u8]) -> Option<Command<'_>> {
    let (word, rest) = keyword(text)?;
    if word.eq_ignore_ascii_case(b"deallocate") {
        let rest = match keyword(rest) {
            Some((prepare, name)) if prepare.eq_ignore_ascii_case(b"prepare") && !is_end(name) => name,
            _ => rest,
        };
        let (name, rest) = identifier(rest)?;
        // DEALLOCATE ALL is known by its tag.
        (is_end(rest) && name != b"all").then_some(Command::Deallocate(name))
    } else if word.eq_ignore_ascii_case(b"execute") {
        let (name, rest) = identifier(rest)?;
        let arguments = rest.trim_ascii_start();
        (is_end(rest) || arguments.first() == Some(&b'(')).then_some(Command::Execute(name, rest))
    } else if word.eq_ignore_ascii_case(b"reset") {
        let (name, rest) = identifier(rest)?;
        (is_end(rest) && name != b"all").then(|| Command::Reset(name.to_ascii_lowercase()))
    } else {
        None
    }
}

/// A word at the front, and what follows it.
fn keyword(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.trim_ascii_start();
    let end = text.iter().position(|b| !b.is_ascii_alphabetic()).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A name as SQL writes it: folded to lower case, or in double quotes as it stands.
fn identifier(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let text = text.trim_ascii_start();
    if let Some(quoted) = text.strip_prefix(b"\"") {
        let mut name = Vec::new();
        let mut bytes = quoted.iter().enumerate().peekable();
        while let Some((at, &byte)) = bytes.next() {
            if byte != b'"' {
                name.push(byte);
            } else if bytes.next_if(|(_, next)| **next == b'"').is_some() {
                name.push(b'"');
            } else {
                return (!name.is_empty()).then(|| (name, &quoted[at + 1..]));
            }
        }
        return None;
    }
    let part_of_name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | b'.' | 0x80..);
    let end = text.iter().position(|b| !part_of_name(b)).unwrap_or(text.len());
    (end > 0 && !text[0].is_ascii_digit()).then(|| (text[..end].to_ascii_lowercase(), &text[end..]))
}

/// Nothing but blanks and semicolons.
fn is_end(text: &[u8]) -> bool {
    text.iter().all(|b| b.is_ascii_whitespace() || *b == b';')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_command_and_nothing_else() {
        assert_eq!(parse(b"DEALLOCATE s1"), Some(Command::Deallocate(b"s1".to_vec())));
        assert_eq!(parse(b" deallocate  prepare \"S\"\"1\" ;"), Some(Command::Deallocate(b"S\"1".to_vec())));
        assert_eq!(parse(b"deallocate prepare"), Some(Command::Deallocate(b"prepare".to_vec())));
        assert_eq!(parse(b"Deallocate S1"), Some(Command::Deallocate(b"s1".to_vec())));
        assert_eq!(parse(b"execute p (1, 'a')"), Some(Command::Execute(b"p".to_vec(), b" (1, 'a')")));
        assert_eq!(parse(b"EXECUTE p;"), Some(Command::Execute(b"p".to_vec(), b";")));
        assert_eq!(parse(b"reset Search_Path"), Some(Command::Reset(b"search_path".to_vec())));
        for other in [
            "deallocate all",
            "DEALLOCATE ALL;",
            "reset all",
            "discard all",
            "deallocate s1; select 1",
            "deallocate",
            "execute",
            "execute \"p",
            "execute p into x",
            "reset session authorization",
            "drop table t",
            "1",
            "",
        ] {
            assert_eq!(parse(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn most_queries_are_told_by_their_first_byte() {
        assert!("deallocate Execute RESET \treset".split(' ').all(|q| may_begin(q.as_bytes()[0])));
        assert!("select INSERT update begin (values COMMIT /*".split(' ').all(|q| !may_begin(q.as_bytes()[0])));
    }
}
