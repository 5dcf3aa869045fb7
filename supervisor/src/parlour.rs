//! What the supervisor's threads hold, parked while another image takes the place of this one.
//!
//! The fleet's thread closes the gate, deals with what has come in, and then has everything parked: no thread moves, so what is written down is
//! what the next image goes on with. Nothing is taken from anybody. Should the exec fail, the gate is opened and all go on as if
//! nothing had been.

use crate::asks::{self, Question};
use crate::console;
use crate::control::{Control, Unsent};
use crate::fleet::Answer;
use crate::gate::Closed;
use crate::luggage::{Arrived, Luggage};
use crate::office::Office;
use crate::{dns, orphans, stats};
use crossbeam_channel::Receiver;
use serde::{Deserialize, Serialize};
use shared::control::ServerSeats;
use shared::ids::{ConnectionId, Owner, SeatIndex};
use std::collections::HashSet;
use std::sync::Arc;

/// See the module.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Parlour {
    consoles: Vec<console::Parked>,
    backends: orphans::Kept,
    names: dns::Kept,
    history: stats::Kept,
    /// What workers have asked.
    asks: Vec<(Owner, Question)>,
    /// Answers that a worker has not taken.
    answers: Vec<(Owner, Vec<Unsent>)>,
}

impl Office {
    /// Parks everything; `workers` are all that have a control socket.
    pub(crate) fn park<'a>(
        &self,
        closed: &Closed<'_>,
        workers: impl Iterator<Item = (Owner, &'a Control)>,
        luggage: &mut Luggage,
    ) -> Parlour {
        Parlour {
            consoles: console::park(self, closed, luggage),
            backends: self.orphans.park(closed, luggage),
            names: self.names.park(closed),
            history: self.history.park(),
            asks: self.asks.park(closed),
            answers: workers.map(|(owner, control)| (owner, control.unsent())).collect(),
        }
    }
}

/// What the supervisor has in shared memory for what is parked.
#[derive(Debug)]
pub(crate) struct Seats {
    /// Of console sessions.
    pub(crate) clients: HashSet<SeatIndex>,
    /// Of backends that outlived their worker.
    pub(crate) orphans: HashSet<ServerSeats>,
}

impl Parlour {
    /// See there.
    pub(crate) fn seats(&self) -> Seats {
        Seats { clients: self.consoles.iter().map(console::Parked::seat).collect(), orphans: self.backends.seats().collect() }
    }

    /// Goes on with everything, before a worker is listened to. `worker` finds the control socket of one; `answer` gives where the fleet's
    /// answer to a console session will arrive, if it owes one.
    pub(crate) fn resume<'a>(
        self,
        office: &Arc<Office>,
        worker: impl Fn(Owner) -> Option<&'a Control>,
        mut answer: impl FnMut(ConnectionId) -> Option<Receiver<Answer>>,
        arrived: &mut Arrived,
    ) {
        for parked in self.consoles {
            console::resume(office, parked, arrived, &mut answer);
        }
        office.orphans.resume(self.backends, arrived);
        dns::resume(office, self.names);
        office.history.resume(self.history);
        for (owner, unsent) in self.answers {
            if let Some(control) = worker(owner) {
                control.take_up(unsent);
            }
        }
        for (owner, question) in self.asks {
            if let Some(control) = worker(owner) {
                asks::ask(office, owner, question, control);
            }
        }
    }
}
