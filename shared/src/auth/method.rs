//! How a client is to prove who it is: what auth_type says of all, or a rule of auth_hba_file of some.

use super::LdapOptions;
use serde::{Deserialize, Serialize};

/// One way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// Not at all; whatever name it gives, it becomes the user that the database entry forces.
    Any,
    /// Not at all, but its name must be known.
    Trust,
    /// It cannot.
    Reject,
    /// By its password in clear text.
    Plain,
    /// By an MD5 hash, or as `ScramSha256` when that is what is stored of its password.
    Md5,
    /// By SCRAM-SHA-256.
    ScramSha256,
    /// By a TLS certificate made out to its name, or to one that this map leads to it.
    Cert {
        /// The map's name in auth_ident_file.
        map: Option<String>,
    },
    /// By being, on the other end of a Unix socket, the operating system's user of that name, or one that this map leads to it.
    Peer {
        /// The map's name in auth_ident_file.
        map: Option<String>,
    },
    /// By a password that an LDAP server accepts.
    Ldap {
        /// As in auth_ldap_options; `None`: those.
        options: Option<Box<LdapOptions>>,
    },
    /// By a password that PAM accepts.
    Pam,
}
