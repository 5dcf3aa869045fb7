//! What logins have taught one worker, and who is told.
use super::*;
use shared::auth::Secret;
use shared::auth::scram::Keys;

/// The verifier of keys that are all zero.
const VERIFIER: &str =
    "SCRAM-SHA-256$4096:c2FsdA==$Zmh6rfhivXdsj8GLjp+OIAiXFIVu4jOzkCpZHQ1fKSU=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

fn keys(byte: u8) -> Keys {
    Keys { client_key: [byte; 32], server_key: [byte; 32] }
}

fn learned(byte: u8) -> Learned {
    Learned::Keys(keys(byte))
}

/// The keys that the slot's next worker is given.
fn next_keys(w: &mut World, slot: usize) -> Vec<Keys> {
    w.die(slot, KILLED);
    let spawned = w.actions.iter().find_map(|a| if let Action::Spawn { keys, .. } = a { Some(keys.clone()) } else { None });
    w.say(slot, Said::Ready);
    spawned.unwrap()
}

#[test]
fn keys_go_to_the_others_and_to_successors() {
    let mut w = World::up(3);
    w.say(1, Said::Learned(learned(0)));
    assert_eq!(w.sent(), [(0, ToWorker::Learned(learned(0))), (2, ToWorker::Learned(learned(0)))]);
    w.say(2, Said::Learned(learned(0)));
    assert!(w.sent().is_empty(), "nothing new");
    assert!(next_keys(&mut w, 0) == [keys(0)]);
}

#[test]
fn keys_that_open_nothing_any_more_are_forgotten() {
    let mut w = World::up(2);
    w.say(0, Said::Learned(learned(0)));
    w.say(0, Said::Learned(learned(1)));
    let outdated = Learned::Outdated(Secret::parse(VERIFIER));
    w.say(0, Said::Learned(outdated.clone()));
    assert_eq!(w.sent(), [(1, ToWorker::Learned(outdated))]);
    assert!(next_keys(&mut w, 0) == [keys(1)]);
}

#[test]
fn keys_of_secrets_that_a_reload_takes_away_are_forgotten() {
    let mut w = World::up(1);
    w.say(0, Said::Learned(learned(0)));
    w.say(0, Said::Learned(learned(1)));
    w.event(Event::Signal(Signal::Hup));
    let generation = w.load_without(vec![Secret::parse(VERIFIER)]);
    assert_eq!(w.fleet.keys.all().count(), 2, "not before it is in force");
    w.say(0, Said::Prepared(generation));
    w.say(0, Said::Committed(generation));
    assert!(next_keys(&mut w, 0) == [keys(1)]);
}

#[test]
fn what_auth_query_says_is_passed_on() {
    let mut w = World::up(2);
    let learned = Learned::Secret { database: "app".into(), user: "u".into(), secret: Secret::parse("x") };
    w.say(0, Said::Learned(learned.clone()));
    assert_eq!(w.sent(), [(1, ToWorker::Learned(learned))]);
}
