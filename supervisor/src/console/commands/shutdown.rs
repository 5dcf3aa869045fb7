//! SHUTDOWN in its three forms. The immediate one is answered by the end of the connection.

use super::Reply;
use crate::fleet::Request;
use shared::control::StopMode;

/// `None`: an unknown form.
pub(super) fn run(form: Option<&str>) -> Option<Reply> {
    let mode = match form.map(str::to_ascii_lowercase).as_deref() {
        None => StopMode::Immediate,
        Some("wait_for_servers") => StopMode::WaitForServers,
        Some("wait_for_clients") => StopMode::WaitForClients,
        Some(_) => return None,
    };
    Some(Reply::order(Request::Shutdown(mode), "SHUTDOWN"))
}
