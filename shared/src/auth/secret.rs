//! A stored password or password verifier: what auth_file, auth_query and `password=` hold.
//!
//! Its content says which kind it is, as in PostgreSQL's `pg_authid.rolpassword`. It never appears in a Debug print and is overwritten
//! when dropped.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A secret by kind; each holds the whole text as it was stored.
#[derive(Clone, PartialEq, Eq, Hash, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
pub enum Secret {
    /// The password itself.
    Plain(String),
    /// `md5` and 32 lower-case hex digits: md5(password + user).
    Md5(String),
    /// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`.
    Scram(String),
}

impl Secret {
    /// Tells by its content which kind `text` is. What is not exactly a hash or a verifier is a password.
    pub fn parse(text: &str) -> Self {
        if is_md5(text) {
            Self::Md5(text.to_owned())
        } else if is_scram(text).is_some() {
            Self::Scram(text.to_owned())
        } else {
            Self::Plain(text.to_owned())
        }
    }

    /// The text as it was stored. Named so that its uses are found.
    pub fn expose(&self) -> &str {
        match self {
            Self::Plain(text) | Self::Md5(text) | Self::Scram(text) => text,
        }
    }

    /// Whether there is nothing in it: no login with a password method succeeds.
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain(…)",
            Self::Md5(_) => "Md5(…)",
            Self::Scram(_) => "Scram(…)",
        })
    }
}

fn is_md5(text: &str) -> bool {
    text.len() == 35 && text.strip_prefix("md5").is_some_and(|hex| hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

/// `Some` for a verifier with a positive iteration count, valid base64, and keys of 32 bytes.
fn is_scram(text: &str) -> Option<()> {
    let (parameters, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
    let (iterations, salt) = parameters.split_once(':')?;
    let (stored, server) = keys.split_once(':')?;
    let counted = iterations.bytes().all(|b| b.is_ascii_digit()) && iterations.parse::<u32>().is_ok_and(|n| n > 0);
    let salted = !STANDARD.decode(salt).ok()?.is_empty();
    let keyed = STANDARD.decode(stored).ok()?.len() == 32 && STANDARD.decode(server).ok()?.len() == 32;
    (counted && salted && keyed).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERIFIER: &str = "SCRAM-SHA-256$4096:QtqbkfZjTmn8SjGPgaXcMg==$\
                            MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=:MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=";

    #[test]
    fn content_tells_the_kind() {
        assert!(matches!(Secret::parse("md50123456789abcdef0123456789abcdef"), Secret::Md5(_)));
        assert!(matches!(Secret::parse("md50123456789ABCDEF0123456789abcdef"), Secret::Plain(_)));
        assert!(matches!(Secret::parse("md5short"), Secret::Plain(_)));
        assert!(matches!(Secret::parse(VERIFIER), Secret::Scram(_)));
        for broken in [&VERIFIER[..VERIFIER.len() - 2], &VERIFIER.replace("4096", "0"), &VERIFIER.replace("4096", "+1")] {
            assert!(matches!(Secret::parse(broken), Secret::Plain(_)), "{broken}");
        }
        assert!(Secret::parse("").is_empty());
    }

    #[test]
    fn debug_prints_nothing_of_it() {
        for text in ["hunter2", "md50123456789abcdef0123456789abcdef", VERIFIER] {
            let shown = format!("{:?}", Secret::parse(text));
            assert!(!shown.contains(&text[..5]), "{shown}");
        }
    }
}
