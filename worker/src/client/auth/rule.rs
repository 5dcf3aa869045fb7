//! Which method holds for a client.

use shared::auth::Method;
use shared::auth::hba::Asked;
use shared::config::{AuthType, Config};

/// The method for a client. `None`: no rule is meant for it.
pub(crate) fn method(config: &Config, asked: &Asked<'_>) -> Option<Method> {
    Some(match config.settings.auth_type {
        AuthType::Any => Method::Any,
        AuthType::Trust => Method::Trust,
        AuthType::Plain => Method::Plain,
        AuthType::Md5 => Method::Md5,
        AuthType::ScramSha256 => Method::ScramSha256,
        AuthType::Cert => Method::Cert { map: None },
        AuthType::Ldap => Method::Ldap { options: None },
        AuthType::Pam => Method::Pam,
        AuthType::Hba => return config.access.find(asked).map(|rule| rule.method.clone()),
    })
}
