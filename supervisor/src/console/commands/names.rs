//! The databases that commands name: entries of the configuration, and those that `*` stands for.

use super::{Context, Reply};
use shared::config::CONSOLE_DATABASES;
use shared::orders::Scope;

/// What a command with an optional database is about. `verb` is for the error about the console's own: `cannot VERB admin db`.
pub(super) fn scope(context: &Context<'_>, argument: Option<&str>, verb: &str) -> Result<Scope, Reply> {
    argument.map_or(Ok(Scope::All), |name| database(context, name, verb).map(Scope::Database))
}

/// The same for a database that must be named.
pub(super) fn required(context: &Context<'_>, argument: Option<&str>, verb: &str) -> Result<String, Reply> {
    database(context, argument.ok_or_else(|| Reply::error("a database is required"))?, verb)
}

fn database(context: &Context<'_>, name: &str, verb: &str) -> Result<String, Reply> {
    let config = context.office.config();
    if CONSOLE_DATABASES.contains(&name) {
        return Err(Reply::error(format!("cannot {verb} admin db: {name}")));
    }
    if config.database(name).is_none() {
        return Err(no_such(name));
    }
    Ok(name.to_owned())
}

/// The error for a name that is no database's.
pub(super) fn no_such(name: &str) -> Reply {
    Reply::error(format!("no such database: {name}"))
}

/// Whether the name is an entry's, the console's own, or that of a database that came into being by `*`.
pub(super) fn is_known(context: &Context<'_>, name: &str) -> bool {
    let office = context.office;
    let has_pool = || office.shm.pools().filter_map(|pool| office.shm.pool_names(pool)).any(|(database, _)| database == name);
    let is_marked = || context.marks().is_some_and(|marks| marks.paused.contains(name) || marks.disabled.contains(name));
    let config = office.config();
    let automatic = || config.database(name).is_some() && (has_pool() || is_marked());
    config.databases.contains_key(name) || CONSOLE_DATABASES.contains(&name) || automatic()
}
