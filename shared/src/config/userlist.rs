//! Reads auth_file: a line for each user, `"name" "secret"`, with `""` for a quote and `;` for comments.

use super::problem::{At, Problems};
use super::resolve::MAX_USER_NAME;
use crate::auth::Secret;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The longest secret, in bytes.
const MAX_SECRET: usize = 65_535;

/// Reads `path`. The last of several lines for one user holds; what stands behind the secret is ignored, as by PgBouncer.
pub(super) fn read(path: &Path, named_at: &At, problems: &mut Problems) -> BTreeMap<String, Secret> {
    let mut users = BTreeMap::new();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(e) => {
            problems.error(named_at, "auth_file", format!("could not open auth_file {}: {e}", path.display()));
            return users;
        }
    };
    let file: Arc<Path> = path.into();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with(';') {
            continue;
        }
        match entry(line) {
            Ok((user, secret)) => {
                users.insert(user, secret);
            }
            Err(message) => problems.error(&At { file: Arc::clone(&file), line: number as u32 + 1 }, "auth_file", message),
        }
    }
    users
}

/// Reads one line. Errors do not quote it: it may hold a password.
fn entry(line: &str) -> Result<(String, Secret), &'static str> {
    const BROKEN: &str = "broken auth file: a line must be \"user\" \"secret\"";
    let (user, rest) = quoted(line).ok_or(BROKEN)?;
    let (secret, _) = quoted(rest.trim_start()).ok_or(BROKEN)?;
    if user.len() > MAX_USER_NAME {
        return Err("username too long in auth file");
    }
    if secret.len() > MAX_SECRET {
        return Err("password too long in auth file");
    }
    Ok((String::clone(&user), Secret::parse(&secret)))
}

/// Reads a double-quoted text at the start of `text`; gives it and what is behind.
fn quoted(text: &str) -> Option<(Zeroizing<String>, &str)> {
    let mut rest = text.strip_prefix('"')?;
    // Has room for all of it: what has grown leaves copies.
    let mut value = Zeroizing::new(String::with_capacity(rest.len()));
    loop {
        let (part, behind) = rest.split_once('"')?;
        value.push_str(part);
        match behind.strip_prefix('"') {
            Some(more) => {
                value.push('"');
                rest = more;
            }
            None => return Some((value, behind)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn quotes_double_and_the_rest_is_ignored() {
        let (user, secret) = entry(r#""al""ice" "se""cret" "2026" trailing"#).unwrap();
        assert_eq!((user.as_str(), secret.expose()), (r#"al"ice"#, r#"se"cret"#));
        assert_eq!(entry(r#""bob""""#).map(|(user, _)| user), Err("broken auth file: a line must be \"user\" \"secret\""));
        assert!(entry(r#""bob" """#).unwrap().1.is_empty());
    }

    #[test]
    fn broken_lines_are_named_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("userlist.txt");
        std::fs::write(&path, "; comment\n\"a\" \"1\"\n\n# hunter2\n\"b\" hunter2\n\"a\" \"3\"\n").unwrap();
        let mut problems = Problems::default();
        let users = read(&path, &At::whole(&path), &mut problems);
        assert_eq!(users["a"].expose(), "3");
        assert_eq!(problems.iter().map(|p| p.line).collect::<Vec<_>>(), [Some(4), Some(5)]);
        assert!(!problems.to_string().contains("hunter2"));
    }
}
