//! Whether the time it takes to be asked for a proof tells who exists.
#![allow(clippy::unwrap_used)]

use crate::client::accept::Arrival;
use crate::worker::{Turn, Worker};
use shared::auth::Secret;
use shared::config::{AuthType, Config, Database};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

const USERS: usize = 5;

fn worker() -> Worker {
    let mut config = Config { fallback: Some(Arc::new(Database::new("*".into()))), ..Config::default() };
    config.settings.auth_type = AuthType::ScramSha256;
    for number in 0..USERS {
        config.secrets.insert(format!("user{number}"), Secret::parse("a password"));
    }
    let worker = Worker::alone(config);
    socket2::SockRef::from(&worker.inbox).set_nonblocking(true).unwrap();
    worker
}

/// In how many turns `user` is asked for a proof; and the request.
fn turns(worker: &mut Worker, turn: &mut Turn, user: &str) -> (u32, Vec<u8>) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    let mut out = Vec::new();
    shared::wire::encode::startup(&mut out, [("user", user), ("database", "db")].into_iter());
    theirs.write_all(&out).unwrap();
    let accepted_at = crate::clock::now();
    worker.welcome_socket(Arrival { fd: ours.into(), address: Some("127.0.0.1:5".parse().unwrap()), accepted_at });
    let mut answer = [0; 300];
    let asked = (1..1000).find_map(|turns| {
        worker.turn(turn, Duration::ZERO);
        theirs.read(&mut answer).ok().map(|length| (turns, answer[..length].to_vec()))
    });
    drop(theirs);
    for _ in 0..3 {
        worker.turn(turn, Duration::ZERO);
    }
    asked.unwrap()
}

#[test]
fn who_exists_is_asked_no_sooner_and_no_later() {
    let (mut worker, mut turn) = (worker(), Turn::default());
    while worker.hashing.has_ahead() {
        assert_eq!(worker.until_next_turn(), Duration::ZERO, "there is something to do");
        worker.turn(&mut turn, Duration::ZERO);
    }
    for number in 0..USERS {
        let user = turns(&mut worker, &mut turn, &format!("user{number}"));
        let stranger = turns(&mut worker, &mut turn, &format!("stranger{number}"));
        assert_eq!(user, stranger);
        assert_eq!((user.0, &user.1[9..]), (1, &b"SCRAM-SHA-256\0\0"[..]));
        assert!(worker.hashing.is_idle());
    }
}
