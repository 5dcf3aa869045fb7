//! Queries in every protocol.

use super::stage::Stage;
use crate::{Client, frontend};
use std::collections::VecDeque;
use std::time::Duration;

/// Batches that a pipelining client has sent and not read the answers of.
const OUTSTANDING: usize = 4;

/// Values of all lengths, by simple queries.
pub(super) fn simple(stage: &Stage) {
    let mut client = stage.door.enter();
    let mut length = 1;
    while stage.goes_on() {
        let value = stage.value(&mut client, &format!("select repeat('x', {length})"));
        assert!(value.len() == length && value.bytes().all(|byte| byte == b'x'), "{length} bytes, not {}", value.len());
        length = length * 3 % 100_003;
        stage.think();
    }
}

/// The unnamed statement, parsed again each time, with a text of its own.
pub(super) fn extended(stage: &Stage) {
    let mut client = stage.door.enter();
    let mut turn = 0;
    while stage.goes_on() {
        let number = (turn + stage.number).to_string();
        let sql = format!("select $1::int + {}, 'of {}'", turn % 50, stage.number);
        let answer = stage.answer(&mut client, Duration::ZERO, &frontend::extended(&sql, &[&number]));
        let expected = [turn + stage.number + turn % 50, stage.number];
        assert_eq!(answer.rows, [[Some(expected[0].to_string()), Some(format!("of {}", expected[1]))]]);
        turn += 1;
        stage.think();
    }
}

/// A statement that is named once and executed for ever.
pub(super) fn prepared(stage: &Stage) {
    let mut client = stage.door.enter();
    prepare(&mut client, "mine", &format!("select $1::int * 2, {}", stage.number));
    let mut turn = 0;
    while stage.goes_on() {
        let request = [frontend::bind("", "mine", &[&turn.to_string()]), frontend::execute("", 0), frontend::sync()].concat();
        let answer = stage.answer(&mut client, Duration::ZERO, &request);
        assert_eq!(answer.rows, [[Some((2 * turn).to_string()), Some(stage.number.to_string())]]);
        turn += 1;
        stage.think();
    }
}

fn prepare(client: &mut Client, name: &str, sql: &str) {
    client.send(&[frontend::parse(name, sql), frontend::sync()].concat());
    assert_eq!(client.answer().order, "1Z");
}

/// Batches one behind the other; the middle of some of them fails.
pub(super) fn pipelined(stage: &Stage) {
    let mut client = stage.door.enter();
    prepare(&mut client, "sum", "select $1::int + 1");
    prepare(&mut client, "quotient", "select 60 / $1::int");
    let (mut outstanding, mut turn) = (VecDeque::new(), 0);
    while stage.goes_on() || !outstanding.is_empty() {
        while stage.goes_on() && outstanding.len() < OUTSTANDING {
            client.send(&batch(turn));
            outstanding.push_back(turn);
            turn += 1;
        }
        let Some(turn) = outstanding.pop_front() else { break };
        let answer = stage.measure(Duration::ZERO, || client.answer());
        let rows: Vec<i32> = answer.rows.iter().map(|row| row[0].as_deref().unwrap().parse().unwrap()).collect();
        if turn % 5 == 4 {
            assert_eq!((answer.error().code(), rows.as_slice()), ("22012", &[turn + 1][..]), "the batch ends at its error");
        } else {
            assert_eq!((answer.errors.len(), rows), (0, vec![turn + 1, 60 / (1 + turn % 5), turn + 2]), "{answer:?}");
        }
        stage.think();
    }
}

fn batch(turn: i32) -> Vec<u8> {
    let divisor = if turn % 5 == 4 { 0 } else { 1 + turn % 5 };
    let one =
        |statement: &str, value: i32| [frontend::bind("", statement, &[&value.to_string()]), frontend::execute("", 0)].concat();
    [one("sum", turn), one("quotient", divisor), one("sum", turn + 1), frontend::sync()].concat()
}

/// Comes for one query, and goes.
pub(super) fn visits(stage: &Stage) {
    while stage.goes_on() {
        let client = stage.measure(Duration::ZERO, || {
            let mut client = stage.door.enter();
            assert_eq!(client.value("select 'just here'"), "just here");
            client
        });
        Stage::leave(client);
        stage.think();
    }
}
