//! Which of several values holds.

use super::super::{Config, PoolMode};
use super::ini;
use std::time::Duration;

fn config() -> Config {
    ini("[databases]\n\
         plain = host=h\n\
         own = pool_mode=transaction pool_size=5 reserve_pool_size=2 min_pool_size=1 max_db_connections=9 max_db_client_connections=8 \
         server_lifetime=10 query_wait_timeout=7\n\
         zero = pool_size=0 max_db_connections=0 max_db_client_connections=0 server_lifetime=0 query_wait_timeout=0\n\
         * = host=auto pool_size=3\n\
         [users]\n\
         u = pool_mode=session pool_size=6 reserve_pool_size=4 max_user_connections=11 max_user_client_connections=12 query_timeout=1 \
         idle_transaction_timeout=2 transaction_timeout=3 client_idle_timeout=4 query_wait_timeout=5\n\
         z = max_user_connections=0 max_user_client_connections=0 query_timeout=0 client_idle_timeout=0 query_wait_timeout=0\n\
         [pgbouncer]\n\
         default_pool_size=20\nmax_db_connections=50\nmax_db_client_connections=60\nmax_user_connections=70\nmax_user_client_connections=80\n\
         query_timeout=90\nserver_lifetime=100\nquery_wait_timeout=110\n")
    .unwrap()
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn user_then_database_then_setting() {
    let config = config();
    let [plain, own, zero] = ["plain", "own", "zero"].map(|name| config.database(name).unwrap());
    let mode = |db, user| config.pool_mode(db, user);
    assert_eq!(
        (mode(&plain, "x"), mode(&own, "x"), mode(&own, "u")),
        (PoolMode::Session, PoolMode::Transaction, PoolMode::Session)
    );
    assert_eq!([&plain, &own, &zero].map(|db| config.pool_size(db, "x")), [20, 5, 0]);
    assert_eq!([&plain, &own, &zero].map(|db| config.pool_size(db, "u")), [6, 6, 6]);
    assert_eq!([&plain, &own].map(|db| config.reserve_pool_size(db, "x")), [0, 2]);
    assert_eq!(config.reserve_pool_size(&own, "u"), 4);
    assert_eq!([&plain, &own].map(|db| config.min_pool_size(db)), [0, 1]);
}

#[test]
fn zero_inherits_where_pgbouncer_has_it_so() {
    let config = config();
    let databases = ["plain", "own", "zero"].map(|name| config.database(name).unwrap());
    assert_eq!(databases.each_ref().map(|db| config.max_db_connections(db)), [50, 9, 50]);
    assert_eq!(databases.each_ref().map(|db| config.max_db_client_connections(db)), [60, 8, 60]);
    assert_eq!(databases.each_ref().map(|db| config.server_lifetime(db)), [s(100), s(10), s(100)]);
    assert_eq!(["x", "u", "z"].map(|u| config.max_user_connections(u)), [70, 11, 70]);
    assert_eq!(["x", "u", "z"].map(|u| config.max_user_client_connections(u)), [80, 12, 80]);
    assert_eq!(["x", "u", "z"].map(|u| config.query_timeout(u)), [Some(s(90)), Some(s(1)), Some(s(90))]);
    assert_eq!(["x", "u", "z"].map(|u| config.client_idle_timeout(u)), [None, Some(s(4)), None]);
    assert_eq!(["x", "u"].map(|u| config.transaction_timeout(u)), [None, Some(s(3))]);
    assert_eq!(["x", "u"].map(|u| config.idle_transaction_timeout(u)), [None, Some(s(2))]);
}

#[test]
fn query_wait_timeout_of_zero_is_an_override() {
    let config = config();
    let databases = ["plain", "own", "zero"].map(|name| config.database(name).unwrap());
    let wait = |user| databases.each_ref().map(|db| config.query_wait_timeout(db, user));
    assert_eq!(wait("x"), [Some(s(110)), Some(s(7)), None]);
    assert_eq!(wait("u"), [Some(s(5)), Some(s(5)), Some(s(5))]);
    assert_eq!(wait("z"), [None, None, None]);
}

#[test]
fn the_fallback_serves_other_names() {
    let config = config();
    let auto = config.database("anything").unwrap();
    assert_eq!((auto.name.as_str(), auto.server_database(), auto.host.as_deref()), ("anything", "anything", Some("auto")));
    assert_eq!(config.pool_size(&auto, "x"), 3);
    for none in ["pgbouncer", "pgfleet", "", "*", &"x".repeat(64)] {
        assert_eq!(config.database(none), None, "{none}");
    }
    assert!(config.database(&"x".repeat(63)).is_some());
}
