//! Another supervisor takes the place of one that has died.
//!
//! It finds this worker at its door ([`shared::door`]), where nobody is let in as long as there is a supervisor, and nobody at any time who is not of this
//! process's user. Who has said [`ToWorker::Adopt`] there has the control socket, and is told of everything that its predecessor held: what
//! this process holds of it. Meanwhile nothing stands still; connections that arrive from other workers are named once more, since
//! each of the two may have told of what it had when the other did not have it.

use super::supervisor::Control;
use crate::clock::Instant;
use crate::worker::{Life, Listener, Source, Worker};
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use nix::errno::Errno;
use nix::unistd::geteuid;
use shared::control::{
    self, Estate, Learned, Lore, MOST_SERVERS, ServerSeats, StopMode, ToSupervisor, ToWorker, Welcome, WorkerStage,
};
use shared::door::{self, Hello};
use shared::orders::Marks;
use shared::shm::Shm;
use shared::sys::{memfd, seqpacket};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;
use zeroize::Zeroizing;

/// How long a guest may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);

/// Descriptors that it takes to answer a guest: its own, and those of the configuration and of what was learned.
const TO_ANSWER: usize = 3;

/// See the module.
#[derive(Default)]
pub(crate) struct Adoption {
    door: Option<Door>,
    /// Descriptors that are held only to be closed when a guest comes: clients may have all the others.
    spare: Vec<OwnedFd>,
    /// Who has been greeted and has not said anything yet, and since when.
    guest: Option<(OwnedFd, Instant)>,
    /// A supervisor has been told of all there is, and has not heard of all the others yet.
    under_way: bool,
}

struct Door {
    socket: OwnedFd,
    /// The shared memory, to be handed over.
    memory: OwnedFd,
}

impl Adoption {
    /// Listens at a door that was bound for this process, one of so many.
    pub(super) fn at(door: OwnedFd, memory: OwnedFd, registry: &Registry, slots: usize) -> io::Result<Self> {
        door::listen(&door)?;
        registry.register(&mut SourceFd(&door.as_raw_fd()), Source::Door.into(), Interest::READABLE)?;
        let mut adoption = Self { door: Some(Door { socket: door, memory }), ..Self::default() };
        adoption.keep_spare(TO_ANSWER + slots);
        Ok(adoption)
    }

    /// Takes spare descriptors until it has so many, or there are none.
    fn keep_spare(&mut self, most: usize) {
        let Some(door) = &self.door else { return };
        while self.spare.len() < most
            && let Ok(one) = door.memory.try_clone()
        {
            self.spare.push(one);
        }
    }

    /// Descriptors are on their way from a supervisor that has not heard of all yet.
    pub(super) fn make_room(&mut self) {
        if self.under_way {
            self.spare.clear();
        }
    }
}

impl Worker {
    /// Somebody may stand at the door.
    pub(crate) fn somebody_knocks(&mut self) {
        while let Some(door) = &self.adoption.door {
            match door::accept(&door.socket) {
                Ok(Some((guest, uid))) => self.greet_guest(guest, uid),
                Ok(None) => return,
                Err(error) if error.raw_os_error() == Some(Errno::EMFILE as i32) && !self.adoption.spare.is_empty() => {
                    self.adoption.spare.clear();
                }
                Err(error) => return log::warn!(target: "process", "nobody can be let in at the door: {error}"),
            }
        }
    }

    /// Whoever is turned away sees its connection end.
    fn greet_guest(&mut self, guest: OwnedFd, uid: u32) {
        let Some(door) = &self.adoption.door else { return };
        if !self.control.is_lost() || self.adoption.guest.is_some() {
            return;
        }
        if uid != geteuid().as_raw() {
            return log::warn!(target: "process", "uid {uid} was turned away at the door");
        }
        let (by, pid) = (shared::NAME.to_owned(), std::process::id());
        let hello = Hello { by, version: control::VERSION, layout: Shm::LAYOUT, owner: self.me, pid };
        let registry = self.poll.registry();
        let greeted = hello
            .say(guest.as_fd(), door.memory.as_fd())
            .and_then(|()| registry.register(&mut SourceFd(&guest.as_raw_fd()), Source::Guest.into(), Interest::READABLE));
        match greeted {
            Ok(()) => self.adoption.guest = Some((guest, self.now)),
            Err(error) => log::warn!(target: "process", "who stands at the door cannot be greeted: {error}"),
        }
    }

    /// The guest wants to be the supervisor, or has gone.
    pub(crate) fn guest_speaks(&mut self) {
        let Some((guest, _)) = &self.adoption.guest else { return };
        let mut buffer = vec![0; control::MAX_MESSAGE];
        let wanted = match seqpacket::recv(guest.as_fd(), &mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Ok(received) if received.len > 0 => control::decode(&buffer[..received.len]).ok(),
            _ => None,
        };
        let Some(guest) = self.let_go_of_guest() else { return };
        match wanted {
            Some(ToWorker::Adopt) => self.become_its(guest),
            _ => log::warn!(target: "process", "who stood at the door was no supervisor"),
        }
    }

    fn let_go_of_guest(&mut self) -> Option<OwnedFd> {
        let (guest, _) = self.adoption.guest.take()?;
        let _ = self.poll.registry().deregister(&mut SourceFd(&guest.as_raw_fd()));
        Some(guest)
    }

    /// A guest that says nothing must not keep others out, nor must one that came when no descriptor could be opened.
    pub(crate) fn tick_adoption(&mut self) {
        self.control.flush();
        if self.adoption.guest.as_ref().is_some_and(|(_, since)| self.now - *since > PATIENCE) {
            self.let_go_of_guest();
        }
        if self.control.is_lost() {
            self.somebody_knocks();
        }
        self.keep_spare_descriptors();
    }

    /// How many are kept for the next supervisor: it sends every slot's inbox, too.
    pub(super) fn kept_descriptors(&self) -> usize {
        if self.adoption.door.is_some() { TO_ANSWER + self.inboxes.len() } else { 0 }
    }

    fn keep_spare_descriptors(&mut self) {
        let most = self.kept_descriptors();
        self.adoption.keep_spare(most);
    }

    /// The guest is the supervisor from now on.
    fn become_its(&mut self, guest: OwnedFd) {
        let both = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut SourceFd(&guest.as_raw_fd()), Source::Control.into(), both) {
            return log::error!(target: "process", "another supervisor's socket cannot be watched: {error}");
        }
        let mut control = Control::new(guest);
        self.adoption.spare.clear();
        let sent = self.send_estate(&mut control);
        self.keep_spare_descriptors();
        if let Err(error) = sent {
            return log::error!(target: "process", "another supervisor cannot be told of all there is: {error}");
        }
        crate::ignore_signals();
        (self.control, self.adoption.under_way) = (control, true);
        log::info!(target: "process", "there is a supervisor again");
    }

    fn send_estate(&self, control: &mut Control) -> io::Result<()> {
        let config = self.config.to_bytes().map(Zeroizing::new).map_err(io::Error::other)?;
        let config = memfd::create_sealed("pgfleet-config", &config)?;
        let lore = control::encode_long(&self.lore()).map(Zeroizing::new).map_err(io::Error::other)?;
        let lore = memfd::create_sealed("pgfleet-lore", &lore)?;
        let own = self.inboxes.get(self.me.slot.index()).ok_or(ErrorKind::NotFound)?;
        let mut fds = vec![config.as_fd(), lore.as_fd(), self.inbox.as_fd(), own.as_fd()];
        let tcp = self.listeners.iter().filter_map(|listener| match listener {
            Listener::Tcp(slot, socket) => Some((*slot, socket.as_fd())),
            _ => None,
        });
        let unix = self.listeners.iter().filter_map(|listener| match listener {
            Listener::Unix(socket) => Some(socket.as_fd()),
            _ => None,
        });
        let (slots, sockets): (Vec<_>, Vec<_>) = tcp.unzip();
        let unix: Vec<_> = unix.collect();
        fds.extend(sockets.iter().chain(&unix));
        let servers: Vec<(ServerSeats, BorrowedFd<'_>)> = self.all_servers().collect();
        let estate = Estate {
            owner: self.me,
            stage: if self.life == Life::Serving { WorkerStage::Serving } else { WorkerStage::Leaving },
            slots: self.inboxes.len() as u8,
            tcp: slots,
            unix: unix.len() as u8,
            marks: self.marks.clone(),
            last_order: self.last_order,
            mock_secret: self.mock_secret,
            servers: servers.len() as u32,
        };
        let sent = control.send(&ToSupervisor::Estate(Box::new(estate)), &fds);
        let parts = servers.chunks(MOST_SERVERS).map(|some| some.iter().copied().unzip());
        let sent =
            parts.fold(sent, |sent, (seats, sockets): (_, Vec<_>)| sent && control.send(&ToSupervisor::Servers(seats), &sockets));
        if sent { Ok(()) } else { Err(ErrorKind::BrokenPipe.into()) }
    }

    /// Those on their way to another worker too: the message may be lost.
    fn all_servers(&self) -> impl Iterator<Item = (ServerSeats, BorrowedFd<'_>)> {
        let here = self
            .servers
            .iter()
            .map(|(_, server)| server)
            .filter(|server| !matches!(server.state, crate::server::ServerState::Dead));
        here.chain(self.moves.servers()).map(|server| (server.seats, server.conn.as_fd())).chain(self.lends.sockets())
    }

    fn name_servers(&mut self) {
        let servers: Vec<(ServerSeats, OwnedFd)> =
            self.all_servers().filter_map(|(seats, socket)| Some((seats, socket.try_clone_to_owned().ok()?))).collect();
        for (seats, socket) in &servers {
            self.control.send(&ToSupervisor::ServerOpened(*seats), &[socket.as_fd()]);
        }
    }

    fn lore(&self) -> Lore {
        let mut lore = Lore { learned: self.client_keys.all().cloned().map(Learned::Keys).collect(), welcomes: Vec::new() };
        for index in self.pools.indices() {
            let pool = self.pools.get(index);
            let (database, user) = (&pool.entry.name, &pool.user);
            if let Some(secret) = &pool.secret {
                lore.learned.push(Learned::Secret { database: database.clone(), user: user.clone(), secret: secret.clone() });
            }
            if let Some(greeting) = &pool.welcome {
                lore.welcomes.push(Welcome { database: database.clone(), user: user.clone(), parameters: greeting.parameters() });
            }
        }
        for ((database, user), parameters) in &self.pools.welcomes {
            let (database, user, parameters) = (database.clone(), user.clone(), parameters.clone());
            lore.welcomes.push(Welcome { database, user, parameters });
        }
        lore
    }

    /// A server has come from another worker.
    pub(super) fn tell_of_arrival(&mut self, index: usize) {
        if self.adoption.under_way {
            let server = &self.servers[index];
            self.control.send(&ToSupervisor::ServerOpened(server.seats), &[server.conn.as_fd()]);
        }
    }

    /// The supervisor has heard of everything that there is, and says how the fleet stands.
    pub(super) fn adopted(&mut self, marks: Marks, inboxes: Vec<OwnedFd>) {
        if !std::mem::take(&mut self.adoption.under_way) {
            // A version that has failed was told of some, and took that with it.
            self.name_servers();
        }
        // Those of another build are no more, or there would be no supervisor.
        self.thaw();
        self.replace_inboxes(inboxes);
        self.prepared = None;
        self.owed.clear();
        self.marks = marks;
        self.apply_pauses();
        self.ask_for_names_again();
        // It was to end with the fleet, which goes on: what it has goes to those that stay.
        if matches!(self.life, Life::Stopping(mode) if mode != StopMode::Immediate) {
            self.life = Life::Serving;
            self.leave();
        }
    }
}
