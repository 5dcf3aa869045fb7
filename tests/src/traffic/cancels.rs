//! A cancel key is good for as long as its session, wherever that is by now.

use super::stage::Stage;
use crate::{SOON, frontend, wait_until};
use std::time::Duration;

/// Has its own query cancelled, again and again with the same key, and then does something that nobody cancels.
pub(super) fn of_its_own(stage: &Stage) {
    let mut client = stage.door.enter();
    let mut admin = stage.admin.connect(postgres::NoTls).unwrap();
    let active = admin.prepare("select from pg_stat_activity where query = $1 and state = 'active'").unwrap();
    let mut turn = 0;
    while stage.goes_on() {
        let sql = format!("select pg_sleep(60) /* turn {turn} of {} */", stage.number);
        turn += 1;
        client.send(&frontend::query(&sql));
        wait_until("the query to run", SOON, || admin.query_opt(&active, &[&sql]).unwrap().is_some());
        Stage::think_up_to(Duration::from_millis(100));
        let answer = stage.measure(Duration::ZERO, || {
            client.cancel(stage.door.port);
            client.answer()
        });
        assert_eq!(answer.error().code(), "57014", "{answer:?}");
        let busy = rand::random_range(Duration::ZERO..=Duration::from_millis(100));
        stage.answer(&mut client, busy, &frontend::query(&format!("select pg_sleep({})", busy.as_secs_f64())));
        stage.think();
    }
}
