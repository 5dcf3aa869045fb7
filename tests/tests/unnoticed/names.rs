//! Names of prepared statements.

use super::same;

#[test]
fn a_failed_parse_frees_its_name_and_sql_knows_the_names() {
    same(&["unnoticed.js"], "names", |builder| builder.pool_size(1));
}

#[test]
fn a_failed_parse_frees_its_name_for_asyncpg() {
    same(&["unnoticed_asyncpg.py"], "names", |builder| builder.pool_size(1));
}
