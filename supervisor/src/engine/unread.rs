//! What lies unread in the inbox of a slot on which no worker runs.
//!
//! A successor inherits the inbox and reads on, but it may be long in coming, or never come. Of all that workers send each other only a
//! client cannot wait, and nobody else has its socket: it goes to another worker. The rest is dropped: lenders take their
//! servers back, borrowers and waiters look again by themselves, and whoever a cancel request was meant for died with its worker.

use shared::balance::{self, Candidate};
use shared::control::{self, MAX_MESSAGE, ToInbox};
use shared::ids::Slot;
use shared::shm::{Shm, WorkerState};
use shared::sys::{clock, seqpacket};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Empties the inbox of `slot`, whose receiving end is `inbox`, and passes the clients in it on by the sending ends of all slots. Whoever
/// calls sees to it that no worker reads it at the same time. While no worker takes them, clients stay where they are.
pub(crate) fn pass_on(shm: &Shm, slot: Slot, inbox: BorrowedFd<'_>, ends: &[Arc<OwnedFd>]) {
    let mut buffer = vec![0; MAX_MESSAGE];
    while let Some(to) = recipient(shm, ends.len()) {
        // A message that is received when no descriptor can be opened loses the one it carries.
        if inbox.try_clone_to_owned().is_err() {
            return;
        }
        let received = match seqpacket::recv(inbox, &mut buffer) {
            Ok(received) if received.len > 0 => received,
            Err(error) if error.kind() != ErrorKind::WouldBlock => {
                return log::error!("the inbox of a worker that is gone cannot be read: {error}");
            }
            _ => return,
        };
        let message = &buffer[..received.len];
        let (Ok(ToInbox::Client { .. }), Some(client)) = (control::decode(message), received.fds.first()) else { continue };
        if send(shm, ends, &to, message, client.as_fd()).is_err() {
            if let Err(error) = seqpacket::send_patiently(ends[slot.index()].as_fd(), message, &[client.as_fd()]) {
                log::warn!("a client that a dead worker was to serve is lost: {error}");
            }
            return;
        }
    }
}

/// Has a worker serve a client that the supervisor has accepted.
pub(super) fn hand_over(shm: &Shm, ends: &[Arc<OwnedFd>], address: SocketAddr, client: BorrowedFd<'_>) {
    let message = control::encode(&ToInbox::Client { accepted_at: clock::monotonic_us(), address: Some(address) });
    let sent = match (message, recipient(shm, ends.len())) {
        (Ok(message), Some(to)) => send(shm, ends, &to, &message, client).is_ok(),
        _ => false,
    };
    if !sent {
        log::warn!("a client that came while the port was being closed is lost");
    }
}

/// Who is to serve one more client: of the workers that others may send clients to, or failing these of all there are, the emptiest.
fn recipient(shm: &Shm, slots: usize) -> Option<Candidate> {
    let (table, now) = (shm.workers(), clock::monotonic_us());
    let all = || (0..slots).map(|slot| Slot(slot as u8));
    balance::emptiest(all().filter_map(|slot| table.candidate(slot, now))).or_else(|| {
        balance::emptiest(all().filter_map(|slot| {
            let row = table.get(slot);
            (row.state != WorkerState::Vacant).then_some(Candidate { slot, clients: row.clients, arriving: row.arriving })
        }))
    })
}

fn send(shm: &Shm, ends: &[Arc<OwnedFd>], to: &Candidate, message: &[u8], client: BorrowedFd<'_>) -> io::Result<()> {
    let counted = shm.workers().announce(to);
    let sent = seqpacket::send_patiently(ends[to.slot.index()].as_fd(), message, &[client]);
    if sent.is_err() && counted {
        shm.workers().arrived(to.slot);
    }
    sent
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::process::set_nonblocking;
    use shared::ids::{Incarnation, Owner, PoolId};
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    struct Slots {
        shm: Shm,
        inboxes: Vec<OwnedFd>,
        ends: Vec<Arc<OwnedFd>>,
    }

    fn slots(states: &[WorkerState]) -> Slots {
        let shm = Shm::create().unwrap().0;
        let (mut inboxes, mut ends) = (Vec::new(), Vec::new());
        for (index, state) in states.iter().enumerate() {
            let owner = Owner { slot: Slot(index as u8), incarnation: Incarnation(index as u32 + 2) };
            shm.workers().start(owner, 1, 0, clock::monotonic_us());
            shm.workers().set_state(owner.slot, *state);
            let (inbox, end) = seqpacket::pair().unwrap();
            set_nonblocking(&inbox).unwrap();
            set_nonblocking(&end).unwrap();
            inboxes.push(inbox);
            ends.push(Arc::new(end));
        }
        Slots { shm, inboxes, ends }
    }

    impl Slots {
        fn put(&self, slot: usize, message: &ToInbox, socket: Option<BorrowedFd<'_>>) {
            let bytes = control::encode(message).unwrap();
            seqpacket::send(self.ends[slot].as_fd(), &bytes, socket.as_slice()).unwrap();
        }

        /// A client is put into the inbox; its own end is returned.
        fn put_client(&self, slot: usize) -> UnixStream {
            let (ours, theirs) = UnixStream::pair().unwrap();
            self.put(slot, &ToInbox::Client { accepted_at: 17, address: None }, Some(theirs.as_fd()));
            ours
        }

        fn take(&self, slot: usize) -> Option<(ToInbox, Vec<OwnedFd>)> {
            let mut buffer = vec![0; MAX_MESSAGE];
            let received = seqpacket::recv(self.inboxes[slot].as_fd(), &mut buffer).ok()?;
            Some((control::decode(&buffer[..received.len]).unwrap(), received.fds))
        }

        fn pass_on(&self, slot: usize) {
            pass_on(&self.shm, Slot(slot as u8), self.inboxes[slot].as_fd(), &self.ends);
        }
    }

    #[test]
    fn clients_go_to_the_others_evenly_and_the_rest_to_nobody() {
        use WorkerState::{Serving, Vacant};
        let slots = slots(&[Vacant, Serving, Serving]);
        slots.shm.workers().set_clients(Slot(1), 2, false);
        slots.put(0, &ToInbox::Borrow { pool: PoolId(0), from: Slot(1) }, None);
        let mut clients: Vec<UnixStream> = (0..4).map(|_| slots.put_client(0)).collect();
        slots.put(0, &ToInbox::Wake, None);
        slots.pass_on(0);
        assert!(slots.take(0).is_none());
        let received: Vec<_> = std::iter::from_fn(|| slots.take(2)).chain(std::iter::from_fn(|| slots.take(1))).collect();
        assert_eq!(received.len(), 4);
        for ((message, fds), client) in received.into_iter().zip([0, 1, 3, 2]) {
            assert_eq!(message, ToInbox::Client { accepted_at: 17, address: None });
            let socket = fds.into_iter().next().unwrap();
            UnixStream::from(socket).write_all(&[client]).unwrap();
            let mut byte = [9];
            clients[usize::from(client)].read_exact(&mut byte).unwrap();
            assert_eq!(byte, [client], "the descriptor is that client's");
        }
        assert_eq!([1, 2].map(|slot| slots.shm.workers().get(Slot(slot)).arriving), [1, 3]);
    }

    #[test]
    fn a_leaving_worker_is_better_than_none() {
        let slots = slots(&[WorkerState::Vacant, WorkerState::Draining]);
        let _client = slots.put_client(0);
        slots.pass_on(0);
        assert!(slots.take(1).is_some());
    }

    #[test]
    fn without_anybody_all_stays() {
        let slots = slots(&[WorkerState::Vacant, WorkerState::Vacant]);
        let _client = slots.put_client(0);
        slots.pass_on(0);
        assert!(slots.take(0).is_some());
    }

    #[test]
    fn a_client_waits_while_the_other_inbox_is_full() {
        let slots = slots(&[WorkerState::Vacant, WorkerState::Serving]);
        let (mut count, mut filler) = (0, [0; 10_000]);
        while seqpacket::send(slots.ends[1].as_fd(), &filler, &[]).is_ok() {
            count += 1;
        }
        let _client = slots.put_client(0);
        slots.pass_on(0);
        for _ in 0..count {
            seqpacket::recv(slots.inboxes[1].as_fd(), &mut filler).unwrap();
        }
        slots.pass_on(0);
        assert!(slots.take(1).is_some());
        assert_eq!(slots.shm.workers().get(Slot(1)).arriving, 1, "the one that was not sent is not counted");
    }
}
