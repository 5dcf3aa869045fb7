//! How each Rust type of a setting is read from text and shown: the glue between [`Kind`] and the settings' structs.

use super::choices::{AuthType, ChannelBinding, LoadBalanceHosts, PoolMode, SslMode, SslNegotiation, StartupParameters};
use super::kind::{Kind, parse_int, parse_seconds, print_seconds};
use super::words::Words;
use crate::auth::demands::RequireAuth;
use crate::auth::{LdapOptions, Secret};
use std::time::Duration;

/// A type that a setting can have. Errors say what the value must be.
pub(super) trait Field: Sized {
    /// Reads PgBouncer's text form.
    fn read(kind: &Kind, text: &str) -> Result<Self, String>;

    /// What SHOW CONFIG prints; `None` is NULL.
    fn show(&self) -> Option<String>;
}

impl Field for bool {
    fn read(_: &Kind, text: &str) -> Result<Self, String> {
        parse_int(text).map(|n| n != 0).ok_or_else(|| Kind::Switch.describe())
    }

    fn show(&self) -> Option<String> {
        Some(u8::from(*self).to_string())
    }
}

/// A number within its kind's bounds.
fn bounded(kind: &Kind, text: &str) -> Result<i64, String> {
    let (min, max) = match kind {
        Kind::Int { min, max, .. } => (*min, *max),
        _ => (0, 0o7777),
    };
    parse_int(text).filter(|n| (min..=max).contains(n)).ok_or_else(|| kind.describe())
}

macro_rules! whole_numbers {
    ($($type:ty)*) => {$(
        impl Field for $type {
            fn read(kind: &Kind, text: &str) -> Result<Self, String> {
                Self::try_from(bounded(kind, text)?).map_err(|_| kind.describe())
            }

            fn show(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )*};
}
whole_numbers!(u16 u32);

impl Field for Duration {
    fn read(kind: &Kind, text: &str) -> Result<Self, String> {
        parse_seconds(text).ok_or_else(|| kind.describe())
    }

    fn show(&self) -> Option<String> {
        Some(print_seconds(*self))
    }
}

impl Field for String {
    fn read(kind: &Kind, text: &str) -> Result<Self, String> {
        match kind {
            Kind::Choice(words) => {
                let word = words.iter().find(|w| w.eq_ignore_ascii_case(text)).ok_or_else(|| kind.describe())?;
                Ok((*word).to_owned())
            }
            _ => Ok(text.to_owned()),
        }
    }

    fn show(&self) -> Option<String> {
        Some(self.clone())
    }
}

impl Field for Words {
    fn read(_: &Kind, text: &str) -> Result<Self, String> {
        Ok(Words::parse(text))
    }

    fn show(&self) -> Option<String> {
        Some(self.as_text().to_owned())
    }
}

/// An empty text is no text: `auth_user =` unsets it, where PgBouncer has a user without a name.
impl<T: Field> Field for Option<T> {
    fn read(kind: &Kind, text: &str) -> Result<Self, String> {
        if text.is_empty() && matches!(kind, Kind::Text | Kind::Secret) { Ok(None) } else { T::read(kind, text).map(Some) }
    }

    fn show(&self) -> Option<String> {
        self.as_ref().and_then(Field::show)
    }
}

impl Field for Secret {
    fn read(_: &Kind, text: &str) -> Result<Self, String> {
        Ok(Secret::parse(text))
    }

    fn show(&self) -> Option<String> {
        Some("****".into())
    }
}

impl Field for LdapOptions {
    fn read(_: &Kind, text: &str) -> Result<Self, String> {
        LdapOptions::parse(text).map_err(|reason| format!("options of the ldap method as in pg_hba.conf ({reason})"))
    }

    fn show(&self) -> Option<String> {
        Some(self.shown().to_owned())
    }
}

impl Field for RequireAuth {
    fn read(_: &Kind, text: &str) -> Result<Self, String> {
        RequireAuth::parse(text).map_err(|reason| format!("a list of methods as in libpq ({reason})"))
    }

    fn show(&self) -> Option<String> {
        Some(self.as_text().to_owned())
    }
}

macro_rules! choices {
    ($($type:ty)*) => {$(
        impl Field for $type {
            fn read(kind: &Kind, text: &str) -> Result<Self, String> {
                Self::from_word(text).ok_or_else(|| kind.describe())
            }

            fn show(&self) -> Option<String> {
                Some(self.word().to_owned())
            }
        }
    )*};
}
choices!(PoolMode AuthType ChannelBinding SslMode SslNegotiation LoadBalanceHosts StartupParameters);
