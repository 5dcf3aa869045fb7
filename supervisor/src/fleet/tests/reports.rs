use super::*;
use shared::control::{PoolRow, ReportKind, ReportRows};

fn rows(queries: u64) -> Said {
    rows_for(1, queries)
}

fn rows_for(id: u32, queries: u64) -> Said {
    let pool = PoolRow { database: "d".into(), user: "u".into(), query_count: queries, cl_active: 7, ..PoolRow::default() };
    Said::Report(id, Box::new(ReportRows { pools: vec![pool], ..ReportRows::default() }))
}

#[test]
fn rows_of_all_workers() {
    let mut w = World::up(2);
    w.ask(9, Request::Report(ReportKind::Pools));
    assert_eq!(w.sent().len(), 2);
    w.say(1, rows(5));
    assert_eq!(w.answered(9), None);
    w.say(0, rows(3));
    let Some(Answer::Rows { live, retired, .. }) = w.answered(9) else { panic!() };
    assert_eq!(live.iter().map(|(slot, r)| (slot.0, r.pools[0].query_count)).collect::<Vec<_>>(), [(0, 3), (1, 5)]);
    assert!(retired.is_empty());
}

#[test]
fn a_silent_worker_is_left_out() {
    let mut w = World::up(2);
    w.ask(9, Request::Report(ReportKind::Clients));
    w.say(0, rows(3));
    w.tick(secs(2));
    assert!(w.logged("worker 1 did not report within 2 s"));
    assert!(matches!(w.answered(9), Some(Answer::Rows { live, .. }) if live.len() == 1));
    w.say(1, rows(3));
    assert_eq!(w.answered(9), None, "too late");
}

#[test]
fn a_worker_that_dies_is_not_waited_for_and_its_counters_stay() {
    let mut w = World::up(2);
    w.ask(9, Request::Report(ReportKind::Pools));
    w.say(1, rows(5));
    w.die(1, KILLED);
    assert_eq!(w.answered(9), None);
    w.say(0, rows(3));
    let Some(Answer::Rows { live, retired, .. }) = w.answered(9) else { panic!() };
    assert_eq!(live.len(), 1);
    assert_eq!((retired[0].query_count, retired[0].cl_active), (5, 0));
    // A second death on the slot adds to the first.
    w.say(1, Said::Ready);
    w.ask(10, Request::Report(ReportKind::Pools));
    w.say(1, rows_for(2, 6));
    w.say(0, rows_for(2, 4));
    w.die(1, KILLED);
    w.ask(11, Request::Report(ReportKind::Pools));
    w.say(0, rows_for(3, 4));
    let Some(Answer::Rows { retired, .. }) = w.answered(11) else { panic!() };
    assert_eq!(retired[0].query_count, 11);
}

#[test]
fn nobody_serving_is_an_answer_too() {
    let mut w = World::new(1);
    w.ask(1, Request::Report(ReportKind::Pools));
    assert!(matches!(w.answered(1), Some(Answer::Rows { live, .. }) if live.is_empty()));
}

#[test]
fn counters_are_sampled() {
    let mut w = World::up(1);
    w.tick(secs(10));
    assert_eq!(w.sent().len(), 1);
    w.tick(secs(1));
    assert!(w.sent().is_empty());
    w.say(0, rows(8));
    w.die(0, KILLED);
    w.ask(1, Request::Report(ReportKind::Pools));
    assert!(matches!(w.answered(1), Some(Answer::Rows { retired, .. }) if retired[0].query_count == 8));
}

#[test]
fn lines_for_show_workers() {
    let mut w = World::up(2);
    for _ in 0..3 {
        w.die(1, KILLED);
    }
    w.tick(Duration::from_millis(500));
    w.ask(1, Request::Workers);
    let Some(Answer::Workers(lines)) = w.answered(1) else { panic!() };
    assert_eq!((lines[0].state, lines[0].pid, lines[0].restarts), ("serving", Some(101), 0));
    assert_eq!(lines[0].uptime, Duration::from_millis(500));
    assert_eq!((lines[1].state, lines[1].pid, lines[1].restarts), ("backoff", None, 2));
}

/// A session that moves from a worker that has not been asked to one that has answered would be in no row.
#[test]
fn workers_that_leave_are_asked_first() {
    let mut w = World::up(2);
    w.resize(1);
    w.listening(0, 1);
    w.ask(9, Request::Report(ReportKind::Clients));
    let Some((1, ToWorker::Report { id, .. })) = w.sent().pop() else { panic!() };
    w.say(1, rows_for(id, 3));
    assert!(matches!(w.sent().as_slice(), [(0, ToWorker::Report { .. })]));
    w.die(1, Ended::Status(0));
    w.say(0, rows_for(id, 4));
    let Some(Answer::Rows { live, .. }) = w.answered(9) else { panic!() };
    assert_eq!(live.len(), 2, "what it has handed over meanwhile is in its rows");
    assert!(live[1].1.pools.is_empty(), "and its counters are among those of workers that are no more");
}
