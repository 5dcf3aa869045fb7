//! Clients that wait for a server.

use end_to_end::{Client, Fleet, Postgres, SOON, driver, frontend, wait_until};

#[test]
fn a_query_in_the_queue_can_be_cancelled() {
    let server = Postgres::start();
    for workers in [1, 2] {
        let fleet = Fleet::builder(&server).workers(workers).pool_size(1).start();
        assert_eq!(driver::run("unnoticed_psycopg.py", fleet.port(), &["queued"]), "57014\ngoes on");
    }
}

fn waiting(console: &mut Client) -> i64 {
    let pools = console.query("show pools");
    let column = pools.columns.iter().position(|(name, _)| name == "cl_waiting").unwrap();
    pools.rows.iter().map(|row| row[column].as_deref().unwrap().parse::<i64>().unwrap()).sum()
}

/// A client that has gone is not served: its statement is not executed when its turn would have come.
#[test]
fn a_client_that_has_gone_gives_its_place_up() {
    let server = Postgres::start();
    for workers in [1, 2] {
        let fleet = Fleet::builder(&server).workers(workers).pool_size(1).start();
        let mut console = fleet.console();
        let mut holder = fleet.client();
        holder.query("drop table if exists trace; create table trace (who text)");
        holder.query("begin");
        let mut gone = fleet.client();
        gone.send(&frontend::query("insert into trace values ('gone')"));
        wait_until("it to wait", SOON, || waiting(&mut console) == 1);
        drop(gone);
        wait_until("its place to be free", SOON, || waiting(&mut console) == 0);
        let mut next = fleet.client();
        next.send(&frontend::query("insert into trace values ('next')"));
        wait_until("the next to wait", SOON, || waiting(&mut console) == 1);
        holder.query("commit");
        assert!(next.answer().errors.is_empty());
        assert_eq!(holder.value("select string_agg(who, ' ') from trace"), "next");
    }
}
