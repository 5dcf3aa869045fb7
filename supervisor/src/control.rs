//! The supervisor's end of a worker's control socket, on which nobody waits for the worker.
//!
//! The fleet's thread decides for each of its messages what becomes of it when the worker does not read. Answers to what a worker has asked are
//! kept for it until it does: a client waits for each of them, and nobody would ask again. They may overtake other messages, and be overtaken.

use crate::gate::Gate;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use shared::control::{ToWorker, Tongue};
use shared::sys::seqpacket;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Any thread may send.
#[derive(Debug, Clone)]
pub(crate) struct Control(Arc<Socket>);

#[derive(Debug)]
struct Socket {
    fd: Arc<OwnedFd>,
    /// Answers for which there was no room. While there are any, a thread waits for it.
    unsent: Mutex<VecDeque<Unsent>>,
    gate: Arc<Gate>,
    /// What the worker understands.
    tongue: Tongue,
}

/// An answer as it is sent: whoever reads it is of the build that asked.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Unsent(#[serde(with = "serde_bytes")] Vec<u8>);

impl fmt::Debug for Unsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unsent({} bytes)", self.0.len())
    }
}

impl Control {
    /// `fd` does not block.
    pub(crate) fn new(fd: OwnedFd, gate: Arc<Gate>, tongue: Tongue) -> Self {
        Self(Arc::new(Socket { fd: Arc::new(fd), unsent: Mutex::default(), gate, tongue }))
    }

    /// Sends one message with its descriptors. `WouldBlock`: the worker does not read. Waits only for the descriptors of others to arrive.
    pub(crate) fn send(&self, message: &ToWorker, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        seqpacket::send_patiently(self.as_fd(), &self.encode(message)?, descriptors)
    }

    /// Sends an answer, now or as soon as there is room. A worker that is gone needs none: its clients are gone with it.
    pub(crate) fn answer(&self, message: &ToWorker) {
        if let Err(error) = self.try_answer(message) {
            log::warn!("an answer to a worker was lost: {error}");
        }
    }

    /// Somebody's keys may be in it.
    fn encode(&self, message: &ToWorker) -> io::Result<Zeroizing<Vec<u8>>> {
        let bytes = self.0.tongue.encode(message);
        bytes.map(Zeroizing::new).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
    }

    fn try_answer(&self, message: &ToWorker) -> io::Result<()> {
        let mut bytes = self.encode(message)?;
        let mut unsent = self.0.unsent();
        if unsent.is_empty() {
            match seqpacket::send(self.as_fd(), &bytes, &[]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if is_gone(&error) => return Ok(()),
                sent => return sent,
            }
            self.send_later()?;
        }
        unsent.push_back(Unsent(std::mem::take(&mut *bytes)));
        Ok(())
    }

    /// The caller holds what is unsent, so that the thread does not find it empty.
    fn send_later(&self) -> io::Result<()> {
        let socket = Arc::clone(&self.0);
        std::thread::Builder::new().name("answers".into()).spawn(move || socket.send_rest())?;
        Ok(())
    }

    /// Answers that the worker has not taken, as they are sent. Asked for when the gate is closed, so that none of them is sent meanwhile.
    pub(crate) fn unsent(&self) -> Vec<Unsent> {
        self.0.unsent().iter().cloned().collect()
    }

    /// Goes on with what was unsent before an exec.
    pub(crate) fn take_up(&self, answers: Vec<Unsent>) {
        let mut unsent = self.0.unsent();
        let begins = unsent.is_empty() && !answers.is_empty();
        unsent.extend(answers);
        if begins && let Err(error) = self.send_later() {
            log::warn!("answers to a worker were lost: {error}");
            unsent.clear();
        }
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

impl Socket {
    fn unsent(&self) -> MutexGuard<'_, VecDeque<Unsent>> {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends when nothing is left. A worker that never reads is ended by the fleet's thread, and then there is nobody to send to.
    fn send_rest(&self) {
        loop {
            while poll(&mut [PollFd::new(self.fd.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE) == Err(Errno::EINTR) {}
            let _pass = self.gate.enter();
            let mut unsent = self.unsent();
            while let Some(bytes) = unsent.front() {
                match seqpacket::send(self.fd.as_fd(), &bytes.0, &[]) {
                    Ok(()) => drop(unsent.pop_front()),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => {
                        if !is_gone(&error) {
                            log::warn!("answers to a worker were lost: {error}");
                        }
                        unsent.clear();
                    }
                }
            }
            if unsent.is_empty() {
                return;
            }
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::process::set_nonblocking;
    use shared::control::MAX_MESSAGE;
    use shared::encoding::{decode_named, encode_named};

    /// A control socket on which nothing more can be sent, and the worker's end.
    fn full() -> (Control, OwnedFd, usize) {
        let (ours, theirs) = seqpacket::pair().unwrap();
        set_nonblocking(&ours).unwrap();
        let control = Control::new(ours, Arc::default(), Tongue::Own);
        let mut filled = 0;
        while control.send(&ToWorker::Stay, &[]).is_ok() {
            filled += 1;
        }
        (control, theirs, filled)
    }

    fn answer(uid: u32) -> ToWorker {
        ToWorker::UserNamed { uid, name: Err("x".into()) }
    }

    #[test]
    fn answers_wait_for_a_worker_that_does_not_read() {
        let (control, worker, filled) = full();
        (0..100).for_each(|uid| control.answer(&answer(uid)));
        let mut buffer = vec![0; MAX_MESSAGE];
        let mut next = || {
            let received = seqpacket::recv(worker.as_fd(), &mut buffer).unwrap();
            shared::control::decode::<ToWorker>(&buffer[..received.len]).unwrap()
        };
        assert!((0..filled).all(|_| next() == ToWorker::Stay));
        assert!((0..100).all(|uid| next() == answer(uid)));
        control.answer(&answer(100));
        assert!(next() == answer(100));
    }

    #[test]
    fn answers_wait_also_while_another_image_takes_over() {
        let (control, worker, filled) = full();
        (0..100).for_each(|uid| control.answer(&answer(uid)));
        std::mem::forget(control.0.gate.close());
        let bytes = encode_named(&[], &control.unsent()).unwrap();
        let mut buffer = vec![0; MAX_MESSAGE];
        let mut next = || {
            let received = seqpacket::recv(worker.as_fd(), &mut buffer).unwrap();
            shared::control::decode::<ToWorker>(&buffer[..received.len]).unwrap()
        };
        assert!((0..filled).all(|_| next() == ToWorker::Stay));
        let resumed = Control::new(control.0.fd.try_clone().unwrap(), Arc::default(), Tongue::Own);
        resumed.take_up(decode_named(&bytes).unwrap());
        assert!((0..100).all(|uid| next() == answer(uid)), "each once");
        resumed.answer(&answer(100));
        assert!(next() == answer(100));
    }

    #[test]
    fn a_worker_that_is_gone_is_owed_nothing() {
        let (control, worker, _) = full();
        control.answer(&answer(1));
        let socket = Arc::downgrade(&control.0);
        drop((worker, control));
        // The thread that waited holds the last reference.
        while socket.upgrade().is_some() {
            std::thread::yield_now();
        }
    }
}
