//! `peer`: a client of the Unix socket is who the operating system says it is.
//!
//! The kernel tells the user's number, the supervisor its name: it may have to be asked of a server. Names are kept for a while, and one that is
//! being asked for is not asked for again.

use super::{Account, Verdict};
use crate::client::{ClientState, Peer};
use crate::clock::Instant;
use crate::worker::Worker;
use rustc_hash::FxHashMap;
use shared::control::ToSupervisor;
use shared::ids::ConnectionId;
use shared::wire::report::sqlstate;
use std::time::Duration;

/// How long a name is believed, and how long its answer is waited for before it is asked for again.
const KEPT: Duration = Duration::from_secs(5);

const REFUSED: Verdict = Verdict::Refused(sqlstate::INVALID_AUTHORIZATION, "unix socket login rejected");

/// What is known of the operating system's users, and who waits to know more.
#[derive(Default)]
pub(crate) struct SystemUsers {
    known: FxHashMap<u32, (String, Instant)>,
    asked: FxHashMap<u32, Instant>,
    waiting: Vec<Waiting>,
}

/// A client whose user's name has been asked for.
struct Waiting {
    uid: u32,
    index: usize,
    id: ConnectionId,
    map: Option<String>,
}

impl Worker {
    /// Whether the client may be who it says; if that cannot be told yet, its verdict follows.
    pub(in crate::client) fn peer_verdict(&mut self, index: usize, map: Option<String>) -> Verdict {
        let Peer::Unix { uid, .. } = self.clients[index].peer else { return REFUSED };
        if let Some((name, until)) = self.system_users.known.get(&uid)
            && *until > self.now
        {
            let name = name.clone();
            return self.mapped(index, map.as_deref(), &name);
        }
        if self.system_users.asked.get(&uid).is_none_or(|since| *since + KEPT <= self.now) {
            if !self.control.send(&ToSupervisor::NameUser { uid }, &[]) {
                let prefix = self.clients[index].prefix(self.config.settings.listen_port);
                log::warn!("{prefix} the name of uid {uid} cannot be asked of the supervisor");
                return REFUSED;
            }
            self.system_users.asked.insert(uid, self.now);
        }
        let clients = &self.clients;
        let waits = |w: &Waiting| clients.get(w.index).is_some_and(|client| client.id == w.id && client.is_alive());
        self.system_users.waiting.retain(waits);
        self.system_users.waiting.push(Waiting { uid, index, id: self.clients[index].id, map });
        Verdict::Elsewhere
    }

    /// Another supervisor has not heard which names are waited for.
    pub(crate) fn ask_for_names_again(&mut self) {
        for uid in self.system_users.asked.keys() {
            self.control.send(&ToSupervisor::NameUser { uid: *uid }, &[]);
        }
    }

    /// The supervisor has found a user's name, or not.
    pub(crate) fn user_named(&mut self, uid: u32, name: &Result<String, String>) {
        self.system_users.asked.remove(&uid);
        self.system_users.known.retain(|_, (_, until)| *until > self.now);
        if let Ok(name) = name {
            self.system_users.known.insert(uid, (name.clone(), self.now + KEPT));
        }
        let (answered, waiting) = std::mem::take(&mut self.system_users.waiting).into_iter().partition(|w| w.uid == uid);
        self.system_users.waiting = waiting;
        for Waiting { index, id, map, .. } in answered {
            if self.clients.get(index).is_none_or(|client| client.id != id) {
                continue;
            }
            let verdict = match name {
                Ok(name) => self.mapped(index, map.as_deref(), name),
                Err(error) => {
                    let prefix = self.clients[index].prefix(self.config.settings.listen_port);
                    log::warn!("{prefix} could not find the name of uid {uid}: {error}");
                    REFUSED
                }
            };
            self.login_answered(index, id, verdict, &[]);
        }
    }

    /// Whether a user of the operating system may be the user that the client wants to be.
    fn mapped(&self, index: usize, map: Option<&str>, system_user: &str) -> Verdict {
        let ClientState::Login(login) = &self.clients[index].state else { return REFUSED };
        let Some(Account { user, denied: false, .. }) = login.account() else { return REFUSED };
        let admitted = match map {
            Some(map) => self.config.access.maps(map, user, |name| name == system_user),
            None => system_user == user,
        };
        if admitted {
            return Verdict::Admitted;
        }
        if let Some(map) = map {
            let prefix = self.clients[index].prefix(self.config.settings.listen_port);
            log::info!("{prefix} ident map: {map} does not have a match");
        }
        REFUSED
    }
}
