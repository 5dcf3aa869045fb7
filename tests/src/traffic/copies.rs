//! COPY of more than any buffer holds, at a rate that leaves the machine time for others, each row checked.

use super::stage::Stage;
use crate::{Client, frontend};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// A row is its number and a text of so many bytes that follows from it.
const TEXT: usize = 1024;
/// What is sent, or read, between two looks at the clock.
const PIECE: u64 = 64;

/// Has every row checked as it comes, and forgets its text: nothing here is to measure disks.
pub(super) const CHECK: &str = "
create or replace function check_copied() returns trigger language plpgsql as $$
begin
    if new.t is distinct from repeat(lpad((new.i * new.i % 1000003)::text, 8, '0'), 128) then
        raise 'row % is wrong', new.i;
    end if;
    new.t = null;
    return new;
end $$;
";

const EXPRESSION: &str = "repeat(lpad((i * i % 1000003)::text, 8, '0'), 128)";

fn line(text: &mut String, row: u64) {
    let (start, value) = (text.len(), row * row % 1_000_003);
    let _ = write!(text, "{row}\t");
    for _ in 0..TEXT / 8 {
        let _ = write!(text, "{value:08}");
    }
    text.push('\n');
    debug_assert!(text.len() > start + TEXT);
}

/// Keeps a copy at its rate.
struct Pace {
    began: Instant,
    bytes: u64,
    rate: u64,
}

impl Pace {
    fn new(stage: &Stage) -> Pace {
        Pace { began: Instant::now(), bytes: 0, rate: stage.plan.copy_rate }
    }

    fn moved(&mut self, bytes: u64) {
        self.bytes += bytes;
        let due = Duration::from_secs_f64(self.bytes as f64 / self.rate as f64);
        std::thread::sleep(due.saturating_sub(self.began.elapsed()));
    }
}

fn rows(stage: &Stage) -> u64 {
    stage.plan.copied_bytes / TEXT as u64
}

/// To the client.
pub(super) fn out(stage: &Stage) {
    let mut client = stage.door.enter();
    let rows = rows(stage);
    let mut done = 0;
    while stage.goes_on() || done == 0 {
        client.send(&frontend::query(&format!(
            "copy (select i, {EXPRESSION} from (select generate_series(1::bigint, {rows}) as i) series) to stdout"
        )));
        assert_eq!(stage.measure(Duration::ZERO, || client.read()).kind, b'H');
        let (mut pace, mut text) = (Pace::new(stage), String::new());
        for row in 1..=rows {
            let message = if row % PIECE == 0 { stage.measure(Duration::ZERO, || client.read()) } else { client.read() };
            text.clear();
            line(&mut text, row);
            assert!(message.kind == b'd' && message.body == text.as_bytes(), "row {row} is {message:?}");
            if row % PIECE == 0 && stage.goes_on() {
                pace.moved(PIECE * TEXT as u64);
            }
        }
        let answer = client.answer();
        assert_eq!((answer.order.as_str(), answer.tags.as_slice()), ("cCZ", &[format!("COPY {rows}")][..]), "{answer:?}");
        done += 1;
    }
}

/// From the client.
pub(super) fn into(stage: &Stage) {
    let mut client = stage.door.enter();
    let rows = rows(stage);
    let mut done = 0;
    while stage.goes_on() || done == 0 {
        stage.query(&mut client, "begin");
        stage.query(&mut client, "create temporary table copied (i bigint, t text) on commit drop");
        stage.query(&mut client, "create trigger t before insert on copied for each row execute function check_copied()");
        client.send(&frontend::query("copy copied from stdin"));
        assert_eq!(stage.measure(Duration::ZERO, || client.read()).kind, b'G');
        send_rows(stage, &mut client, rows);
        client.send(&frontend::copy_done());
        let answer = client.answer();
        assert_eq!((answer.order.as_str(), answer.tags.as_slice()), ("CZ", &[format!("COPY {rows}")][..]), "{answer:?}");
        // Not measured: it takes what it takes.
        let found = client.query("select count(*), max(i), sum(i) from copied");
        let expected = [rows, rows, rows * (rows + 1) / 2].map(|number| Some(number.to_string()));
        assert_eq!(found.rows, [expected], "{found:?}");
        stage.query(&mut client, "rollback");
        done += 1;
    }
}

fn send_rows(stage: &Stage, client: &mut Client, rows: u64) {
    let mut pace = Pace::new(stage);
    for first in (1..=rows).step_by(PIECE as usize) {
        let mut text = String::new();
        for row in first..(first + PIECE).min(rows + 1) {
            line(&mut text, row);
        }
        stage.measure(Duration::ZERO, || client.send(&frontend::copy_data(text.as_bytes())));
        if stage.goes_on() {
            pace.moved(text.len() as u64);
        }
    }
}
