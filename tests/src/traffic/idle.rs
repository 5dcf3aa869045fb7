//! Connections that are idle nearly always.

use super::stage::Stage;
use crate::Client;
use std::time::Duration;

/// Between two queries, whichever connection they go by.
const PAUSE: Duration = Duration::from_millis(100);

/// Each connection knows its name whenever it is used again.
pub(super) fn mostly(stage: &Stage) {
    let mut clients: Vec<Client> = (0..stage.plan.idle).map(|_| stage.door.enter()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        stage.query(client, &format!("set application_name = 'idle {number}'"));
    }
    while stage.goes_on() {
        let number = rand::random_range(0..clients.len());
        assert_eq!(stage.value(&mut clients[number], "show application_name"), format!("idle {number}"));
        Stage::think_up_to(PAUSE);
    }
}
