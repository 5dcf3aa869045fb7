use super::*;
use ToWorker::{Adopted, Leave, Stay, Unlisten};
use shared::ids::Owner;

/// A fleet whose supervisor has died: who serves, who leaves, and who accepts from the listeners of each slot that has any.
fn orphaned(wanted: usize, serving: &[u8], leaving: &[u8], listening: &[&[u8]]) -> World {
    let slots = listening.len().max(serving.iter().chain(leaving).max().map_or(0, |slot| usize::from(*slot) + 1));
    let mut world = World::new(slots);
    world.fleet = Fleet::new(slots, Rules::default(), "pgfleet 0.1.0");
    world.workers = vec![None; slots];
    let mut workers = Vec::new();
    for &slot in serving.iter().chain(leaving) {
        let owner = Owner { slot: Slot(slot), incarnation: Incarnation(u32::from(slot) + 20) };
        world.workers[owner.slot.index()] = Some((owner.incarnation, 1));
        workers.push(Survivor { owner, pid: 100 + u32::from(slot), since: world.now, leaving: leaving.contains(&slot) });
    }
    let marks = paused();
    let holders = |by: &&[u8]| by.iter().map(|slot| Slot(*slot)).collect();
    let listening = (0..slots).map(|slot| listening.get(slot).map(holders)).collect();
    let survivors = Survivors { wanted, workers, listening, marks, last_order: 7, last_incarnation: 80, ..Survivors::default() };
    world.event(Event::Adopted(Box::new(survivors)));
    world
}

fn paused() -> Marks {
    let mut marks = Marks::default();
    marks.obey(7, &Order::Pause(Scope::All));
    marks
}

impl World {
    fn sent_to(&self, slot: u8) -> Vec<ToWorker> {
        self.sent().into_iter().filter(|(to, _)| *to == slot).map(|(_, message)| message).collect()
    }
}

fn listen(of: u8) -> ToWorker {
    ToWorker::Listen { of: Slot(of), listeners: 0, unix_listeners: 0 }
}

#[test]
fn workers_go_on_and_the_dead_have_successors() {
    let mut w = orphaned(3, &[0, 2], &[], &[&[0], &[], &[2]]);
    assert_eq!(w.sent(), [0, 2].map(|slot| (slot, Adopted { marks: paused() })));
    assert_eq!(w.spawned(), [1]);
    assert!(w.logged("going on with the workers of a supervisor that has died: 100, 102"));
    assert!(w.actions.contains(&Action::Notify(Notice::Ready)) && w.actions.contains(&Action::Load));
    assert_eq!(w.workers[1].unwrap().0, Incarnation(81), "a life that nobody has had");
    w.load();
    (0..3).for_each(|slot| w.say(slot, Said::Prepared(w.candidate)));
    w.say(1, Said::Ready);
    assert_eq!(w.states(), [(0, "serving"), (1, "serving"), (2, "serving")]);
    w.ask(1, Request::Resume(Scope::All));
    assert_eq!(w.orders()[0].1, 8, "the next order");
}

/// The successor was ready and its predecessor had not been told to leave; it accepted from nothing yet.
#[test]
fn killed_in_the_middle_of_a_restart() {
    let mut w = orphaned(2, &[0, 1, 2], &[], &[&[0], &[1]]);
    assert!(w.spawned().is_empty());
    assert_eq!(w.sent_to(2), [Adopted { marks: paused() }, Leave], "the third slot has no listeners");
    assert_eq!(w.states(), [(0, "serving"), (1, "serving"), (2, "draining")]);
    w.die(2, Ended::Unseen);
    assert!(w.logged("worker 2 (pid 102) has left") && w.spawned().is_empty());
}

#[test]
fn who_leaves_goes_on_leaving_and_its_listeners_find_somebody() {
    let mut w = orphaned(1, &[1], &[0], &[&[0, 1], &[1]]);
    assert_eq!(w.sent_to(0)[1..], [Unlisten { of: Slot(0) }], "one of the two that accept is enough");
    assert!(w.spawned().is_empty());
    w.die(0, Ended::Unseen);
    assert!(w.logged("worker 0 (pid 100) has left"));
    assert_eq!(w.states(), [(1, "serving")]);
}

#[test]
fn who_was_to_leave_stays_where_one_more_is_wanted() {
    let w = orphaned(2, &[1], &[0], &[&[0, 1], &[1], &[]]);
    assert_eq!(w.sent_to(0)[1..], [Stay, listen(2)], "and accepts where nobody does");
    assert!(w.spawned().is_empty());
    assert_eq!(w.states(), [(0, "serving"), (1, "serving")]);
}

#[test]
fn one_that_dies_later_is_replaced_like_any_other() {
    let mut w = orphaned(1, &[0], &[], &[&[0]]);
    w.lose(0, Ended::Unseen, Holdings { clients: 1, servers: 0 }, &[]);
    assert_eq!(w.spawned(), [0]);
    assert!(w.logged("another supervisor had started it; starting its successor; clients lost: 1"));
    assert_eq!(w.sent_to(0), []);
    assert!(!w.sent().contains(&(0, listen(0))));
}
