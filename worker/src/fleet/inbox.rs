//! What workers say to each other.

use crate::client::accept::Arrival;
use crate::clock::Instant;
use crate::worker::{Source, Worker};
use shared::control::{self, MessageError, ToInbox};
use shared::ids::Slot;
use shared::sys::{memfd, seqpacket};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use zeroize::{Zeroize, Zeroizing};

/// Messages read in one turn.
const MESSAGES_PER_TURN: usize = 64;

/// Descriptors kept free: a message that arrives when there is none loses the one it carries.
const RESERVE: usize = 16;

/// The longest message that goes in a file, in bytes.
const LONGEST: usize = 64 * 1024 * 1024;

impl Worker {
    /// Sends to another worker's inbox. False: it could not be sent now; the tick looks after what that leaves undone.
    pub(crate) fn send_inbox(&mut self, to: Slot, message: &ToInbox, fds: &[BorrowedFd<'_>]) -> bool {
        let tongue = self.tongue_of(to);
        let encoded = match tongue.encode(message) {
            Err(MessageError::TooLong(_)) => return self.send_long(to, message, fds),
            encoded => encoded,
        };
        let bytes = match encoded {
            // There may be keys of TLS in it.
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) => {
                log::error!(target: "process", "a message to worker {to} could not be made: {error}");
                return false;
            }
        };
        self.send_bytes(to, &bytes, fds)
    }

    /// A message that no datagram takes, a server with thousands of prepared statements say, goes in a file of memory.
    fn send_long(&mut self, to: Slot, message: &ToInbox, fds: &[BorrowedFd<'_>]) -> bool {
        let tongue = self.tongue_of(to);
        let file = tongue
            .encode_long(message)
            .map(Zeroizing::new)
            .map_err(io::Error::other)
            .and_then(|bytes| memfd::create_sealed("pgfleet-message", &bytes));
        let (file, notice) = match (file, tongue.encode(&ToInbox::Long)) {
            (Ok(file), Ok(notice)) => (file, notice),
            (Err(error), _) => {
                log::error!(target: "process", "a message to worker {to} could not be made: {error}");
                return false;
            }
            (_, Err(_)) => return false,
        };
        let fds: Vec<BorrowedFd<'_>> = [file.as_fd()].into_iter().chain(fds.iter().copied()).collect();
        self.send_bytes(to, &notice, &fds)
    }

    fn send_bytes(&mut self, to: Slot, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        let Some(inbox) = self.inboxes.get(to.index()) else { return false };
        #[cfg(test)]
        crate::simulation::may_die();
        match seqpacket::send(inbox.as_fd(), bytes, fds) {
            Ok(()) => true,
            Err(error) => {
                log::debug!(target: "process", "a message to worker {to} could not be sent: {error}");
                false
            }
        }
    }

    pub(crate) fn inbox_readable(&mut self) {
        let mut buffer = std::mem::take(&mut self.inbox_buffer);
        for turn in 0..=MESSAGES_PER_TURN {
            if turn == MESSAGES_PER_TURN {
                self.again.push(Source::Inbox);
                break;
            }
            // Without descriptors to spare the messages wait; the tick looks again.
            if !self.has_spare_descriptors(RESERVE) {
                break;
            }
            match seqpacket::recv(self.inbox.as_fd(), &mut buffer) {
                Ok(received) if received.len == 0 => break,
                Ok(received) => match control::decode(&buffer[..received.len]) {
                    Ok(message) => {
                        if holds_keys(&message) {
                            buffer[..received.len].zeroize();
                        }
                        self.colleague_says(message, received.fds);
                    }
                    Err(error) => log::error!(target: "process", "another worker's message is not understood: {error}"),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.shm.workers().all_arrived(self.me.slot);
                    break;
                }
                Err(error) => {
                    log::error!(target: "process", "the inbox cannot be read: {error}");
                    break;
                }
            }
        }
        self.inbox_buffer = buffer;
    }

    /// Whether a few more descriptors can be opened. Connections are counted, not asked of the kernel.
    pub(crate) fn has_spare_descriptors(&self, reserve: usize) -> bool {
        let open = self.clients.len()
            + self.servers.len()
            + self.carriers.iter().map(|(_, carrier)| carrier.descriptors()).sum::<usize>()
            + self.inboxes.len()
            + self.lends.descriptors()
            + self.moves.descriptors()
            + self.kept_descriptors()
            + self.listeners.len();
        // Where there are few, more is kept back from clients than from what other workers lend: without servers clients are of no use.
        let most = self.descriptor_limit / if reserve > RESERVE { 4 } else { 8 };
        open + reserve.min(most) < self.descriptor_limit
    }

    fn colleague_says(&mut self, message: ToInbox, fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter();
        match message {
            ToInbox::Long => {
                let bytes = fds.next().map(|file| memfd::read_all(file.as_fd(), LONGEST));
                match bytes.map(|bytes| bytes.map(|bytes| control::decode(&bytes))) {
                    Some(Ok(Ok(ToInbox::Long))) | None => {}
                    Some(Ok(Ok(message))) => self.colleague_says(message, fds.collect()),
                    Some(Ok(Err(error))) => log::error!(target: "process", "another worker's message is not understood: {error}"),
                    Some(Err(error)) => log::error!(target: "process", "another worker's message cannot be read: {error}"),
                }
            }
            ToInbox::Borrow { pool, from } => {
                let lent = self.pools.by_id(pool).is_some_and(|index| self.lend_idle(index, from));
                if !lent {
                    self.send_inbox(from, &ToInbox::Nothing { pool, from: self.me.slot }, &[]);
                }
            }
            ToInbox::Nothing { pool, from } => {
                if let Some(index) = self.pools.by_id(pool) {
                    self.pools.get_mut(index).borrow_answered(from);
                    self.pump(index);
                }
            }
            ToInbox::Lend(lent) => self.accept_lent(&lent, fds),
            // Not that pool first: the seat is for whoever has waited longest in any that can use it.
            ToInbox::Wake => self.pump_waiting(),
            ToInbox::MakeRoom { limit, from, servers } => self.room_wanted(limit, from, servers),
            ToInbox::Cancel { key, from } => self.cancel_forwarded(key, from, fds.next()),
            ToInbox::Session(session) => self.session_arrives(&session, fds),
            ToInbox::NotTaken { seat, ticket } => self.session_refused(seat, ticket),
            ToInbox::Client { accepted_at, address } => match fds.next() {
                Some(fd) => {
                    self.client_handed_over(Arrival { fd, address, accepted_at: Instant::from_micros(accepted_at) });
                }
                None => log::error!(target: "process", "a client that another worker accepted came without its socket"),
            },
        }
    }
}

/// Whether there are keys of TLS in it.
fn holds_keys(message: &ToInbox) -> bool {
    match message {
        ToInbox::Session(_) => true,
        ToInbox::Lend(lent) => lent.conn.tls.is_some(),
        _ => false,
    }
}
