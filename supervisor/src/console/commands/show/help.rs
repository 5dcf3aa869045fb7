//! SHOW HELP: a notice, no rows.

use super::super::Reply;

const LINES: [&str; 19] = [
    "SHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|USERS|VERSION",
    "SHOW PEERS|PEER_POOLS",
    "SHOW FDS|LISTS|STATE|WORKERS",
    "SHOW DNS_HOSTS|DNS_ZONES",
    "SHOW STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS",
    "SET key = arg",
    "RELOAD",
    "PAUSE",
    "RESUME",
    "SHUTDOWN",
    "SHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS",
    // Not yet: kept in the order in which PgBouncer lists them.
    "PAUSE [<db>] (not yet)",
    "RESUME [<db>] (not yet)",
    "DISABLE <db> (not yet)",
    "ENABLE <db> (not yet)",
    "RECONNECT [<db>] (not yet)",
    "KILL [<db>] (not yet)",
    "KILL_CLIENT <client_id> (not yet)",
    "WAIT_CLOSE [<db>] (not yet)",
];

pub(super) fn run() -> Reply {
    let detail = LINES.iter().fold(String::new(), |detail, line| detail + "\n\t" + line);
    Reply::Notice { text: "Console usage".to_owned(), detail: Some(detail), tag: "SHOW" }
}
