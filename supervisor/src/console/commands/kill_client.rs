//! KILL_CLIENT: closes the client with a number of SHOW CLIENTS, wherever it is, the console's own included.

use super::{Context, Reply};
use crate::fleet::{Failure, Request};
use shared::ids::ConnectionId;

pub(super) fn run(context: &Context<'_>, argument: Option<&str>) -> Reply {
    let digits = argument.map_or("", leading_digits);
    if digits.is_empty() {
        return Reply::error("invalid client pointer supplied");
    }
    let Ok(id) = digits.parse().map(ConnectionId) else { return Reply::failed(&Failure::ClientNotFound) };
    if let Some(console) = context.office.consoles().get(&id) {
        console.kill();
        return Reply::done("KILL_CLIENT");
    }
    context.order(Request::KillClient(id), "KILL_CLIENT")
}

/// As PgBouncer reads a number: what follows the digits is not looked at.
fn leading_digits(text: &str) -> &str {
    &text[..text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_pgbouncer_reads_them() {
        for (text, digits) in [("12", "12"), ("12x", "12"), ("0", "0"), ("x12", ""), ("", ""), ("\u{e9}", ""), ("1\u{e9}", "1")] {
            assert_eq!(leading_digits(text), digits, "{text}");
        }
    }
}
