//! What the dead supervisor was made of, put together from what its workers hold.

use super::claim::{Claimed, Worker};
use crate::engine::{self, database_of};
use crate::fleet::{Moment, Survivor, Survivors};
use crate::listen::{Group, Inherited, Unix};
use crate::orphans::Inboxes;
use crate::process::Process;
use shared::auth::ClientKeys;
use shared::config::Config;
use shared::control::{Learned, ServerSeats, ToWorker, Welcome, WorkerStage};
use shared::ids::{MAX_WORKERS, Owner, Slot};
use shared::orders::Marks;
use shared::shm::{Orphan, Shm};
use shared::sys::clock;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// See the module.
pub(crate) struct Adopted {
    /// The configuration that its workers go by; those that the dead supervisor was telling of another one may go by an older.
    pub(crate) config: Config,
    pub(crate) shm: Shm,
    pub(crate) memory: OwnedFd,
    /// Receiving ends of the inboxes, by slot,
    pub(crate) inbox_ends: Vec<OwnedFd>,
    /// and their sending ends.
    pub(crate) inboxes: Arc<Inboxes>,
    /// TCP listeners by slot, and their addresses.
    pub(crate) tcp: Vec<Vec<OwnedFd>>,
    pub(crate) addresses: Vec<std::net::SocketAddr>,
    pub(crate) unix: Option<Unix>,
    pub(crate) rescued: Rescued,
}

/// What the fleet's thread goes on with.
pub(crate) struct Rescued {
    /// The key of mock salts.
    pub(crate) mock_secret: [u8; 32],
    pub(crate) survivors: Survivors,
    /// Workers, and the supervisor's ends of their control sockets.
    pub(crate) workers: Vec<(Owner, Process, OwnedFd)>,
    /// Duplicates of their server sockets.
    pub(crate) servers: Vec<(ServerSeats, OwnedFd)>,
    /// Connections whose workers have died.
    pub(crate) orphans: Vec<(Slot, Vec<Orphan>)>,
}

/// Puts it together. `path` is where the configuration's file is now. The error is the FATAL line.
pub(crate) fn put_together(
    claimed: Claimed,
    path: PathBuf,
    passed_on: Option<Unix>,
    inherited: &mut Inherited,
) -> Result<Adopted, String> {
    let Claimed { mut workers, orphans, shm, memory } = claimed;
    let newest = workers.iter().max_by_key(|worker| worker.config.generation);
    let mut config = newest.map(|worker| worker.config.clone()).unwrap_or_default();
    config.path = path;
    let mock_secret = newest.map(|worker| worker.estate.mock_secret).unwrap_or_default();
    let slots = slots(&workers, config.settings.worker_count())?;
    let mut sockets = Group::new(slots);
    for worker in &mut workers {
        let slot = worker.owner.slot;
        worker.tcp.drain(..).for_each(|(of, socket)| sockets.add(of, slot, socket));
    }
    let busy = leaving(&workers).collect();
    let listening = sockets.complete(&config.settings, &busy, inherited)?;
    let mut theirs = workers.iter_mut().filter_map(|worker| worker.unix.pop());
    let unix = match (passed_on, theirs.next()) {
        (Some(unix), _) => Some(unix),
        (None, Some(socket)) => Unix::adopt(socket, &config.settings),
        (None, None) => Unix::open_anew(&config.settings)?,
    };
    let (marks, last_order) = last_marks(&workers);
    let (keys, welcomes, news) = lore(&mut workers);
    let survivors = Survivors {
        wanted: config.settings.worker_count(),
        workers: workers.iter().map(|worker| survivor(worker, &shm)).collect(),
        listening,
        marks,
        last_order,
        last_incarnation: shm.workers().last_incarnation().0,
        keys,
        welcomes,
        news,
        orphans: orphans.iter().flat_map(|(_, orphans)| orphans).map(|orphan| database_of(&shm, orphan.seats.pool)).collect(),
    };
    let (tcp, addresses) = sockets.into_parts();
    let inboxes = Arc::new(Inboxes::default());
    let rescued = Rescued { mock_secret, survivors, workers: Vec::new(), servers: Vec::new(), orphans };
    let mut adopted = Adopted { config, shm, memory, inbox_ends: Vec::new(), inboxes, tcp, addresses, unix, rescued };
    adopted.take_in(workers, slots)?;
    Ok(adopted)
}

impl Adopted {
    /// Workers' own inboxes, and new ones for the other slots.
    fn take_in(&mut self, workers: Vec<Worker>, slots: usize) -> Result<(), String> {
        let mut theirs = BTreeMap::new();
        for worker in workers {
            let Worker { owner, pid, process, control, inbox, servers, .. } = worker;
            theirs.insert(owner.slot, inbox);
            self.rescued.workers.push((owner, Process::Adopted(pid, Arc::new(process)), control));
            self.rescued.servers.extend(servers);
        }
        for slot in (0..slots).map(|slot| Slot(slot as u8)) {
            let inbox = theirs.remove(&slot).map_or_else(engine::inbox, Ok);
            let (receiving, sending) = inbox.map_err(|error| format!("could not create an inbox: {error}"))?;
            self.inbox_ends.push(receiving);
            self.inboxes.add(sending);
        }
        Ok(())
    }
}

fn leaving(workers: &[Worker]) -> impl Iterator<Item = Slot> {
    workers.iter().filter(|worker| worker.estate.stage == WorkerStage::Leaving).map(|worker| worker.owner.slot)
}

/// All that any of them knows of, and one for each worker that there is to be beside those that leave.
fn slots(workers: &[Worker], wanted: usize) -> Result<usize, String> {
    let known = workers.iter().map(|worker| usize::from(worker.estate.slots).max(worker.owner.slot.index() + 1)).max();
    let slots = known.unwrap_or(0).max(leaving(workers).count() + wanted);
    if slots > MAX_WORKERS {
        return Err(format!("there are no {wanted} slots beside those of workers that leave: try again when they have left"));
    }
    Ok(slots)
}

/// Those of the worker that has had the last order.
fn last_marks(workers: &[Worker]) -> (Marks, u32) {
    let last = workers.iter().max_by_key(|worker| worker.estate.last_order);
    last.map(|worker| (worker.estate.marks.clone(), worker.estate.last_order)).unwrap_or_default()
}

fn survivor(worker: &Worker, shm: &Shm) -> Survivor {
    let started_at = shm.workers().get(worker.owner.slot).started_at_us;
    let age = Duration::from_micros(clock::wall_us().saturating_sub(started_at));
    let since: Moment = Duration::from_micros(clock::monotonic_us()).saturating_sub(age);
    Survivor { owner: worker.owner, pid: worker.pid, since, leaving: worker.estate.stage == WorkerStage::Leaving }
}

/// What any of them has learned, and what of it the others have not.
fn lore(workers: &mut [Worker]) -> (Vec<shared::auth::scram::Keys>, Vec<Welcome>, Vec<ToWorker>) {
    let (mut all, mut each) = (ClientKeys::default(), Vec::new());
    let mut secrets: BTreeMap<(String, String), Vec<_>> = BTreeMap::new();
    let mut welcomes: BTreeMap<(String, String), (Welcome, usize)> = BTreeMap::new();
    let count = workers.len();
    for worker in workers {
        let mut own = ClientKeys::default();
        for learned in worker.lore.learned.drain(..) {
            match learned {
                Learned::Keys(keys) => {
                    all.learn(keys.clone());
                    own.learn(keys);
                }
                Learned::Secret { database, user, secret } => secrets.entry((database, user)).or_default().push(secret),
                Learned::Outdated(_) => {}
            }
        }
        each.push(own);
        for welcome in worker.lore.welcomes.drain(..) {
            let key = (welcome.database.clone(), welcome.user.clone());
            welcomes.entry(key).or_insert((welcome, 0)).1 += 1;
        }
    }
    let keys: Vec<_> = all.all().cloned().collect();
    let mut news: Vec<ToWorker> = keys
        .iter()
        .filter(|keys| each.iter_mut().any(|own| own.learn((*keys).clone())))
        .map(|keys| ToWorker::Learned(Learned::Keys(keys.clone())))
        .collect();
    // Where they differ nobody can tell which is the newer one; the next login will.
    let unanimous = |secrets: &[_]| secrets.len() < count && secrets.iter().all(|secret| Some(secret) == secrets.first());
    for ((database, user), mut secrets) in secrets.into_iter().filter(|(_, secrets)| unanimous(secrets)) {
        if let Some(secret) = secrets.pop() {
            news.push(ToWorker::Learned(Learned::Secret { database, user, secret }));
        }
    }
    news.extend(welcomes.values().filter(|(_, knowing)| *knowing < count).map(|(welcome, _)| ToWorker::Welcome(welcome.clone())));
    (keys, welcomes.into_values().map(|(welcome, _)| welcome).collect(), news)
}
