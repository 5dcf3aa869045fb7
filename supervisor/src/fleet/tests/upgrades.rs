use super::*;

const NEW: &str = "pgfleet 0.2.0";

impl World {
    /// Up to where the new binary is executed.
    fn leap(&mut self, ask: u64) {
        self.ask(ask, Request::Upgrade(None));
        assert!(self.did(&Action::Preflight(None)), "{:?}", self.actions);
        self.event(Event::Preflighted(Ok(Heir { name: NEW.into(), strange: false })));
        assert!(self.did(&Action::StandStill), "{:?}", self.actions);
        self.event(Event::Still);
        assert!(self.did(&Action::Leap), "{:?}", self.actions);
    }

    /// The new image goes on.
    fn resumed(&mut self) {
        let rules = self.fleet.rules.clone();
        self.fleet.go_on(rules, NEW);
        self.event(Event::Resumed(Resumed::New));
    }

    fn failed(&self, ask: u64, text: &str) -> bool {
        matches!(self.answered(ask), Some(Answer::Failed(Failure::Upgrade(why))) if why.contains(text))
    }
}

#[test]
fn the_canary_first_and_then_the_others() {
    let mut w = World::up(2);
    w.leap(1);
    w.resumed();
    assert!(w.logged("pgfleet 0.2.0 has taken over") && w.spawned() == [2]);
    w.say(2, Said::Ready);
    let settled = w.actions.iter().position(|action| *action == Action::Settle);
    let listens = w.actions.iter().position(|action| matches!(action, Action::Send(_, ToWorker::Listen { .. })));
    assert!(settled.unwrap() < listens.unwrap(), "before anything changes hands");
    assert_eq!(w.play(), [0]);
    assert_eq!((w.answered(1), w.logged("UPGRADE done, pgfleet 0.2.0 serves")), (Some(&Answer::Done), true));
    w.leap(2);
}

#[test]
fn a_binary_that_cannot_changes_nothing() {
    let mut w = World::up(2);
    w.ask(1, Request::Upgrade(Some("/opt/new".into())));
    assert!(w.did(&Action::Preflight(Some("/opt/new".into()))));
    w.event(Event::Preflighted(Err("/opt/new is not a file".into())));
    assert!(w.failed(1, "/opt/new is not a file") && w.logged("UPGRADE failed"));
    w.leap(2);
    w.event(Event::Resumed(Resumed::Back("/opt/new cannot be executed".into())));
    assert!(w.failed(2, "cannot be executed"));
    w.ask(3, Request::Restart { deadline: None });
    assert_eq!(w.play().len(), 2);
}

#[test]
fn a_canary_that_dies_or_hangs_brings_the_image_before_back() {
    for hangs in [false, true] {
        let mut w = World::up(2);
        w.leap(1);
        w.resumed();
        // It has to wait: only who is ready for good may put it in force.
        w.event(Event::Signal(Signal::Hup));
        assert!(!w.did(&Action::Load));
        if hangs {
            w.tick(secs(11));
            assert!(w.did(&Action::Kill(Slot(2))));
        }
        w.die(2, KILLED);
        let last = w.actions.last();
        assert!(matches!(last, Some(Action::RollBack(why)) if why.contains("before it was ready")), "behind all else: {last:?}");
        assert!(w.answered(1).is_none(), "the image before answers");
        w.event(Event::Resumed(Resumed::Back("it died".into())));
        assert!(w.failed(1, "it died"));
        assert_eq!(w.states(), [(0, "serving"), (1, "serving")]);
        assert!(w.did(&Action::Load), "{:?}", w.actions);
    }
}

/// Workers that are spoken to by the image before owe it nothing, and what they had said may have gone with the other.
#[test]
fn what_is_waited_for_is_asked_again_by_the_image_before() {
    let mut w = World::up(2);
    let pause = Order::Pause(Scope::All);
    w.ask(1, Request::Pause(Scope::All));
    w.say(0, Said::Done(1, Outcome::Done));
    w.leap(2);
    w.resumed();
    w.die(2, KILLED);
    w.event(Event::Resumed(Resumed::Back("it died".into())));
    let again = ToWorker::Order { number: 1, order: pause };
    let sent = w.sent();
    assert_eq!(sent.iter().filter(|(_, message)| *message == again).map(|(slot, _)| *slot).collect::<Vec<_>>(), [0, 1]);
    let adopted = sent.iter().position(|(_, message)| matches!(message, ToWorker::Adopted { .. })).unwrap();
    assert!(adopted < sent.iter().position(|(_, message)| *message == again).unwrap());
    w.say(1, Said::Done(1, Outcome::Done));
    assert!(w.answered(1).is_none(), "worker 0 is asked anew as well");
    w.say(0, Said::Done(1, Outcome::Done));
    assert_eq!(w.answered(1), Some(&Answer::Done));
}

/// The guard would bring the image before back otherwise.
#[test]
fn with_nobody_to_be_replaced_it_is_settled_too() {
    let mut w = World::up(1);
    for _ in 0..3 {
        w.die(0, KILLED);
        if w.spawned() == [0] {
            w.say(0, Said::Ready);
        }
    }
    assert_eq!(w.states(), [(0, "backoff")]);
    w.leap(1);
    w.resumed();
    assert_eq!((w.did(&Action::Settle), w.answered(1)), (true, Some(&Answer::Done)), "{:?}", w.actions);
}

#[test]
fn nobody_drains_what_may_roll_back() {
    let mut w = World::up(1);
    w.leap(1);
    w.resumed();
    w.ask(2, Request::Drain { per_second: None, deadline: None });
    assert_eq!(w.answered(2), Some(&Answer::Failed(Failure::Upgrading)));
    w.say(1, Said::Ready);
    w.ask(3, Request::Drain { per_second: None, deadline: None });
    assert!(w.answered(3).is_none() && w.fleet.drain.is_some());
}

#[test]
fn a_later_worker_that_fails_leaves_both_versions() {
    let mut w = World::up(3);
    w.leap(1);
    w.resumed();
    w.say(3, Said::Ready);
    w.say(3, Said::Listening(Slot(0)));
    w.die(0, Ended::Status(0));
    assert_eq!(w.spawned(), [0]);
    w.die(0, KILLED);
    assert!(w.failed(1, "workers of pgfleet 0.2.0: 1, of the version before: 2"), "{:?}", w.actions);
    assert!(!w.actions.iter().any(|action| matches!(action, Action::RollBack(_))));
    w.ask(2, Request::Restart { deadline: None });
    w.play();
    assert_eq!(w.states().iter().filter(|(_, state)| *state == "serving").count(), 3);
}

#[test]
fn a_configuration_on_its_way_is_waited_for() {
    let mut w = World::up(1);
    w.event(Event::Signal(Signal::Hup));
    w.ask(1, Request::Upgrade(None));
    w.event(Event::Preflighted(Ok(Heir { name: NEW.into(), strange: false })));
    assert!(!w.did(&Action::StandStill));
    let generation = w.load();
    w.say(0, Said::Prepared(generation));
    w.say(0, Said::Committed(generation));
    w.tick(secs(1));
    assert!(w.did(&Action::StandStill));
    // One more has come before everything stood still.
    w.event(Event::Signal(Signal::Hup));
    w.event(Event::Still);
    assert!(!w.did(&Action::Leap));
    w.tick(secs(31));
    assert!(w.failed(1, "a configuration is still on its way"));
}

#[test]
fn one_thing_at_a_time() {
    let mut w = World::up(2);
    w.ask(1, Request::Upgrade(None));
    w.ask(2, Request::Upgrade(None));
    assert_eq!(w.answered(2), Some(&Answer::Failed(Failure::Upgrading)));
    w.ask(3, Request::Restart { deadline: None });
    assert_eq!(w.answered(3), Some(&Answer::Failed(Failure::Upgrading)));
    w.event(Event::Preflighted(Err("no".into())));
    w.ask(4, Request::Restart { deadline: None });
    w.ask(5, Request::Upgrade(None));
    assert_eq!(w.answered(5), Some(&Answer::Failed(Failure::Restarting)));
    w.say(2, Said::Ready);
    w.play();
    w.ask(6, Request::Drain { per_second: None, deadline: None });
    w.ask(7, Request::Upgrade(None));
    assert_eq!(w.answered(7), Some(&Answer::Failed(Failure::ShuttingDown)));
}

#[test]
fn a_fleet_on_its_way_out_ends_as_what_it_is() {
    let mut w = World::up(1);
    w.ask(1, Request::Upgrade(None));
    w.event(Event::Signal(Signal::Term));
    assert!(w.failed(1, "shutting down"));
    w.event(Event::Preflighted(Ok(Heir { name: NEW.into(), strange: false })));
    assert!(!w.did(&Action::StandStill));

    let mut w = World::up(1);
    w.leap(1);
    w.resumed();
    w.event(Event::Signal(Signal::Term));
    assert!(w.failed(1, "shutting down") && w.did(&Action::Settle), "{:?}", w.actions);
    assert!(!w.actions.iter().any(|action| matches!(action, Action::RollBack(_))));
}

#[test]
fn cancelled_at_any_time() {
    let mut w = World::up(2);
    w.ask(1, Request::Upgrade(None));
    w.event(Event::Cancelled { ask: AskId(1) });
    assert_eq!(w.answered(1), Some(&Answer::Failed(Failure::Cancelled)));
    w.event(Event::Preflighted(Ok(Heir { name: NEW.into(), strange: false })));
    assert!(!w.did(&Action::StandStill));
    w.leap(2);
    w.resumed();
    w.event(Event::Cancelled { ask: AskId(2) });
    assert_eq!(w.answered(2), Some(&Answer::Failed(Failure::Cancelled)));
    assert_eq!(w.play(), [0; 0]);
    assert_eq!(w.states(), [(1, "serving"), (2, "serving")], "the worker at hand is the last");
    w.leap(3);
}
