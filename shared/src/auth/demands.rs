//! What is demanded of a server that asks who we are: libpq's `channel_binding` and `require_auth`.
//!
//! One that is not the right one asks for the password in clear text, or for nothing at all. So each request is judged before it is answered, and
//! AuthenticationOk before it is believed. The words are libpq's (`check_expected_areq` in its `fe-auth.c`). That a server which was
//! shown a SCRAM proof shows its own is demanded always, and not here.

use super::scram::{Binding, MECHANISM_PLUS};
use crate::config::{ChannelBinding, Words};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What a server may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerMethod {
    /// Nothing.
    None,
    /// The password in clear text.
    Password,
    /// The password, hashed by MD5.
    Md5,
    /// SCRAM, with or without channel binding.
    ScramSha256,
}

impl ServerMethod {
    /// libpq's word for it.
    fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Password => "password",
            Self::Md5 => "md5",
            Self::ScramSha256 => "scram-sha-256",
        }
    }

    /// What a server does that asks for it.
    fn description(self) -> &'static str {
        match self {
            Self::None => "server did not complete authentication",
            Self::Password => "server requested a cleartext password",
            Self::Md5 => "server requested a hashed password",
            Self::ScramSha256 => "server requested SASL authentication",
        }
    }
}

/// The methods that servers may ask for: all but those, or none but those, as each is written with or without a `!`. Empty: all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequireAuth(Words);

impl RequireAuth {
    /// What libpq knows. There is no support for some of it here, but they may be allowed or ruled out all the same.
    const KNOWN: [&str; 7] = ["password", "md5", "gss", "sspi", "scram-sha-256", "oauth", "none"];

    /// Reads the list. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words = Words::parse(text);
        let negated = words.first().is_some_and(|first| first.starts_with('!'));
        for (at, word) in words.iter().enumerate() {
            if !Self::KNOWN.contains(&word.strip_prefix('!').unwrap_or(word)) {
                return Err(format!("invalid require_auth value: \"{word}\""));
            }
            match (negated, word.starts_with('!')) {
                (true, false) => return Err(format!("require_auth method \"{word}\" cannot be mixed with negative methods")),
                (false, true) => {
                    return Err(format!("negative require_auth method \"{word}\" cannot be mixed with non-negative methods"));
                }
                _ => {}
            }
            if words[..at].contains(word) {
                return Err(format!("require_auth method \"{word}\" is specified more than once"));
            }
        }
        Ok(Self(words))
    }

    /// The list as it was written.
    pub fn as_text(&self) -> &str {
        self.0.as_text()
    }

    fn allows(&self, method: ServerMethod) -> bool {
        match self.0.first() {
            None => true,
            Some(first) if first.starts_with('!') => !self.0.iter().any(|word| word[1..] == *method.word()),
            Some(_) => self.0.has(method.word()),
        }
    }
}

/// What the connection to a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Not encrypted.
    Clear,
    /// Inside TLS, with what a login is bound to by the server's certificate, where that is defined.
    Tls(Option<Arc<[u8]>>),
}

/// What a server that says AuthenticationOk has had of us, and we of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proven {
    /// Nothing.
    Nothing,
    /// A password. It has proved nothing.
    Password,
    /// Each side has proved that it knows the password; `bound`: to whoever is at the other end of this very connection.
    Mutual {
        /// See above.
        bound: bool,
    },
}

/// The demands that hold for a database.
#[derive(Clone, Copy, Debug)]
pub struct Demands<'a> {
    /// Whether logins are bound.
    pub channel_binding: ChannelBinding,
    /// What servers may ask for.
    pub require_auth: &'a RequireAuth,
}

/// Why a server is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// It asks for what it may not ask for, or for nothing.
    #[error("authentication method requirement \"{demanded}\" failed: {asked}")]
    Method {
        /// require_auth.
        demanded: String,
        /// What it has done.
        asked: &'static str,
    },
    /// It asks for something that cannot be bound.
    #[error("channel binding required but not supported by server's authentication request")]
    Unbindable,
    /// It asks for SCRAM, and there is no TLS.
    #[error("channel binding required, but SSL not in use")]
    Clear,
    /// It asks for SCRAM without channel binding.
    #[error("channel binding is required, but server did not offer an authentication method that supports channel binding")]
    NotOffered,
    /// No hash is defined for its certificate.
    #[error("channel binding is required, but the server's certificate is signed by an algorithm for which none is defined")]
    Certificate,
    /// It speaks no SCRAM that we speak.
    #[error("none of the server's SASL authentication mechanisms are supported")]
    Mechanisms,
    /// It is content without.
    #[error("channel binding required, but server authenticated client without channel binding")]
    Unbound,
}

impl Demands<'_> {
    /// Whether a server that asks for this may be answered.
    pub fn permit(&self, method: ServerMethod) -> Result<(), Distrust> {
        if !self.require_auth.allows(method) {
            return Err(Distrust::Method { demanded: self.require_auth.as_text().to_owned(), asked: method.description() });
        }
        if self.binds() && method != ServerMethod::ScramSha256 {
            return Err(Distrust::Unbindable);
        }
        Ok(())
    }

    /// How a SCRAM login is bound at a server that offers these mechanisms.
    pub fn binding(&self, offered: &[&[u8]], channel: Channel) -> Result<Binding, Distrust> {
        let offers = |mechanism: &str| offered.contains(&mechanism.as_bytes());
        let binding = match channel {
            Channel::Clear if self.binds() => return Err(Distrust::Clear),
            Channel::Tls(_) if self.channel_binding == ChannelBinding::Disable => Binding::Unable,
            Channel::Tls(_) if !offers(MECHANISM_PLUS) && self.binds() => return Err(Distrust::NotOffered),
            Channel::Tls(_) if !offers(MECHANISM_PLUS) => Binding::NotOffered,
            Channel::Tls(Some(endpoint)) => Binding::EndPoint(endpoint),
            Channel::Tls(None) if self.binds() => return Err(Distrust::Certificate),
            // Said that it could be bound, a server that has offered it would refuse us.
            Channel::Clear | Channel::Tls(None) => Binding::Unable,
        };
        if offers(binding.mechanism()) { Ok(binding) } else { Err(Distrust::Mechanisms) }
    }

    /// Whether a server that says AuthenticationOk after this is believed.
    pub fn believe(&self, proven: Proven) -> Result<(), Distrust> {
        if proven == Proven::Nothing && !self.require_auth.allows(ServerMethod::None) {
            let asked = ServerMethod::None.description();
            return Err(Distrust::Method { demanded: self.require_auth.as_text().to_owned(), asked });
        }
        if self.binds() && proven != (Proven::Mutual { bound: true }) {
            return Err(Distrust::Unbound);
        }
        Ok(())
    }

    fn binds(&self) -> bool {
        self.channel_binding == ChannelBinding::Require
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::scram::MECHANISM;
    use super::*;
    use ServerMethod::{Md5, None as Nothing, Password, ScramSha256};

    fn allowed(text: &str) -> Vec<ServerMethod> {
        let list = RequireAuth::parse(text).unwrap();
        [Nothing, Password, Md5, ScramSha256].into_iter().filter(|method| list.allows(*method)).collect()
    }

    #[test]
    fn a_list_names_what_is_allowed_or_what_is_not() {
        assert_eq!(allowed(""), [Nothing, Password, Md5, ScramSha256]);
        assert_eq!(allowed("scram-sha-256"), [ScramSha256]);
        assert_eq!(allowed("scram-sha-256,none"), [Nothing, ScramSha256]);
        assert_eq!(allowed("!password, !md5"), [Nothing, ScramSha256]);
        assert_eq!(allowed("!none"), [Password, Md5, ScramSha256]);
        assert_eq!(allowed("gss,sspi,oauth"), []);
        for (text, wrong) in [
            ("scram", "invalid require_auth value: \"scram\""),
            ("!", "invalid require_auth value: \"!\""),
            ("!!md5", "invalid require_auth value: \"!!md5\""),
            ("md5,md5", "require_auth method \"md5\" is specified more than once"),
            ("!md5,password", "require_auth method \"password\" cannot be mixed with negative methods"),
            ("md5,!password", "negative require_auth method \"!password\" cannot be mixed with non-negative methods"),
        ] {
            assert_eq!(RequireAuth::parse(text).unwrap_err(), wrong);
        }
    }

    fn demands(channel_binding: ChannelBinding, require_auth: &RequireAuth) -> Demands<'_> {
        Demands { channel_binding, require_auth }
    }

    #[test]
    fn what_is_not_allowed_is_not_answered_and_not_believed() {
        let scram = RequireAuth::parse("scram-sha-256").unwrap();
        let demands = demands(ChannelBinding::Prefer, &scram);
        let refused = |asked: &str| format!("authentication method requirement \"scram-sha-256\" failed: {asked}");
        assert_eq!(demands.permit(ScramSha256), Ok(()));
        assert_eq!(demands.permit(Password).unwrap_err().to_string(), refused("server requested a cleartext password"));
        assert_eq!(demands.permit(Md5).unwrap_err().to_string(), refused("server requested a hashed password"));
        let nothing = demands.believe(Proven::Nothing).unwrap_err();
        assert_eq!(nothing.to_string(), refused("server did not complete authentication"));
        assert_eq!(demands.believe(Proven::Mutual { bound: false }), Ok(()));
    }

    #[test]
    fn where_binding_is_required_nothing_else_will_do() {
        let anything = RequireAuth::default();
        let demands = demands(ChannelBinding::Require, &anything);
        assert_eq!([Password, Md5].map(|method| demands.permit(method)), [const { Err(Distrust::Unbindable) }; 2]);
        assert_eq!(demands.permit(ScramSha256), Ok(()));
        for proven in [Proven::Nothing, Proven::Password, Proven::Mutual { bound: false }] {
            assert_eq!(demands.believe(proven), Err(Distrust::Unbound));
        }
        assert_eq!(demands.believe(Proven::Mutual { bound: true }), Ok(()));
    }

    /// As libpq chooses (`pg_SASL_init` in its `fe-auth.c`), except where it gives up though nothing is required: at a certificate that binds nothing, and
    /// at a server that offers binding in the clear, behind something that begins TLS for us.
    #[test]
    fn how_a_login_is_bound() {
        use ChannelBinding::{Disable, Prefer, Require};
        let anything = RequireAuth::default();
        let hash: Arc<[u8]> = Arc::from([1; 32]);
        let (clear, bare, tls) = (Channel::Clear, Channel::Tls(None), Channel::Tls(Some(hash.clone())));
        let (plain, plus, both) =
            (&[MECHANISM.as_bytes()][..], &[MECHANISM_PLUS.as_bytes()][..], &[MECHANISM_PLUS, MECHANISM].map(str::as_bytes)[..]);
        for (binding, offered, channel, chosen) in [
            (Prefer, both, &tls, Ok(Binding::EndPoint(hash.clone()))),
            (Prefer, plus, &tls, Ok(Binding::EndPoint(hash.clone()))),
            (Prefer, plain, &tls, Ok(Binding::NotOffered)),
            (Prefer, plain, &bare, Ok(Binding::NotOffered)),
            (Prefer, both, &bare, Ok(Binding::Unable)),
            (Prefer, plus, &bare, Err(Distrust::Mechanisms)),
            (Prefer, plain, &clear, Ok(Binding::Unable)),
            (Prefer, both, &clear, Ok(Binding::Unable)),
            (Prefer, &[b"OAUTHBEARER"], &tls, Err(Distrust::Mechanisms)),
            (Prefer, &[], &clear, Err(Distrust::Mechanisms)),
            (Disable, both, &tls, Ok(Binding::Unable)),
            (Disable, plain, &tls, Ok(Binding::Unable)),
            (Disable, plus, &tls, Err(Distrust::Mechanisms)),
            (Require, both, &tls, Ok(Binding::EndPoint(hash.clone()))),
            (Require, plain, &tls, Err(Distrust::NotOffered)),
            (Require, both, &bare, Err(Distrust::Certificate)),
            (Require, both, &clear, Err(Distrust::Clear)),
        ] {
            assert_eq!(demands(binding, &anything).binding(offered, channel.clone()), chosen, "{binding} {channel:?}");
        }
    }
}
