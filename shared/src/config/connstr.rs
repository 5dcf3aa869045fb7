//! The `key=value` lists of `[databases]`, `[users]` and `[peers]` entries in PgBouncer's syntax.

use zeroize::Zeroizing;

/// A key and its value, which may be a password.
pub(super) type Pair = (String, Zeroizing<String>);

/// Splits `text` into its pairs. Pairs are separated by spaces; a value is bare, up to the next space, or in single quotes with `''` for
/// a quote. The error says what is wrong, without quoting the text: it may hold a password.
pub(super) fn parse(text: &str) -> Result<Vec<Pair>, String> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start_matches(' ');
    while !rest.is_empty() {
        let key_end = rest.find([' ', '=']).unwrap_or(rest.len());
        let key = &rest[..key_end];
        let after = rest[key_end..].trim_start_matches(' ').strip_prefix('=');
        let after = after.filter(|_| !key.is_empty()).ok_or("syntax error in connection string: a key without \"=value\"")?;
        let after = after.trim_start_matches(' ');
        let (value, behind) = if let Some(quoted) = after.strip_prefix('\'') {
            unquote(quoted).ok_or_else(|| format!("syntax error in connection string: quote of {key} not closed"))?
        } else {
            let (value, behind) = after.split_at(after.find(' ').unwrap_or(after.len()));
            (Zeroizing::new(value.to_owned()), behind)
        };
        if value.is_empty() {
            return Err(format!("syntax error in connection string: {key} is empty"));
        }
        if !behind.is_empty() && !behind.starts_with(' ') {
            return Err(format!("syntax error in connection string: no space behind the value of {key}"));
        }
        pairs.push((key.to_owned(), value));
        rest = behind.trim_start_matches(' ');
    }
    Ok(pairs)
}

/// Reads up to the closing quote; gives the value and what is behind.
fn unquote(text: &str) -> Option<(Zeroizing<String>, &str)> {
    // Has room for all of it: what has grown leaves copies.
    let mut value = Zeroizing::new(String::with_capacity(text.len()));
    let mut rest = text;
    loop {
        let quote = rest.find('\'')?;
        value.push_str(&rest[..quote]);
        rest = &rest[quote + 1..];
        match rest.strip_prefix('\'') {
            Some(more) => {
                value.push('\'');
                rest = more;
            }
            None => return Some((value, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
        Ok(parse(text)?.into_iter().map(|(key, value)| (key, value.to_string())).collect())
    }

    #[test]
    fn bare_and_quoted_values() {
        let expected = |list: &[(&str, &str)]| Ok(list.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect());
        assert_eq!(pairs("host=h dbname = d  port=1"), expected(&[("host", "h"), ("dbname", "d"), ("port", "1")]));
        assert_eq!(pairs("password='it''s = it' user=u"), expected(&[("password", "it's = it"), ("user", "u")]));
        assert_eq!(pairs("connect_query='select ''x'''"), expected(&[("connect_query", "select 'x'")]));
        assert_eq!(pairs("  "), expected(&[]));
        assert_eq!(pairs("host=a\tport=1"), expected(&[("host", "a\tport=1")]), "only a space separates");
    }

    #[test]
    fn what_is_not_a_pair_is_refused_without_showing_it() {
        for text in ["host", "host=", "=x", "password=''", "password='hunter2", "password='hunter2'x", "host=a b"] {
            let error = pairs(text).unwrap_err();
            assert!(error.starts_with("syntax error in connection string"), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
