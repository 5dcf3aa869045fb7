#![allow(clippy::unwrap_used)]
use super::*;
use crate::control::ServerSeats;
use crate::encoding::{decode_named, encode_named};
use crate::shm::{Full, Limit, ServerLimits};

const A: Owner = Owner { slot: Slot(0), incarnation: Incarnation(2) };
const B: Owner = Owner { slot: Slot(1), incarnation: Incarnation(3) };
/// Of the new build.
const N: Owner = Owner { slot: Slot(2), incarnation: Incarnation(4) };
const LIMIT: usize = 20;

fn fleet() -> (Shm, PoolId, ServerLimits) {
    let shm = Shm::create().unwrap().0;
    for owner in [A, B] {
        shm.workers().start(owner, 4711, 5, 6);
    }
    let pool = shm.pool("d", "u").unwrap();
    let user = shm.limit(Limit::User("u")).map(|id| (id, LIMIT));
    let database = shm.limit(Limit::Database("d")).map(|id| (id, LIMIT));
    (shm, pool, ServerLimits { pool: LIMIT, database, user, host: None })
}

/// Numbers that look random (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// As it is done: by way of bytes.
fn moved(shm: &Shm) -> Shm {
    let bytes = encode_named(&[], &shm.census()).unwrap();
    let census: Census = decode_named(&bytes).unwrap();
    assert!(census == shm.census());
    Shm::from_census(&census).unwrap().0
}

fn in_use(shm: &Shm, pool: PoolId, limits: &ServerLimits) -> [usize; 3] {
    let count = |limit: Option<(LimitId, usize)>| limit.map_or(0, |(id, _)| shm.seats(id).in_use());
    [shm.pool_seats(pool).in_use(), count(limits.database), count(limits.user)]
}

#[test]
fn what_one_region_says_another_does() {
    let (shm, pool, limits) = fleet();
    let other = shm.pool("e", "v").unwrap();
    let servers: Vec<ServerSeats> = (0..3).map(|_| shm.take_server(A, pool, &limits).unwrap()).collect();
    shm.set_backend(&servers[1], 99, 7);
    assert!(shm.leave_server(A, &servers[0]));
    let sent = shm.take_server(B, pool, &limits).unwrap();
    shm.begin_lend(B, &sent, A.slot);
    let lone = shm.take_server(B, other, &ServerLimits::default()).unwrap();
    let dead = Owner { slot: Slot(9), incarnation: Incarnation(77) };
    let orphan = shm.take_server(dead, pool, &limits).unwrap();
    shm.set_backend(&orphan, 100, 8);
    shm.bury(dead);
    let client = shm.clients().take(B, 10).unwrap();
    let key = shm.clients().new_key(B, client, 42, 7).unwrap();
    let console = shm.clients().take(Owner::SUPERVISOR, 10).unwrap();
    shm.statement_epochs().retire(&[7; 16], 0);
    for byte in [1, 2] {
        shm.ticket_keys().add(&TicketKey { name: [byte; 16], secret: [byte; 32] });
    }
    shm.pool_state(other).set_login_failed_at(17);

    let shadow = moved(&shm);
    assert_eq!((shadow.pool("d", "u"), shadow.pool("e", "v")), (Some(pool), Some(other)));
    assert_eq!(shadow.limit(Limit::User("u")), limits.user.map(|(id, _)| id));
    assert_eq!((in_use(&shadow, pool, &limits), in_use(&shm, pool, &limits)), ([4; 3], [4; 3]));
    let seats = shadow.pool_seats(pool);
    assert_eq!((seats.owner(servers[1].seat), seats.owner(sent.seat)), (Some(A), Some(B)), "what is under way is its sender's");
    assert_eq!(shadow.pool_seats(other).owner(lone.seat), Some(B));
    assert_eq!(shadow.server_info(pool, servers[1].seat).backend, Some((99, 7)));
    let orphans = shadow.orphans();
    assert_eq!((orphans.len(), orphans[0].seats, orphans[0].backend), (1, orphan, Some((100, 8))));
    assert_eq!(shadow.clients().find(key), Some((client, B)));
    assert_eq!((shadow.clients().owner(console), shadow.clients().in_use()), (Some(Owner::SUPERVISOR), 2));
    assert_eq!(shadow.statement_epochs().get(&[7; 16]), 1);
    assert!(shadow.ticket_keys().read() == shm.ticket_keys().read());
    assert_eq!(shadow.pool_state(other).login_failed_at(), Some(17));
    let row = shadow.workers().get(A.slot);
    assert_eq!((row.pid, row.incarnation, row.state, row.started_at_us), (4711, A.incarnation, WorkerState::Draining, 5));
    assert_eq!(shadow.workers().candidate(A.slot, 7), None);
    assert_eq!(shadow.workers().last_incarnation(), B.incarnation);
    shadow.workers().start(N, 1, 0, 0);
    assert_eq!([A, B, N].map(|owner| shadow.workers().is_stranger(owner.slot)), [true, true, false]);
}

#[test]
fn what_is_left_of_a_worker_of_the_old_build_is_buried_here() {
    let (shm, pool, limits) = fleet();
    let servers: Vec<ServerSeats> = (0..2).map(|_| shm.take_server(A, pool, &limits).unwrap()).collect();
    let clients = [(); 2].map(|()| shm.clients().take(A, 10).unwrap());
    let keys = clients.map(|seat| shm.clients().new_key(A, seat, u64::from(seat.0) << 40, 0).unwrap());
    let shadow = moved(&shm);
    assert!(!shadow.claim_server(B, N, &servers[0], (5, 6)), "it is not B's");
    assert!(shadow.claim_server(A, N, &servers[0], (5, 6)) && !shadow.claim_server(A, N, &servers[0], (5, 6)));
    assert_eq!(shadow.clients().claim(A, N, clients[0], keys[0]), Some(clients[0]));
    let orphans = shadow.bury(A);
    assert_eq!(orphans.iter().map(|orphan| orphan.seats).collect::<Vec<_>>(), [servers[1]]);
    assert!(orphans[0].busy, "nobody knows what runs there");
    assert_eq!(keys.map(|key| shadow.clients().find(key)), [Some((clients[0], N)), None]);
    assert_eq!((in_use(&shadow, pool, &limits), shadow.free_orphan(&servers[1])), ([2; 3], true));
    assert!(!shadow.claim_server(A, N, &servers[1], (5, 6)) && shadow.leave_server(N, &servers[0]));
    assert_eq!(in_use(&shadow, pool, &limits), [0; 3]);
}

#[test]
fn a_client_whose_seat_is_another_s_meanwhile_gets_one_beside() {
    let (shm, ..) = fleet();
    let shadow = moved(&shm);
    let seat = shm.clients().take(A, 10).unwrap();
    let key = shm.clients().new_key(A, seat, 42, 0).unwrap();
    assert_eq!(shadow.clients().take(N, 10), Some(seat));
    assert!(!shadow.clients().have_strayed());
    let other = shadow.clients().claim(A, N, seat, key).unwrap();
    assert!(other != seat && shadow.clients().have_strayed());
    assert_eq!((shadow.clients().find(key), shadow.clients().search(key)), (None, Some((other, N))));
}

/// Old workers give up and hand over, new ones take over, take and give up, in any order: neither region ever has more seats taken than the limit, and the new one
/// never fewer than there are connections.
#[test]
fn the_shadow_is_never_less_than_the_truth() {
    for seed in 1..300 {
        let mut random = Random(seed);
        let (shm, pool, limits) = fleet();
        let mut old: Vec<(Owner, ServerSeats)> = Vec::new();
        for turn in 0..LIMIT + 5 {
            let owner = if turn % 2 == 0 { A } else { B };
            old.extend(shm.take_server(owner, pool, &limits).ok().map(|seats| (owner, seats)));
        }
        let shadow = moved(&shm);
        let (mut new, mut on_the_way) = (Vec::new(), Vec::new());
        for _ in 0..200 {
            match random.below(5) {
                0 if !old.is_empty() => {
                    let (owner, seats) = old.swap_remove(random.below(old.len()));
                    assert!(shm.leave_server(owner, &seats));
                    on_the_way.push((owner, seats));
                }
                // The supervisor hears of it.
                1 => drop(on_the_way.pop().map(|(owner, seats)| shadow.leave_server(owner, &seats))),
                2 if !old.is_empty() => {
                    let (owner, seats) = old.swap_remove(random.below(old.len()));
                    assert!(shadow.claim_server(owner, N, &seats, (1, 2)));
                    new.push(seats);
                }
                3 => match shadow.take_server(N, pool, &limits) {
                    Ok(seats) => new.push(seats),
                    Err(full) => assert_eq!(full, Full::Pool),
                },
                _ if !new.is_empty() => assert!(shadow.leave_server(N, &new.swap_remove(random.below(new.len())))),
                _ => {}
            }
            let there = old.len() + new.len();
            for used in in_use(&shadow, pool, &limits) {
                assert!(used >= there && used <= LIMIT, "seed {seed}: {used} taken, {there} there");
            }
        }
        assert_eq!(shadow.bury(A).len() + shadow.bury(B).len(), old.len() + on_the_way.len(), "seed {seed}");
    }
}

#[test]
fn a_census_that_makes_no_sense_is_refused() {
    let (shm, pool, limits) = fleet();
    shm.take_server(A, pool, &limits).unwrap();
    shm.clients().take(A, 10).unwrap();
    let refused = |change: &dyn Fn(&mut Census)| {
        let mut census = shm.census();
        change(&mut census);
        Shm::from_census(&census).err().map(|error| error.to_string()).unwrap()
    };
    let no_room = |what| CensusError::NoRoom(what).to_string();
    assert!(refused(&|census| census.clients[0].seat.index = 1 << 20).ends_with(&no_room("clients")));
    assert!(refused(&|census| census.pools[0].seats[0].seat.index = 1 << 20).ends_with(&no_room("seats of pools")));
    assert!(refused(&|census| census.workers[0].slot = 64).ends_with(&no_room("workers")));
    assert!(refused(&|census| census.limits[0] = census.limits[1].clone()).contains("limit"));
    assert!(Shm::from_census(&Census::default()).is_ok());
}

#[test]
fn texts_that_share_words_in_another_way_go_as_far_as_the_furthest() {
    let (shm, ..) = fleet();
    shm.statement_epochs().retire(&[7; 16], 0);
    let mut census = shm.census();
    census.statement_epochs.words /= 2;
    let shadow = Shm::from_census(&census).unwrap().0;
    assert_eq!((shadow.statement_epochs().get(&[7; 16]), shadow.statement_epochs().get(&[8; 16])), (1, 1));
}
