use super::*;
use log::Level;
use shared::config::News;

fn prepare(generation: u64) -> ToWorker {
    ToWorker::Prepare { generation, log_file: false }
}

/// The answer when all of it is.
fn in_force() -> Answer {
    Answer::InForce(News { changed: vec!["x: 2, was 1".into()], needs_restart: vec!["y needs more".into()] })
}

#[test]
fn all_prepare_then_all_commit() {
    let mut w = World::up(2);
    w.ask(1, Request::Reload);
    assert!(w.logged("RELOAD command issued"));
    assert!(w.did(&Action::Load) && w.did(&Action::Notify(Notice::Reloading)));
    let g = w.load();
    assert_eq!(w.sent(), [(0, prepare(g)), (1, prepare(g))]);
    w.say(0, Said::Prepared(g));
    assert!(w.actions.is_empty());
    w.say(1, Said::Prepared(g));
    assert_eq!(w.actions[0], Action::Adopt, "a successor started from here on takes the new one");
    assert_eq!(w.sent(), [(0, ToWorker::Commit { generation: g }), (1, ToWorker::Commit { generation: g })]);
    w.say(1, Said::Committed(g));
    assert_eq!(w.answered(1), None);
    w.say(0, Said::Committed(g));
    assert_eq!(w.answered(1), Some(&in_force()));
    assert!(w.did(&Action::Notify(Notice::Ready)));
    assert!(w.did(&Action::Log(Level::Info, "x: 2, was 1".into())) && w.did(&Action::Log(Level::Warn, "y needs more".into())));
}

#[test]
fn a_bad_file_changes_nothing() {
    let mut w = World::up(2);
    w.ask(1, Request::Reload);
    w.event(Event::Loaded(Err("a.ini:3: unknown setting\na.ini:9: bad value".into())));
    assert!(w.logged("a.ini:3: unknown setting") && w.logged("a.ini:9: bad value"));
    assert!(w.sent().is_empty());
    let reasons = vec!["a.ini:3: unknown setting".into(), "a.ini:9: bad value".into()];
    assert_eq!(w.answered(1), Some(&Answer::Failed(Failure::Reload(reasons))));
    assert!(w.did(&Action::Notify(Notice::Ready)));
}

/// Whatever rotated the log has moved the file away: it is opened anew although the configuration stays.
#[test]
fn a_bad_file_still_reopens_the_log() {
    let mut w = World::up(1);
    w.event(Event::Signal(Signal::Hup));
    w.event(Event::Loaded(Err("a.ini:3: unknown setting".into())));
    assert!(w.did(&Action::LoadReopen));
    let g = w.load();
    w.say(0, Said::Prepared(g));
    assert!(w.did(&Action::Adopt));
    w.say(0, Said::Committed(g));
    w.event(Event::Signal(Signal::Hup));
    assert!(w.did(&Action::Load), "and then the next reload is as any other");
}

#[test]
fn replaced_certificates_are_read_and_the_rest_of_the_file_is_not() {
    let mut w = World::up(1);
    w.event(Event::TlsFilesChanged);
    assert!(w.did(&Action::LoadTlsFiles) && !w.did(&Action::Load));
    w.event(Event::Loaded(Err("does not fit\nkeeping old configuration".into())));
    assert!(w.logged("keeping old configuration") && !w.did(&Action::LoadReopen));
    w.event(Event::TlsFilesChanged);
    let g = w.load();
    w.say(0, Said::Prepared(g));
    w.say(0, Said::Committed(g));
    assert!(w.logged("files of the TLS settings have changed, what they hold now is in force"));
}

#[test]
fn one_refusal_abandons_everywhere() {
    let mut w = World::up(3);
    w.ask(1, Request::Reload);
    let g = w.load();
    w.say(0, Said::Prepared(g));
    w.say(1, Said::Refused(g, "cannot read it".into()));
    assert_eq!(w.sent(), (0..3).map(|s| (s, ToWorker::Abandon { generation: g })).collect::<Vec<_>>());
    assert!(w.did(&Action::Discard) && !w.did(&Action::Adopt));
    assert!(w.logged("worker 1 cannot use the new configuration: cannot read it"));
    let reason = "worker 1 cannot use the new configuration: cannot read it";
    assert_eq!(w.answered(1), Some(&Answer::Failed(Failure::Reload(vec![reason.into()]))));
    w.say(2, Said::Prepared(g));
    assert!(w.actions.is_empty(), "a late answer is nothing");
    assert_eq!(w.generation, 1);
}

#[test]
fn a_death_while_loading() {
    let mut w = World::up(2);
    w.ask(1, Request::Reload);
    w.die(0, KILLED);
    assert_eq!(w.workers[0].unwrap().1, 1);
    let g = w.load();
    assert_eq!(w.sent(), [(0, prepare(g)), (1, prepare(g))], "the successor too");
}

#[test]
fn a_death_in_phase_one_with_others_waited_for() {
    let mut w = World::up(2);
    w.ask(1, Request::Reload);
    let g = w.load();
    w.die(0, KILLED);
    assert_eq!(w.workers[0].unwrap().1, 1, "the old configuration is in force");
    assert_eq!(w.sent(), [(0, prepare(g))], "and it prepares the new one");
    w.say(1, Said::Prepared(g));
    assert!(w.actions.is_empty(), "the successor is waited for");
    w.say(0, Said::Ready);
    w.say(0, Said::Prepared(g));
    assert!(w.did(&Action::Adopt));
    w.say(0, Said::Committed(g));
    w.say(1, Said::Committed(g));
    assert_eq!(w.answered(1), Some(&in_force()));
}

#[test]
fn the_death_of_the_last_one_waited_for_in_phase_one_commits() {
    let mut w = World::up(2);
    w.ask(1, Request::Reload);
    let g = w.load();
    w.say(1, Said::Prepared(g));
    w.die(0, KILLED);
    assert_eq!(w.sent(), [(1, ToWorker::Commit { generation: g })]);
    assert_eq!(w.workers[0].unwrap().1, g, "the successor starts with the new one");
    w.say(1, Said::Committed(g));
    assert_eq!(w.answered(1), Some(&in_force()));
}

#[test]
fn a_death_in_phase_two() {
    let mut w = World::up(2);
    w.ask(1, Request::Reload);
    let g = w.load();
    w.say(0, Said::Prepared(g));
    w.say(1, Said::Prepared(g));
    w.die(0, KILLED);
    assert_eq!(w.workers[0].unwrap().1, g);
    assert!(w.sent().is_empty());
    w.say(1, Said::Committed(g));
    assert_eq!(w.answered(1), Some(&in_force()));
}

#[test]
fn the_death_of_the_only_worker_in_each_phase() {
    for phase in 0..2 {
        let mut w = World::up(1);
        w.ask(1, Request::Reload);
        let g = w.load();
        if phase == 1 {
            w.say(0, Said::Prepared(g));
        }
        w.die(0, KILLED);
        assert_eq!(w.answered(1), Some(&in_force()));
        assert_eq!(w.workers[0].unwrap().1, g);
    }
}

#[test]
fn a_worker_in_backoff_is_not_waited_for() {
    let mut w = World::up(2);
    for _ in 0..3 {
        w.die(0, KILLED);
    }
    w.say(1, Said::Listening(Slot(0)));
    w.sent();
    w.ask(1, Request::Reload);
    let g = w.load();
    assert_eq!(w.sent(), [(1, prepare(g))]);
    w.tick(secs(1));
    assert_eq!(w.sent(), [(0, prepare(g))], "it starts in phase one and joins");
    w.say(1, Said::Prepared(g));
    w.say(0, Said::Prepared(g));
    assert!(w.did(&Action::Adopt));
}

#[test]
fn a_silent_worker_is_killed_and_the_reload_goes_on() {
    let mut w = World::up(2);
    w.ask(1, Request::Reload);
    let g = w.load();
    w.say(0, Said::Prepared(g));
    w.tick(secs(10));
    assert!(w.did(&Action::Kill(Slot(1))));
    assert!(w.logged("worker 1 (pid 102) did not answer a reload within 10 s, killing it"));
    w.die(1, KILLED);
    w.say(0, Said::Committed(g));
    assert_eq!(w.answered(1), Some(&in_force()));
}

/// Whoever asked for it would otherwise see nothing at all, perhaps until the worker is killed.
#[test]
fn whoever_is_waited_for_is_named_once_in_each_phase() {
    let mut w = World::up(3);
    w.event(Event::Signal(Signal::Hup));
    let g = w.load();
    w.say(1, Said::Prepared(g));
    w.tick(Duration::from_millis(900));
    assert!(w.actions.is_empty());
    w.tick(Duration::from_millis(100));
    assert!(w.did(&Action::Log(Level::Warn, "RELOAD waits for worker 0 (pid 101), worker 2 (pid 103)".into())));
    w.tick(secs(1));
    assert!(w.actions.is_empty());
    w.say(0, Said::Prepared(g));
    w.say(2, Said::Prepared(g));
    w.say(0, Said::Committed(g));
    w.say(1, Said::Committed(g));
    w.tick(secs(1));
    assert!(w.logged("RELOAD waits for worker 2 (pid 103)"));
    w.say(2, Said::Committed(g));
    assert!(w.logged("RELOAD done, the new configuration is in force"));
}

#[test]
fn reloads_asked_for_meanwhile_are_one_more_reload() {
    let mut w = World::up(1);
    w.event(Event::Signal(Signal::Hup));
    assert!(w.logged("got SIGHUP, re-reading config"));
    w.ask(1, Request::Reload);
    w.ask(2, Request::Reload);
    assert!(!w.did(&Action::Load));
    let g = w.load();
    w.say(0, Said::Prepared(g));
    w.say(0, Said::Committed(g));
    assert!(w.did(&Action::Load));
    assert_eq!(w.answered(1), None, "the file may have changed since it was read");
    w.event(Event::Loaded(Err("bad".into())));
    assert_eq!(w.answered(1), Some(&Answer::Failed(Failure::Reload(vec!["bad".into()]))));
    assert_eq!(w.answered(2), Some(&Answer::Failed(Failure::Reload(vec!["bad".into()]))));
    assert!(!w.did(&Action::Load));
}

#[test]
fn set_goes_the_same_way() {
    let mut w = World::up(1);
    w.ask(1, Request::Set("default_pool_size".into(), "5".into()));
    assert_eq!(w.actions, [Action::LoadSet("default_pool_size".into(), "5".into())]);
    let g = w.load();
    w.say(0, Said::Prepared(g));
    w.say(0, Said::Committed(g));
    assert_eq!(w.answered(1), Some(&in_force()));
    w.ask(2, Request::Set("nonsense".into(), "5".into()));
    w.event(Event::Loaded(Err("unknown setting".into())));
    assert_eq!(w.answered(2), Some(&Answer::Failed(Failure::Set(vec!["unknown setting".into()]))));
}

#[test]
fn welcomes_of_changed_databases_are_forgotten() {
    let mut w = World::up(2);
    for database in ["app", "other"] {
        w.say(0, Said::Welcome(Welcome { database: database.into(), user: "u".into(), parameters: vec![] }));
    }
    w.event(Event::Signal(Signal::Hup));
    let g = w.load();
    w.say(0, Said::Prepared(g));
    w.say(1, Said::Prepared(g));
    // What a worker says before its commit may be about the old entry.
    w.say(0, Said::Welcome(Welcome { database: "app".into(), user: "late".into(), parameters: vec![] }));
    assert!(w.actions.is_empty());
    w.say(0, Said::Committed(g));
    w.say(0, Said::Welcome(Welcome { database: "app".into(), user: "new".into(), parameters: vec![] }));
    w.die(1, KILLED);
    let Some(Action::Spawn { welcomes, .. }) = w.actions.last() else { panic!() };
    assert_eq!(welcomes.iter().map(|w| (&*w.database, &*w.user)).collect::<Vec<_>>(), [("app", "new"), ("other", "u")]);
}
