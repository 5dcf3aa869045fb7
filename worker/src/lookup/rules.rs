//! Whether a login's user is to be looked up, where, and as whom.

use crate::worker::Worker;
use shared::auth::Method;
use shared::config::{CONSOLE_DATABASES, Config, Database};
use std::sync::Arc;

/// A look-up that is to be made.
pub(crate) struct Lookup {
    /// The authentication database.
    pub(crate) database: Arc<Database>,
    /// It is the one that the client has named.
    pub(crate) of_client: bool,
    /// Whom the query runs as.
    pub(crate) auth_user: String,
    pub(crate) query: String,
}

/// Why it cannot be made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The configuration is wrong, which clients are told no more of; with what the log is told.
    Config(Option<String>),
    Disabled(String),
}

impl Worker {
    /// What is to be asked about `user`, a client of `entry` (`None`: the console, or no database of ours) that logs in by `method`.
    pub(crate) fn lookup_for(
        &self,
        method: Option<&Method>,
        entry: Option<&Arc<Database>>,
        console: bool,
        user: &str,
    ) -> Result<Option<Lookup>, Refusal> {
        let Some(lookup) = plan(&self.config, method, entry, console, user)? else { return Ok(None) };
        if self.marks.disabled.contains(&lookup.database.name) {
            return Err(Refusal::Disabled(lookup.database.name.clone()));
        }
        Ok(Some(lookup))
    }
}

fn plan(
    config: &Config,
    method: Option<&Method>,
    entry: Option<&Arc<Database>>,
    console: bool,
    user: &str,
) -> Result<Option<Lookup>, Refusal> {
    let settings = &config.settings;
    let Some(auth_user) = entry.and_then(|entry| entry.auth_user.clone()).or_else(|| settings.auth_user.clone()) else {
        return Ok(None);
    };
    match method {
        None | Some(Method::Any | Method::Reject) => return Ok(None),
        Some(Method::Pam | Method::Ldap { .. }) => return Err(Refusal::Config(None)),
        _ if config.secrets.contains_key(user) || entry.is_none() && !console => return Ok(None),
        _ => {}
    }
    let name = entry.and_then(|entry| entry.auth_dbname.as_ref()).or(settings.auth_dbname.as_ref());
    let database = match (name, entry) {
        (Some(name), _) => config
            .database(name)
            .filter(|_| !CONSOLE_DATABASES.contains(&name.as_str()))
            .ok_or_else(|| Refusal::Config(Some(format!("authentication database \"{name}\" is not configured."))))?,
        (None, Some(entry)) => Arc::clone(entry),
        (None, None) => return Err(Refusal::Config(None)),
    };
    let query = entry.and_then(|entry| entry.auth_query.clone()).unwrap_or_else(|| settings.auth_query.clone());
    Ok(Some(Lookup { database, of_client: name.is_none(), auth_user, query }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use shared::auth::Secret;

    fn config() -> Config {
        let mut config = Config::default();
        for (name, auth_user) in [("a", None), ("b", Some("asker"))] {
            let auth_user = auth_user.map(str::to_owned);
            config.databases.insert(name.into(), Arc::new(Database { auth_user, ..Database::new(name.into()) }));
        }
        config.secrets.insert("known".into(), Secret::parse("x"));
        config
    }

    /// Where and as whom a user is looked up.
    fn place(config: &Config, method: &Method, database: &str, user: &str) -> Result<Option<(String, String)>, Refusal> {
        let entry = config.database(database);
        let console = CONSOLE_DATABASES.contains(&database);
        plan(config, Some(method), entry.as_ref(), console, user).map(|l| l.map(|l| (l.database.name.clone(), l.auth_user)))
    }

    #[allow(clippy::unnecessary_wraps)] // as `place` gives it
    fn at(database: &str, user: &str) -> Result<Option<(String, String)>, Refusal> {
        Ok(Some((database.to_owned(), user.to_owned())))
    }

    #[test]
    fn who_is_looked_up_and_where() {
        let mut config = config();
        assert_eq!(place(&config, &Method::Md5, "a", "u"), Ok(None), "nobody to ask as");
        assert_eq!(place(&config, &Method::Md5, "b", "u"), at("b", "asker"));
        assert_eq!(place(&config, &Method::Md5, "b", "known"), Ok(None));
        config.settings.auth_user = Some("global".to_owned());
        assert_eq!(place(&config, &Method::Md5, "a", "u"), at("a", "global"));
        assert_eq!(place(&config, &Method::Md5, "b", "u"), at("b", "asker"));
        assert_eq!(place(&config, &Method::Md5, "nowhere", "u"), Ok(None));
        config.settings.auth_dbname = Some("a".to_owned());
        assert_eq!(place(&config, &Method::Trust, "b", "u"), at("a", "asker"));
    }

    #[test]
    fn what_the_configuration_does_not_allow() {
        let mut config = config();
        config.settings.auth_user = Some("global".to_owned());
        assert_eq!(place(&config, &Method::Pam, "a", "known"), Err(Refusal::Config(None)));
        assert_eq!(place(&config, &Method::Any, "a", "u"), Ok(None));
        assert_eq!(
            place(&config, &Method::Md5, "pgbouncer", "u"),
            Err(Refusal::Config(None)),
            "the console has no users of its own"
        );
        assert_eq!(place(&config, &Method::Md5, "pgbouncer", "known"), Ok(None));
        config.settings.auth_dbname = Some("c".to_owned());
        let text = "authentication database \"c\" is not configured.".to_owned();
        assert_eq!(place(&config, &Method::Md5, "a", "u"), Err(Refusal::Config(Some(text))));
        config.fallback = Some(Arc::new(Database::new("*".into())));
        assert_eq!(place(&config, &Method::Md5, "a", "u"), at("c", "global"));
        assert_eq!(place(&config, &Method::Md5, "pgbouncer", "u"), at("c", "global"));
    }
}
