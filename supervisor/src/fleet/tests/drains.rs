use super::*;
use shared::control::Parting::{self, All, Idle, Outside};
use shared::control::StopMode::{Immediate, WaitForClients};

const OK: Ended = Ended::Status(0);

fn drain(per_second: Option<u32>, deadline: Option<u64>) -> Request {
    Request::Drain { per_second, deadline: deadline.map(secs) }
}

impl World {
    /// A tick with so many clients in each worker.
    fn hold(&mut self, later: Duration, clients: &[u32], backlog: bool) {
        self.now += later;
        let beat = Some(self.now);
        let pulse = |&clients: &u32| Pulse { beat, holds: Holdings { clients, servers: 0 } };
        self.event(Event::Tick { pulses: clients.iter().map(pulse).collect(), backlog });
    }

    /// Ticks for so long; the workers obey, and have nobody but idle clients. How many were sent away, by tick.
    fn obey(&mut self, seconds: u64, clients: &mut [u32]) -> Vec<u32> {
        let mut gone = Vec::new();
        for _ in 0..seconds * 4 {
            self.hold(Duration::from_millis(250), clients, false);
            let mut turns = 0;
            for (slot, parting) in self.partings() {
                let left = &mut clients[usize::from(slot)];
                let part = if let Idle(most) = parting { most.min(*left) } else { *left };
                *left -= part;
                turns += part;
                let said = Said::Remaining { gone: 0, idle: *left, others: 0 };
                self.say(slot.into(), said);
            }
            gone.push(turns);
        }
        gone
    }

    fn partings(&self) -> Vec<(u8, Parting)> {
        self.sent()
            .into_iter()
            .filter_map(|(slot, m)| if let ToWorker::Part(parting) = m { Some((slot, parting)) } else { None })
            .collect()
    }

    fn shut(&mut self, clients: &[u32]) {
        self.hold(secs(1), clients, false);
        assert!(self.did(&Action::ShutListeners));
    }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn the_port_is_closed_when_nobody_waits_at_it() {
    let mut w = World::up(2);
    w.ask(1, drain(None, None));
    assert!(w.logged("DRAIN command issued") && w.did(&Action::SealListeners));
    assert_eq!(w.orders(), [(0, 1, Order::Drain), (1, 1, Order::Drain)]);
    assert_eq!(w.states(), [(0, "draining"), (1, "draining")]);
    w.hold(ms(900), &[0, 0], false);
    assert!(!w.did(&Action::ShutListeners), "connections may be half open");
    w.hold(ms(500), &[0, 0], true);
    assert!(!w.did(&Action::ShutListeners), "somebody waits");
    w.hold(ms(200), &[0, 0], false);
    assert!(w.did(&Action::ShutListeners));
    assert_eq!(w.answered(1), Some(&Answer::Done));
    assert!(w.logged("drained: no client is left"));
    w.hold(secs(9), &[0, 0], false);
    assert!(w.exit.is_none() && !w.did(&Action::ShutListeners));
}

#[test]
fn a_worker_that_does_not_accept_does_not_hold_the_port_open() {
    let mut w = World::up(1);
    w.ask(1, drain(None, None));
    w.hold(secs(4), &[0], true);
    assert!(!w.did(&Action::ShutListeners));
    w.hold(secs(1), &[0], true);
    assert!(w.did(&Action::ShutListeners));
}

#[test]
fn idle_clients_leave_at_the_fleets_pace() {
    let mut w = World::up(2);
    let mut clients = [90, 10];
    w.ask(1, drain(Some(20), None));
    w.hold(ms(250), &clients, false);
    let gone = w.obey(6, &mut clients);
    assert!(gone[..19].iter().all(|turns| *turns == 5), "{gone:?}");
    assert_eq!(clients, [0, 0]);
    assert_eq!(gone.iter().sum::<u32>(), 100);
}

#[test]
fn the_pace_is_as_fast_as_the_deadline_wants() {
    for (asked, expected) in [(None, 200), (Some(10), 10)] {
        let mut w = World::up(1);
        let mut clients = [3000];
        w.ask(1, drain(asked, Some(30)));
        w.hold(Duration::ZERO, &clients, false);
        let gone = w.obey(10, &mut clients);
        assert_eq!(gone.iter().sum::<u32>(), expected * 10);
    }
}

/// A fifth of the time before the deadline, between one second and ten, and not more than half.
#[test]
fn a_last_call_comes_before_the_deadline() {
    for (deadline, last_call) in [(30, 24_000), (100, 90_000), (5, 4_000), (1, 500)] {
        let mut w = World::up(2);
        w.ask(1, drain(Some(1), Some(deadline)));
        w.hold(ms(last_call - 100), &[900, 900], false);
        assert!(!w.partings().iter().any(|(_, parting)| *parting == Outside), "{deadline}");
        w.hold(ms(100), &[900, 900], false);
        assert_eq!(w.partings(), [(0, Outside), (1, Outside)], "{deadline}");
        w.hold(ms(deadline * 1000 - last_call - 50), &[9, 9], false);
        assert_eq!((w.partings().len(), w.answered(1)), (2, None), "said again to those that were in the middle of a message");
        w.hold(ms(50), &[3, 4], false);
        assert_eq!(w.partings(), [(0, All), (1, All)]);
        assert_eq!(w.answered(1), Some(&Answer::Failed(Failure::CutOff(7))));
        assert!(w.logged("not drained at the deadline, clients cut off: 7"));
        w.hold(secs(1), &[0, 0], false);
        assert!(w.exit.is_none() && w.partings().is_empty(), "the fleet is there still");
    }
}

#[test]
fn undrain_opens_the_port_when_every_worker_lets_clients_in() {
    let mut w = World::up(2);
    w.ask(1, Request::Undrain);
    assert_eq!(w.answered(1), Some(&Answer::Failed(Failure::NotDraining)));
    w.ask(2, drain(None, None));
    w.shut(&[5, 5]);
    w.ask(3, Request::Undrain);
    assert_eq!(w.answered(2), Some(&Answer::Failed(Failure::Undrained)));
    let number = w.last_order;
    assert_eq!(w.orders(), [(0, number, Order::Undrain), (1, number, Order::Undrain)]);
    w.done(0, number);
    assert!(!w.did(&Action::OpenListeners));
    w.done(1, number);
    assert!(w.did(&Action::OpenListeners));
    assert_eq!(w.answered(3), Some(&Answer::Done));
    assert_eq!(w.states(), [(0, "serving"), (1, "serving")]);
    w.hold(secs(9), &[5, 5], false);
    assert!(w.partings().is_empty());
}

#[test]
fn one_that_begins_again_in_between_keeps_the_port_closed() {
    let mut w = World::up(1);
    w.ask(1, drain(None, None));
    w.shut(&[5]);
    w.ask(2, Request::Undrain);
    let number = w.last_order;
    w.ask(3, drain(None, None));
    w.done(0, number);
    assert!(!w.did(&Action::OpenListeners));
}

#[test]
fn cancelling_the_command_takes_it_back() {
    let mut w = World::up(1);
    w.ask(1, drain(None, None));
    w.event(Event::Cancelled { ask: AskId(1) });
    assert_eq!(w.answered(1), Some(&Answer::Failed(Failure::Cancelled)));
    assert_eq!(w.orders().len(), 1);
    w.done(0, w.last_order);
    assert!(w.did(&Action::OpenListeners));
}

#[test]
fn a_successor_is_drained_too() {
    let mut w = World::up(2);
    w.ask(1, drain(Some(8), None));
    w.shut(&[50, 50]);
    w.say(0, Said::Remaining { gone: 0, idle: 50, others: 0 });
    w.die(0, KILLED);
    assert!(w.actions.iter().any(|action| matches!(action, Action::Spawn { marks, .. } if marks.draining)));
    w.say(0, Said::Ready);
    w.say(1, Said::Remaining { gone: 0, idle: 0, others: 0 });
    w.hold(secs(1), &[4, 50], false);
    assert_eq!(w.partings(), [(0, Idle(4)), (1, Idle(0))]);
}

#[test]
fn the_number_of_workers_stays_until_it_is_over() {
    let mut w = World::up(1);
    w.ask(1, drain(None, None));
    w.ask(2, Request::Reload);
    let g = w.load_workers(2);
    w.say(0, Said::Prepared(g));
    w.say(0, Said::Committed(g));
    assert!(w.spawned().is_empty() && !w.did(&Action::Grow));
    w.ask(3, Request::Undrain);
    assert!(w.did(&Action::Grow));
    assert_eq!(w.spawned(), [1]);
}

fn draining_shutdown(workers: usize) -> World {
    let mut w = World::up(workers);
    w.fleet.rules.drain_timeout = Some(secs(10));
    w.event(Event::Signal(Signal::Term));
    assert!(w.logged("got SIGTERM, shutting down, draining for at most 10 s"));
    assert!(w.did(&Action::Notify(Notice::Stopping)) && w.did(&Action::SealListeners) && !w.did(&Action::CloseListeners));
    w
}

#[test]
fn term_drains_if_it_is_to() {
    let mut w = draining_shutdown(2);
    assert_eq!(w.orders().len(), 2);
    assert_eq!(w.sent().len(), 2, "workers stay until nobody can come any more");
    w.shut(&[3, 0]);
    let stops: Vec<u8> = w.sent().iter().filter(|(_, m)| *m == ToWorker::Stop(WaitForClients)).map(|(slot, _)| *slot).collect();
    assert_eq!(stops, [0, 1]);
    w.die(1, OK);
    w.die(0, OK);
    assert!(w.logged("client connections dropped, exiting"));
    assert_eq!(w.exit, Some(0));
}

#[test]
fn term_ends_at_the_deadline() {
    let mut w = draining_shutdown(1);
    w.shut(&[3]);
    w.hold(ms(8_900), &[3], false);
    assert_eq!(w.partings(), [(0, Outside)]);
    w.hold(ms(100), &[1], false);
    assert!(w.sent().contains(&(0, ToWorker::Stop(Immediate))));
    assert!(w.logged("clients cut off: 1"));
    w.die(0, OK);
    assert_eq!(w.exit, Some(0));
}

#[test]
fn a_second_term_hurries() {
    let mut w = draining_shutdown(1);
    w.event(Event::Signal(Signal::Term));
    assert!(w.logged("got SIGTERM while shutting down, fast exit"));
    assert_eq!(w.sent(), [(0, ToWorker::Stop(Immediate))]);
    w.hold(secs(1), &[3], false);
    assert!(w.partings().is_empty());
    w.die(0, OK);
    assert_eq!(w.exit, Some(0));
}

/// A container's preStop has drained the fleet when its SIGTERM comes.
#[test]
fn a_drained_fleet_ends_at_once() {
    for timeout in [None, Some(secs(10))] {
        let mut w = World::up(1);
        w.fleet.rules.drain_timeout = timeout;
        w.ask(1, drain(None, None));
        w.shut(&[0]);
        assert_eq!(w.answered(1), Some(&Answer::Done));
        w.event(Event::Signal(Signal::Term));
        assert!(w.sent().contains(&(0, ToWorker::Stop(WaitForClients))));
        w.die(0, OK);
        assert_eq!(w.exit, Some(0));
    }
}

/// SIGTERM has been waiting for clients, and the operator has had enough of it.
#[test]
fn a_fleet_that_waits_for_its_clients_can_be_drained() {
    let mut w = World::up(1);
    w.event(Event::Signal(Signal::Term));
    w.ask(1, drain(None, Some(10)));
    assert!(!w.did(&Action::SealListeners), "they are closed");
    w.hold(ms(100), &[40], false);
    w.hold(ms(100), &[40], false);
    assert_eq!(w.partings(), [(0, Idle(10))]);
    w.ask(2, Request::Undrain);
    assert_eq!(w.answered(2), Some(&Answer::Failed(Failure::ShuttingDown)));
    w.hold(secs(10), &[1], false);
    assert!(w.sent().contains(&(0, ToWorker::Stop(Immediate))));
}

/// Who waits at listeners that the service manager keeps is served by the next fleet.
#[test]
fn listeners_that_stay_are_let_go_of() {
    let mut w = World::up(2);
    w.fleet.rules.drain_timeout = Some(secs(10));
    w.fleet.rules.listeners_stay = true;
    w.event(Event::Signal(Signal::Term));
    assert!(w.did(&Action::CloseListeners) && !w.did(&Action::SealListeners));
    for (slot, of) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        assert!(w.sent().contains(&(slot, ToWorker::Unlisten { of: Slot(of) })));
    }
    assert!(w.sent().contains(&(0, ToWorker::Stop(WaitForClients))), "nobody can come any more");
}
