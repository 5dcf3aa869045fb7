//! The fleet's thread: the only one that forks, sends decisions to workers and reaps them.
//!
//! Everything else (control sockets, signals, console sessions, look-ups, files) happens in threads that feed one channel. An input
//! becomes an event for the state machine; its actions are carried out here, in order, before the next input is looked at.

mod grow;
pub(crate) mod load;
mod rescue;
mod resume;
mod spawn;
mod unread;
mod upgrade;

pub(crate) use grow::{NewSlot, inbox};

use crate::control::Control;
use crate::control_dir::ControlDir;
use crate::fleet::{Action, Answer, AskId, Changed, Ended, Event, Fleet, Holdings, Loaded, Moment, Notice, Pulse, Rules};
use crate::listen::{self, Keeper, Listeners, Stray};
use crate::notify::{self, Watchdog};
use crate::office::{Candidate, Input, Office};
use crate::orphans::{Inboxes, wake_waiters};
use crate::process::Process;
use crate::upgrade::{Binary, WayBack};
use crate::{last_breath, logging};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use load::{Ground, Source};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use shared::config::{Config, Database};
use shared::control::{StopMode, ToWorker};
use shared::door;
use shared::ids::{ConnectionId, Incarnation, Owner, PoolId, Slot};
use shared::shm::{Shm, WorkerRow, WorkerState};
use shared::sys::clock;
use shared::tls;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A tick that comes so late shows that this process was stopped: a container was paused, a machine suspended.
const ASLEEP: Duration = Duration::from_secs(2);

/// How often heartbeats, deadlines and the watchdog are looked at.
const TICK: Duration = Duration::from_millis(250);

/// What the engine is made of when the fleet starts.
pub(crate) struct Parts {
    /// The fleet's threads' common ground.
    pub(crate) office: Arc<Office>,
    /// Where inputs arrive.
    pub(crate) inputs: Receiver<Input>,
    /// Where they are sent.
    pub(crate) input: Sender<Input>,
    /// The configuration in force, as workers receive it.
    pub(crate) snapshot: OwnedFd,
    /// What the fleet owns.
    pub(crate) own: Belongings,
    /// How it was started.
    pub(crate) setup: Setup,
}

/// What a fleet owns, whichever image its supervisor runs.
pub(crate) struct Belongings {
    /// The shared memory's descriptor.
    pub(crate) memory: OwnedFd,
    /// The listeners.
    pub(crate) listeners: Listeners,
    /// Receiving ends of the inboxes, by slot,
    pub(crate) inbox_ends: Vec<OwnedFd>,
    /// and their sending ends.
    pub(crate) inboxes: Arc<Inboxes>,
}

/// How a supervisor was started, and where it says what.
pub(crate) struct Setup {
    /// The log file.
    pub(crate) log_file: Option<OwnedFd>,
    /// Warnings that were logged.
    pub(crate) warned: HashSet<String>,
    /// Whether to log to standard error.
    pub(crate) stderr: bool,
    /// How many -v.
    pub(crate) verbose: u8,
    /// Where the image that runs was found, and where an upgrade finds the next.
    pub(crate) image: PathBuf,
    /// The directory by which there is no second fleet beside this one, with the workers' doors.
    pub(crate) control_dir: Option<ControlDir>,
}

/// A worker's process.
struct Worker {
    owner: Owner,
    process: Process,
    control: Control,
}

/// See the module.
pub(crate) struct Engine {
    fleet: Fleet,
    parts: Parts,
    workers: Vec<Option<Worker>>,
    candidate: Option<Box<Candidate>>,
    /// What the slots own that the configuration in force adds, until they are there.
    new_slots: Vec<NewSlot>,
    generation: u64,
    /// The gate is closed, and what has come is dealt with.
    stands_still: bool,
    /// Who waits for an answer, and its console session if it is one.
    asks: BTreeMap<AskId, (Option<ConnectionId>, Sender<Answer>)>,
    last_ask: u64,
    mock_secret: [u8; 32],
    watchdog: Watchdog,
    last_tick: Moment,
    ticket_key_since: Moment,
    /// When this process last woke from being stopped, with its workers perhaps: their hearts have not beaten because of that.
    awake_since: Moment,
    exit: Option<u8>,
    /// A binary that can take the fleet over,
    binary: Option<Binary>,
    /// and how many were asked.
    preflights: u64,
    /// Where the image before was found, while it may come back.
    image_before: Option<PathBuf>,
    /// To the image before, while this one may have to go it.
    way_back: Option<WayBack>,
    /// The shared memory of that image, if this one has another.
    memory_before: Option<OwnedFd>,
}

impl Engine {
    /// An engine for as many slots as there are inboxes.
    pub(crate) fn new(parts: Parts, mock_secret: [u8; 32]) -> Self {
        let slots = parts.own.inbox_ends.len();
        let keeps = parts.own.listeners.keeper != Keeper::Nobody;
        let fleet = Fleet::new(slots, rules(&parts.office.config(), keeps), crate::NAME);
        Self {
            fleet,
            workers: (0..slots).map(|_| None).collect(),
            candidate: None,
            new_slots: Vec::new(),
            generation: 1,
            stands_still: false,
            asks: BTreeMap::new(),
            last_ask: 0,
            mock_secret,
            watchdog: Watchdog::from_environment(),
            last_tick: now(),
            ticket_key_since: now(),
            awake_since: Moment::ZERO,
            exit: None,
            binary: None,
            preflights: 0,
            image_before: None,
            way_back: None,
            memory_before: None,
            parts,
        }
    }

    /// Starts the fleet and runs it until it ends; returns the exit status. No worker is left then.
    pub(crate) fn start(mut self) -> u8 {
        self.rotate_ticket_key();
        self.run(Event::Start)
    }

    /// Runs the fleet, from this event on, until it ends; returns the exit status. No worker is left then.
    pub(crate) fn run(mut self, first: Event) -> u8 {
        self.event(first);
        let mut next_tick = Instant::now() + TICK;
        while self.exit.is_none() {
            match self.parts.inputs.recv_deadline(next_tick) {
                Ok(input) => self.take(input),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.exit = Some(1),
            }
            if Instant::now() >= next_tick {
                next_tick = Instant::now() + TICK;
                self.tick();
            }
        }
        last_breath::end_workers();
        self.exit.unwrap_or(1)
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => self.event(event),
            Input::Ask(request, session, reply) => {
                self.last_ask += 1;
                let ask = AskId(self.last_ask);
                self.asks.insert(ask, (session, reply));
                self.event(Event::Asked { ask, request });
            }
            Input::Cancel(session) => {
                let asked = self.asks.iter().find(|(_, (asker, _))| *asker == Some(session));
                if let Some(ask) = asked.map(|(ask, _)| *ask) {
                    self.event(Event::Cancelled { ask });
                }
            }
            Input::Gone(slot, incarnation) => self.gone(slot, incarnation),
            Input::Loaded(outcome) => self.loaded(outcome),
            Input::Preflighted(number, outcome) => self.preflighted(number, outcome),
        }
    }

    fn tick(&mut self) {
        let now = now();
        self.watchdog.alive(now);
        if now.saturating_sub(self.last_tick) > ASLEEP {
            self.awake_since = now;
        }
        self.last_tick = now;
        if now.saturating_sub(self.ticket_key_since) > tls::ROTATION {
            self.rotate_ticket_key();
        }
        let (table, awake_since) = (self.parts.office.shm.workers(), self.awake_since);
        let pulse = |row: WorkerRow| Pulse {
            beat: (row.heartbeat_us > 0).then(|| Duration::from_micros(row.heartbeat_us).max(awake_since)),
            holds: holdings(&row),
        };
        let pulses = (0..self.workers.len()).map(|slot| pulse(table.get(Slot(slot as u8)))).collect();
        let backlog = self.parts.own.listeners.has_backlog();
        self.event(Event::Tick { pulses, backlog });
        // What was sent by somebody who had not seen yet that the worker was gone.
        (0..self.workers.len()).for_each(|slot| self.pass_on_unread(Slot(slot as u8)));
    }

    /// Tickets are sealed with another key from now on; those of the one before it are still good.
    fn rotate_ticket_key(&mut self) {
        self.ticket_key_since = now();
        match tls::Tickets::new_key() {
            Some(key) => self.parts.office.shm.ticket_keys().add(&key),
            None => log::error!("no random bytes for the key of TLS tickets"),
        }
    }

    /// Takes one event through the state machine and does what follows.
    fn event(&mut self, event: Event) {
        let (mut events, mut last) = (VecDeque::from([event]), None);
        while let Some(event) = events.pop_front() {
            for action in self.fleet.handle(now(), event) {
                if action.is_last() {
                    last = Some(action);
                } else {
                    events.extend(self.carry_out(action));
                }
            }
            if events.is_empty() {
                events.extend(last.take().and_then(|action| self.carry_out(action)));
            }
        }
    }

    /// Does one thing. What it leads to at once is returned.
    fn carry_out(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Spawn { slot, incarnation, marks, welcomes, keys } => {
                return Some(match self.spawn(Owner { slot, incarnation }, marks, welcomes, &keys) {
                    Ok(pid) => Event::Spawned { slot, pid },
                    Err(error) => Event::SpawnFailed { slot, error: listen::reason(&error) },
                });
            }
            Action::Send(slot, message) => return self.send(slot, message),
            Action::Kill(slot) => self.kill(slot),
            Action::Load => return self.load(Source::File),
            Action::LoadSet(key, value) => return self.load(Source::Set(key, value)),
            Action::LoadReopen => return self.load(Source::Reopen),
            Action::LoadTlsFiles => return self.load(Source::TlsFiles),
            Action::Adopt => self.adopt(),
            Action::Grow => self.grow(),
            Action::AddSlot => return Some(Event::SlotAdded(self.add_slot())),
            Action::Discard => self.candidate = None,
            Action::Preflight(binary) => return self.preflight(binary),
            Action::StandStill => return self.stand_still(),
            // Only as the answer to `Still`, where it is looked for.
            Action::Leap => log::error!("the fleet does not stand still"),
            Action::Settle => self.settle(),
            Action::RollBack(reason) => return Some(self.roll_back(reason)),
            Action::Answer(ask, answer) => {
                if let Some((_, reply)) = self.asks.remove(&ask) {
                    // A session that has ended meanwhile wants no answer.
                    let _ = reply.send(answer);
                }
            }
            Action::Log(level, line) => log::log!(level, "{line}"),
            Action::Fatal(line) => shared::fatal!("{line}"),
            Action::Notify(notice) => self.tell_manager(notice),
            Action::SealListeners => self.parts.own.listeners.seal(&self.parts.office.config().settings),
            Action::ShutListeners => {
                let strays = self.parts.own.listeners.shut();
                self.let_in(strays);
            }
            Action::OpenListeners => {
                let strays = self.parts.own.listeners.open(&self.parts.office.config().settings);
                self.let_in(strays);
            }
            Action::CloseListeners => self.parts.own.listeners.tcp.clear(),
            Action::Exit(status) => self.exit = Some(status),
        }
        None
    }

    fn send(&self, slot: Slot, message: ToWorker) -> Option<Event> {
        let worker = self.workers.get(slot.index())?.as_ref()?;
        let mut descriptors = Vec::new();
        let inboxes = self.parts.own.inboxes.ends();
        let message = match (message, &self.candidate) {
            (ToWorker::Prepare { generation, .. }, Some(candidate)) => {
                descriptors.push(candidate.snapshot.as_fd());
                descriptors.extend(candidate.log_file.as_ref().map(AsFd::as_fd));
                ToWorker::Prepare { generation, log_file: candidate.log_file.is_some() }
            }
            (ToWorker::Inboxes { first }, _) => {
                descriptors.extend(inboxes.iter().skip(usize::from(first)).map(AsFd::as_fd));
                ToWorker::Inboxes { first }
            }
            (ToWorker::Adopted { marks }, _) => {
                descriptors.extend(inboxes.iter().map(AsFd::as_fd));
                ToWorker::Adopted { marks }
            }
            (ToWorker::Listen { of, .. }, _) => {
                let listeners = &self.parts.own.listeners;
                let unix = listeners.unix.as_ref().filter(|_| of == slot);
                descriptors.extend(listeners.tcp.get(of.index()).into_iter().flatten().map(AsFd::as_fd));
                let tcp = descriptors.len() as u8;
                descriptors.extend(unix.map(AsFd::as_fd));
                ToWorker::Listen { of, listeners: tcp, unix_listeners: u8::from(unix.is_some()) }
            }
            (message, _) => message,
        };
        if matches!(message, ToWorker::Stop(mode) if mode != StopMode::Immediate) {
            self.parts.office.shm.workers().set_state(slot, WorkerState::Draining);
        }
        // What can be done without, or asked for again, is no reason to end a worker that is busy for a moment.
        let vital =
            !matches!(message, ToWorker::Welcome(_) | ToWorker::Learned(_) | ToWorker::Report { .. } | ToWorker::Resolved(_));
        match worker.control.send(&message, &descriptors) {
            Ok(()) => None,
            Err(error) if error.kind() == ErrorKind::WouldBlock && !vital => {
                log::debug!("worker {slot} does not read its control socket; a message was left out");
                None
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Some(Event::Deaf { slot }),
            // It is dying; its end will be an event of its own.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => None,
            Err(error) => {
                log::error!("a message to worker {slot} could not be sent: {}", listen::reason(&error));
                vital.then_some(Event::Deaf { slot })
            }
        }
    }

    fn kill(&self, slot: Slot) {
        if let Some(worker) = &self.workers[slot.index()]
            && let Err(error) = worker.process.kill()
        {
            log::error!("could not kill worker {slot} (pid {}): {}", worker.process.pid(), listen::reason(&error));
        }
    }

    /// Whoever is ready has listeners worth keeping, also after a reload that has added some.
    fn tell_manager(&self, notice: Notice) {
        let listeners = &self.parts.own.listeners;
        if notice == Notice::Ready && listeners.keeper == Keeper::Store {
            let unix = listeners.unix.iter().map(AsFd::as_fd);
            notify::store(&listeners.tcp.iter().flatten().map(AsFd::as_fd).chain(unix).collect::<Vec<_>>());
        }
        notify::tell(notice);
    }

    /// Who has connected while the port was being closed is a worker's client.
    fn let_in(&self, strays: Vec<Stray>) {
        for Stray { socket, address } in strays {
            unread::hand_over(&self.parts.office.shm, &self.parts.own.inboxes.ends(), address, socket.as_fd());
        }
    }

    /// A worker's process has ended and all it said was handled: reap it, reclaim its seats.
    fn gone(&mut self, slot: Slot, incarnation: Incarnation) {
        let place = &mut self.workers[slot.index()];
        let Some(worker) = place.take_if(|worker| worker.owner.incarnation == incarnation) else { return };
        let ended = worker.process.reap();
        last_breath::forget(slot);
        let office = &self.parts.office;
        let lost = holdings(&office.shm.workers().get(slot));
        let orphans = office.shm.bury(worker.owner);
        office.shm.workers().vacate(slot);
        if let Some(directory) = &self.parts.setup.control_dir {
            door::remove(directory.as_fd(), slot);
        }
        let databases = orphans.iter().map(|orphan| database_of(&office.shm, orphan.seats.pool)).collect();
        office.orphans.buried(slot, orphans);
        wake_waiters(&office.shm, &self.parts.own.inboxes);
        self.event(Event::Exited { slot, incarnation, ended, lost, orphans: databases });
        self.pass_on_unread(slot);
    }

    /// Unless a worker runs on the slot, which reads its inbox itself.
    fn pass_on_unread(&self, slot: Slot) {
        if self.workers[slot.index()].is_none() {
            let inbox = self.parts.own.inbox_ends[slot.index()].as_fd();
            unread::pass_on(&self.parts.office.shm, slot, inbox, &self.parts.own.inboxes.ends());
        }
    }

    fn load(&mut self, source: Source) -> Option<Event> {
        let input = self.parts.input.clone();
        let ground = Ground {
            running: self.parts.office.config(),
            addresses: self.parts.own.listeners.addresses.clone(),
            slots: self.workers.len(),
            verbose: self.parts.setup.verbose,
        };
        let started = load::aside(input, ground, self.generation + 1, source);
        started.err().map(|error| Event::Loaded(Err(format!("no thread to read the configuration: {error}"))))
    }

    fn loaded(&mut self, outcome: Result<Box<Candidate>, String>) {
        let outcome = outcome.map(|candidate| {
            // A generation is never used twice, also when it is refused.
            self.generation = candidate.config.generation;
            for warning in &candidate.warnings {
                if self.parts.setup.warned.insert(warning.clone()) {
                    log::warn!("{warning}");
                }
            }
            let changes = &candidate.changes;
            let names = changes.reconnect_databases.iter().chain(&changes.dropped_databases).chain(&changes.added_databases);
            let names: std::collections::BTreeSet<String> = names.cloned().collect();
            let dropped = changes.dropped_databases.clone();
            let entries = if names.contains("*") { Changed::All } else { Changed::Entries(names) };
            let (rules, workers) = (rules(&candidate.config, self.parts.own.listeners.keeper != Keeper::Nobody), candidate.workers);
            let (outdated_secrets, news) = (changes.outdated_secrets.clone(), candidate.news.clone());
            let loaded = Loaded { generation: self.generation, rules, workers, changed: entries, dropped, outdated_secrets, news };
            self.candidate = Some(candidate);
            loaded
        });
        self.event(Event::Loaded(outcome));
    }

    /// The candidate is what successors start with and what the supervisor itself goes by.
    fn adopt(&mut self) {
        let Some(candidate) = self.candidate.take() else { return };
        let Candidate { config, snapshot, log_file, new_slots, .. } = *candidate;
        self.new_slots = new_slots;
        if let Err(error) = logging::apply(&config.settings, self.parts.setup.stderr, log_file.as_ref()) {
            log::error!("could not use the new logfile: {error}");
        }
        for listener in self.parts.own.listeners.tcp.iter().flatten() {
            listen::defer_accept(listener, config.settings.tcp_defer_accept > 0);
        }
        self.parts.snapshot = snapshot;
        self.parts.setup.log_file = log_file;
        self.parts.office.adopt(config);
    }
}

fn holdings(row: &WorkerRow) -> Holdings {
    Holdings { clients: row.clients, servers: row.servers }
}

/// The database of a pool; one that nobody knows has no name.
pub(crate) fn database_of(shm: &Shm, pool: PoolId) -> String {
    shm.pool_names(pool).map(|(database, _)| database).unwrap_or_default()
}

/// What of a configuration the state machine goes by.
fn rules(config: &Config, listeners_stay: bool) -> Rules {
    let settings = &config.settings;
    let unless_zero = |limit: Duration| Some(limit).filter(|limit| !limit.is_zero());
    let keeps = |entry: &Database| entry.user.is_some() && config.min_pool_size(entry) > 0;
    Rules {
        listeners_stay,
        drain_timeout: unless_zero(settings.shutdown_drain_timeout),
        hang_timeout: unless_zero(settings.worker_hang_timeout),
        pool_idle_timeout: unless_zero(settings.pool_idle_timeout),
        autodb_idle_timeout: unless_zero(settings.autodb_idle_timeout),
        entries: config.databases.iter().map(|(name, entry)| (name.clone(), keeps(entry))).collect(),
        fallback_keeps: config.fallback.as_deref().is_some_and(keeps),
    }
}

/// By the monotonic clock, which an exec does not reset.
pub(crate) fn now() -> Moment {
    Duration::from_micros(clock::monotonic_us())
}

/// Reaps a process that has ended.
pub(crate) fn reap(pid: u32) -> Ended {
    loop {
        match waitpid(Pid::from_raw(pid as i32), None) {
            Ok(WaitStatus::Exited(_, status)) => return Ended::Status(status),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ended::Signal(signal as i32),
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => {
                log::error!("could not wait for process {pid}: {}", error.desc());
                return Ended::Status(0);
            }
        }
    }
}
