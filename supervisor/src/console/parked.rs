//! A session while another image takes the place of this one.

use super::commands::Reply;
use super::receive::Inbound;
use super::session::{Phase, Session};
use super::stream::Stream;
use crate::engine::now;
use crate::fleet::{Answer, Moment};
use crate::luggage::{Arrived, Luggage, Place};
use crate::office::Office;
use crossbeam_channel::Receiver;
use serde::{Deserialize, Serialize};
use shared::control::{ConnectionState, ConsoleSession};
use shared::ids::{ConnectionId, SeatIndex};
use shared::wire::report::sqlstate;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// See the module.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Parked {
    client: ConsoleSession,
    socket: Place,
    connection: ConnectionState,
    since: Moment,
    /// Wall-clock time of its last command, microseconds since 1970.
    request_time: u64,
    killed: bool,
    phase: ParkedPhase,
}

#[derive(Debug, Serialize, Deserialize)]
enum ParkedPhase {
    Listening,
    /// A command to be run, perhaps for the second time.
    Given(String),
    /// The fleet owes an answer; the tag.
    Ordered(String),
    Leaving,
}

impl Parked {
    /// The session's number.
    pub(super) fn id(&self) -> ConnectionId {
        self.client.id
    }

    /// Its seat in the client table.
    pub(crate) fn seat(&self) -> SeatIndex {
        self.client.seat
    }

    /// Wall-clock time of its last command, microseconds since 1970.
    pub(super) fn request_time(&self) -> u64 {
        self.request_time
    }
}

impl Session {
    /// For the next image. What the fleet has answered by now is taken up first.
    pub(super) fn park(&mut self, office: &Office, luggage: &mut Luggage) -> Parked {
        // A connection that has failed is found to have failed there too.
        let _ = self.settle(office);
        Parked {
            client: self.client.clone(),
            socket: luggage.pack(self.stream.socket()),
            connection: ConnectionState { input: self.inbound.unread(), ..self.stream.park() },
            since: self.since,
            request_time: office.consoles().get(&self.client.id).map_or(0, |console| console.row.request_time),
            killed: self.killed.load(Ordering::Acquire),
            phase: match &self.phase {
                Phase::Listening => ParkedPhase::Listening,
                Phase::Given(command) | Phase::Running(command) => ParkedPhase::Given(command.clone()),
                Phase::Ordered { tag, .. } => ParkedPhase::Ordered(tag.clone()),
                Phase::Leaving => ParkedPhase::Leaving,
            },
        }
    }

    /// Goes on with a session; `answer` is where the fleet's answer will arrive if one is owed. `None`: its connection cannot go on here.
    pub(super) fn resume(office: &Office, parked: Parked, arrived: &mut Arrived, answer: Option<Receiver<Answer>>) -> Option<Self> {
        let Parked { client, socket, mut connection, since, killed, phase, .. } = parked;
        let mut inbound = Inbound::default();
        inbound.push(&std::mem::take(&mut connection.input));
        let stream = Stream::new(Arc::new(arrived.take(socket)?), connection)?;
        let (phase, is_lost) = match (phase, answer) {
            (ParkedPhase::Listening, _) => (Phase::Listening, false),
            (ParkedPhase::Given(command), _) => (Phase::Given(command), false),
            (ParkedPhase::Ordered(tag), Some(answer)) => (Phase::Ordered { tag, answer }, false),
            (ParkedPhase::Ordered(_), None) => (Phase::Listening, true),
            (ParkedPhase::Leaving, _) => (Phase::Leaving, false),
        };
        let killed = Arc::new(AtomicBool::new(killed));
        let mut session = Self { client, stream, killed, inbound, since, phase, taken_at: now() };
        if is_lost {
            let text = "it is not known what has become of the command".to_owned();
            session.reply(office, Reply::Error { code: sqlstate::ADMIN_SHUTDOWN, text, detail: None }).ok()?;
        }
        Some(session)
    }
}
