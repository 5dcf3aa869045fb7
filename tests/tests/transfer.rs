//! Large results and large COPYs: every byte arrives, and the pooler's memory does not grow with them.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::frontend::{copy_data, copy_done, query};
use end_to_end::{Client, Fleet, Postgres, process};
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicBool, Ordering};

const MOST_GROWTH: u64 = 8 << 20;

/// Bytes of payload: 1 GB on request, a quarter of it in the routine run.
fn size() -> usize {
    if std::env::var("PGFLEET_TEST_BIG").is_ok_and(|value| value == "1") { 1 << 30 } else { 1 << 28 }
}

/// A row of 1,024 characters that no other row equals.
const ROWS: &str = "select repeat(md5(number::text), 32) as line from generate_series(1, $count) number";

fn rows() -> String {
    ROWS.replace("$count", &(size() / 1024).to_string())
}

/// Runs `work` and returns by how much the pooler's memory grew at most meanwhile.
fn growth(fleet: &Fleet, work: impl FnOnce()) -> u64 {
    let pids = fleet.processes();
    let before = process::memory(&pids);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(process::memory(&pids));
                std::thread::yield_now();
            }
            most
        });
        work();
        done.store(true, Ordering::Relaxed);
        watch.join().unwrap().saturating_sub(before)
    })
}

/// The checksum of all messages of type `kind` up to ReadyForQuery, and how many payload bytes they had.
fn checksum(client: &mut Client, kind: u8) -> (String, usize) {
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    loop {
        let message = client.read();
        match message.kind {
            b'Z' => break,
            b'E' => panic!("{:?}", message.fields()),
            same if same == kind => {
                hash.update(&message.body);
                bytes += message.body.len();
            }
            _ => {}
        }
    }
    (hex(&hash.finalize()), bytes)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A fleet that has served before, so that what is measured is the transfer.
fn warm_fleet(server: &Postgres) -> Fleet {
    let fleet = Fleet::builder(server).workers(2).start();
    for pid in fleet.all_workers() {
        assert_eq!(fleet.client_at(pid).query("select repeat('warm', 100000)").rows.len(), 1);
    }
    fleet
}

#[test]
fn a_large_result() {
    let server = Postgres::start();
    let sql = rows();
    let mut direct = Client::login(server.port(), "app", "app");
    direct.send(&query(&sql));
    let expected = checksum(&mut direct, b'D');
    assert!(expected.1 >= size());
    let fleet = warm_fleet(&server);
    let mut client = fleet.client();
    let grown = growth(&fleet, || {
        client.send(&query(&sql));
        assert!(checksum(&mut client, b'D') == expected, "the result through the fleet is another than the direct one");
    });
    assert!(grown < MOST_GROWTH, "memory grew by {grown} bytes");
    assert_eq!(client.value("select 'next'"), "next");
}

#[test]
fn a_large_copy_out() {
    let server = Postgres::start();
    let sql = format!("copy ({}) to stdout", rows());
    let mut direct = Client::login(server.port(), "app", "app");
    direct.send(&query(&sql));
    let expected = checksum(&mut direct, b'd');
    let fleet = warm_fleet(&server);
    let mut client = fleet.client();
    let grown = growth(&fleet, || {
        client.send(&query(&sql));
        assert!(checksum(&mut client, b'd') == expected, "what came through the fleet is another than what came directly");
    });
    assert!(grown < MOST_GROWTH, "memory grew by {grown} bytes");
}

#[test]
fn a_large_copy_in() {
    let server = Postgres::start();
    server.admin().batch_execute("create unlogged table big (line text); alter table big owner to app").unwrap();
    let fleet = warm_fleet(&server);
    let mut client = fleet.client();
    let mut sent = Sha256::new();
    let grown = growth(&fleet, || {
        client.send(&query("copy big from stdin"));
        assert_eq!(client.read().kind, b'G');
        // Lines that differ, in messages that do not end where lines do.
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut pending = Vec::new();
        for _ in 0..size() / 1024 {
            for _ in 0..64 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                pending.extend(format!("{random:016x}").into_bytes());
            }
            pending.pop();
            pending.push(b'\n');
            if pending.len() > 40_000 {
                sent.update(&pending[..40_000]);
                client.send(&copy_data(&pending[..40_000]));
                pending.drain(..40_000);
            }
        }
        sent.update(&pending);
        client.send(&[copy_data(&pending), copy_done()].concat());
        assert_eq!(client.answer().tags, [format!("COPY {}", size() / 1024)]);
    });
    assert!(grown < MOST_GROWTH, "memory grew by {grown} bytes");
    // A heap that one session fills and nobody changes is read in the order it was written.
    let mut direct = Client::login(server.port(), "app", "app");
    direct.query("set synchronize_seqscans = off; set max_parallel_workers_per_gather = 0");
    direct.send(&query("copy big to stdout"));
    let (arrived, bytes) = checksum(&mut direct, b'd');
    assert_eq!(bytes, size() / 1024 * 1024);
    assert!(arrived == hex(&sent.finalize()), "what PostgreSQL holds is another than what was sent");
}

/// One value as long as PostgreSQL's row buffer takes with ease: messages far longer than any buffer of the pooler.
#[test]
fn one_long_value() {
    let server = Postgres::start();
    let fleet = warm_fleet(&server);
    let mut client = fleet.client();
    let length = size() / 4;
    let grown = growth(&fleet, || {
        client.send(&query(&format!("select repeat('0123456789abcdef', {})", length / 16)));
        let (_, bytes) = checksum(&mut client, b'D');
        assert_eq!(bytes, length + 6);
    });
    assert!(grown < MOST_GROWTH, "memory grew by {grown} bytes");
}
