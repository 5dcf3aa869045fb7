//! Workers of another build, beside which this one works while the fleet is upgraded to messages or shared memory of another layout.
//!
//! Before the supervisor executes the new build, the workers of this one *freeze*: none accepts a client, opens a connection, lends or borrows any more.
//! What logs in or connects gets a moment to be done. From then on seats in this build's region are only given up, and so the
//! census that the new region is made from holds all there will ever be. When the new build's workers are ready, those of this one leave
//! ([`super::resize`]) and send all they have to them, in the tongue that both understand ([`shared::control::Tongue`]).
//!
//! The two map different regions, so no word in either can decide who has what is on its way: a [`Token`] does that goes with it. The sender's seats stay as they
//! are, in transit, and end with its region; the receiver takes over their shadows in its own.
//!
//! A worker of the new build knows strangers by its region, one of the old build is told which they are.

use super::lend::PATIENCE;
use crate::client::{ClientState, Peer};
use crate::clock::Instant;
use crate::server::ServerState;
use crate::worker::{Listener, Worker};
use shared::control::{ToInbox, ToSupervisor, Tongue};
use shared::ids::Slot;
use shared::sys::token::Token;
use socket2::SockRef;
use std::os::fd::AsFd;
use std::time::Duration;

/// How long clients in login and connections that are being opened are waited for: new clients wait as long to be accepted.
const TIME_TO_SETTLE: Duration = Duration::from_millis(300);

/// One that has not taken what it was sent gets nothing for so long.
const SHUNNED: Duration = Duration::from_secs(2);

/// What this worker knows of strangers, and has to do with them.
#[derive(Default)]
pub(crate) struct Strangers {
    frost: Frost,
    /// Those that this one may send to.
    heirs: Vec<Heir>,
}

#[derive(Clone, Copy, Default)]
enum Frost {
    #[default]
    None,
    /// What is under way since then comes to its end.
    Settling(Instant),
    Frozen,
}

/// A worker of the build after this one.
struct Heir {
    slot: Slot,
    /// Sessions and servers that it was sent from here.
    sent: u32,
    not_before: Instant,
}

impl Strangers {
    /// Whether this worker takes nothing new.
    pub(crate) fn are_coming(&self) -> bool {
        !matches!(self.frost, Frost::None)
    }

    fn knows(&self, slot: Slot) -> bool {
        self.heirs.iter().any(|heir| heir.slot == slot)
    }

    /// Whom to send to, and what each has been sent from here.
    pub(super) fn heirs(&self, now: Instant) -> Vec<(Slot, u32)> {
        self.heirs.iter().filter(|heir| heir.not_before <= now).map(|heir| (heir.slot, heir.sent)).collect()
    }

    fn heir(&mut self, slot: Slot) -> Option<&mut Heir> {
        self.heirs.iter_mut().find(|heir| heir.slot == slot)
    }

    pub(super) fn sent(&mut self, slot: Slot) {
        if let Some(heir) = self.heir(slot) {
            heir.sent += 1;
        }
    }

    /// It has not taken what it was sent.
    pub(super) fn shun(&mut self, slot: Slot, now: Instant) {
        if let Some(heir) = self.heir(slot) {
            heir.not_before = now + SHUNNED;
        }
    }
}

impl Worker {
    /// The supervisor is about to execute another build.
    pub(super) fn freeze(&mut self) {
        if self.strangers.are_coming() {
            // It was told as it started, and again when it was ready.
            return;
        }
        // Whoever reads the next messages may be it.
        self.control.tongue = Tongue::Common;
        self.strangers.frost = Frost::Settling(self.now);
        for index in 0..self.listeners.len() {
            if matches!(self.listeners[index], Listener::Unix(_)) {
                self.hold_listener(index);
            }
        }
    }

    /// It goes on with this one after all.
    pub(super) fn thaw(&mut self) {
        if !self.strangers.are_coming() {
            return;
        }
        self.control.tongue = Tongue::Own;
        self.strangers = Strangers::default();
        self.accept_stalled();
        self.accept_all();
        self.publish_pools();
    }

    /// The supervisor has died. Nobody accepts but this worker, unless there are workers of the other build.
    pub(super) fn thaw_alone(&mut self) {
        if self.strangers.heirs.is_empty() {
            self.thaw();
        }
    }

    /// The workers of the other build are those of these slots, a bit for each.
    pub(super) fn strangers_told(&mut self, slots: u64) {
        let is_there = |slot: Slot| 1_u64.checked_shl(u32::from(slot.0)).is_some_and(|bit| slots & bit != 0);
        self.strangers.heirs.retain(|heir| is_there(heir.slot));
        for slot in (0..self.inboxes.len() as u8).map(Slot).filter(|slot| is_there(*slot)) {
            if !self.strangers.knows(slot) {
                self.strangers.heirs.push(Heir { slot, sent: 0, not_before: Instant::default() });
            }
        }
    }

    /// Whether that slot's worker maps another region than this one.
    pub(crate) fn is_stranger(&self, slot: Slot) -> bool {
        self.strangers.knows(slot) || self.shm.workers().is_stranger(slot)
    }

    /// In which form to write to that slot's worker.
    pub(super) fn tongue_of(&self, slot: Slot) -> Tongue {
        if self.is_stranger(slot) { Tongue::Common } else { Tongue::Own }
    }

    /// Whether connections may be opened, and other workers' borrowed. While this worker settles they may for clients that log in, since these cannot be handed over.
    pub(crate) fn may_grow(&self) -> bool {
        match self.strangers.frost {
            Frost::None => true,
            Frost::Settling(_) => self.has_logins(),
            Frost::Frozen => false,
        }
    }

    /// Whether a server may go to that slot's worker.
    pub(super) fn may_lend_to(&self, slot: Slot) -> bool {
        !self.strangers.are_coming() || self.strangers.knows(slot)
    }

    /// At the end of a turn: says so when nothing is under way any more.
    pub(crate) fn settle_freeze(&mut self) {
        let Frost::Settling(since) = self.strangers.frost else { return };
        let is_opening = |state: &ServerState| matches!(state, ServerState::Connecting | ServerState::Login(_));
        let quiet = || !self.has_logins() && !self.servers.iter().any(|(_, server)| is_opening(&server.state));
        // What is being lent may still become another's: that is waited for in any case.
        if self.lends.is_empty() && self.moves.is_empty() && (self.now - since >= TIME_TO_SETTLE || quiet()) {
            self.strangers.frost = Frost::Frozen;
            self.control.send(&ToSupervisor::Frozen, &[]);
        }
    }

    /// Clients that are logging in. One that has said nothing yet can be passed on as it is.
    fn has_logins(&self) -> bool {
        self.clients.iter().any(|(_, client)| matches!(&client.state, ClientState::Login(login) if !login.is_untouched()))
    }

    /// The new supervisor sees this worker's heart beat by messages: it maps another region.
    pub(crate) fn tick_strangers(&mut self) {
        if matches!(self.strangers.frost, Frost::Frozen) {
            let (clients, servers) = (self.client_count(), self.servers.len() as u32);
            self.control.send(&ToSupervisor::Beat { clients, servers }, &[]);
        }
    }

    /// A token for what goes to that slot, if its worker is a stranger. `Err`: there is none to be had.
    pub(super) fn token_for(&self, slot: Slot) -> Result<Option<Token>, ()> {
        if !self.is_stranger(slot) {
            return Ok(None);
        }
        Token::new().map(Some).map_err(|error| log::error!(target: "process", "nothing can be handed over: {error}"))
    }

    /// Whether what was sent to a stranger at that time is to be waited for; if not, nothing more is sent there for now.
    pub(super) fn waits_for_stranger(&mut self, slot: Slot, since: Instant) -> bool {
        let waits = self.now - since < PATIENCE;
        if !waits {
            self.strangers.shun(slot, self.now);
        }
        waits
    }

    /// A client that has not said anything goes to a stranger as it was accepted. False: it has, or could not be sent.
    pub(super) fn pass_untouched(&mut self, index: usize, to: Slot) -> bool {
        let Some(client) = self.clients.get(index) else { return false };
        let untouched = matches!(&client.state, ClientState::Login(login) if login.is_untouched()) && client.conn.input.is_empty();
        let address = match client.peer {
            Peer::Tcp(address) => Some(address),
            Peer::Unix { .. } => None,
        };
        // Of one that came by way of a proxy, the header has been read already if its address is the proxy's no more.
        let as_it_came = address.is_none() || SockRef::from(&client.conn).peer_addr().is_ok_and(|peer| peer.as_socket() == address);
        if !untouched || !as_it_came {
            return false;
        }
        let accepted_at = client.connected_at.as_micros();
        let socket = client.conn.as_fd().try_clone_to_owned();
        let message = ToInbox::Client { accepted_at, address };
        let sent = socket.is_ok_and(|socket| self.send_inbox(to, &message, &[socket.as_fd()]));
        if sent {
            self.drop_client(index);
        }
        sent
    }

    fn hold_listener(&mut self, index: usize) {
        self.stalled_listeners.insert(index);
        self.ignore_shared(index);
    }

    /// A listener has something to accept, which is left to the workers of the other build. True: it is.
    pub(crate) fn leaves_to_strangers(&mut self, listener: usize) -> bool {
        if self.strangers.are_coming() {
            self.hold_listener(listener);
        }
        self.strangers.are_coming()
    }
}
