//! Sessions that have something to lose.

use super::stage::Stage;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(200);
/// Of a cursor.
const ROWS: u32 = 1000;

/// A temporary table, an advisory lock, an SQL-level prepared statement and a server of its own, all for as long as the run.
pub(super) fn of_a_session(stage: &Stage) {
    let mut client = stage.door.enter();
    let me = stage.number;
    for sql in [
        "create temporary table mine (turn int)",
        "insert into mine values (0)",
        &format!("select pg_advisory_lock({me})"),
        &format!("prepare held as select {me}"),
        &format!("declare held scroll cursor with hold for select generate_series(1, {ROWS})"),
    ] {
        stage.query(&mut client, sql);
    }
    let server = stage.value(&mut client, "select pg_backend_pid()");
    let mut turn = 0_u32;
    while stage.goes_on() {
        stage.query(&mut client, "update mine set turn = turn + 1");
        turn += 1;
        assert_eq!(stage.value(&mut client, "select turn from mine"), turn.to_string());
        assert_eq!(stage.value(&mut client, "execute held"), me.to_string());
        let row = 1 + turn % ROWS;
        assert_eq!(stage.value(&mut client, &format!("fetch absolute {row} from held")), row.to_string());
        assert_eq!(stage.value(&mut client, "select pg_backend_pid()"), server);
        Stage::think_up_to(PAUSE);
    }
    assert_eq!(stage.value(&mut client, &format!("select pg_advisory_unlock({me})")), "t");
}

/// One transaction as long as the run.
pub(super) fn of_a_transaction(stage: &Stage) {
    let mut client = stage.door.enter();
    stage.query(&mut client, "begin");
    stage.query(&mut client, "create temporary table mine (turn int) on commit drop");
    let mut turn = 0;
    while stage.goes_on() {
        stage.query(&mut client, &format!("insert into mine values ({turn})"));
        turn += 1;
        assert_eq!(stage.value(&mut client, "select count(*) from mine"), turn.to_string());
        Stage::think_up_to(PAUSE);
    }
    assert_eq!(stage.query(&mut client, "commit").tags, ["COMMIT"]);
}
