//! The worker: everything one process owns, and its turn of the event loop.
//!
//! Behaviour is spread over the modules by subject, as `impl Worker` blocks: [`crate::client`] (accept, login, session, close),
//! [`crate::server`] (connect, login, relay, close), [`crate::pool`] (who gets which server), [`crate::fleet`] (supervisor and other
//! workers). A connection that closes stays in its slab, dead, until the turn is over, so that a stale event finds it and is ignored.

use crate::client::{Client, ClientState};
use crate::clock::{Instant, now};
use crate::fleet::adoption::Adoption;
use crate::fleet::handover;
use crate::fleet::lend::Lends;
use crate::fleet::orders::Owed;
use crate::fleet::reload::Prepared;
use crate::fleet::supervisor::Control;
use crate::hashing::Hashing;
use crate::params::Interner;
use crate::pool::Pools;
use crate::protocol::statements::Registry as Statements;
use crate::server::{Server, ServerState};
use crate::socket::Buffers;
use mio::event::Event;
use mio::{Events, Poll, Token};
use rustc_hash::FxHashMap;
use shared::auth::ClientKeys;
use shared::config::Config;
use shared::control::StopMode;
use shared::ids::{ConnectionId, Owner, Slot};
use shared::orders::Marks;
use shared::shm::Shm;
use slab::Slab;
use std::collections::{BTreeSet, VecDeque};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

/// One read takes at most this much.
pub(crate) const READ_BYTES: usize = 64 * 1024;

/// Reads of one connection in one turn, so that a bulk transfer does not hold up the others.
pub(crate) const READS_PER_TURN: usize = 4;

/// How often what has no event of its own is looked after.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// What an event belongs to. Packed into mio's token: kind in the high half, index in the low one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    Control,
    /// Where another supervisor finds this worker.
    Door,
    /// Who says that it is one.
    Guest,
    Inbox,
    Listener(usize),
    Client(usize),
    Server(usize),
    /// A connection that carries a cancel request to PostgreSQL or a peer.
    Carrier(usize),
}

impl From<Source> for Token {
    fn from(source: Source) -> Token {
        let (kind, index) = match source {
            Source::Client(i) => (0, i),
            Source::Server(i) => (1, i),
            Source::Listener(i) => (2, i),
            Source::Carrier(i) => (3, i),
            Source::Inbox => (4, 0),
            Source::Control => (5, 0),
            Source::Door => (5, 1),
            Source::Guest => (5, 2),
        };
        Token(kind << 32 | index)
    }
}

impl From<Token> for Source {
    #[inline]
    fn from(Token(token): Token) -> Source {
        let index = token & 0xffff_ffff;
        match token >> 32 {
            0 => Source::Client(index),
            1 => Source::Server(index),
            2 => Source::Listener(index),
            3 => Source::Carrier(index),
            4 => Source::Inbox,
            _ => match index {
                1 => Source::Door,
                2 => Source::Guest,
                _ => Source::Control,
            },
        }
    }
}

/// A listening socket.
pub(crate) enum Listener {
    /// Of this slot.
    Tcp(Slot, mio::net::TcpListener),
    Unix(mio::net::UnixListener),
    /// It was one; another worker accepts from it, or the fleet is shutting down.
    Closed,
}

/// How far this worker has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    Serving,
    /// Its slot is to be no more: it goes on until its clients have left.
    Leaving,
    /// They have, and the supervisor knows what was counted here.
    Left,
    Stopping(StopMode),
}

pub(crate) struct Worker {
    pub(crate) me: Owner,
    pub(crate) shm: Shm,
    pub(crate) config: Rc<Config>,
    /// The generation to be put in force by the next Commit.
    pub(crate) prepared: Option<Prepared>,
    pub(crate) mock_secret: [u8; 32],
    /// Not with -q or -d.
    pub(crate) log_to_stderr: bool,
    pub(crate) life: Life,
    /// Which databases are paused or disabled.
    pub(crate) marks: Marks,
    /// Orders that wait for servers.
    pub(crate) owed: Vec<Owed>,
    /// The last order.
    pub(crate) last_order: u32,
    /// Has said that no server is left.
    pub(crate) drained: bool,

    pub(crate) poll: Poll,
    pub(crate) control: Control,
    /// How another supervisor is to adopt it.
    pub(crate) adoption: Adoption,
    pub(crate) inbox: OwnedFd,
    /// Sending ends of all workers' inboxes, by slot.
    pub(crate) inboxes: Vec<OwnedFd>,
    pub(crate) listeners: Vec<Listener>,
    /// Those at which accepting stopped because descriptors ran out.
    pub(crate) stalled_listeners: BTreeSet<usize>,

    pub(crate) clients: Slab<Client>,
    pub(crate) servers: Slab<Server>,
    /// Sessions by the seat that their cancel key names.
    pub(crate) by_seat: FxHashMap<shared::ids::SeatIndex, usize>,
    pub(crate) carriers: Slab<crate::cancel::Carrier>,
    pub(crate) peers: crate::cancel::Peers,
    pub(crate) pools: Pools,
    /// The log says that shared memory has no room for another pool or limit.
    pub(crate) told_no_room: bool,
    /// And that clients have named too many databases.
    pub(crate) told_unproven: Option<Instant>,
    pub(crate) lends: Lends,
    pub(crate) moves: handover::Moves,
    pub(crate) strangers: crate::fleet::strangers::Strangers,
    pub(crate) interner: Interner,
    pub(crate) statements: Statements,
    pub(crate) hashing: Hashing,
    /// Like whom users look who do not exist.
    pub(crate) typical: crate::client::auth::Typical,
    pub(crate) system_users: crate::client::auth::SystemUsers,
    pub(crate) proxies: crate::client::Proxies,
    /// Passwords that clients have proved to be theirs by LDAP or PAM: they log in to servers.
    pub(crate) typed_passwords: FxHashMap<Rc<crate::client::Identity>, shared::auth::Password>,
    pub(crate) client_keys: ClientKeys,
    pub(crate) encryption: crate::encryption::Encryption,

    /// Clients to be cut off unless they are done by then: in login, or reading their last message.
    pub(crate) login_deadlines: VecDeque<(Instant, usize, ConnectionId)>,
    pub(crate) closing_deadlines: VecDeque<(Instant, usize, ConnectionId)>,
    pub(crate) idle_timers: crate::timers::Timers<(usize, ConnectionId)>,
    next_tick: Instant,

    /// Time at the start of this turn.
    pub(crate) now: Instant,
    pub(crate) read_buffer: Vec<u8>,
    pub(crate) scratch: Vec<u8>,
    pub(crate) inbox_buffer: Vec<u8>,
    pub(crate) replies: Vec<u8>,
    pub(crate) buffers: Buffers,
    /// Connections with more to read than one turn allows.
    pub(crate) again: Vec<Source>,
    dead_clients: Vec<usize>,
    dead_servers: Vec<usize>,
    /// RLIMIT_NOFILE.
    pub(crate) descriptor_limit: usize,
}

/// What the loop uses in every turn.
pub(crate) struct Turn {
    events: Events,
    again: Vec<Source>,
}

impl Default for Turn {
    fn default() -> Self {
        Self { events: Events::with_capacity(1024), again: Vec::new() }
    }
}

/// What the start message brought.
pub(crate) struct Start {
    pub(crate) me: Owner,
    pub(crate) shm: Shm,
    pub(crate) config: Config,
    pub(crate) mock_secret: [u8; 32],
    pub(crate) log_to_stderr: bool,
    pub(crate) marks: Marks,
    pub(crate) poll: Poll,
    pub(crate) control: Control,
    pub(crate) adoption: Adoption,
    pub(crate) inbox: OwnedFd,
    pub(crate) inboxes: Vec<OwnedFd>,
}

impl Worker {
    pub(crate) fn new(start: Start) -> Self {
        let now = now();
        Self {
            me: start.me,
            typical: crate::client::auth::Typical::new(&start.config),
            hashing: Hashing::new(&start.config),
            proxies: crate::client::Proxies::of(&start.config.settings),
            config: Rc::new(start.config),
            prepared: None,
            mock_secret: start.mock_secret,
            log_to_stderr: start.log_to_stderr,
            life: Life::Serving,
            marks: start.marks,
            owed: Vec::new(),
            last_order: 0,
            drained: false,
            poll: start.poll,
            control: start.control,
            adoption: start.adoption,
            inbox: start.inbox,
            inboxes: start.inboxes,
            listeners: Vec::new(),
            stalled_listeners: BTreeSet::new(),
            clients: Slab::new(),
            servers: Slab::new(),
            by_seat: FxHashMap::default(),
            carriers: Slab::new(),
            peers: crate::cancel::Peers::default(),
            pools: Pools::default(),
            told_no_room: false,
            told_unproven: None,
            lends: Lends::default(),
            moves: handover::Moves::default(),
            strangers: crate::fleet::strangers::Strangers::default(),
            interner: Interner::default(),
            statements: Statements::new(start.shm.clone()),
            shm: start.shm,
            system_users: crate::client::auth::SystemUsers::default(),
            typed_passwords: FxHashMap::default(),
            client_keys: ClientKeys::default(),
            encryption: crate::encryption::Encryption::default(),
            login_deadlines: VecDeque::new(),
            closing_deadlines: VecDeque::new(),
            idle_timers: crate::timers::Timers::default(),
            next_tick: now,
            now,
            read_buffer: vec![0; READ_BYTES],
            scratch: Vec::with_capacity(4096),
            inbox_buffer: vec![0; shared::control::MAX_MESSAGE],
            replies: Vec::new(),
            buffers: Buffers::default(),
            again: Vec::new(),
            dead_clients: Vec::new(),
            dead_servers: Vec::new(),
            descriptor_limit: shared::sys::process::descriptor_limit().map_or(1024, |limit| limit as usize),
        }
    }

    /// Serves until told to stop.
    pub(crate) fn run(mut self) -> ExitCode {
        let mut turn = Turn::default();
        loop {
            let timeout = self.until_next_turn();
            if let Some(status) = self.turn(&mut turn, timeout) {
                return status;
            }
        }
    }

    /// How long the loop may wait for events, counted from the last turn.
    pub(crate) fn until_next_turn(&self) -> Duration {
        if self.again.is_empty() && self.hashing.is_idle() && !self.hashing.has_ahead() && !self.encryption.has_work() {
            let until_tick = self.next_tick.saturating_duration_since(self.now);
            if self.moves.is_empty() { until_tick } else { until_tick.min(handover::PACE) }
        } else {
            Duration::ZERO
        }
    }

    /// Waits for events and deals with them. The exit status when there is nothing left to do.
    pub(crate) fn turn(&mut self, turn: &mut Turn, timeout: Duration) -> Option<ExitCode> {
        let Turn { events, again } = turn;
        if let Err(error) = self.poll.poll(events, Some(timeout))
            && error.kind() != std::io::ErrorKind::Interrupted
        {
            log::error!(target: "process", "waiting for events failed: {error}");
            return Some(ExitCode::FAILURE);
        }
        self.now = now();
        // It has been stopped: those who have waited for it meanwhile, here and elsewhere, go before whoever asks first.
        if self.now - self.next_tick > TICK {
            self.tick();
        }
        for event in &*events {
            self.dispatch(event);
        }
        // Two lists that take turns: neither is ever allocated anew.
        std::mem::swap(&mut self.again, again);
        let is_quiet = events.is_empty() && again.is_empty();
        for source in again.drain(..) {
            match source {
                Source::Client(index) => self.client_readable(index, false),
                Source::Server(index) => self.server_again(index),
                Source::Listener(index) => self.accept(index),
                Source::Inbox => self.inbox_readable(),
                _ => {}
            }
        }
        self.hash();
        if is_quiet {
            self.hash_ahead();
        }
        if self.now >= self.next_tick {
            self.tick();
        }
        self.work_off_handshakes();
        self.settle_lends();
        self.bury();
        self.hand_sessions_over();
        self.settle_freeze();
        let workers = self.shm.workers();
        workers.beat(self.me.slot, self.now.as_micros());
        workers.set_servers(self.me.slot, self.servers.len() as u32);
        self.tell_clients();
        self.finished()
    }

    #[inline]
    fn dispatch(&mut self, event: &Event) {
        match Source::from(event.token()) {
            Source::Client(index) => {
                if event.is_writable() {
                    self.client_writable(index);
                }
                if event.is_readable() {
                    self.client_readable(index, event.is_read_closed());
                }
            }
            Source::Server(index) => {
                if event.is_writable() {
                    self.server_writable(index);
                }
                if event.is_readable() {
                    self.server_readable(index, event.is_read_closed());
                }
            }
            Source::Listener(index) => self.accept(index),
            Source::Carrier(index) => self.carrier_event(index),
            Source::Inbox => self.inbox_readable(),
            Source::Control => self.control_event(event.is_readable(), event.is_writable()),
            Source::Door => self.somebody_knocks(),
            Source::Guest => self.guest_speaks(),
        }
    }

    /// Ten times a second: deadlines, idle connections, lost messages, the heartbeat.
    fn tick(&mut self) {
        self.next_tick = self.now + TICK;
        self.hash_ahead();
        self.expire_clients();
        self.expire_servers();
        self.tick_pools();
        self.tick_leaving();
        self.tick_adoption();
        self.tick_strangers();
        self.inbox_readable();
        self.tick_carriers();
        self.accept_stalled();
        self.cool_down();
        if self.life == Life::Stopping(StopMode::WaitForServers) && !self.drained && self.servers.is_empty() {
            self.drained = true;
            self.control.send(&shared::control::ToSupervisor::Drained, &[]);
        }
        self.settle_orders();
    }

    /// Whether there is nothing left to do, and the exit status.
    fn finished(&mut self) -> Option<ExitCode> {
        let done = match self.life {
            Life::Serving => false,
            Life::Leaving => self.has_left(),
            Life::Stopping(StopMode::WaitForClients) => {
                if self.clients.is_empty() {
                    // The last one may be on its way from another worker.
                    self.inbox_readable();
                }
                self.clients.is_empty()
            }
            // Clients stay until the whole fleet has no server; without a supervisor nobody else would say so.
            Life::Stopping(StopMode::WaitForServers) => self.servers.is_empty() && self.control.is_lost(),
            Life::Left | Life::Stopping(StopMode::Immediate) => true,
        };
        (done && self.control.is_flushed()).then_some(ExitCode::SUCCESS)
    }

    /// A number for a new connection.
    pub(crate) fn next_connection_id(&mut self) -> ConnectionId {
        ConnectionId::new(self.me.slot, self.shm.workers().count_connection(self.me.slot))
    }

    /// How many clients there are, without those that have ended in this turn.
    pub(crate) fn client_count(&self) -> u32 {
        (self.clients.len() - self.dead_clients.len()) as u32
    }

    /// The client is gone; its place is free after this turn.
    pub(crate) fn forget_client(&mut self, index: usize) {
        self.clients[index].state = ClientState::Dead;
        self.dead_clients.push(index);
    }

    /// The server connection is gone; its place is free after this turn.
    pub(crate) fn forget_server(&mut self, index: usize) {
        self.servers[index].state = ServerState::Dead;
        self.dead_servers.push(index);
    }

    fn bury(&mut self) {
        for index in self.dead_clients.drain(..) {
            self.clients.remove(index);
        }
        for index in self.dead_servers.drain(..) {
            self.servers.remove(index);
        }
    }

    /// This worker is one of several, so what it does must be told to the others.
    #[inline]
    pub(crate) fn has_colleagues(&self) -> bool {
        self.inboxes.len() > 1
    }
}

#[cfg(test)]
impl Worker {
    /// A worker that has no other, no listener and nobody who hears what it reports.
    #[allow(clippy::unwrap_used)]
    pub(crate) fn alone(config: Config) -> Self {
        let (shm, _) = Shm::create().unwrap();
        let (control, _) = shared::sys::seqpacket::pair().unwrap();
        let (inbox, sending) = shared::sys::seqpacket::pair().unwrap();
        let me = Owner { slot: Slot(0), incarnation: shared::ids::Incarnation(2) };
        Self::new(Start {
            me,
            shm,
            config,
            mock_secret: [7; 32],
            log_to_stderr: false,
            marks: Marks::default(),
            poll: Poll::new().unwrap(),
            control: Control::new(control),
            adoption: Adoption::default(),
            inbox,
            inboxes: vec![sending],
        })
    }
}
