//! Transactions that take their time: what one has written is there after COMMIT, and gone after ROLLBACK.

use super::stage::Stage;
use crate::frontend;
use std::time::Duration;

/// A row for each client that writes.
pub(super) const TABLE: &str = "
create table if not exists written (client int primary key, value bigint not null) with (fillfactor = 20);
truncate written; grant all on written to public;
";

/// Writes, waits inside the transaction, reads, and reads again when it is over.
pub(super) fn committed(stage: &Stage) {
    let mut client = stage.door.enter();
    let me = stage.number;
    stage.query(&mut client, &format!("insert into written values ({me}, 0)"));
    let (mut value, mut turn) = (0, 0);
    while stage.goes_on() {
        turn += 1;
        assert_eq!(stage.query(&mut client, "begin").status, 'T');
        stage.query(&mut client, &format!("update written set value = {turn} where client = {me}"));
        let busy = rand::random_range(Duration::ZERO..=stage.plan.longest);
        stage.answer(&mut client, busy, &frontend::query(&format!("select pg_sleep({})", busy.as_secs_f64())));
        let read = format!("select value from written where client = {me}");
        assert_eq!(stage.value(&mut client, &read), turn.to_string());
        let end = if turn % 4 == 0 { "rollback" } else { "commit" };
        let ended = stage.query(&mut client, end);
        assert_eq!((ended.status, ended.tags.as_slice()), ('I', &[end.to_uppercase()][..]));
        if end == "commit" {
            value = turn;
        }
        assert_eq!(stage.value(&mut client, &read), value.to_string(), "after the {end}");
        stage.think();
    }
}

/// Says nothing in the middle of a transaction, which goes on as it was.
pub(super) fn idle(stage: &Stage) {
    let mut client = stage.door.enter();
    while stage.goes_on() {
        stage.query(&mut client, "begin isolation level repeatable read");
        let transaction = "select pg_current_xact_id()::text || '/' || pg_backend_pid()";
        let mine = stage.value(&mut client, transaction);
        Stage::think_up_to(stage.plan.longest / 2);
        assert_eq!(stage.value(&mut client, transaction), mine);
        assert_eq!(stage.value(&mut client, "show transaction_isolation"), "repeatable read");
        assert_eq!(stage.query(&mut client, "commit").status, 'I');
        stage.think();
    }
}
