//! What a fleet is made of apart from the image that its supervisor runs: written down by one image, and gone on with by another.
//!
//! Descriptors keep their numbers when a process executes another image; a list of them goes with the estate, and the estate names their
//! places in it. The rest is encoded with the names of its fields, since the other image may be of another version: what is added here
//! has a default.

use crate::control_dir::KeptControlDir;
use crate::fleet::{AskId, Fleet, Moment};
use crate::listen::KeptListeners;
use crate::luggage::{Arrived, Load, Place};
use crate::parlour::Parlour;
use serde::{Deserialize, Serialize};
use shared::config::Config;
use shared::encoding::{decode_named, encode_named};
use shared::ids::{ConnectionId, Owner};
use shared::shm::Census;
use shared::sys::{inherited, memfd};
use std::collections::HashSet;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// The longest that is read, in bytes: far above any that there can be.
const LONGEST: usize = 1 << 30;

/// See the module. `F` and `C` are references while it is written.
#[derive(Serialize, Deserialize)]
pub(crate) struct Estate<F = Fleet, C = Config> {
    /// Name and version of whoever has written it.
    pub(crate) by: String,
    /// The configuration in force.
    pub(crate) config: C,
    /// The last generation that was given out.
    pub(crate) generation: u64,
    /// The state machine.
    pub(crate) fleet: F,
    /// Questions of console sessions that it is to answer.
    pub(crate) asks: Vec<(AskId, Option<ConnectionId>)>,
    /// The last question's number.
    pub(crate) last_ask: u64,
    /// The shared memory.
    pub(crate) memory: Place,
    /// Who has what in it, for a build that cannot use it.
    #[serde(default)]
    pub(crate) census: Option<Census>,
    /// Another image has gone on with the fleet in another memory and gives it back: what is taken in this one and not named here has ended.
    #[serde(default)]
    pub(crate) given_back: bool,
    /// What each slot owns, and who is on it.
    pub(crate) slots: Vec<KeptSlot>,
    /// The listeners.
    pub(crate) listeners: KeptListeners,
    /// The log file.
    pub(crate) log_file: Option<Place>,
    /// Warnings that were logged.
    pub(crate) warned: HashSet<String>,
    /// Whether to log to standard error.
    pub(crate) stderr: bool,
    /// How many -v.
    pub(crate) verbose: u8,
    /// The key of mock salts.
    pub(crate) mock_secret: [u8; 32],
    /// Since when tickets are sealed with the key that they are.
    pub(crate) ticket_key_since: Moment,
    /// Where the image was found,
    pub(crate) image: PathBuf,
    /// and the one before it, while that one may come back.
    pub(crate) image_before: Option<PathBuf>,
    /// The control directory and its lock.
    pub(crate) control_dir: Option<KeptControlDir>,
    /// What the supervisor's threads hold.
    pub(crate) parlour: Parlour,
}

/// A slot's inbox and its worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeptSlot {
    /// The inbox's receiving end.
    pub(crate) receiving: Place,
    /// Its sending end.
    pub(crate) sending: Place,
    /// The process on the slot, if there is one.
    pub(crate) worker: Option<KeptWorker>,
}

/// A worker's process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeptWorker {
    /// Its slot and its life.
    pub(crate) owner: Owner,
    /// Its process id.
    pub(crate) pid: u32,
    /// The supervisor's end of its control socket.
    pub(crate) control: Place,
    /// What holds the process, if it is no child.
    #[serde(default)]
    pub(crate) held: Option<Place>,
}

/// An estate as it travels: the numbers of the descriptors on its list, and itself.
#[derive(Serialize, Deserialize)]
struct Manifest<E> {
    descriptors: Vec<RawFd>,
    estate: E,
}

/// Writes an estate and its list into a sealed memfd. There are secrets in it.
pub(crate) fn write<E: Serialize>(estate: &E, load: &Load<'_>) -> io::Result<OwnedFd> {
    let descriptors = load.descriptors().iter().map(AsRawFd::as_raw_fd).collect();
    let bytes = encode_named(&[], &Manifest { descriptors, estate }).map(Zeroizing::new).map_err(io::Error::other)?;
    memfd::create_sealed("pgfleet-estate", &bytes)
}

/// Reads what [`write`] has written, perhaps in another version. The error is a line for the user.
pub(crate) fn read(manifest: BorrowedFd<'_>) -> Result<Estate, String> {
    Ok(read_manifest(manifest)?.estate)
}

/// The same in the image that goes on, which takes the descriptors over. Once.
pub(crate) fn take_over(manifest: BorrowedFd<'_>) -> Result<(Estate, Arrived), String> {
    let Manifest { descriptors, estate } = read_manifest(manifest)?;
    let claimed = inherited::claim(&descriptors);
    let claimed = claimed.map_err(|error| format!("the descriptors of the image before: {error}"))?;
    Ok((estate, Arrived::new(claimed)))
}

fn read_manifest(manifest: BorrowedFd<'_>) -> Result<Manifest<Estate>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("the state of the running fleet cannot be read: {error}");
    let bytes = memfd::read_all(manifest, LONGEST).map_err(|error| failed(&error))?;
    decode_named(&bytes).map_err(|error| failed(&error))
}
