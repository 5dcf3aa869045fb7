//! The supervisor's part: what workers tell it, and what it tells them.

use super::Simulation;
use super::schedule::Event;
use shared::control::{self, ServerSeats, ToSupervisor, ToWorker, Welcome};
use shared::ids::{Owner, PoolId, SeatIndex};
use shared::sys::seqpacket;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};

#[derive(Default)]
pub(super) struct Supervisor {
    pub(super) welcomes: Vec<Welcome>,
    /// The duplicates of server sockets, by the seat in their pool.
    duplicates: HashMap<(PoolId, SeatIndex), OwnedFd>,
}

fn key(seats: &ServerSeats) -> (PoolId, SeatIndex) {
    (seats.pool, seats.seat)
}

impl Simulation {
    /// A worker has said something.
    pub(super) fn supervisor_reads(&mut self, slot: usize) {
        loop {
            let Some(life) = &self.places[slot].life else { return };
            let (owner, mut buffer) = (life.owner, std::mem::take(&mut self.buffer));
            let received = seqpacket::recv(life.control.as_fd(), &mut buffer);
            self.buffer = buffer;
            match received {
                Ok(received) => {
                    let message = control::decode(&self.buffer[..received.len]).unwrap();
                    self.supervisor_hears(owner, message, received.fds);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("a control socket cannot be read: {error}"),
            }
        }
    }

    fn supervisor_hears(&mut self, from: Owner, message: ToSupervisor, descriptors: Vec<OwnedFd>) {
        match message {
            ToSupervisor::ServerOpened(seats) => {
                let duplicate = descriptors.into_iter().next().unwrap();
                self.supervisor.duplicates.insert(key(&seats), duplicate);
            }
            ToSupervisor::ServerClosed(seats) => drop(self.supervisor.duplicates.remove(&key(&seats))),
            ToSupervisor::Welcome(welcome) => {
                let known = self.supervisor.welcomes.iter().any(|w| (&w.database, &w.user) == (&welcome.database, &welcome.user));
                if !known {
                    self.supervisor.welcomes.push(welcome.clone());
                }
                self.tell_others(from, &ToWorker::Welcome(welcome));
            }
            ToSupervisor::Ready => {}
            other => panic!("worker {} says {other:?}", from.slot),
        }
    }

    fn tell_others(&mut self, but: Owner, message: &ToWorker) {
        let others: Vec<Owner> = self
            .places
            .iter()
            .filter_map(|place| place.life.as_ref())
            .map(|life| life.owner)
            .filter(|owner| *owner != but)
            .collect();
        for owner in others {
            let delay = self.draw(&self.plan.mail_delay.clone());
            self.schedule.after(delay, Event::Say(owner, Box::new(message.clone())));
        }
    }

    /// The supervisor's message arrives, unless the worker has died since.
    pub(super) fn say(&mut self, to: Owner, message: &ToWorker) {
        if let Some(life) = self.places[to.slot.index()].life.as_ref().filter(|life| life.owner == to) {
            seqpacket::send(life.control.as_fd(), &control::encode(message).unwrap(), &[]).unwrap();
        }
    }
}
