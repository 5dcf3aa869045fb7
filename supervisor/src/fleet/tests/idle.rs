use super::*;
use shared::control::{PoolRow, ReportKind, ReportRows};
use shared::orders::PoolName;

const STEP: Duration = Duration::from_secs(2);

fn name(database: &str) -> PoolName {
    (database.into(), "u".into())
}

/// A pool as a worker reports it: with `clients`, after `logins`.
fn pool(database: &str, clients: u32, logins: u64) -> PoolRow {
    PoolRow { database: database.into(), user: "u".into(), cl_active: clients, client_login_count: logins, ..PoolRow::default() }
}

/// Pools of configured and of other databases go after 8 s, other databases after 20.
fn world(workers: usize) -> World {
    let mut w = World::up(workers);
    w.fleet.rules.pool_idle_timeout = Some(secs(8));
    w.fleet.rules.autodb_idle_timeout = Some(secs(20));
    w.fleet.rules.entries = [("app".to_owned(), false), ("kept".to_owned(), true)].into();
    w
}

fn answer(w: &mut World, slot: usize, id: u32, pools: &[PoolRow]) {
    w.say(slot, Said::Report(id, Box::new(ReportRows { pools: pools.to_vec(), ..ReportRows::default() })));
}

/// The fleet takes its own sample; `pools`: what each worker has. What was ordered then.
fn sample(w: &mut World, pools: &[&[PoolRow]]) -> Vec<PoolName> {
    w.tick(STEP);
    let ids: Vec<(u8, u32)> = w
        .sent()
        .into_iter()
        .filter_map(|(slot, message)| match message {
            ToWorker::Report { id, .. } => Some((slot, id)),
            _ => None,
        })
        .collect();
    assert_eq!(ids.len(), pools.len());
    for (slot, id) in ids {
        answer(w, slot.into(), id, pools[usize::from(slot)]);
    }
    let forgets = w.orders().into_iter().filter_map(|(slot, _, order)| match order {
        Order::Forget(names) if slot == 0 => Some(names),
        _ => None,
    });
    forgets.flatten().collect()
}

fn forgotten(w: &mut World, slot: usize, counted: &[PoolRow], kept: &[PoolName]) {
    let number = w.last_order;
    w.say(slot, Said::Done(number, Outcome::Forgotten { counted: counted.to_vec(), kept: kept.to_vec() }));
}

impl World {
    /// Everything counted, and whether the pool is still there.
    fn logins(&mut self, pools: &[&[PoolRow]], wanted: &PoolName) -> (u64, bool) {
        self.ask(77, Request::Report(ReportKind::Pools));
        let ids: Vec<(u8, u32)> = self
            .sent()
            .into_iter()
            .filter_map(|(slot, m)| if let ToWorker::Report { id, .. } = m { Some((slot, id)) } else { None })
            .collect();
        for (slot, id) in ids {
            answer(self, slot.into(), id, pools[usize::from(slot)]);
        }
        let Some(Answer::Rows { live, retired, removed, forgotten }) = self.answered(77) else { panic!() };
        let all = live.iter().flat_map(|(_, rows)| &rows.pools).chain(retired).chain(removed);
        (all.map(|row| row.client_login_count).sum(), !forgotten.contains(wanted))
    }
}

#[test]
fn a_pool_that_no_worker_uses_is_removed_and_totals_stay() {
    let mut w = world(2);
    let (used, idle) = (pool("app", 1, 3), pool("app", 0, 3));
    for _ in 0..6 {
        assert!(sample(&mut w, &[std::slice::from_ref(&idle), std::slice::from_ref(&used)]).is_empty(), "one worker uses it");
    }
    for _ in 0..4 {
        assert!(sample(&mut w, &[std::slice::from_ref(&idle), std::slice::from_ref(&idle)]).is_empty(), "not for long enough");
    }
    assert_eq!(sample(&mut w, &[std::slice::from_ref(&idle), std::slice::from_ref(&idle)]), [name("app")]);
    assert!(sample(&mut w, &[std::slice::from_ref(&idle), std::slice::from_ref(&idle)]).is_empty(), "once is enough");
    forgotten(&mut w, 0, std::slice::from_ref(&idle), &[]);
    assert_eq!(w.logins(&[&[], std::slice::from_ref(&idle)], &name("app")), (6, true), "half of it is gone, none twice");
    forgotten(&mut w, 1, std::slice::from_ref(&idle), &[]);
    assert!(w.logged("cleaning up idle pool for user u on db app because: pool idle timeout (age= 8s)"));
    assert_eq!(w.logins(&[&[], &[]], &name("app")), (6, false));
    assert_eq!(w.logins(&[&[pool("app", 1, 1)], &[]], &name("app")), (7, true), "used again, it is back");
}

#[test]
fn one_that_was_used_between_two_looks_is_not_idle() {
    let mut w = world(1);
    for logins in 0..20 {
        assert!(sample(&mut w, &[&[pool("app", 0, logins)]]).is_empty());
    }
}

#[test]
fn one_that_is_in_use_again_when_the_order_comes_stays() {
    let mut w = world(2);
    let idle = [pool("app", 0, 1)];
    while sample(&mut w, &[&idle, &idle]).is_empty() {}
    forgotten(&mut w, 0, &idle, &[]);
    forgotten(&mut w, 1, &[], &[name("app")]);
    assert!(!w.logged("cleaning up"));
    assert_eq!(w.logins(&[&[], &[pool("app", 1, 2)]], &name("app")), (3, true));
    for _ in 0..3 {
        assert!(sample(&mut w, &[&[], &idle]).is_empty(), "its time begins anew");
    }
}

/// The counters of a worker that dies with the order undone are counted once.
#[test]
fn a_worker_dies_before_it_has_forgotten() {
    let mut w = world(2);
    let idle = [pool("app", 0, 5)];
    while sample(&mut w, &[&idle, &idle]).is_empty() {}
    forgotten(&mut w, 0, &idle, &[]);
    w.die(1, KILLED);
    assert!(w.logged("cleaning up idle pool"));
    w.say(1, Said::Ready);
    assert_eq!(w.logins(&[&[], &[]], &name("app")), (10, false));
}

/// And those of one that dies just after.
#[test]
fn a_worker_dies_after_it_has_forgotten() {
    let mut w = world(2);
    let idle = [pool("app", 0, 5)];
    while sample(&mut w, &[&idle, &idle]).is_empty() {}
    forgotten(&mut w, 1, &idle, &[]);
    w.die(1, KILLED);
    forgotten(&mut w, 0, &idle, &[]);
    w.say(1, Said::Ready);
    assert_eq!(w.logins(&[&[], &[]], &name("app")), (10, false));
}

#[test]
fn what_only_dead_workers_had_is_removed_too() {
    let mut w = world(1);
    sample(&mut w, &[&[pool("app", 0, 5)]]);
    w.die(0, KILLED);
    w.say(0, Said::Ready);
    while sample(&mut w, &[&[]]).is_empty() {}
    forgotten(&mut w, 0, &[], &[]);
    assert_eq!(w.logins(&[&[]], &name("app")), (5, false));
}

#[test]
fn pools_that_are_to_have_servers_anyway_stay() {
    let mut w = world(1);
    for _ in 0..20 {
        assert!(sample(&mut w, &[&[pool("kept", 0, 1)]]).is_empty());
    }
}

#[test]
fn a_database_that_the_fallback_stands_for_goes_with_all_its_pools() {
    let mut w = world(1);
    w.fleet.rules.pool_idle_timeout = None;
    w.fleet.rules.autodb_idle_timeout = Some(secs(8));
    let second = PoolRow { user: "v".into(), ..pool("auto", 0, 2) };
    let rows = [pool("auto", 0, 1), second.clone(), pool("app", 0, 9)];
    let busy = [pool("auto", 0, 1), PoolRow { cl_active: 1, ..second }];
    for _ in 0..15 {
        assert!(sample(&mut w, &[&busy]).is_empty());
    }
    w.ask(1, Request::Disable("auto".into()));
    w.done(0, 1);
    for _ in 0..15 {
        assert!(sample(&mut w, &[&rows]).is_empty(), "somebody has an eye on it");
    }
    w.ask(2, Request::Enable("auto".into()));
    w.done(0, 2);
    let leaving = sample(&mut w, &[&rows]);
    assert_eq!(leaving, [name("auto"), ("auto".into(), "v".into())]);
    forgotten(&mut w, 0, &rows[..2], &[]);
    assert!(w.logged("dropping database 'auto' as it does not exist anymore or inactive auto-database"));
    assert_eq!(w.logins(&[&rows[2..]], &name("auto")), (12, false));
}

#[test]
fn a_silent_worker_might_use_anything() {
    let mut w = world(2);
    let idle = [pool("app", 0, 1)];
    for _ in 0..10 {
        w.tick(STEP);
        let id = w.sent().into_iter().find_map(|(_, m)| if let ToWorker::Report { id, .. } = m { Some(id) } else { None });
        if let Some(id) = id {
            answer(&mut w, 0, id, &idle);
        }
        assert!(w.orders().is_empty());
    }
}
