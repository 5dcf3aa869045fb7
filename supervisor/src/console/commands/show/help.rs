//! SHOW HELP: a notice, no rows.

use super::super::Reply;

const LINES: [&str; 20] = [
    "SHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|USERS|VERSION",
    "SHOW PEERS|PEER_POOLS",
    "SHOW FDS|SOCKETS|ACTIVE_SOCKETS|LISTS|MEM|STATE|WORKERS",
    "SHOW DNS_HOSTS|DNS_ZONES",
    "SHOW STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS",
    "SET key = arg",
    "RELOAD",
    "RESTART [DEADLINE <seconds>]",
    "PAUSE [<db>]",
    "RESUME [<db>]",
    "DISABLE <db>",
    "ENABLE <db>",
    "RECONNECT [<db>]",
    "KILL [<db>]",
    "KILL_CLIENT <client_id>",
    "SHUTDOWN",
    "SHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS",
    "WAIT_CLOSE [<db>]",
    "DRAIN [RATE <clients per second>] [DEADLINE <seconds>]",
    "UNDRAIN",
];

pub(super) fn run() -> Reply {
    let detail = LINES.iter().fold(String::new(), |detail, line| detail + "\n\t" + line);
    Reply::Notice { text: "Console usage".to_owned(), detail: Some(detail), tag: "SHOW" }
}
