//! KILL_CLIENT: closes the client with a number of SHOW CLIENTS, wherever it is, the console's own included.

use super::Reply;
use crate::fleet::Failure;
use shared::ids::ConnectionId;

pub(super) fn run(argument: Option<&str>) -> Reply {
    let digits = argument.map_or("", leading_digits);
    if digits.is_empty() {
        return Reply::error("invalid client pointer supplied");
    }
    let Ok(id) = digits.parse().map(ConnectionId) else { return Reply::failed(&Failure::ClientNotFound) };
    Reply::Kill(id)
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
