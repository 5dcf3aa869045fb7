#![allow(clippy::unwrap_used)]
use super::*;
use crate::auth::scram::Keys;
use crate::auth::{Password, Secret};
use crate::control::*;
use crate::ids::{ConnectionId, Incarnation, LimitId, Owner, PoolId, SeatIndex, Slot};
use crate::orders::{Marks, Order, Outcome, Scope};
use std::fmt::Debug;
use std::time::Duration;

fn seats() -> ServerSeats {
    let limit = |number| Some((LimitId(number), SeatIndex(u32::MAX)));
    ServerSeats { pool: PoolId(7), seat: SeatIndex(300), database: limit(1), user: None, host: limit(u16::MAX) }
}

fn pairs() -> Vec<(String, String)> {
    vec![("search_path".into(), "\"ü\", public".into()), (String::new(), String::new())]
}

fn learned() -> Vec<Learned> {
    let secret = || Secret::parse("md5x");
    let keys = Keys { client_key: [200; 32], server_key: [7; 32] };
    let stored = Learned::Secret { database: "d".into(), user: "u".into(), secret: secret() };
    vec![Learned::Keys(keys), stored, Learned::Outdated(secret())]
}

fn to_worker() -> Vec<ToWorker> {
    let mut marks = Marks::default();
    marks.paused.insert("d".into());
    marks.obey(300, &Order::Reconnect(Scope::Database("d".into())));
    let welcome = Welcome { database: "d".into(), user: "u".into(), parameters: pairs() };
    let start = ToWorker::Start {
        slot: Slot(3),
        incarnation: Incarnation(400),
        generation: u64::MAX,
        log_file: true,
        inboxes: 4,
        listeners: 2,
        unix_listeners: 1,
        marks,
        stderr: false,
        mock_secret: [250; 32],
        welcomes: vec![welcome.clone()],
        door: true,
    };
    let orders = [
        Order::Pause(Scope::All),
        Order::Resume(Scope::Database("d".into())),
        Order::Disable("d".into()),
        Order::Enable("d".into()),
        Order::WaitClose(Scope::All),
        Order::Kill(vec!["d".into()]),
        Order::KillClient(ConnectionId(u32::MAX)),
        Order::Forget(vec![("d".into(), "u".into())]),
        Order::Drain,
        Order::Undrain,
    ];
    let resolved = |addresses| Resolved { host: "h".into(), addresses, lifetime: Duration::new(3, 999) };
    let client = WaitingClient { place: 5, id: ConnectionId(6) };
    let mut all = vec![
        start,
        ToWorker::Prepare { generation: 2, log_file: true },
        ToWorker::Commit { generation: 2 },
        ToWorker::Abandon { generation: 2 },
        ToWorker::Report { id: 9, what: ReportKind::Sockets },
        ToWorker::Stop(StopMode::WaitForServers),
        ToWorker::Resolved(resolved(Ok(vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()]))),
        ToWorker::Resolved(resolved(Err("no such host".into()))),
        ToWorker::UserNamed { uid: 1000, name: Ok("me".into()) },
        ToWorker::Welcome(welcome),
        ToWorker::Inboxes { first: 4 },
        ToWorker::Listen { of: Slot(1), listeners: 2, unix_listeners: 0 },
        ToWorker::Unlisten { of: Slot(1) },
        ToWorker::PasswordChecked { client, outcome: PasswordOutcome::Unavailable },
        ToWorker::Leave,
        ToWorker::Stay,
        ToWorker::Part(Parting::Idle(3)),
        ToWorker::Part(Parting::All),
        ToWorker::Freeze,
        ToWorker::Thaw,
        ToWorker::Strangers { slots: u64::MAX },
    ];
    all.extend(orders.into_iter().map(|order| ToWorker::Order { number: 8, order }));
    all.extend(learned().into_iter().map(ToWorker::Learned));
    all
}

fn to_supervisor() -> Vec<ToSupervisor> {
    let client = WaitingClient { place: 5, id: ConnectionId(6) };
    let peer = PeerName { address: "::1".into(), port: 65_535, pid: 0 };
    let check = |method| PasswordCheck {
        client,
        method,
        user: "u".into(),
        password: Password::new(vec![1, 200, 255]),
        address: "unix".into(),
    };
    let console = ConsoleSession {
        id: ConnectionId(1 << 31),
        user: "u".into(),
        database: "pgbouncer".into(),
        admin: true,
        seat: SeatIndex(2),
        cancel_key: [1, 2, 3, 4, 5, 6, 7, 255],
        tls: None,
        unread: vec![0, 255],
        parameters: pairs(),
        peer,
        connected_at: u64::MAX,
    };
    let forgotten = Outcome::Forgotten {
        counted: vec![PoolRow { database: "d".into(), query_count: 1 << 60, ..PoolRow::default() }],
        kept: vec![("d".into(), "u".into())],
    };
    let mut all = vec![
        ToSupervisor::Ready,
        ToSupervisor::Prepared { generation: 1 },
        ToSupervisor::Refused { generation: 1, reason: "why".into() },
        ToSupervisor::Committed { generation: 1 },
        ToSupervisor::Report { id: 0 },
        ToSupervisor::Done { number: 1, outcome: Outcome::NotFound },
        ToSupervisor::Done { number: 1, outcome: forgotten },
        ToSupervisor::Drained,
        ToSupervisor::Console(console),
        ToSupervisor::Resolve { host: "h".into() },
        ToSupervisor::NameUser { uid: 1 },
        ToSupervisor::ServerOpened(seats()),
        ToSupervisor::ServerClosed(seats()),
        ToSupervisor::Listening { of: Slot(2) },
        ToSupervisor::CannotListen { of: Slot(2) },
        ToSupervisor::Remaining { gone: 3, idle: 1, others: 2 },
        ToSupervisor::CheckPassword(check(PasswordMethod::Pam { service: "pgfleet".into() })),
        ToSupervisor::CancelConsole { key: [255; 8] },
        ToSupervisor::Frozen,
        ToSupervisor::Beat { clients: 1, servers: 2 },
        ToSupervisor::Welcome(Welcome { database: "d".into(), user: "u".into(), parameters: pairs() }),
    ];
    all.extend(learned().into_iter().map(ToSupervisor::Learned));
    all
}

fn to_inbox() -> Vec<ToInbox> {
    let peer = PeerName { address: "unix".into(), port: 6432, pid: 4711 };
    let ticket = Some(crate::shm::Ticket(u64::MAX));
    let lent = Lent {
        from: Owner { slot: Slot(1), incarnation: Incarnation(2) },
        id: ConnectionId(3),
        seats: seats(),
        ticket,
        epoch: 4,
        reconnected: 5,
        backend_key: (6, u32::MAX),
        greeting: pairs(),
        parameters: pairs(),
        asked: vec![],
        statements: vec![[255; 16], [0; 16]],
        connected_at: 7,
        idle_since: 8,
        used: true,
        address: crate::address::Address::Unix("/tmp".into(), 5432),
        host: "/tmp".into(),
        conn: ConnectionState { unsent: vec![255, 1], input: vec![], tls: None },
    };
    let state = SessionState(vec![0, 128, 255]);
    let session = MovedSession { from: lent.from, seat: SeatIndex(9), ticket, state };
    vec![
        ToInbox::Borrow { pool: PoolId(1), from: Slot(2) },
        ToInbox::Nothing { pool: PoolId(1), from: Slot(2) },
        ToInbox::Lend(Box::new(lent)),
        ToInbox::Wake,
        ToInbox::MakeRoom { limit: LimitId(1), from: Slot(2), servers: 3 },
        ToInbox::Long,
        ToInbox::Cancel { key: [128; 8], from: Requester { id: ConnectionId(1), peer, connected_at: 2 } },
        ToInbox::Session(Box::new(session)),
        ToInbox::NotTaken { seat: SeatIndex(1), ticket },
        ToInbox::NotTaken { seat: SeatIndex(1), ticket: None },
        ToInbox::Client { accepted_at: 1, address: Some("[::1]:5432".parse().unwrap()) },
        ToInbox::Client { accepted_at: 1, address: None },
    ]
}

fn both_tongues<M: Serialize + DeserializeOwned + PartialEq + Debug>(messages: Vec<M>) {
    for message in messages {
        for tongue in [Tongue::Own, Tongue::Common] {
            let bytes = tongue.encode(&message).unwrap();
            assert_eq!(decode::<M>(&bytes).unwrap(), message, "{tongue:?}");
            let cut = decode::<M>(&bytes[..bytes.len() - 1]);
            assert!(cut.is_err(), "{tongue:?}: the last byte of {message:?} is part of it");
        }
    }
}

#[test]
fn every_message_is_understood_in_both_tongues() {
    both_tongues(to_worker());
    both_tongues(to_supervisor());
    both_tongues(to_inbox());
    let rows = ReportRows {
        pools: vec![PoolRow::default()],
        connections: vec![ConnectionRow { link: Some(ConnectionId(1)), ..ConnectionRow::default() }],
        ..ReportRows::default()
    };
    both_tongues(vec![rows]);
}

#[test]
fn another_build_s_own_tongue_is_refused() {
    let mut bytes = Tongue::Own.encode(&ToInbox::Wake).unwrap();
    bytes[0] += 1;
    assert!(matches!(decode::<ToInbox>(&bytes), Err(MessageError::Version(version)) if version == bytes[0]));
    assert!(matches!(decode::<ToInbox>(&[]), Err(MessageError::Empty)));
}

/// Of a build that comes after this one.
#[derive(Serialize)]
enum Later {
    Wake,
    Borrow { pool: PoolId, from: Slot, urgency: Vec<String> },
    Teleport { where_to: u8 },
}

#[test]
fn what_is_not_known_is_left_out_or_named() {
    let said = |message: &Later| decode::<ToInbox>(&Tongue::Common.encode(message).unwrap());
    assert_eq!(said(&Later::Wake).unwrap(), ToInbox::Wake);
    let borrow = Later::Borrow { pool: PoolId(1), from: Slot(2), urgency: vec!["very".into()] };
    assert_eq!(said(&borrow).unwrap(), ToInbox::Borrow { pool: PoolId(1), from: Slot(2) });
    let error = said(&Later::Teleport { where_to: 1 }).unwrap_err().to_string();
    assert!(error.contains("Teleport"), "{error}");
}

#[test]
fn what_an_earlier_build_leaves_out_has_a_default() {
    #[derive(Serialize)]
    struct Earlier {
        used_clients: u32,
    }
    let bytes = Tongue::Common.encode(&Earlier { used_clients: 7 }).unwrap();
    assert_eq!(decode::<ReportRows>(&bytes).unwrap(), ReportRows { used_clients: 7, ..ReportRows::default() });
}

#[test]
fn a_long_message_goes_in_a_file() {
    let message = ToSupervisor::Resolve { host: "x".repeat(MAX_MESSAGE) };
    for tongue in [Tongue::Own, Tongue::Common] {
        assert!(matches!(tongue.encode(&message), Err(MessageError::TooLong(_))));
        assert_eq!(decode::<ToSupervisor>(&tongue.encode_long(&message).unwrap()).unwrap(), message);
    }
}
