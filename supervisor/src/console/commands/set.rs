//! SET: of a setting, in force in all workers until the next RELOAD; or of what drivers set at connect, which is ignored.

use super::{Context, Reply, show};
use crate::fleet::Request;
use shared::config::Setting;

/// Settings that a session of PostgreSQL has and drivers set without being asked.
const IGNORED: [&str; 12] = [
    "application_name",
    "bytea_output",
    "client_min_messages",
    "default_transaction_read_only",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "intervalstyle",
    "jit",
    "lock_timeout",
    "role",
    "search_path",
    "statement_timeout",
];

pub(super) fn run(context: &Context<'_>, key: &str, value: &str) -> Reply {
    let lower = key.to_ascii_lowercase();
    if show::fake(&lower).is_some() || IGNORED.contains(&lower.as_str()) {
        return Reply::Notice { text: "SET ignored".to_owned(), detail: None, tag: "SET" };
    }
    if !context.admin {
        return Reply::error("admin access needed");
    }
    let shown = Setting::find(key).map_or(value, |setting| setting.kind.shown(value));
    Reply::order(Request::Set(key.to_owned(), value.to_owned()), &format!("SET {key}={shown}"))
}
