//! Starting a worker on a slot: its process, its place in the worker table, and its first message with all that the slot owns.

use super::{Engine, Worker};
use crate::process::{self, Process};
use crate::{control::Control, last_breath, listen};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shared::auth::scram::Keys;
use shared::control::{self, ToWorker, Welcome};
use shared::door;
use shared::ids::Owner;
use shared::orders::Marks;
use shared::sys::{clock, memfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use zeroize::Zeroizing;

/// As many welcomes as fit beside the rest of the first message, in bytes; a worker learns what is left out by connecting.
const WELCOMES: usize = 128 * 1024;

impl Engine {
    /// Starts a worker; returns its pid.
    pub(super) fn spawn(&mut self, owner: Owner, marks: Marks, welcomes: Vec<Welcome>, keys: &[Keys]) -> io::Result<u32> {
        let keys = written(keys)?;
        let (control, pid) = process::start(&self.parts.office.gate)?;
        let process = Process::Child(pid);
        last_breath::remember(owner.slot, &process);
        let table = self.parts.office.shm.workers();
        table.start(owner, pid, clock::wall_us(), clock::monotonic_us());
        let begun = self
            .greet(&control, owner, marks, fitting(welcomes), &keys)
            .and_then(|()| process::listen(Arc::clone(&self.parts.office), control.clone(), owner, process.clone()));
        if let Err(error) = begun {
            // Nobody listens to it yet, so it is reaped here.
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
            super::reap(pid);
            last_breath::forget(owner.slot);
            table.vacate(owner.slot);
            return Err(error);
        }
        self.workers[owner.slot.index()] = Some(Worker { owner, process, control });
        Ok(pid)
    }

    fn greet(&self, control: &Control, owner: Owner, marks: Marks, welcomes: Vec<Welcome>, keys: &OwnedFd) -> io::Result<()> {
        let parts = &self.parts;
        let none = Vec::new();
        let inboxes = parts.own.inboxes.ends();
        let tcp = parts.own.listeners.tcp.get(owner.slot.index()).unwrap_or(&none);
        let door = self.door(owner);
        let message = ToWorker::Start {
            slot: owner.slot,
            incarnation: owner.incarnation,
            generation: parts.office.config().generation,
            log_file: parts.setup.log_file.is_some(),
            inboxes: inboxes.len() as u8,
            listeners: tcp.len() as u8,
            unix_listeners: u8::from(parts.own.listeners.unix.is_some()),
            marks,
            stderr: parts.setup.stderr,
            mock_secret: self.mock_secret,
            welcomes,
            door: door.is_some(),
        };
        let mut descriptors: Vec<BorrowedFd<'_>> = vec![parts.own.memory.as_fd(), parts.snapshot.as_fd(), keys.as_fd()];
        descriptors.extend(parts.setup.log_file.as_ref().map(AsFd::as_fd));
        descriptors.push(parts.own.inbox_ends[owner.slot.index()].as_fd());
        descriptors.extend(inboxes.iter().map(AsFd::as_fd));
        descriptors.extend(tcp.iter().map(AsFd::as_fd));
        descriptors.extend(parts.own.listeners.unix.as_ref().map(AsFd::as_fd));
        descriptors.extend(door.as_ref().map(AsFd::as_fd));
        match control.send(&message, &descriptors) {
            // It has died already: a start like any other that fails soon, with a proper end.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }
}

impl Engine {
    /// Where another supervisor would find the worker.
    fn door(&self, owner: Owner) -> Option<OwnedFd> {
        let directory = self.parts.setup.control_dir.as_ref()?;
        let warn = |error: &io::Error| {
            let error = listen::reason(error);
            log::warn!("worker {} has no door: {error}; should the supervisor crash, it cannot be adopted", owner.slot);
        };
        door::bind(directory.as_fd(), owner.slot).inspect_err(warn).ok()
    }
}

/// Keys as a worker receives them.
fn written(keys: &[Keys]) -> io::Result<OwnedFd> {
    let bytes = control::encode_long(&keys).map(Zeroizing::new).map_err(io::Error::other)?;
    memfd::create_sealed("pgfleet-keys", &bytes)
}

/// The first welcomes that fit.
fn fitting(mut welcomes: Vec<Welcome>) -> Vec<Welcome> {
    let size = |welcome: &Welcome| {
        let parameters: usize = welcome.parameters.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
        welcome.database.len() + welcome.user.len() + parameters + 24
    };
    let mut room = WELCOMES;
    welcomes.retain(|welcome| match room.checked_sub(size(welcome)) {
        Some(rest) => {
            room = rest;
            true
        }
        None => false,
    });
    welcomes
}
