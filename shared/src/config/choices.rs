//! Settings whose value is one of a few words, compared without regard to case.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Declares an enum together with its words; the first variant is the type's default.
macro_rules! choices {
    ($(#[$doc:meta])* $name:ident { $(#[$first_doc:meta])* $first:ident = $first_word:literal, $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name {
            $(#[$first_doc])* #[default] $first,
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every word, in the order of the variants.
            pub const WORDS: &'static [&'static str] = &[$first_word, $($word,)*];

            /// The value that `word` names; its case does not matter.
            pub fn from_word(word: &str) -> Option<Self> {
                [Self::$first, $(Self::$variant,)*].into_iter().find(|v| v.word().eq_ignore_ascii_case(word))
            }

            /// Its word, in lower case.
            pub fn word(self) -> &'static str {
                match self { Self::$first => $first_word, $(Self::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }
    };
}

choices! {
    /// When a server connection goes back to its pool.
    PoolMode {
        /// When the client disconnects.
        Session = "session",
        /// When its transaction ends.
        Transaction = "transaction",
        /// After each statement.
        Statement = "statement",
    }
}

choices! {
    /// How clients prove who they are.
    AuthType {
        /// An MD5 hash, or SCRAM when the stored secret is a SCRAM verifier.
        Md5 = "md5",
        /// As `Trust`, and the name itself is ignored: the database entry must force a user.
        Any = "any",
        /// No password; the user must be known.
        Trust = "trust",
        /// The password in clear text.
        Plain = "plain",
        /// A TLS client certificate.
        Cert = "cert",
        /// Rules of the auth_hba_file.
        Hba = "hba",
        /// An LDAP server.
        Ldap = "ldap",
        /// PAM.
        Pam = "pam",
        /// SCRAM-SHA-256.
        ScramSha256 = "scram-sha-256",
    }
}

choices! {
    /// Whether and how TLS is used on a side.
    SslMode {
        /// Never.
        Disable = "disable",
        /// When the peer wants it.
        Allow = "allow",
        /// Wherever the peer can.
        Prefer = "prefer",
        /// Always.
        Require = "require",
        /// Always, and the certificate's chain is verified.
        VerifyCa = "verify-ca",
        /// Always, and the chain and the host name are verified.
        VerifyFull = "verify-full",
    }
}

choices! {
    /// The order in which the hosts of a database's list are tried.
    LoadBalanceHosts {
        /// Each connection goes to the next.
        RoundRobin = "round-robin",
        /// The first that answers.
        Disable = "disable",
    }
}

choices! {
    /// How TLS with a server begins.
    SslNegotiation {
        /// It is asked first whether it will.
        Postgres = "postgres",
        /// At once, as PostgreSQL can from version 17 on.
        Direct = "direct",
    }
}

choices! {
    /// Whether logins at servers are bound to the TLS session they run in.
    ChannelBinding {
        /// Where the server offers it.
        Prefer = "prefer",
        /// Never.
        Disable = "disable",
        /// Always: a server without is not logged in to.
        Require = "require",
    }
}

choices! {
    /// What becomes of startup parameters that are not tracked.
    StartupParameters {
        /// They are set on the client's server connection.
        Apply = "apply",
        /// The client is refused, as by PgBouncer.
        Reject = "reject",
    }
}

impl AuthType {
    /// Whether users and their secrets come from auth_file.
    pub fn uses_auth_file(self) -> bool {
        !matches!(self, Self::Any | Self::Pam)
    }
}

/// The facilities of `syslog_facility`.
pub const SYSLOG_FACILITIES: &[&str] =
    &["daemon", "auth", "authpriv", "user", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_ignore_case_and_come_back_in_lower_case() {
        assert_eq!(PoolMode::from_word("Transaction"), Some(PoolMode::Transaction));
        assert_eq!(PoolMode::from_word("trans"), None);
        for word in AuthType::WORDS {
            assert_eq!(AuthType::from_word(word).map(AuthType::word), Some(*word));
        }
        assert_eq!(format!("{:>10}", SslMode::Prefer), "    prefer");
    }
}
