use super::*;
use ToWorker::{Freeze, Leave, Strangers, Thaw};

const LEFT: Ended = Ended::Status(0);

fn heir() -> Heir {
    Heir { name: "pgfleet 0.2.0".into(), strange: true }
}

impl World {
    /// Up to where the workers have been told to freeze.
    fn freeze(&mut self, ask: u64) {
        self.ask(ask, Request::Upgrade(None));
        self.event(Event::Preflighted(Ok(heir())));
    }

    /// The new image goes on, and its canary starts.
    fn leap_to_stranger(&mut self, workers: usize) {
        self.freeze(1);
        (0..workers).for_each(|slot| self.say(slot, Said::Frozen));
        assert!(self.did(&Action::StandStill), "{:?}", self.actions);
        self.event(Event::Still);
        assert!(self.did(&Action::Leap), "{:?}", self.actions);
        self.event(Event::Resumed(Resumed::New));
    }

    fn sent_to_all(&self, message: &ToWorker) -> Vec<u8> {
        self.sent().into_iter().filter(|(_, sent)| sent == message).map(|(slot, _)| slot).collect()
    }
}

#[test]
fn all_freeze_before_and_leave_together() {
    let mut w = World::up(2);
    w.freeze(1);
    assert_eq!(w.sent(), [(0, Freeze), (1, Freeze)]);
    w.say(1, Said::Frozen);
    assert!(!w.did(&Action::StandStill), "worker 0 may still take seats");
    w.say(0, Said::Frozen);
    assert!(w.did(&Action::StandStill));
    w.event(Event::Still);
    w.event(Event::Resumed(Resumed::New));
    assert_eq!(w.spawned(), [2], "the canary");
    w.say(2, Said::Ready);
    assert!(w.did(&Action::Settle) && w.sent_to_all(&Leave).is_empty());
    assert_eq!(w.spawned(), [3], "as many as there were");
    assert_eq!(w.sent_to_all(&Strangers { slots: 0b100 }), [0, 1], "no supervisor is needed for them to stay frozen");
    // A configuration would not be understood by all.
    w.event(Event::Signal(Signal::Hup));
    assert!(!w.did(&Action::Load));
    let listens: Vec<(usize, Slot)> = vec![(2, Slot(0)), (2, Slot(1)), (3, Slot(0)), (3, Slot(1))];
    w.say(3, Said::Ready);
    assert_eq!(w.sent_to_all(&Strangers { slots: 0b1100 }), [0, 1]);
    let mut leaving = w.sent_to_all(&Leave);
    for (slot, of) in listens {
        w.say(slot, Said::Listening(of));
        leaving.extend(w.sent_to_all(&Leave));
    }
    assert_eq!(BTreeSet::from_iter(leaving), BTreeSet::from([0, 1]));
    w.die(0, LEFT);
    assert!(w.answered(1).is_none());
    w.die(1, LEFT);
    assert_eq!((w.answered(1), w.states()), (Some(&Answer::Done), vec![(2, "serving"), (3, "serving")]));
    assert!(w.did(&Action::Load), "{:?}", w.actions);
}

#[test]
fn who_is_not_left_after_all_thaws() {
    let mut w = World::up(2);
    w.freeze(1);
    w.say(0, Said::Frozen);
    w.tick(secs(4));
    assert_eq!(w.sent(), [(0, Thaw), (1, Thaw)], "worker 1 does not come to rest");
    assert!(matches!(w.answered(1), Some(Answer::Failed(Failure::Upgrade(_)))));
    w.freeze(2);
    assert_eq!(w.sent(), [(0, Freeze), (1, Freeze)], "from the beginning");
    (0..2).for_each(|slot| w.say(slot, Said::Frozen));
    w.event(Event::Still);
    w.event(Event::Resumed(Resumed::Back("it did not like it".into())));
    assert_eq!(w.sent()[2..], [(0, Thaw), (1, Thaw)]);
}

#[test]
fn a_canary_that_dies_beside_strangers_brings_the_image_before_back() {
    let mut w = World::up(1);
    w.leap_to_stranger(1);
    w.die(1, Ended::Signal(9));
    assert!(w.actions.iter().any(|action| matches!(action, Action::RollBack(_))));
    w.event(Event::Resumed(Resumed::Back("it died".into())));
    assert_eq!(w.sent()[1..], [(0, Thaw)]);
}

#[test]
fn a_successor_freezes_too_and_old_ones_that_die_have_none() {
    let mut w = World::up(2);
    w.freeze(1);
    w.say(1, Said::Frozen);
    w.die(1, Ended::Signal(9));
    w.say(0, Said::Frozen);
    assert!(!w.did(&Action::StandStill), "its successor starts");
    w.say(1, Said::Ready);
    assert_eq!(w.sent_to_all(&Freeze), [1]);
    w.say(1, Said::Frozen);
    w.event(Event::Still);
    w.event(Event::Resumed(Resumed::New));
    w.say(2, Said::Ready);
    w.die(0, Ended::Signal(9));
    assert!(w.states().iter().all(|(slot, state)| *slot != 0 || *state != "starting"), "{:?}", w.states());
    w.tick(secs(11));
    assert_eq!(
        w.sent_to_all(&Strangers { slots: 0b100 }),
        [1],
        "not all of the new ones are ready, and that is waited for only so long"
    );
}

/// It would map the canary's memory and be taken for one of the others.
#[test]
fn nobody_is_started_beside_a_canary_among_strangers() {
    let mut w = World::up(2);
    w.leap_to_stranger(2);
    w.die(0, Ended::Signal(9));
    w.tick(secs(1));
    assert_eq!(w.spawned(), [0; 0], "{:?}", w.states());
    w.say(2, Said::Ready);
    assert_eq!(w.spawned(), [0], "one of the crew");
    assert_eq!(w.sent_to_all(&Strangers { slots: 0b100 }), [1]);
    w.tick(secs(9));
    assert_eq!(w.spawned(), [0; 0], "{:?}", w.states());
}
