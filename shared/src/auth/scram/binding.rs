//! Channel binding: a login that is worth nothing inside another TLS session than the one it was made for (RFC 5802, section 6).
//!
//! What it is bound to is a hash of the certificate that the server has shown, `tls-server-end-point` of RFC 5929. There is no other type
//! in PostgreSQL.

use super::{MECHANISM, MECHANISM_PLUS, ScramError};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::sync::Arc;

/// The only type there is.
const TYPE: &str = "tls-server-end-point";

/// How much of a type that there is not is repeated.
const MOST_OF_TYPE: usize = 30;

/// What a client says about channel binding, and what it is bound to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Binding {
    /// `n`: it cannot, or will not.
    #[default]
    Unable,
    /// `y`: it could, and has not been offered it. A server that has offered it knows by this that somebody in between has taken it away.
    NotOffered,
    /// `p`: to this.
    EndPoint(Arc<[u8]>),
}

impl Binding {
    /// The mechanism that goes with it.
    pub fn mechanism(&self) -> &'static str {
        if self.is_bound() { MECHANISM_PLUS } else { MECHANISM }
    }

    /// Whether the login is bound to anything.
    pub fn is_bound(&self) -> bool {
        matches!(self, Self::EndPoint(_))
    }

    /// What client-first-message begins with. There is no authorization identity.
    pub(super) fn gs2_header(&self) -> String {
        match self {
            Self::Unable => "n,,".to_owned(),
            Self::NotOffered => "y,,".to_owned(),
            Self::EndPoint(_) => format!("p={TYPE},,"),
        }
    }

    /// The `c=` of client-final-message: the gs2 header and the data, in base64.
    pub(super) fn attribute(&self) -> String {
        let mut input = self.gs2_header().into_bytes();
        if let Self::EndPoint(hash) = self {
            input.extend_from_slice(hash);
        }
        STANDARD.encode(input)
    }
}

/// Splits client-first-message into what its gs2 header says and the bare message. `offered`: what a login may be bound to; `mechanism`: the
/// one that the client has chosen.
pub(super) fn gs2_header<'a>(
    offered: Option<&Arc<[u8]>>,
    mechanism: &[u8],
    message: &'a [u8],
) -> Result<(Binding, &'a [u8]), ScramError> {
    let chosen = match offered {
        Some(hash) if mechanism == MECHANISM_PLUS.as_bytes() => Some(hash),
        _ if mechanism == MECHANISM.as_bytes() => None,
        _ => return Err(ScramError::Mechanism),
    };
    let (binding, rest) = match (message, chosen) {
        ([b'n' | b'y', b',', ..], Some(_)) | ([b'p', b'=', ..], None) => return Err(ScramError::BindingFlag),
        ([b'n', b',', rest @ ..], None) => (Binding::Unable, rest),
        ([b'y', b',', ..], None) if offered.is_some() => return Err(ScramError::BindingNegotiation),
        ([b'y', b',', rest @ ..], None) => (Binding::NotOffered, rest),
        ([b'p', b'=', rest @ ..], Some(hash)) => {
            let end = rest.iter().position(|byte| *byte == b',').ok_or(ScramError::Invalid("gs2 header"))?;
            if rest[..end] != *TYPE.as_bytes() {
                return Err(ScramError::BindingType(printable(&rest[..end])));
            }
            (Binding::EndPoint(Arc::clone(hash)), &rest[end + 1..])
        }
        ([], _) => return Err(ScramError::Missing("channel binding flag")),
        _ => return Err(ScramError::Invalid("channel binding flag")),
    };
    match rest {
        [b',', bare @ ..] => Ok((binding, bare)),
        [b'a', b'=', ..] => Err(ScramError::AuthorizationIdentity),
        _ => Err(ScramError::Invalid("gs2 header")),
    }
}

/// The beginning of something that a client has sent, as PostgreSQL repeats it.
fn printable(bytes: &[u8]) -> String {
    bytes.iter().take(MOST_OF_TYPE).map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(offered: bool, mechanism: &str, message: &str) -> Result<Binding, ScramError> {
        let hash: Arc<[u8]> = Arc::from(&b"hash"[..]);
        let (binding, bare) = gs2_header(offered.then_some(&hash), mechanism.as_bytes(), message.as_bytes())?;
        assert_eq!(bare, b"n=,r=x");
        Ok(binding)
    }

    /// PostgreSQL's answers to each combination (`read_client_first_message` in its `auth-scram.c`).
    #[test]
    fn the_flag_must_fit_the_mechanism_and_the_mechanism_what_was_offered() {
        let hash = Binding::EndPoint(Arc::from(&b"hash"[..]));
        let bound = "p=tls-server-end-point,,n=,r=x";
        for (offered, mechanism, message, read_as) in [
            (false, MECHANISM, "n,,n=,r=x", Ok(Binding::Unable)),
            (false, MECHANISM, "y,,n=,r=x", Ok(Binding::NotOffered)),
            (false, MECHANISM, bound, Err(ScramError::BindingFlag)),
            (false, MECHANISM_PLUS, bound, Err(ScramError::Mechanism)),
            (true, MECHANISM, "n,,n=,r=x", Ok(Binding::Unable)),
            (true, MECHANISM, "y,,n=,r=x", Err(ScramError::BindingNegotiation)),
            (true, MECHANISM, bound, Err(ScramError::BindingFlag)),
            (true, MECHANISM_PLUS, bound, Ok(hash)),
            (true, MECHANISM_PLUS, "n,,n=,r=x", Err(ScramError::BindingFlag)),
            (true, MECHANISM_PLUS, "y,,n=,r=x", Err(ScramError::BindingFlag)),
            (true, "SCRAM-SHA-1", "n,,n=,r=x", Err(ScramError::Mechanism)),
            (true, "", "n,,n=,r=x", Err(ScramError::Mechanism)),
        ] {
            assert_eq!(read(offered, mechanism, message), read_as, "{offered} {mechanism} {message}");
        }
    }

    #[test]
    fn types_that_there_are_not_are_named_without_harm() {
        let refused = |message: &str| read(true, MECHANISM_PLUS, message).unwrap_err();
        assert_eq!(refused("p=tls-unique,,n=,r=x"), ScramError::BindingType("tls-unique".into()));
        assert_eq!(refused("p=,,n=,r=x"), ScramError::BindingType(String::new()));
        assert_eq!(refused("p=a\u{e9}\n,,n=,r=x"), ScramError::BindingType("a???".into()));
        let ScramError::BindingType(named) = refused(&format!("p={},,n=,r=x", "x".repeat(100))) else { panic!("another error") };
        assert_eq!(named.len(), MOST_OF_TYPE);
        assert_eq!(refused("p=tls-server-end-point"), ScramError::Invalid("gs2 header"));
        assert_eq!(refused("p=tls-server-end-point,n=,r=x"), ScramError::Invalid("gs2 header"));
        assert_eq!(refused("p=tls-server-end-point,a=joe,n=,r=x"), ScramError::AuthorizationIdentity);
        assert_eq!(refused("p"), ScramError::Invalid("channel binding flag"));
    }

    /// RFC 5802: the header in base64, with the data behind it.
    #[test]
    fn the_attribute_holds_header_and_data() {
        assert_eq!(Binding::Unable.attribute(), "biws");
        assert_eq!(Binding::NotOffered.attribute(), "eSws");
        let bound = Binding::EndPoint(Arc::from(&[0, 1, 2, 255][..])).attribute();
        assert_eq!(STANDARD.decode(bound), Ok(b"p=tls-server-end-point,,\x00\x01\x02\xff".to_vec()));
    }
}
