//! Seats under real processes that are killed at any moment, and lends between threads that answer, take back and die.
#![allow(clippy::unwrap_used)]

use shared::control::ServerSeats;
use shared::ids::{Incarnation, Owner, PoolId, Slot};
use shared::shm::{Limit, ServerLimits, Shm, Ticket};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Set for a child: the path of the region and the slot and incarnation it is.
const REGION: &str = "SHM_STRESS_REGION";
const WHO: &str = "SHM_STRESS_WHO";

const WORKERS: u8 = 3;
const POOL: usize = 5;
const DATABASE: usize = 7;

fn limits(shm: &Shm) -> ([PoolId; 2], ServerLimits) {
    let pools = ["u", "v"].map(|user| shm.pool("d", user).unwrap());
    let database = shm.limit(Limit::Database("d")).map(|id| (id, DATABASE));
    (pools, ServerLimits { pool: POOL, database, user: None, host: None })
}

/// Takes and leaves seats of servers and clients until it is killed. Exits, and so fails the test, when a seat of its own is another's.
#[test]
#[ignore = "the child process of the test below"]
fn worker_process() {
    let Ok(region) = std::env::var(REGION) else { return };
    let shm = Shm::open(File::options().read(true).write(true).open(region).unwrap().as_fd()).unwrap();
    let incarnation: u32 = std::env::var(WHO).unwrap().parse().unwrap();
    let me = Owner { slot: Slot((incarnation % u32::from(WORKERS)) as u8), incarnation: Incarnation(incarnation) };
    let (pools, limits) = limits(&shm);
    let pid = std::process::id();
    for turn in 0_u32.. {
        let mut held: Vec<ServerSeats> = pools.iter().filter_map(|pool| shm.take_server(me, *pool, &limits).ok()).collect();
        held.extend(shm.take_server(me, pools[turn as usize % 2], &limits));
        let client = shm.clients().take(me, 4);
        for seats in &held {
            shm.set_backend(seats, pid, turn);
        }
        shm.pool_state(pools[0]).set_idle(me.slot, 1);
        shm.pool_state(pools[0]).set_waiting(me.slot);
        std::hint::black_box(&held);
        for seats in &held {
            assert_eq!(shm.server_info(seats.pool, seats.seat).backend, Some((pid, turn)), "two workers have one seat");
            assert!(shm.leave_server(me, seats));
        }
        assert!(client.is_none_or(|seat| shm.clients().leave(me, seat)));
    }
}

fn start(region: &str, incarnation: u32) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "worker_process", "--ignored"])
        .env(REGION, region)
        .env(WHO, incarnation.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn killed_processes_lose_no_seat_and_exceed_no_limit() {
    let (shm, fd) = Shm::create().unwrap();
    let (pools, limits) = limits(&shm);
    let (database, _) = limits.database.unwrap();
    let region = format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
    let mut incarnation = u32::from(WORKERS) * 10;
    let mut next = || {
        incarnation += 1;
        (incarnation, start(&region, incarnation))
    };
    let mut children: Vec<_> = (0..WORKERS).map(|_| next()).collect();
    let (mut orphans, mut most) = (0, 0);
    for round in 0..60_u64 {
        let end = Instant::now() + Duration::from_micros(3_000 + round * 7919 % 20_000);
        while Instant::now() < end {
            // A seat taken on the way to a full limit and given back counts for a moment, so the pools' may be all taken, but no more.
            let used = [pools[0], pools[1]].map(|pool| shm.pool_seats(pool).in_use());
            most = most.max(shm.seats(database).in_use());
            assert!(used[0] <= POOL && used[1] <= POOL && most <= DATABASE);
        }
        let (dead, mut child) = children.remove(0);
        assert!(child.try_wait().unwrap().is_none(), "a worker found its seat to be another's");
        child.kill().unwrap();
        child.wait().unwrap();
        let dead = Owner { slot: Slot((dead % u32::from(WORKERS)) as u8), incarnation: Incarnation(dead) };
        for orphan in shm.bury(dead) {
            assert!(orphan.backend.is_none_or(|(pid, _)| pid == child.id()));
            assert!(shm.free_orphan(&orphan.seats));
            orphans += 1;
        }
        assert_eq!(shm.pool_state(pools[0]).waiting_others(Slot::SUPERVISOR) & (1 << dead.slot.0), 0);
        children.push(next());
    }
    for (dead, mut child) in children {
        assert!(child.try_wait().unwrap().is_none(), "a worker found its seat to be another's");
        child.kill().unwrap();
        child.wait().unwrap();
        let dead = Owner { slot: Slot((dead % u32::from(WORKERS)) as u8), incarnation: Incarnation(dead) };
        for orphan in shm.bury(dead) {
            assert!(shm.free_orphan(&orphan.seats));
        }
    }
    assert!(orphans > 0 && most > 0, "the workers did something");
    assert_eq!((shm.pool_seats(pools[0]).in_use(), shm.pool_seats(pools[1]).in_use()), (0, 0));
    assert_eq!((shm.seats(database).in_use(), shm.clients().in_use()), (0, 0));
}

/// Threads lend each other connections; a receiver accepts, ignores or dies with each ticket, a sender waits, takes back or dies.
#[test]
fn every_lend_ends_with_one_owner() {
    const TURNS: u32 = 30_000;
    let (shm, _fd) = Shm::create().unwrap();
    let (pools, limits) = limits(&shm);
    let (database, _) = limits.database.unwrap();
    let sender = |turn: u32| Owner { slot: Slot(0), incarnation: Incarnation(10 + 2 * turn) };
    let receiver = |turn: u32| Owner { slot: Slot(1), incarnation: Incarnation(11 + 2 * turn) };
    let (tickets, inbox) = mpsc::sync_channel::<(u32, ServerSeats, Ticket)>(0);
    let (answers, accepted) = mpsc::sync_channel::<bool>(1);
    let ended = [const { AtomicUsize::new(0) }; 3];
    std::thread::scope(|scope| {
        let theirs = shm.clone();
        scope.spawn(move || {
            for (turn, seats, ticket) in inbox {
                let took = turn % 5 != 0 && theirs.accept_lend(receiver(turn), &seats, ticket);
                answers.send(took).unwrap();
            }
        });
        for turn in 0..TURNS {
            let me = sender(turn);
            let seats = shm.take_server(me, pools[0], &limits).unwrap();
            let ticket = shm.begin_lend(me, &seats, Slot(1));
            tickets.send((turn, seats, ticket)).unwrap();
            let orphans = if turn % 2 == 0 { shm.bury(me) } else { vec![] };
            let back = turn % 2 == 1 && shm.cancel_lend(me, &seats, ticket);
            let took = accepted.recv().unwrap();
            assert_eq!(1, usize::from(back) + usize::from(took) + orphans.len(), "turn {turn}");
            let free = match (back, took) {
                (true, _) => (0, shm.leave_server(me, &seats)),
                (_, true) if turn % 3 == 0 => (1, shm.leave_server(receiver(turn), &seats)),
                (_, true) => (1, shm.free_orphan(&shm.bury(receiver(turn))[0].seats)),
                _ => (2, shm.free_orphan(&seats)),
            };
            assert!(free.1);
            ended[free.0].fetch_add(1, Ordering::Relaxed);
            assert_eq!((shm.pool_seats(pools[0]).in_use(), shm.seats(database).in_use()), (0, 0), "turn {turn}");
        }
        drop(tickets);
    });
    assert!(ended.iter().all(|count| count.load(Ordering::Relaxed) > 0), "every outcome was seen: {ended:?}");
}
