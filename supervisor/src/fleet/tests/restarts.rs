use super::*;
use ToWorker::{Inboxes, Leave, Unlisten};
use shared::control::Parting;

const RESTART: Request = Request::Restart { deadline: None };
const LEFT: Ended = Ended::Status(0);

fn listen(of: u8) -> ToWorker {
    ToWorker::Listen { of: Slot(of), listeners: 0, unix_listeners: 0 }
}

fn unlisten(of: u8) -> ToWorker {
    Unlisten { of: Slot(of) }
}

impl World {
    /// Everybody does what they have been told to, until nothing is left to do. Gives which slots were filled, in order.
    pub(super) fn play(&mut self) -> Vec<u8> {
        let mut filled = Vec::new();
        loop {
            filled.extend(self.spawned());
            let sent = self.sent();
            let starting = self.states().into_iter().find(|(_, state)| *state == "starting");
            if let Some((slot, message)) = sent.into_iter().find(|(_, message)| matches!(message, ToWorker::Listen { .. } | Leave))
            {
                match message {
                    ToWorker::Listen { of, .. } => self.say(slot.into(), Said::Listening(of)),
                    _ => self.die(slot.into(), LEFT),
                }
            } else if let Some((slot, _)) = starting {
                self.say(slot.into(), Said::Ready);
            } else {
                return filled;
            }
        }
    }

    /// Who accepts from the listeners that each of the first slots came with.
    fn accepting(&self, slots: usize) -> Vec<u8> {
        self.fleet.listening[..slots].iter().map(|listening| listening.by().0).collect()
    }
}

#[test]
fn one_after_the_other() {
    let mut w = World::up(2);
    w.ask(1, RESTART);
    assert_eq!(w.actions[1], Action::AddSlot);
    assert_eq!(w.sent(), [(0, Inboxes { first: 2 }), (1, Inboxes { first: 2 })]);
    assert_eq!(w.spawned(), [2], "on a slot of its own");
    w.say(2, Said::Ready);
    assert_eq!(w.sent(), [(2, listen(0))], "first somebody else accepts");
    w.say(2, Said::Listening(Slot(0)));
    assert_eq!(w.sent(), [(0, unlisten(0)), (0, Leave)]);
    assert_eq!(w.states(), [(0, "draining"), (1, "serving"), (2, "serving")]);
    assert!(w.spawned().is_empty(), "one at a time");
    w.die(0, LEFT);
    assert_eq!(w.spawned(), [0], "the slot that is free now");
    w.say(0, Said::Ready);
    assert_eq!(w.sent(), [(2, unlisten(0)), (2, listen(1))], "a slot's own worker has its listeners, the other gets what is left");
    w.say(2, Said::Listening(Slot(1)));
    w.die(1, LEFT);
    assert_eq!((w.answered(1), w.logged("workers restarted: 2")), (Some(&Answer::Restarted(0)), true));
    assert_eq!(w.states(), [(0, "serving"), (2, "serving")]);
    assert_eq!(w.accepting(2), [0, 2]);
}

#[test]
fn again_and_again() {
    let mut w = World::up(3);
    for ask in 1..20 {
        w.ask(ask, RESTART);
        assert_eq!(w.play().len(), 3);
        assert_eq!(w.states().iter().filter(|(_, state)| *state == "serving").count(), 3, "{:?}", w.states());
        assert_eq!(w.fleet.slots.len(), 4, "one slot more is enough");
        let mut accepting = w.accepting(3);
        accepting.sort_unstable();
        accepting.dedup();
        assert_eq!(accepting.len(), 3, "each has listeners");
    }
    assert!(w.resize_played(5) && w.resize_played(1) && w.resize_played(3));
}

impl World {
    fn resize_played(&mut self, workers: usize) -> bool {
        self.event(Event::Signal(Signal::Hup));
        let generation = self.load_workers(workers);
        let running: Vec<usize> = (0..self.workers.len()).filter(|&slot| self.workers[slot].is_some()).collect();
        for &slot in &running {
            self.say(slot, Said::Prepared(generation));
        }
        self.play();
        // What was left out while the last of them was played.
        for _ in 0..8 {
            for slot in 0..self.workers.len() {
                let leaves = self.states().contains(&(slot as u8, "draining"));
                for of in (0..self.workers.len()).map(|of| Slot(of as u8)) {
                    if self.workers[slot].is_some() {
                        self.say(slot, Said::Listening(of));
                    }
                }
                if leaves && self.fleet.is_relieved(Slot(slot as u8)) {
                    self.die(slot, LEFT);
                }
            }
            self.play();
        }
        for slot in 0..self.workers.len() {
            if self.workers[slot].is_some() {
                self.say(slot, Said::Committed(generation));
            }
        }
        self.states().len() == workers && self.states().iter().all(|(_, state)| *state == "serving")
    }
}

#[test]
fn a_successor_that_dies_or_hangs_changes_nothing() {
    let mut w = World::up(2);
    w.ask(1, RESTART);
    w.die(2, KILLED);
    assert!(matches!(w.answered(1), Some(Answer::Failed(Failure::Restart(why))) if why.contains("ended before it was ready")));
    assert_eq!((w.states(), w.spawned()), (vec![(0, "serving"), (1, "serving")], vec![]));
    w.tick(secs(1));
    assert!(w.spawned().is_empty(), "it has no successor itself");
    w.ask(2, RESTART);
    w.ask(3, RESTART);
    assert_eq!(w.answered(3), Some(&Answer::Failed(Failure::Restarting)));
    w.tick(secs(9));
    assert!(!w.did(&Action::Kill(Slot(2))));
    w.tick(secs(2));
    assert!(w.did(&Action::Kill(Slot(2))) && w.logged("is not ready in time"));
    w.die(2, KILLED);
    assert!(matches!(w.answered(2), Some(Answer::Failed(_))));
    w.ask(4, RESTART);
    assert_eq!(w.play().len(), 2);
}

#[test]
fn a_cancelled_one_ends_with_the_worker_at_hand() {
    let mut w = World::up(3);
    w.ask(1, RESTART);
    w.event(Event::Cancelled { ask: AskId(2) });
    assert!(w.answered(2).is_none());
    w.event(Event::Cancelled { ask: AskId(1) });
    assert_eq!(w.answered(1), Some(&Answer::Failed(Failure::Cancelled)));
    assert_eq!(w.play(), [0; 0], "the successor is there already, and no other comes");
    assert_eq!(w.states(), [(1, "serving"), (2, "serving"), (3, "serving")]);
    w.ask(3, RESTART);
    assert_eq!(w.play().len(), 3);
}

#[test]
fn whoever_dies_once_the_successor_is_ready_has_one() {
    let mut w = World::up(1);
    w.ask(1, RESTART);
    w.say(1, Said::Ready);
    w.say(1, Said::Listening(Slot(0)));
    w.die(1, KILLED);
    assert_eq!(w.spawned(), [1], "as any worker");
    w.die(0, KILLED);
    assert!(w.logged("ended while it was leaving") && w.spawned().is_empty());
    assert_eq!(w.answered(1), Some(&Answer::Restarted(0)));
    w.say(1, Said::Ready);
    assert_eq!(w.accepting(1), [1]);
}

#[test]
fn the_number_changes_meanwhile() {
    let mut w = World::up(3);
    w.ask(1, RESTART);
    assert_eq!(w.spawned(), [3]);
    assert!(w.resize_played(1));
    assert!(w.fleet.restart.is_none(), "{:?}", w.fleet.restart);
}

#[test]
fn at_the_deadline_the_rest_is_cut_off() {
    let mut w = World::up(2);
    w.ask(1, Request::Restart { deadline: Some(secs(5)) });
    w.say(2, Said::Ready);
    w.say(2, Said::Listening(Slot(0)));
    w.tick(secs(4));
    w.say(0, Said::Remaining { gone: 7, idle: 0, others: 0 });
    let part = (0, ToWorker::Part(Parting::All));
    assert!(!w.sent().contains(&part));
    for _ in 0..2 {
        w.tick(secs(1));
        assert_eq!(w.sent(), std::slice::from_ref(&part), "whoever has come to be movable or mortal by then too");
    }
    w.say(0, Said::Remaining { gone: 2, idle: 0, others: 1 });
    w.tick(secs(9));
    assert!(w.logged("worker 0 (pid 101) has not left at the deadline, killing it"));
    w.lose(0, KILLED, Holdings { clients: 1, servers: 0 }, &[]);
    assert_eq!(w.play(), [0], "the other worker has its own time");
    assert_eq!(w.answered(1), Some(&Answer::Restarted(3)));
    assert!(w.logged("workers restarted: 2; clients cut off at the deadline: 3"));
}
